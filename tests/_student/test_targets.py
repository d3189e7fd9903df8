"""Targets in any container, and what is said of those that a student cannot learn."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from sklearn.model_selection import cross_val_score
from skorch.callbacks import Callback

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.model_selection import LabeledFold

N = 60
CODES = np.arange(N) % 2
NAMES = np.array(["a", "b"])[CODES]
X = np.random.default_rng(0).normal(size=(N, 3)) + 5 * CODES[:, None]
INDICATOR = np.c_[CODES, 1 - CODES, np.ones(N, int)]


def student(**parameters):
    return AFTClassifier(**{"beta": 0, "max_epochs": 5, "lr": 0.05, "random_state": 0} | parameters)


def with_holes(values):
    return [None if row in (5, 6) else value for row, value in enumerate(values.tolist())]


CONTAINERS = {
    "Categorical": (pd.Categorical, NAMES),
    "Categorical of ints": (lambda y: pd.Series(pd.Categorical(y)), CODES),
    "Int64": (lambda y: pd.Series(y, dtype="Int64"), CODES),
    "boolean": (lambda y: pd.Series(y, dtype="boolean"), CODES == 1),
    "string": (lambda y: pd.Series(y, dtype="string"), NAMES),
    "polars": (pl.Series, NAMES),
    "polars ints": (pl.Series, CODES),
    "polars bools": (pl.Series, CODES == 1),
    "polars Categorical": (lambda y: pl.Series(list(y), dtype=pl.Categorical), NAMES),
}


@pytest.mark.parametrize("is_complete", [True, False])
@pytest.mark.parametrize("name", CONTAINERS)
def test_labels_keep_their_type_in_any_container(name, is_complete):
    make, labels = CONTAINERS[name]
    y = make(labels.tolist() if is_complete else with_holes(labels))
    mark = None if is_complete else np.nan
    model = student(missing_label=mark).fit(X, y)
    assert model.classes_.tolist() == np.unique(labels).tolist()
    assert model.classes_.dtype.kind == labels.dtype.kind
    np.testing.assert_array_equal(model.predict(X), labels)
    piecewise = student(missing_label=mark)
    for _ in range(5):
        piecewise.partial_fit(X, y, classes=pd.unique(pd.Series(labels, dtype=object)))
    assert piecewise.classes_.dtype.kind == labels.dtype.kind
    fold = LabeledFold(2, missing_label=mark)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* rows have no label")
        assert model.score(X, y) == piecewise.score(X, y) == 1
    assert cross_val_score(model, X, y, cv=fold, error_score="raise").min() == 1


def test_a_tensor_of_labels():
    assert student().fit(X, torch.tensor(CODES)).classes_.tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_a_column_of_labels():
    for y in (CODES[:, None], pd.DataFrame({"y": CODES}), pl.DataFrame({"y": CODES})):
        np.testing.assert_array_equal(student().fit(X, y).predict(X), CODES)


@pytest.mark.parametrize("missing_label", [None, -1, np.nan])
@pytest.mark.parametrize(
    ("y", "how"),
    [
        (INDICATOR, r"shape \(60, 3\)"),
        (pd.DataFrame(INDICATOR), r"shape \(60, 3\)"),
        (INDICATOR.tolist(), r"shape \(60, 3\)"),
        (scipy.sparse.csr_matrix(INDICATOR), r"a sparse csr_matrix .*\.toarray\(\)"),
        (scipy.sparse.csc_array(INDICATOR), r"a sparse csc_array .*\.toarray\(\)"),
        ([[0, 1], [1]] * 30, "lists, of which .*MultiLabelBinarizer"),
        ([{"a", "b"}, {"a"}] * 30, "lists, of which .*MultiLabelBinarizer"),
        (pd.Series([["a", "b"], ["a"]] * 30), "lists, of which .*MultiLabelBinarizer"),
    ],
)
def test_several_labels_a_row_ask_for_several_students(y, how, missing_label):
    message = rf"y has several labels per row \({how}.*MultiOutputClassifier"
    for method in ("fit", "partial_fit"):
        classes = {} if method == "fit" else {"classes": [0, 1]}
        with pytest.raises(ValueError, match=message):
            getattr(student(missing_label=missing_label), method)(X, y, **classes)


@pytest.mark.parametrize("y", [scipy.sparse.csr_matrix(INDICATOR), [[1.0, 2.0], [3.0]] * 30])
def test_a_regressor_wants_a_dense_array(y):
    with pytest.raises(ValueError, match="y has to be a dense array of numbers"):
        AFTRegressor(beta=0).fit(X, y)


@pytest.mark.parametrize("wrap", [list, lambda y: np.array(y, dtype=object), pd.Series])
@pytest.mark.parametrize(
    ("odd", "others"), [(-1, ["a", "b"]), (3, ["a", "b", "c"]), ("?", [0, 1]), ("?", [True, False])]
)
def test_labels_of_two_types_name_a_row_and_the_mark(wrap, odd, others):
    y = (others * N)[:N]
    y[7] = odd
    message = (
        rf"Row 7 of y is {odd!r}, and row 0 is {others[0]!r}: labels have to be all strings or "
        rf"all numbers.*set missing_label={odd!r}"
    ).replace("?", r"\?")
    with pytest.raises(ValueError, match=message):
        student().fit(X, wrap(y))
    known = student(missing_label=odd).fit(X, np.array(y, dtype=object))
    assert known.classes_.tolist() == sorted(others)
    y[9] = None
    with pytest.raises(ValueError, match="Row 7 of y"):
        student(missing_label=np.nan).fit(X, np.array(y, dtype=object))


def held_out(y, estimator=AFTClassifier, **parameters):
    """Fit with early stopping; return the training and the held-out targets."""

    class Seen(Callback):
        def on_epoch_end(self, net, dataset_train, dataset_valid, **kwargs):
            self.targets_ = dataset_train.y, dataset_valid.y

    rows = np.random.RandomState(0).randn(len(y), 4)
    settings = {"early_stopping": True, "max_epochs": 2, "random_state": 0, **parameters}
    model = estimator(callbacks=[("seen", Seen())], **settings).fit(rows, y, features=rows)
    assert len(model.validation_scores_) == 2
    assert np.isfinite(model.validation_scores_).all()
    return dict(model.callbacks_)["seen"].targets_


FEW = {
    "10 rows": (np.arange(10) % 2, 1),
    "12 rows": (np.arange(12) % 2, 2),
    "40 rows": (np.arange(40) % 4, 4),
    "3 rows": (np.array([0, 0, 1]), 1),
    "77 classes with 2 rows": (np.repeat(np.arange(77), 2), 16),
    "a class with 1 row": (np.r_[np.zeros(12), np.ones(11), 2].astype(int), 3),
    "a class of 1 in 10 rows": (np.r_[np.zeros(9), 1].astype(int), 1),
    "many classes with 1 row": (np.r_[np.zeros(20), np.arange(1, 11)].astype(int), 3),
}


@pytest.mark.parametrize("transfer", ["aft", "probe-kd", None])
@pytest.mark.parametrize("name", FEW)
def test_early_stopping_with_few_rows_leaves_rows_of_every_class(name, transfer):
    y, n_held_out = FEW[name]
    for seed in range(2):
        train, judged = held_out(y, transfer=transfer, random_state=seed)
        assert len(judged) == n_held_out
        assert len(train) == len(y) - n_held_out
        assert set(train) == set(y)


def test_early_stopping_where_every_class_has_one_row():
    train, judged = held_out(np.arange(12), beta=0)
    assert (len(train), len(judged)) == (10, 2)


@pytest.mark.parametrize(("fraction", "n_held_out"), [(0.01, 1), (0.5, 5), (0.9, 8), (0.99, 8)])
def test_any_share_of_few_rows_can_be_held_out(fraction, n_held_out):
    train, judged = held_out(np.arange(10) % 2, beta=0, validation_fraction=fraction)
    assert len(judged) == n_held_out
    assert set(train) == {0, 1}


def test_few_rows_are_stratified_where_every_class_can_be_on_both_sides():
    _, judged = held_out(np.arange(12) % 2, beta=0)
    assert sorted(judged) == [0, 1]


def test_few_labelled_rows_among_many():
    y = np.where(np.arange(100) < 12, np.arange(100) % 3, -1)
    train, judged = held_out(y, missing_label=-1, transfer="aft")
    assert (len(train), len(judged)) == (10, 2)
    assert set(train) == {0, 1, 2}


@pytest.mark.parametrize(("n_rows", "n_held_out"), [(3, 2), (8, 2), (11, 2), (40, 4)])
def test_early_stopping_of_few_numbers_holds_out_two(n_rows, n_held_out):
    train, judged = held_out(np.arange(float(n_rows)), AFTRegressor, beta=0)
    assert (len(train), len(judged)) == (n_rows - n_held_out, n_held_out)
