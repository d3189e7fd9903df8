"""A step between extractor and student passes it a plain table of foundation features."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft import AFTClassifier, FoundationFeatureExtractor

X, Y = load_digits(n_class=4, return_X_y=True)
ADVICE = "No foundation features reached AFTClassifier.*move that step before the extractor"


def extractor(n_features=16):
    return FoundationFeatureExtractor(PCA(n_features, random_state=0).fit(X))


def student(**parameters):
    return AFTClassifier(**{"max_epochs": 3, "random_state": 0, **parameters})


def test_a_scaler_between_is_warned_of_and_refused_with_a_strength():
    with pytest.warns(UserWarning, match=ADVICE):
        make_pipeline(extractor(), StandardScaler(), student()).fit(X, Y)
    with pytest.raises(ValueError, match=r"beta=1 needs foundation features.*before the extractor"):
        make_pipeline(extractor(), StandardScaler(), student(beta=1)).fit(X, Y)


class Sampler(BaseEstimator):
    """A pipeline as imblearn's: rows are drawn in fit and passed through in predict."""

    def __init__(self, extractor, student):
        self.extractor, self.student = extractor, student

    def fit(self, X, y):
        drawn = np.random.RandomState(0).permutation(len(X))[:300]
        rows = np.asarray(self.extractor.fit_transform(X))[drawn]
        self.student.fit(rows, np.asarray(y)[drawn])
        return self

    def predict(self, X):
        return self.student.predict(self.extractor.transform(X))


@pytest.mark.parametrize("n_features", [16, 64])  # as many as the rows have columns, too
def test_a_student_does_not_predict_rows_that_it_was_not_trained_on(n_features):
    pipe = Sampler(extractor(n_features), student())
    with pytest.warns(UserWarning, match=ADVICE):
        pipe.fit(X, Y)
    with pytest.raises(ValueError, match=r"was trained on plain rows.*Move it"):
        pipe.predict(X)


def test_a_student_that_is_meant_to_learn_alone_predicts_rows_of_an_extractor():
    for alone in (student(beta=0), student(transfer=None)):
        alone.fit(X, Y)
        rows = extractor().fit_transform(X)
        np.testing.assert_array_equal(alone.predict(rows), alone.predict(X))
    taught = student().fit(X, Y, features=X[:, :20])
    np.testing.assert_array_equal(taught.predict(rows), taught.predict(X))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_meta_estimators_between_are_warned_of():
    several = np.c_[Y > 1, Y % 2].astype(int)
    for between, y in (
        (BaggingClassifier(student(), n_estimators=1, max_features=0.5), Y),
        (ClassifierChain(student()), several),
    ):
        with pytest.warns(UserWarning, match=ADVICE):
            make_pipeline(extractor(), between).fit(X, y)


def test_several_labels_a_row_need_a_student_each():
    several = np.c_[Y > 1, Y % 2].astype(int)
    for y in (several, several.astype(bool), np.c_[Y, Y]):
        with pytest.raises(ValueError, match=r"several labels per row.*MultiOutputClassifier"):
            student(beta=0).fit(X, y)
    model = MultiOutputClassifier(student(max_epochs=10))
    model.fit(extractor().fit_transform(X), several)
    assert model.predict(X).shape == (len(X), 2)
    assert model.score(X, np.c_[Y > 1, Y % 2].astype(int)) > 0.9


def test_the_score_says_how_many_rows_have_no_label():
    y = np.where(np.arange(len(Y)) % 2, Y, -1)
    taught = student(missing_label=-1).fit(X, y, features=X)
    with pytest.warns(UserWarning, match=r"rows have no label.*LabeledFold"):
        score = taught.score(X, y)
    assert score == taught.score(X[1::2], Y[1::2])


def test_training_that_resumes_knows_what_its_last_rows_were():
    rows = extractor(64).fit_transform(X)
    alone = student(warm_start=True)
    with pytest.warns(UserWarning, match=ADVICE):
        alone.fit(X, Y)
    np.testing.assert_array_equal(alone.fit(rows, Y).predict(rows), alone.predict(X))
    with pytest.warns(UserWarning, match=ADVICE):
        alone.fit(np.asarray(rows), Y)
    with pytest.raises(ValueError, match=r"was trained on plain rows"):
        alone.predict(rows)


def test_a_probe_needs_two_targets_among_the_rows_to_learn_from():
    y = np.zeros(len(X), dtype=int)
    y[:2] = 1
    taught = student(early_stopping=True, validation_fraction=0.5)
    methods = {
        taught.set_params(random_state=seed).fit(X, y, features=X).transfer_method_
        for seed in range(4)
    }
    assert methods <= {"aft", "pooled-kd"}
