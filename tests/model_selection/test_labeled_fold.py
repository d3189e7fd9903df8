import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.model_selection import LabeledFold


def marked(n_rows=60, every=3, marker=-1):
    y = np.arange(n_rows) % 4
    return np.where(np.arange(n_rows) % every == 0, y, marker)


@pytest.mark.parametrize("cv", [3, StratifiedKFold(3), KFold(3, shuffle=True, random_state=0)])
def test_rows_without_labels_are_always_trained_on(cv):
    y = marked()
    splits = list(LabeledFold(cv, missing_label=-1).split(np.zeros((60, 2)), y))
    assert len(splits) == LabeledFold(cv, missing_label=-1).get_n_splits(np.zeros((60, 2)), y) == 3
    tested = np.concatenate([test for _, test in splits])
    np.testing.assert_array_equal(np.sort(tested), np.flatnonzero(y != -1))
    for train, test in splits:
        assert set(np.flatnonzero(y == -1)) <= set(train)
        np.testing.assert_array_equal(np.sort(np.r_[train, test]), np.arange(60))


def test_a_number_of_folds_is_stratified():
    y = np.where(np.arange(90) < 30, np.arange(90) % 3, -1)
    for _, test in LabeledFold(5, missing_label=-1).split(y, y):
        np.testing.assert_array_equal(np.bincount(y[test]), [2, 2, 2])


def test_groups_stay_together():
    y, groups = marked(), np.arange(60) // 6
    for train, test in LabeledFold(GroupKFold(4), missing_label=-1).split(y, y, groups):
        labeled = train[y[train] != -1]
        assert not set(groups[labeled]) & set(groups[test])
    assert LabeledFold(GroupKFold(4), missing_label=-1).get_n_splits(y, y, groups) == 4


@pytest.mark.parametrize("marker", [np.nan, None, "?"])
def test_markers(marker):
    y = np.array([marker if i % 2 else ("ab"[i // 2 % 2]) for i in range(40)], dtype=object)
    missing_label = np.nan if marker is None else marker
    for _, test in LabeledFold(2, missing_label=missing_label).split(y, y):
        assert set(y[test]) == {"a", "b"}


def test_errors():
    with pytest.raises(ValueError, match="needs y"):
        next(LabeledFold().split(np.zeros((3, 1))))
    with pytest.raises(ValueError, match="All 3 rows of y are -1"):
        next(LabeledFold(missing_label=-1).split(np.zeros((3, 1)), [-1, -1, -1]))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, -1, 0], "y holds -1.* missing_label=-1.* StratifiedKFold"),
        ([0.5, 1.5, -1.0, 2.5], "y holds -1.* missing_label=-1"),
        (np.array([0, 1, -1, None], dtype=object), "y holds -1.* missing_label=-1"),
        (["a", None, "b", "a"], r"Row 1 of y holds a missing value \(None\).*missing_label=np.nan"),
        (["a", "b", float("nan"), "a"], r"Row 2 of y holds a missing value \(nan\)"),
        (pd.Series([1, 0, None, 1], dtype="Int64"), "Row 2 of y holds a missing value"),
    ],
)
def test_what_looks_like_a_mark_has_to_be_named(y, message):
    X = np.zeros((4, 1))
    with pytest.raises(ValueError, match=message):
        next(LabeledFold(2).split(X, y))
    with pytest.raises(ValueError, match=message):
        LabeledFold(2).get_n_splits(X, y)


def test_a_mark_that_some_rows_without_a_label_lack_is_an_error():
    with pytest.raises(ValueError, match=r"Row 2 .* which missing_label=-1 does not mark"):
        next(LabeledFold(2, missing_label=-1).split(np.zeros((4, 1)), [0, -1, np.nan, 1]))


def test_targets_that_are_all_known_are_split_as_ever():
    y = np.arange(12) % 2
    expected = list(StratifiedKFold(3).split(y, y))
    for ours, theirs in zip(LabeledFold(3).split(y, y), expected, strict=True):
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_searches_never_score_on_unlabeled_rows():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300].copy()
    y[60:] = -1
    student = AFTClassifier(missing_label=-1, max_epochs=3, random_state=0)
    pipe = make_pipeline(FoundationFeatureExtractor(PCA(8).fit(X)), student)
    seen = []

    def score(estimator, X, y):
        seen.extend(y)
        return estimator.score(X, y)

    search = GridSearchCV(
        pipe, {"aftclassifier__beta": [0, 3]}, cv=LabeledFold(3, missing_label=-1), scoring=score
    )
    search.fit(X, y)
    assert -1 not in seen
    assert len(seen) == 2 * 60
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    with sklearn.config_context(enable_metadata_routing=False):
        assert len(cross_val_score(clone(pipe), X, y, cv=LabeledFold(3, missing_label=-1))) == 3


def test_score_leaves_unlabeled_rows_out():
    X, y = load_digits(return_X_y=True)
    X, y = X[:200].astype(np.float32), y[:200]
    known = np.arange(200) < 150
    student = AFTClassifier(missing_label=-1, max_epochs=3, random_state=0)
    student.fit(X, np.where(known, y, -1), features=PCA(8).fit_transform(X))
    on_all = student.score(X, np.where(known, y, -1))
    assert on_all == student.score(X[known], y[known])
    weights = np.arange(200.0)
    weighted = student.score(X, np.where(known, y, -1), sample_weight=weights)
    assert weighted == student.score(X[known], y[known], sample_weight=weights[known])
    with pytest.raises(ValueError, match="All 200 rows of y are missing_label=-1"):
        student.score(X, np.full(200, -1))


@pytest.mark.parametrize(
    ("y", "mark", "splitter"),
    [
        (np.arange(60) % 4 - 1, "-1", "StratifiedKFold"),
        (["-1", "a", "b"] * 20, "'-1'", "StratifiedKFold"),
        (np.array([-1, "a", "b"] * 20, dtype=object), "-1", ""),
        (np.r_[-1.0, np.linspace(0, 1, 59)], "-1", "KFold"),
        (np.c_[np.r_[-1.0, np.linspace(0, 1, 59)], np.full(60, -1.0)], "-1", "KFold"),
    ],
)
def test_minus_one_may_be_a_mark_or_a_label(y, mark, splitter):
    message = rf"y holds {mark}, .*set missing_label={mark}\. If it is a label.* {splitter}\.$"
    with pytest.raises(ValueError, match=message if splitter else f"missing_label={mark}"):
        next(LabeledFold().split(y, y))
    if splitter:
        model_selection = {"KFold": KFold, "StratifiedKFold": StratifiedKFold}
        assert len(list(model_selection[splitter](3).split(y, y))) == 3


def test_groups_reach_the_splitter_with_metadata_routing():
    X, y = np.arange(24.0).reshape(12, 2), np.tile([0, 1, -1], 4)
    groups = np.arange(12) // 3
    cv = LabeledFold(GroupKFold(4), missing_label=-1)
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_val_score(DummyClassifier(), X, y, cv=cv, params={"groups": groups})
        # scikit-learn 1.6 needs a mapping.
        two = LabeledFold(2, missing_label=-1)
        plain = cross_val_score(DummyClassifier(), X, y, cv=two, params={})
    assert len(scores) == 4
    assert len(plain) == 2
