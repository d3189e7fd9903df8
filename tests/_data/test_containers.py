"""Containers of rows: which are read, which are rejected, and the kinds of columns."""

from collections import deque
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._data._containers import require_columns
from sk_aft._data._rows import as_rows
from sk_aft.preprocessing import ColumnPreprocessor

LETTERS = ["a", "b", "c"]
TABLE = [[1.0, 2.0], [3.0, 4.0]]
NOT_COLLECTED = [
    (lambda: pl.LazyFrame({"a": LETTERS}), r"X is a LazyFrame.*call \.collect\(\)"),
    (lambda: {"a": LETTERS}, r"X is a dict.*pandas\.DataFrame\(X\)"),
    (lambda: {"a": 1}.values(), "X is a dict_values.*make it a list"),
    (lambda: {"a": 1}.keys(), "X is a dict_keys.*make it a list"),
    (lambda: set(LETTERS), "X is a set.*no order.*give a list"),
    (lambda: frozenset(LETTERS), "X is a frozenset.*no order"),
]


@pytest.mark.parametrize(("make", "message"), NOT_COLLECTED)
def test_what_is_no_collection_says_how_to_make_one(make, message):
    student = AFTClassifier(beta=0)
    for read in (
        as_rows,
        FoundationFeatureExtractor(len).fit,
        FoundationFeatureExtractor({"a": len}).fit,
        lambda X: student.fit(X, [0, 1, 0]),
        lambda X: as_rows(X, kind="frame"),
        lambda X: require_columns(X, ["a"]),
    ):
        with pytest.raises(ValueError, match=message):
            read(make())


def test_a_fitted_student_says_it_too():
    student = AFTClassifier(beta=0, max_epochs=1).fit(["a", "b"] * 5, [0, 1] * 5)
    with pytest.raises(ValueError, match="X yields tuples, which may be rows with their labels"):
        student.predict(zip(LETTERS, LETTERS, strict=True))
    frame = pd.DataFrame({"a": LETTERS * 4, "b": np.arange(12.0)})
    student.fit(frame, np.arange(12) % 2)
    with pytest.raises(ValueError, match="X is a LazyFrame"):
        student.predict(pl.LazyFrame({"a": LETTERS, "b": [1.0, 2, 3]}))


class Table:
    """What a table of Arrow looks like."""

    column_names = ["a"]

    def __len__(self):
        return 3

    def __getitem__(self, name):
        return LETTERS

    def to_pandas(self):
        return pd.DataFrame({"a": LETTERS})


def test_tables_of_other_libraries_are_asked_for_as_frames():
    with pytest.raises(ValueError, match=r"X is a Table: .*X\.to_pandas\(\)"):
        as_rows(Table())


@pytest.mark.parametrize(
    "X",
    [
        deque(LETTERS),
        np.array(LETTERS, dtype="T" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "U"),
        np.ma.array(LETTERS),
        pd.DataFrame({"a": LETTERS}, dtype="string"),
        pd.array(LETTERS, dtype="string"),
    ],
)
def test_more_containers_of_texts(X):
    assert as_rows(X).values.tolist() == LETTERS


@pytest.mark.parametrize(
    "X",
    [
        deque(TABLE),
        torch.tensor(TABLE, requires_grad=True),
        torch.tensor(TABLE).bfloat16(),
        np.ma.array(TABLE),
        pd.DataFrame(TABLE, dtype="Int64"),
        pd.DataFrame(TABLE).astype(pd.SparseDtype(float)),
        [[Decimal(1), 2], [3, Decimal(4)]],
        pl.DataFrame({"a": [Decimal(1), Decimal(3)], "b": [2, 4]}),
        pd.DataFrame({"a": pd.Series([1, 3], dtype=object), "b": [2.0, 4.0]}),
    ],
)
def test_more_containers_of_numbers(X):
    rows = as_rows(X)
    assert rows.kind == "numeric"
    np.testing.assert_array_equal(rows.values, TABLE)


HOLE = [[1.0, np.nan], [3.0, 4.0]]


@pytest.mark.parametrize(
    "X",
    [
        np.ma.array([[1.0, 2.0], [3.0, 4.0]], mask=[[0, 1], [0, 0]]),
        np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]]),
        pd.DataFrame({"a": [1, 3], "b": [None, 4]}, dtype="Int64"),
        pd.DataFrame({"a": pd.array([1, 3], "Int64"), "b": pd.array([None, 4], "Float64")}),
        pd.DataFrame({"a": pd.Series([1, 3], dtype=object), "b": [None, 4]}, dtype=object),
        np.array([[1, pd.NA], [3, 4]], dtype=object),
        pl.DataFrame({"a": [1, 3], "b": [None, 4]}),
        [[1, None], [3, 4]],
    ],
)
def test_what_is_missing_among_numbers_is_nan(X):
    np.testing.assert_array_equal(as_rows(X).values, HOLE)


