"""Soft targets of labelled rows never know their labels."""

import pickle

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FineTunedFeatureExtractor
from sk_aft.model_selection import LabeledFold

WORDS = ["i", "lost", "my", "card", "was", "stolen", "yesterday", "what", "is", "the"]
WORDS += ["exchange", "rate", "of", "euro", "changed", "why"]
# Sixty fair coins: the standard deviation of a share of heads is 0.065.
CHANCE = 0.65


def random_texts(n, seed=0):
    random = np.random.RandomState(seed)
    texts = {}
    while len(texts) < n:
        texts[" ".join(random.choice(WORDS, 8))] = None
    return list(texts)


NOISE = random_texts(60)
COINS = np.random.RandomState(1).permutation(np.arange(60) % 2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def memorising(encoder_directory, store):
    """Function from parameters to an extractor that learns the labels of 60 texts by heart."""

    def make(**parameters):
        defaults = {"objective": "linear", "n_steps": 80, "lr": 3e-3, "cache": store}
        model = f"hf:{encoder_directory('bert')}"
        return FineTunedFeatureExtractor(model, **{**defaults, **parameters})

    return make


def accuracy(rows, y):
    return (rows.soft_target_classes[rows.soft_targets.argmax(axis=1)] == y).mean()


@pytest.mark.parametrize(
    "parameters", [{}, {"objective": "pairs", "n_steps": 200, "lr": 1e-3}], ids=["linear", "pairs"]
)
def test_of_noise_the_features_know_the_labels_and_the_soft_targets_do_not(memorising, parameters):
    rows = memorising(**parameters).fit_transform(NOISE, COINS)
    naive = cross_val_score(LogisticRegression(), np.asarray(rows), COINS, cv=3)
    assert naive.mean() > 0.75
    np.testing.assert_allclose(rows.soft_targets.sum(axis=1), 1, atol=1e-5)
    assert accuracy(rows, COINS) < CHANCE
    assert rows.soft_targets.dtype == np.float32


def test_cross_validation_of_the_pipeline_learns_nothing_from_noise(memorising):
    pipeline = make_pipeline(memorising(), LogisticRegression())
    assert cross_val_score(pipeline, NOISE, COINS, cv=3).mean() < CHANCE


def test_a_search_over_students_learns_nothing_from_noise(memorising):
    texts, y = NOISE + random_texts(90)[60:], np.append(COINS, [-1] * 30)
    pipeline = make_pipeline(
        memorising(missing_label=-1),
        AFTClassifier(missing_label=-1, max_epochs=3, random_state=0, module__start="random"),
    )
    folds = LabeledFold(3, missing_label=-1)
    search = GridSearchCV(pipeline, {"aftclassifier__beta": [0, 1]}, cv=folds).fit(texts, y)
    assert search.cv_results_["mean_test_score"].max() < CHANCE


def test_equal_texts_are_in_one_fold(memorising):
    texts, y = NOISE[:30] * 2, np.tile(COINS[:30], 2)
    rows = memorising().fit_transform(texts, y)
    assert accuracy(rows, y) < 0.5 + 2.5 * np.sqrt(0.25 / 30)
    np.testing.assert_array_equal(rows.soft_targets[:30], rows.soft_targets[30:])


def test_an_unlabelled_row_with_a_labelled_text_does_not_give_the_label_away(memorising):
    texts, y = NOISE * 2, np.append(COINS, [-1] * 60)
    rows = memorising(missing_label=-1).fit_transform(texts, y)
    np.testing.assert_array_equal(rows.soft_targets[60:], rows.soft_targets[:60])
    assert accuracy(rows[60:], COINS) < CHANCE


def test_two_labelled_rows_a_class_are_predicted_by_the_frozen_model(memorising):
    many = np.arange(20).repeat(2)
    extractor = memorising()
    rows = extractor.fit_transform(NOISE[:40], many)
    assert list(extractor.cv_scores_) == []
    assert accuracy(rows, many) < 0.3
    assert rows.soft_targets.max() < 1
    assert list(extractor.cv_scores_) == ["frozen"]
    assert extractor.cv_scores_["frozen"]["accuracy"] == accuracy(rows, many)


@pytest.mark.parametrize("objective", ["auto", "linear", "pairs"])
@pytest.mark.parametrize(
    "labels", [[0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1, 2], [0, 0, 0, 0, 0, 1]], ids=str
)
def test_a_handful_of_rows(memorising, objective, labels):
    y = np.array(labels)
    rows = memorising(objective=objective, n_steps=2).fit_transform(NOISE[: len(y)], y)
    targets = rows.soft_targets
    absent = np.isnan(targets).any(axis=1)
    # No other row has the class of these.
    assert absent[y > 0].all() or np.bincount(y)[1:].max() > 1
    assert not np.isnan(targets[~absent]).any()
    # None is its own one-hot label.
    assert (targets[~absent].max(axis=1) < 1).all()


def test_equal_texts_with_other_labels_tell_nothing(memorising):
    y = np.arange(12) % 2
    rows = memorising(objective="auto", n_steps=2).fit_transform(["my card"] * 12, y)
    assert np.isnan(rows.soft_targets).all()
    new = memorising(objective="auto", n_steps=2).fit(["my card"] * 12, y).transform(["the rate"])
    np.testing.assert_allclose(new.soft_targets, 0.5, atol=0.01)


def test_one_text_for_each_class(memorising):
    texts, y = ["my card", "the rate"] * 6, np.arange(12) % 2
    extractor = memorising(objective="auto", n_steps=2)
    rows = extractor.fit_transform(texts, y)
    assert np.isnan(rows.soft_targets).all()
    assert extractor.cv_scores_ == {}  # no row can be predicted by the others
    new = extractor.transform(["card"])
    assert new.soft_targets.shape == (1, 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("objective", ["auto", "linear"])
@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["good film"] * 5 + ["bad film"] * 5, [0] * 5 + [1] * 5),
        (["good film"] * 3 + ["bad film", "my card"], [0] * 3 + [1, 2]),
    ],
    ids=["two texts", "three texts"],
)
def test_no_row_can_be_predicted_by_others(texts, labels, objective, memorising):
    extractor = memorising(objective=objective, n_steps=1)
    rows = extractor.fit_transform(texts, labels)
    assert np.isnan(rows.soft_targets).all()
    assert extractor.cv_scores_ == {}
    new = extractor.transform(["a film"]).soft_targets
    np.testing.assert_allclose(new.sum(), 1, atol=1e-5)


