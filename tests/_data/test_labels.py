"""Which rows have a label, and the messages if that is not clear."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft._data._labels import labeled_mask

N = 30
X = np.random.default_rng(0).normal(size=(N, 3))
NAMES = ["ab"[row % 2] for row in range(N)]


def student(**parameters):
    return AFTClassifier(**{"beta": 0, "max_epochs": 1, "random_state": 0, **parameters})


MISSING = [
    [*NAMES[:-1], None],
    [*NAMES[:-1], float("nan")],
    (*NAMES[:-1], pd.NA),
    np.array([*NAMES[:-1], None], dtype=object),
    np.array([*NAMES[:-1], np.nan], dtype=object),
    pd.Series([*NAMES[:-1], None]),
    pd.Series([*NAMES[:-1], None], dtype="string"),
    pd.Series([*NAMES[:-1], None], dtype="category"),
    pl.Series([*NAMES[:-1], None]),
    np.array([*(np.arange(N - 1) % 2), np.nan]),
    pd.Series([*(np.arange(N - 1) % 2), None], dtype="Int64"),
    pd.Series([*(np.arange(N - 1) % 2 == 0), None], dtype="boolean"),
    [*(np.arange(N - 1) % 2).tolist(), None],
]


@pytest.mark.parametrize("y", MISSING)
def test_a_missing_label_that_nobody_announced_is_named(y):
    message = rf"Row {N - 1} of y holds a missing value .*missing_label=np\.nan"
    with pytest.raises(ValueError, match=message):
        student().fit(X, y)
    fitted = student(missing_label=np.nan).fit(X, y, features=X)
    assert len(fitted.classes_) == 2
    with pytest.raises(ValueError, match=message):
        student().fit(X, np.arange(N) % 2).score(X, y)


@pytest.mark.parametrize("y", [[*range(N - 1), None], np.r_[np.arange(N - 1.0), np.nan]])
def test_a_regressor_says_it_too(y):
    with pytest.raises(ValueError, match=rf"Row {N - 1} of y .*missing_label=np\.nan"):
        AFTRegressor(beta=0).fit(X, y)


def test_a_mark_has_to_mark_all_rows_without_a_label():
    y = np.where(np.arange(N) == 4, np.nan, np.arange(N) % 2)
    with pytest.raises(ValueError, match=r"Row 4 .* which missing_label=-1 does not mark"):
        student(missing_label=-1).fit(X, y)
    both = np.c_[y, np.arange(N)]
    with pytest.raises(ValueError, match=r"Row 4 .*in all of their targets"):
        AFTRegressor(beta=0, missing_label=np.nan).fit(X, both)


def test_numbers_mark_rows_in_lists_of_strings():
    np.testing.assert_array_equal(labeled_mask(["a", -1, "b"], -1), [True, False, True])
    np.testing.assert_array_equal(labeled_mask(["a", pd.NA, -1], -1), [True, True, False])


@pytest.mark.parametrize("dtype", [int, float, np.int8])
def test_mark_among_other_classes_is_warned_of(dtype):
    y = (np.arange(N) % 3 - 1).astype(dtype)
    with pytest.warns(UserWarning, match=r"-1 and 2 other classes.*missing_label=-1.*LabeledFold"):
        assert student().fit(X, y).classes_.tolist() == [-1, 0, 1]


def test_a_question_mark_among_classes_is_warned_of():
    y = np.array(NAMES, dtype=object)
    y[10:] = "?"
    with pytest.warns(UserWarning, match=r"learns '\?' as a class.*missing_label='\?'"):
        student().fit(X, y)


@pytest.mark.parametrize("wrap", [list, np.array, pd.Series, pd.Categorical])
def test_minus_one_as_a_text_is_warned_of(wrap):
    message = "'-1' and 2 other classes.*missing_label='-1'.*LabeledFold"
    with pytest.warns(UserWarning, match=message):
        student().fit(X, wrap(["-1", "a", "b"] * 10))


def test_a_usual_mark_is_suggested_even_if_most_rows_have_it():
    with pytest.raises(ValueError, match=r"Row 3 of y is 'a'.*If -1 marks.*missing_label=-1"):
        student().fit(X, np.array([-1, -1, -1, "a", -1, "b"] * 5, dtype=object))


def test_a_misspelled_mark_is_warned_of():
    with pytest.warns(UserWarning, match=r"'unknown' and 2 other.*missing_label='unknown'"):
        student(missing_label="unknow").fit(X, ["unknown", "a", "b"] * 10)


@pytest.mark.parametrize(
    ("y", "parameters"),
    [
        (np.arange(N) % 2 * 2 - 1, {}),  # a convention of its own
        (np.arange(N) % 3 - 1, {"missing_label": -1}),
        (np.array(["-1", "1"] * 15), {}),
        (np.array(["-1", "0", "1"] * 10), {"missing_label": "-1"}),
        (np.arange(N) % 3, {}),
    ],
)
def test_other_labels_are_not_warned_of(y, parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student(**parameters).fit(X, y, features=None)
        AFTRegressor(beta=0, max_epochs=1).fit(X, np.arange(N) % 3 - 1.0)


def test_classes_do_not_hold_the_mark():
    y = np.where(np.arange(N) % 2, 1, -1)
    with pytest.raises(ValueError, match=r"classes holds missing_label=-1.*leave it out"):
        student(missing_label=-1).partial_fit(X, y, classes=[-1, 0, 1])
    with pytest.warns(UserWarning, match="-1 and 2 other classes"):
        student().partial_fit(X, y, classes=[-1, 0, 1])
