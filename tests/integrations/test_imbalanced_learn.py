"""Samplers of imbalanced-learn repeat or leave out rows before the extractor."""

import numpy as np
import pytest
from sklearn.metrics import recall_score
from sklearn.model_selection import cross_val_predict

from sk_aft import AFTClassifier, FoundationFeatureExtractor

pytest.importorskip("imblearn")

from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import RandomUnderSampler

OVER, UNDER = RandomOverSampler(random_state=0), RandomUnderSampler(random_state=0)


@pytest.fixture
def imbalanced(questions):
    """5 rows of "age_limit", 35 of the three other classes each."""
    X, y = questions
    kept = np.flatnonzero((y != "age_limit") | (np.cumsum(y == "age_limit") <= 5))
    return X.iloc[kept], y[kept]


def sampled(*samplers, model="minilm", **parameters):
    extractor = FoundationFeatureExtractor(model)
    return make_pipeline(*samplers, extractor, AFTClassifier(random_state=0, **parameters))


def recall(model, X, y):
    return recall_score(y, model.predict(X), labels=["age_limit"], average="macro")


@pytest.mark.parametrize("sampler", [OVER, UNDER], ids=["over", "under"])
def test_a_sampler_helps_a_rare_class(sampler, imbalanced, test_questions):
    without = sampled(max_epochs=5).fit(*imbalanced)
    model = sampled(sampler, max_epochs=5).fit(*imbalanced)
    assert recall(model, *test_questions) > recall(without, *test_questions) + 0.3
    texts = test_questions[0]["text"].tolist()
    assert (model[-1].predict(texts) == model.predict(test_questions[0])).all()


def test_a_sampler_works_for_rows_of_named_columns(imbalanced, test_questions):
    model = sampled(OVER, model={"text": "minilm"}, max_epochs=5).fit(*imbalanced)
    assert recall(model, *test_questions) > 0.5


def test_repeated_rows_are_embedded_once(imbalanced, model, texts_read):
    X, y = imbalanced
    assert len(OVER.fit_resample(X, y)[0]) == 140
    pipe = sampled(OVER, model=model, max_epochs=1, module__start="random").fit(X, y)
    assert sorted(texts_read()) == sorted(X["text"])
    assert pipe[-1].classes_.tolist() == sorted(set(y))


def test_cross_validation_resamples_training_rows_alone(imbalanced):
    X, y = imbalanced
    predicted = cross_val_predict(sampled(OVER, max_epochs=5), X, y, cv=3)
    assert len(predicted) == len(X)
    assert (predicted == y).mean() > 0.85


def test_rows_without_a_label_are_not_repeated_if_the_classes_are_named(imbalanced):
    X, y = imbalanced
    marked = np.where(np.arange(len(y)) % 4 < 2, "unknown", y)
    rare = (marked == "age_limit").sum()
    sampler = RandomOverSampler(sampling_strategy={"age_limit": 20}, random_state=0)
    _, repeated = sampler.fit_resample(X, marked)
    assert len(repeated) == len(y) + 20 - rare
    model = sampled(sampler, max_epochs=2, missing_label="unknown").fit(X, marked)
    assert model[-1].classes_.tolist() == sorted(set(y))


def test_samplers_refuse_a_list_and_interpolation(imbalanced):
    X, y = imbalanced
    with pytest.raises(ValueError, match="Expected 2D array"):
        sampled(OVER).fit(X["text"].tolist(), y)
    with pytest.raises(ValueError, match="could not convert string to float"):
        sampled(SMOTE()).fit(X, y)