def test_parameters_that_are_set_after_fit_do_not_change_soft_targets(memorising):
    expected = memorising(n_steps=2).fit_transform(NOISE, COINS).soft_targets
    extractor = memorising(n_steps=2, cache=None)
    rows = extractor.fit_transform(NOISE, COINS)
    extractor.set_params(n_steps=3, lr=1.0, random_state=5, objective="pairs", cv=2)
    np.testing.assert_allclose(rows.soft_targets, expected, atol=1e-5)


def test_threads_share_one_training(memorising, capsys):
    extractor = memorising(n_steps=2, cache=None, verbose=1)
    rows = extractor.fit_transform(NOISE, COINS)
    capsys.readouterr()
    found = Parallel(n_jobs=4, backend="threading")(
        delayed(lambda part: part.soft_targets)(rows[start : start + 15])
        for start in range(0, 60, 15)
    )
    assert capsys.readouterr().err.count("fine-tuning:   0%") == 3  # the folds
    np.testing.assert_array_equal(np.concatenate(found), rows.soft_targets)


def test_pickled_rows_compute_what_the_originals_do(memorising, capsys):
    rows = memorising(n_steps=2, verbose=1, random_state=7).fit_transform(NOISE, COINS)
    capsys.readouterr()
    content = pickle.dumps(rows[:30])
    assert "fine-tuning" not in capsys.readouterr().err
    expected = rows.soft_targets[:30]
    for some in (pickle.loads(content), pickle.loads(pickle.dumps(rows))[:30]):
        np.testing.assert_array_equal(some.soft_targets, expected)


def test_a_class_of_one_row_has_no_soft_target(memorising):
    texts, y = NOISE[:21], np.append(np.arange(20) % 2, 2)
    rows = memorising(n_steps=2).fit_transform(texts, y)
    assert np.isnan(rows.soft_targets[20]).all()
    assert not np.isnan(rows.soft_targets[:20]).any()
    assert np.array_equal(rows.soft_target_classes, [0, 1, 2])
