import warnings

import numpy as np
import pytest

from sk_aft._command._labels import (
    check_folds,
    classes_of_one_row,
    read_labels,
    shown_classes,
    warn_of_unused_mark,
)
from sk_aft._command._messages import CommandError


def read(cells, **options):
    return read_labels(cells, column="y", **options)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "2", "", "1"], [1, 2, 1]),
        (["1.0", "2.0", "", "1.0"], [1, 2, 1]),  # as pandas writes them
        ([1.0, 2.0, float("nan"), None], [1, 2]),
        (["01", "02", "01"], ["01", "02", "01"]),
        (["1", "two"], ["1", "two"]),
        ([True, False, None], [True, False]),
        (["NA", "no", " "], ["NA", "no"]),
    ],
)
def test_labels_stay_what_they_are(cells, expected):
    labels = read(cells)
    assert labels.targets.tolist() == expected
    assert {type(value) for value in labels.targets.tolist()} == set(map(type, expected))
    assert labels.labeled.sum() == len(expected)
    assert labels.task == "classification"


@pytest.mark.parametrize(
    ("cells", "mark"), [(["a", "?", "b"], "?"), (["1", "-1", "0"], "-1"), ([1, -1.0, 0], "-1")]
)
def test_marked_rows_have_no_label(cells, mark):
    assert read(cells, missing_label=mark).labeled.tolist() == [True, False, True]


def test_a_usual_mark_that_is_not_named_is_warned_of():
    with pytest.warns(UserWarning, match="'unknown' is learned as a class.*--missing-label"):
        read(["a", "b", "unknown"])


def test_classes_of_one_row_are_found():
    assert classes_of_one_row(read(["a", "b", "a", "c", "", "c", "d"])) == ["b", "d"]
    assert classes_of_one_row(read(["1", "2.5", "3"], task="regression")) == []


def test_a_mark_that_no_row_has_is_warned_of():
    with pytest.warns(UserWarning, match="No row of 'y' is marked by --missing-label 'nun'"):
        warn_of_unused_mark(["a", "none", None], "y", "nun")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unused_mark(["a", "nun"], "y", "nun")
        warn_of_unused_mark(["a"], "y", None)


def test_numbers_of_a_regression():
    labels = read(["1.5", "", "-2"], task="regression")
    assert labels.targets.tolist() == [1.5, -2.0]
    assert shown_classes(labels) == "2 labelled rows, numbers from -2 to 1.5"


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (["", None], {}, "No row has a label in the column 'y'"),
        (["a", ""], {}, "The only labelled row has the label 'a' in"),
        ([np.float64(1), np.float64(1)], {}, "All 2 labelled rows have the label 1 in"),
        (["a", "a", ""], {}, "All 2 labelled rows have the label 'a'.*two classes"),
        (["1.5", "2", "2"], {}, r"looks continuous, it has the label 1\.5: --task regression"),
        (list(range(30)), {}, "looks continuous, it has 30 different values in 30"),
        (list(range(2500)), {}, "it has 2,500 different values in 2,500 labelled rows"),
        ([f"text {n}" for n in range(30)], {}, "looks like names or texts"),
        (["1", "a"], {"task": "regression"}, "'a' in the column 'y' is not a number"),
        (["1", "inf"], {"task": "regression"}, "infinite"),
        (["2", "2"], {"task": "regression"}, "nothing to predict"),
    ],
)
def test_labels_that_cannot_be_learned(cells, options, message):
    with pytest.raises(CommandError, match=message):
        read(cells, **options)


def test_fractions_are_classes_if_the_user_says_so():
    assert read(["1.5", "2", "1.5"], task="classification").targets.tolist() == ["1.5", "2", "1.5"]


def test_folds_need_as_many_rows_of_the_largest_class():
    labels = read(["a", "a", "b"])
    check_folds(labels, 2)
    with pytest.raises(CommandError, match=r"3 folds are more than the 2 rows.*--cv to 2 or less"):
        check_folds(labels, 3)
    with pytest.raises(CommandError, match=r"Every class has one labelled row.* two of a class"):
        check_folds(read(["a", "b"]), 2)
    numbers = read(np.arange(4.0).tolist(), task="regression")
    with pytest.raises(CommandError, match="5 folds are more than the 4 labelled rows"):
        check_folds(numbers, 5)
