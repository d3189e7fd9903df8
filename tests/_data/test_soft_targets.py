"""Soft targets are checked before any training, and each message says how to fix them."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft._data._soft_targets import (
    aligned,
    check_index,
    check_predictions,
    check_probabilities,
)

CLASSES = np.array(["dog", "cat", "cow"])[[1, 2, 0]]  # cat, cow, dog
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(3), size=6)
X = RNG.normal(size=(6, 2)).astype(np.float32)
Y = np.array(["cat", "cow", "dog"] * 2)


def changed(row, column, value):
    values = P.copy()
    values[row, column] = value
    return values


@pytest.mark.parametrize(
    "hold",
    [
        lambda p: p.tolist(),
        lambda p: p.astype(object),
        lambda p: pd.DataFrame(p),
        lambda p: pl.DataFrame(p),
        lambda p: pd.DataFrame(p, columns=CLASSES)[["dog", "cat", "cow"]],
        lambda p: pd.DataFrame(p, columns=CLASSES).convert_dtypes(),
        lambda p: pl.DataFrame(p, schema=CLASSES.tolist())[["cow", "dog", "cat"]],
        torch.from_numpy,
    ],
    ids=["list", "objects", "frame", "numbered polars", "reordered", "Float64", "polars", "tensor"],
)
def test_probabilities_in_any_container(hold):
    found = check_probabilities(hold(P), 6, CLASSES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, P, rtol=1e-6)


def test_missing_rows_of_a_frame_are_absent():
    frame = pd.DataFrame(P, columns=CLASSES).convert_dtypes()
    frame.iloc[2] = pd.NA
    found = check_probabilities(frame, 6, CLASSES)
    np.testing.assert_array_equal(np.isnan(found).any(axis=1), np.arange(6) == 2)
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), np.arange(6) == 2)


def test_names_of_columns_are_compared_with_numbers_too():
    frame = pd.DataFrame(P, columns=["10", "2", "1"])
    found = check_probabilities(frame, 6, np.array([1, 2, 10]))
    np.testing.assert_allclose(found, P[:, [2, 1, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ([2.0, 0.0, 1.0], [0, 1, 2]),
        ([2, 0, 1], [0.0, 1.0, 2.0]),  # labels of pandas with NaN are floats
        (["2", "0", "1"], [0.0, 1.0, 2.0]),
        (["1", "2", "01"], ["01", "1", "2"]),  # as texts they are three
    ],
)
def test_names_of_columns_are_compared_by_value(names, classes):
    frame = pd.DataFrame(P, columns=names)
    order = [1, 2, 0] if names[0] != "1" else [2, 0, 1]
    found = check_probabilities(frame, 6, np.array(classes))
    np.testing.assert_allclose(found, P[:, order], rtol=1e-6)
    two = check_probabilities(pd.DataFrame({True: [1.0], False: [0.0]}), 1, np.array([0, 1]))
    np.testing.assert_array_equal(two, [[0, 1]])


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["dog", "bird", "Cat"], ["bird", "cat", "dog"]),
        (["dog", "bird", "cats"], ["bird", "cat", "dog"]),
        ([0, 1, 2], [1, 2, 3]),
        ([3.5, 4.5, 5.5], [0, 1, 2]),
    ],
)
def test_names_that_are_nearly_the_classes_are_not_guessed(names, classes):
    with pytest.raises(ValueError, match=r"columns named .* but the classes are") as raised:
        check_probabilities(pd.DataFrame(P, columns=names), 6, np.array(classes))
    assert str(names) in str(raised.value)
    assert str(classes) in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["p_cat", "p_cow", "p_dog"], "name the columns after the classes, or pass .*to_numpy"),
        (["cat", "dog", "bird"], "there is none for 'cow'.*add it with 0"),
        (["a", "a", "b"], "has 2 columns named 'a'"),
    ],
)
def test_other_names_are_explained(columns, message):
    with pytest.raises(ValueError, match=message):
        check_probabilities(pd.DataFrame(P, columns=columns).assign(id="x"), 6, CLASSES)


@pytest.mark.parametrize("library", [pd, pl])
@pytest.mark.parametrize("other", [list("abcdef"), list(range(6)), [None] * 6], ids=str)
def test_columns_beside_the_classes_are_ignored(library, other):
    frame = library.DataFrame(dict(zip(["dog", "cow", "cat"], P.T, strict=True)) | {"id": other})
    found = check_probabilities(frame, 6, CLASSES)
    np.testing.assert_allclose(found, P[:, [2, 1, 0]], rtol=1e-6)
    for values, message in ((np.log(P), "log-probabilities"), (0.3 * P, "Row 0 .* sums to")):
        wrong = library.DataFrame(dict(zip(CLASSES, values.T, strict=True)) | {"id": other})
        with pytest.raises(ValueError, match=message):
            check_probabilities(wrong, 6, CLASSES)


def test_most_of_a_row_has_to_be_of_classes_in_y():
    frame = pd.DataFrame(P, columns=CLASSES)
    frame.loc[2] = [0.02, 0, 0.98]
    frame.loc[3] = [0.3, 0.3, 0.4]
    found = check_probabilities(frame, 6, CLASSES[:2])
    kept = P[:, :2].sum(axis=1) > 0.5
    kept[2:4] = False, True
    expected = frame.to_numpy()[:, :2] / frame.to_numpy()[:, :2].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-5)
    assert np.isnan(found[~kept]).all()
    frame[:] = [0, 0, 1]
    with pytest.raises(ValueError, match="No row of soft_targets has most of its probability"):
        check_probabilities(frame, 6, CLASSES[:2])


@pytest.mark.parametrize("make", [np.array, pd.DataFrame], ids=["array", "numbered frame"])
def test_which_of_too_many_columns_are_the_classes_is_not_guessed(make):
    with pytest.raises(ValueError, match=r"y lacks a class.*columns are named after the classes"):
        check_probabilities(make(P), 6, np.array([1, 2]))


@pytest.mark.parametrize(
    "labels", [["cat", "dog"] * 3, [0, 1] * 3, np.array([[0], [1]] * 3)], ids=str
)
def test_hard_labels(labels):
    with pytest.raises(ValueError, match=r"hard labels, pass pandas.get_dummies"):
        check_probabilities(labels, 6, np.array([0, 1]))


def test_an_index_of_other_rows_is_an_error():
    frame = pd.DataFrame(P, columns=CLASSES, index=list("abcdef"))
    shuffled = frame.iloc[[0, 2, 1, 3, 4, 5]]
    rows = pd.DataFrame(X, index=frame.index)
    student = AFTClassifier(max_epochs=1, random_state=0)
    for given in ({"X": rows, "y": Y}, {"X": X, "y": pd.Series(Y, index=frame.index)}):
        with pytest.raises(ValueError, match=r"row 1 is 'c' in soft_targets and 'b' in [Xy].*loc"):
            student.fit(**given, soft_targets=shuffled)
        with pytest.raises(ValueError, match=r"row 0 is 0 in soft.*set_axis\([Xy].index\) if"):
            student.fit(**given, soft_targets=frame.reset_index(drop=True))
        student.fit(**given, soft_targets=frame)
    student.fit(rows, pd.Series(Y), soft_targets=frame)  # the index of X counts


@pytest.mark.parametrize(
    "index",
    [
        pd.CategoricalIndex(list("abcdef"), categories=list("abcdefg")),
        pd.Index([1, 2, 3, 4, 5, None], dtype="Int64"),
        pd.Index([1, 2, 3, 3, 3, np.nan]),
        pd.date_range("2020", periods=6, tz="UTC"),
        pd.MultiIndex.from_product([[0, 1], list("abc")]),
    ],
    ids=["categories", "NA", "duplicates", "dates", "levels"],
)
def test_indexes_of_all_kinds(index):
    frame, rows = pd.DataFrame(P, index=index), pd.DataFrame(X, index=index)
    check_index(frame, rows, Y)
    check_index(frame.iloc[2:4], rows.iloc[2:4], Y)
    check_index(pl.DataFrame(P), rows, Y)
    check_index(frame, X, Y)
    if isinstance(index, pd.CategoricalIndex):
        check_index(frame.set_axis(list(index)), rows, Y)
    with pytest.raises(ValueError, match="row 1 is"):
        check_index(frame.iloc[[0, 5, 2, 3, 4, 1]], rows, Y)


def test_rounded_probabilities_are_normalised():
    rounded = P.round(2).astype(np.float16)
    rounded[0] = [1, -1e-7, 0]
    found = check_probabilities(rounded, 6, CLASSES)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found[0], [1, 0, 0])


@pytest.mark.parametrize(
    ("soft_targets", "message"),
    [
        (P[:5], "soft_targets has 5 rows, but X has 6"),
        (P[:, :2], r"shape \(6, 2\), expected \(6, 3\).*'cat', 'cow', 'dog'"),
        (P[:, 0], r"shape \(6,\), expected \(6, 3\)"),
        (P[None], "soft_targets has 1 rows"),
        (0.5, "soft_targets"),
        (scipy.sparse.csr_matrix(P), r"got a csr_matrix: pass soft_targets.toarray\(\)"),
        ([None, *P[1:].tolist()], "got a list whose elements are not all numbers"),
        ([{"cat": 0.5, "cow": 0.5, "dog": 0}] * 6, "got a list whose elements are not all"),
        (pd.DataFrame(P, columns=["cat", "cat", "dog"]), "soft_targets has 2 columns named 'cat'"),
        (np.full((6, 3), "a"), "soft_targets has to be an array of class probabilities"),
        (pd.DataFrame({"id": list("abcdef"), "p": 0.5, "q": 0.5}), "name the columns"),
        ([[1, 0, 0]] * 5 + [[1, 0]], "soft_targets has to be an array of class probabilities"),
        (changed(4, 1, np.nan), "Row 4 of soft_targets is NaN in column 1, but not in others"),
        (changed(3, 2, np.inf), "inf in row 3, column 2"),
        (np.full((6, 3), np.nan), "All rows of soft_targets are NaN"),
        (np.log(P), r"look like log-probabilities: pass numpy.exp"),
        (RNG.normal(size=(6, 3)), r"look like logits: pass scipy.special.softmax"),
        (100 * P, r"Row 0 of soft_targets sums to 100.*percentages: pass soft_targets / 100"),
        (P * 7, "look like logits or counts"),
        (changed(2, slice(None), 0), "Row 2 of soft_targets sums to 0.*NaN"),
        (P * 0.5, "Row 0 of soft_targets sums to 0.5.*Divide each row by its sum"),
    ],
)
def test_what_are_no_probabilities_is_explained(soft_targets, message):
    with pytest.raises(ValueError, match=message):
        check_probabilities(soft_targets, 6, CLASSES)
    model = AFTClassifier(random_state=0)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, soft_targets=soft_targets)
    assert not model.__sklearn_is_fitted__()


@pytest.mark.parametrize("p", [np.full(6, 0.3), np.full((6, 1), 0.3)])
def test_one_probability_of_two_classes_is_made_two(p):
    with pytest.raises(ValueError, match=r"column_stack\(\[1 - p, p\]\)"):
        check_probabilities(p, 6, np.array([0, 1]))


def test_the_negative_number_is_named():
    with pytest.raises(ValueError, match=r"Row 5 of soft_targets holds -0.2 in column 1"):
        check_probabilities(changed(5, 1, -0.2), 6, CLASSES)


@pytest.mark.parametrize(
    ("soft_targets", "message"),
    [
        (np.ones((6, 2)), r"shape \(6, 2\), expected \(n_rows,\) with n_rows=6"),
        (np.ones(4), "soft_targets has 4 rows, but X has 6"),
        (["a"] * 6, "soft_targets has to be an array of predictions"),
        (np.full(6, np.nan), "All rows of soft_targets are NaN"),
        (np.array([1, 2, -np.inf, 3, 4, 5]), "-inf in row 2, column 0"),
    ],
)
def test_what_are_no_predictions_is_explained(soft_targets, message):
    with pytest.raises(ValueError, match=message):
        check_predictions(soft_targets, 6, 1)
    with pytest.raises(ValueError, match=message):
        AFTRegressor(random_state=0).fit(X, np.arange(6.0), soft_targets=soft_targets)


def test_predictions_of_one_target_have_one_or_two_dimensions():
    values = [1.0, np.nan, 2, 3, 4, 5]
    for given in (values, pd.Series(values), np.array(values)[:, None]):
        found = check_predictions(given, 6, 1)
        np.testing.assert_array_equal(found, np.array(values)[:, None])
    two = np.c_[values, [0, 1, 2, 3, 4, 5]]
    with pytest.raises(ValueError, match="Row 1 of soft_targets is NaN in column 0, but not"):
        check_predictions(two, 6, 2)


def test_classes_that_are_not_predicted_have_probability_0():
    found = aligned(np.float32([[0.2, 0.8], [np.nan, np.nan]]), np.array([3, 1]), np.arange(5))
    np.testing.assert_allclose(found, [[0, 0.8, 0, 0.2, 0], [np.nan] * 5], rtol=1e-6)


def test_a_class_that_y_lacks_is_dropped():
    values = np.float32([[0.3, 0.4, 0.3], [0.2, 0.6, 0.2], [0, 1, 0], [np.nan] * 3])
    found = aligned(values, CLASSES, np.array(["cat", "dog", "emu"]))
    np.testing.assert_allclose(found, [[0.5, 0.5, 0]] + [[np.nan] * 3] * 3, rtol=1e-6)


def test_classes_that_y_lacks_altogether_are_named():
    with pytest.raises(ValueError, match=r"\['cat', 'cow', 'dog'\], none of which is among .*3"):
        aligned(P, CLASSES, np.array([1, 2, 3]))
