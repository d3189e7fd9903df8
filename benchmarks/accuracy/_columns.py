"""What is learned: a data set and how many of its rows have a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.accuracy._data import KINDS, load

UNKNOWN = -1
_N_OTHER_IMAGES, _N_TEST_IMAGES = 5000, 2000
_FEW_TABLE_ROWS = 3000


@dataclass(frozen=True)
class Column:
    """A column of a table of results.

    Parameters
    ----------
    data : str
        The data set.
    labels : str
        "all", a number of rows such as "1000", or a number of each class such as "10 a class".
    uses_others : bool, default=False
        Whether the other training rows take part without a label.
    most_seeds : int, default=5
        How many seeds are run at most.
    """

    data: str
    labels: str
    uses_others: bool = False
    most_seeds: int = 5

    @property
    def kind(self) -> str:
        """What its rows are: "text", "image" or "table"."""
        return KINDS[self.data]


class Rows(NamedTuple):
    """What a method may see of a column: everything but the labels of the test rows.

    Parameters
    ----------
    column : Column
        Where they are from.
    rows, labels : ndarray
        The training rows, and their labels, UNKNOWN (in a regression NaN) where it has none.
    test_rows : ndarray
        What is predicted in the end.
    is_regression : bool
        Whether labels are numbers.
    seed : int
        Has drawn the labels, and is the random state of whatever is fitted.
    """

    column: Column
    rows: Any
    labels: np.ndarray
    test_rows: Any
    is_regression: bool
    seed: int

    @property
    def missing_label(self) -> float:
        """What marks a row without a label."""
        return np.nan if self.is_regression else UNKNOWN

    @property
    def labelled(self) -> tuple[Any, np.ndarray]:
        """The rows that have a label, and their labels."""
        known = ~np.isnan(self.labels) if self.is_regression else self.labels != UNKNOWN
        return self.rows[known], self.labels[known]


def read(column: Column, directory: str | None, seed: int) -> tuple[Rows, np.ndarray]:
    """Return the rows of a column that a seed draws, and the labels of the test rows.

    Parameters
    ----------
    column : Column
        Which.
    directory : str or None
        Where the data sets are, as for `load`.
    seed : int
        Determines which rows have a label.
    """
    data = load(column.data, directory)
    known = draw(data.labels, column.labels, seed, data.is_regression)
    kept = known
    if column.uses_others:
        others = np.setdiff1d(np.arange(len(data.labels)), known)
        n_others = {"image": _N_OTHER_IMAGES, "table": _FEW_TABLE_ROWS}.get(column.kind)
        others = np.random.RandomState(seed + 1).permutation(others)[:n_others]
        kept = np.concatenate([known, others])
    labels = np.full(len(kept), np.nan) if data.is_regression else np.full(len(kept), UNKNOWN)
    labels[: len(known)] = data.labels[known]
    # Shuffled: a method may not tell by its place whether a row has a label.
    order = np.random.RandomState(seed).permutation(len(kept))
    n_test = _N_TEST_IMAGES if column.kind == "image" else None
    rows = Rows(
        column,
        data.rows[kept][order],
        labels[order],
        data.test_rows[:n_test],
        data.is_regression,
        seed,
    )
    return rows, data.test_labels[:n_test]


def draw(labels: np.ndarray, number: str, seed: int, is_regression: bool = False) -> np.ndarray:
    """Return the indices of the rows that have a label.

    Parameters
    ----------
    labels : ndarray of shape (n_rows,)
        The labels.
    number : str
        As in `Column`. Numbers of rows are drawn with the classes in proportion. A class with too
        few rows gives all.
    seed : int
        Determines the draw.
    is_regression : bool, default=False
        Whether labels are numbers, which have no classes.
    """
    random = np.random.RandomState(seed)
    if number == "all":
        return np.arange(len(labels))
    if is_regression:
        return random.permutation(len(labels))[: int(number)]
    of_class = [random.permutation(np.flatnonzero(labels == name)) for name in np.unique(labels)]
    if number.endswith("a class"):
        return np.concatenate([rows[: int(number.split()[0])] for rows in of_class])
    share = int(number) / len(labels)
    return np.concatenate([rows[: max(1, round(share * len(rows)))] for rows in of_class])


def n_weights(model: Any) -> dict[str, int]:
    """Return the number of weights of a student, or of a pipeline that ends in one."""
    student = model[-1] if hasattr(model, "steps") else model
    module = getattr(student, "module_", None)
    return {} if module is None else {"n_weights": sum(of.numel() for of in module.parameters())}


def error(labels: np.ndarray, predicted: np.ndarray, is_regression: bool) -> float:
    """Return the per cent of rows that are wrong or, of numbers, of the variance not explained."""
    if is_regression:
        wrong = np.mean((labels - predicted) ** 2) / np.var(labels)
    else:
        wrong = np.mean(np.asarray(predicted) != labels)
    return 100 * float(wrong)