def test_strings_are_never_numbers():
    digits = pd.DataFrame({"zip": ["10115", "20095"], "year": ["1990", "1991"]})
    assert as_rows(digits, frames=True).kind == "frame"
    assert as_rows(digits[["zip"]]).kind == as_rows(digits["zip"]).kind == "text"
    for table in (digits.to_numpy(), digits.to_numpy().astype("U"), digits.to_numpy().tolist()):
        with pytest.raises(ValueError, match=r"X\[0, 0\] is a string \('10115'\).*DataFrame"):
            as_rows(table)
    with pytest.raises(ValueError, match=r"X\[0, 1\] is a string \('a'\)"):
        as_rows([[1, "a"], [2, "b"]])


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_columns_kind_depends_on_that_column_alone(constant, library):
    y = np.arange(60) % 2
    columns = {"zip": np.where(y, "10115", "20095").tolist(), "year": ["1990", "1991", "1992"] * 20}
    if constant:
        columns["note"] = ["none"] * 60
    frame = pd.DataFrame(columns) if library == "pandas" else pl.DataFrame(columns)
    kinds = ColumnPreprocessor().fit(frame).kinds_
    assert kinds == dict.fromkeys(columns, "text")
    student = AFTClassifier(beta=0, max_epochs=20, random_state=0).fit(frame, y)
    np.testing.assert_array_equal(student.predict(frame), y)


@pytest.mark.parametrize("numbers", [[1.0, 2.0], [True, False], [np.nan, 1], pd.array([1, None])])
def test_the_kind_of_numbers_does_not_depend_on_texts_beside_them(numbers):
    frame = pd.DataFrame({"x": numbers, "t": ["a", "b"], "o": pd.Series([1, None], dtype=object)})
    rows = as_rows(frame, kind="frame")
    assert [rows.column(name).kind for name in frame] == ["numeric", "text", "numeric"]
    assert as_rows(frame[["x", "o"]], frames=True).kind == "numeric"


@pytest.mark.parametrize(
    "X",
    [
        pd.Series(LETTERS, dtype="category"),
        pd.DataFrame({"a": pd.Categorical(LETTERS, ordered=True)}),
        pd.Categorical(LETTERS),
        pd.CategoricalIndex(LETTERS),
        pl.Series(LETTERS, dtype=pl.Categorical),
        pl.DataFrame({"a": LETTERS}, schema={"a": pl.Enum(LETTERS)}),
    ],
)
def test_categories_are_categories_in_any_container(X):
    rows = as_rows(X)
    assert rows.kind == "category"
    assert rows.values.tolist() == [["a"], ["b"], ["c"]]
    assert rows.read_as("text").values.tolist() == LETTERS


def test_categories_of_numbers_are_no_numbers():
    rows = as_rows(pd.DataFrame({"a": pd.Categorical([1, None, 2])}))
    assert rows.kind == "category"
    assert rows.values[:, 0].tolist() == ["1.0", None, "2.0"] or rows.values[0, 0] == "1"


DAYS = pd.date_range("2020", periods=3)


@pytest.mark.parametrize(
    "days",
    [DAYS, DAYS.tz_localize("UTC"), DAYS - DAYS[0], DAYS.date, DAYS.to_numpy()],
    ids=["datetime", "with zone", "timedelta", "date", "datetime64"],
)
def test_dates_say_how_to_make_numbers_of_them(days):
    frame = pd.DataFrame({"day": days, "x": [1.0, 2, 3]})
    for X in (frame["day"], frame[["day"]]):
        with pytest.raises(ValueError, match=r"dates and times are not numbers.*dt\.days"):
            as_rows(X)
    with pytest.raises(ValueError, match=r"column 'day': .*dates and times are not numbers"):
        ColumnPreprocessor().fit(frame)


@pytest.mark.parametrize("values", [[1j, 2], [[1j, 2], [3, 4]]])
def test_complex_numbers_are_refused(values):
    for X in (np.array(values), np.array(values, dtype=object), values):
        with pytest.raises(ValueError, match="Complex data not supported"):
            as_rows(X)


def test_two_columns_of_one_name_are_named():
    frame = pd.DataFrame([["a", 1, "b"]] * 4, columns=["text", "x", "text"])
    for read in (
        as_rows,
        lambda X: AFTClassifier(beta=0).fit(X, [0, 1, 0, 1]),
        FoundationFeatureExtractor({"text": len}).fit,
        ColumnPreprocessor().fit,
    ):
        with pytest.raises(ValueError, match="X has 2 columns named 'text'"):
            read(frame)
