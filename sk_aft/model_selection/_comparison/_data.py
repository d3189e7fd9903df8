"""The rows of a comparison: which have a label, and how these are split."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import joblib
import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples

from sk_aft._data._containers import is_frame, require_columns
from sk_aft._data._labels import (
    check_labels_are_alike,
    check_no_target_missing,
    known_targets,
    labeled_mask,
    mark_among,
)
from sk_aft._data._rows import Rows, as_rows, check_finite
from sk_aft._features import FoundationFeatures
from sk_aft._predictors._content import content_keys

CLASSIFICATION, REGRESSION = "classification", "regression"
# Labels look continuous if more than half of them differ; numbers, if there are many with few rows
# of each.
_DISTINCT_SHARE = 0.5
_FEWEST_ROWS_TO_JUDGE = 10
_MANY_NUMBERS = 20
_ROWS_OF_CLASS = 5

Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class ComparisonData:
    """Rows with and without labels.

    Parameters
    ----------
    X : list, array, Series or DataFrame of n_rows rows
        All rows.
    y : ndarray of shape (n_rows,)
        Their targets; ``missing_label`` marks those that have none.
    rows : Rows
        All rows, recognised.
    labeled, unlabeled : ndarray of int
        Which rows have a target, and which have none.
    targets : ndarray of shape (n_labeled,)
        The targets that are known.
    task : {"classification", "regression"}
        What is predicted.
    missing_label : object
        The mark; None if all rows have a target.
    folds : list of (ndarray, ndarray)
        Training and test rows, as numbers of labelled rows.
    """

    X: Any
    y: np.ndarray
    rows: Rows
    labeled: np.ndarray
    unlabeled: np.ndarray
    targets: np.ndarray
    task: str
    missing_label: Any
    folds: Folds

    @property
    def is_classification(self) -> bool:
        """Whether targets are classes."""
        return self.task == CLASSIFICATION

    @property
    def n_smallest_class(self) -> int:
        """Rows of the rarest class in the smallest training side; all its rows for numbers."""
        if not self.is_classification:
            return min(len(train) for train, _ in self.folds)
        n_classes = len(np.unique(self.targets))
        counts = [Counter(self.targets[train].tolist()) for train, _ in self.folds]
        return min(min(count.values()) if len(count) == n_classes else 0 for count in counts)

    @cached_property
    def digest(self) -> str:
        """A key of the content of the rows, of their labels and of the folds."""
        names = list(map(str, self.rows.values.columns)) if self.rows.kind == "frame" else []
        content = (self.rows.kind, names, content_keys(self.rows, dtype=np.float64))
        return str(joblib.hash((content, self.y, self.folds, self.task, repr(self.missing_label))))

    def part_of(self, train: np.ndarray, share: float, seed: int) -> np.ndarray:
        """Return a share of some labelled rows, at least one of each class.

        Parameters
        ----------
        train : ndarray of int
            Numbers of labelled rows.
        share : float
            From 0 to 1; of each class.
        seed : int
            Which rows.

        Returns
        -------
        part : ndarray of int
            Sorted.
        """
        order = np.random.RandomState(seed).permutation(train)
        if not self.is_classification:
            return np.sort(order[: max(1, round(share * len(order)))])
        parts = []
        for name in np.unique(self.targets[train]):
            of_class = order[self.targets[order] == name]
            parts.append(of_class[: max(1, round(share * len(of_class)))])
        return np.sort(np.concatenate(parts))

    def take(self, indices: np.ndarray) -> Any:
        """Return some rows as they were given."""
        return _safe_indexing(self.X, indices)

    def training_rows(
        self, train: np.ndarray, *, unlabeled: np.ndarray | None
    ) -> tuple[Any, np.ndarray]:
        """Return rows to fit to, and their targets.

        Parameters
        ----------
        train : ndarray of int
            Numbers of labelled rows.
        unlabeled : ndarray of int or None
            Rows without a label to add, with the mark as their target.

        Returns
        -------
        X, y
            Without rows to add, y has the type that labels have on their own.
        """
        labeled = self.labeled[train]
        if unlabeled is None or not len(unlabeled):
            return self.take(labeled), self.targets[train]
        indices = np.concatenate([labeled, unlabeled])
        return self.take(indices), self.y[indices]

    def test_rows(self, test: np.ndarray) -> tuple[Any, np.ndarray]:
        """Return rows to score on, and their targets."""
        return self.take(self.labeled[test]), self.targets[test]


def check_data(
    X: Any, y: Any, *, X_unlabeled: Any, missing_label: Any, cv: Any, task: str, seed: int
) -> ComparisonData:
    """Check rows and labels, before any of them is used.

    Parameters
    ----------
    X, y, X_unlabeled, missing_label, cv, task
        As for `compare_transfer`.
    seed : int
        Order of the rows if ``cv`` is a number.

    Returns
    -------
    data : ComparisonData
        The rows.

    Raises
    ------
    ValueError
        If the rows cannot be compared on; see `compare_transfer`.
    """
    if isinstance(X, FoundationFeatures):
        raise ValueError("X holds foundation features: give the raw rows, models= makes features.")
    shape = np.shape(y)
    if len(shape) != 1:
        raise ValueError(f"y has shape {shape}, expected (n_rows,): one target for each row.")
    if _num_samples(X) != shape[0]:
        raise ValueError(f"X has {_num_samples(X)} rows and y has {shape[0]}.")
    is_labeled = labeled_mask(y, missing_label)
    if not is_labeled.any():
        raise ValueError(
            f"All {len(is_labeled)} rows of y are {missing_label!r}: none has a label."
        )
    # NaN is the usual mark; another that marks nothing may be a slip.
    is_nan = missing_label is None or missing_label != missing_label
    if not is_nan and is_labeled.all() and X_unlabeled is None:
        warnings.warn(
            f"missing_label={missing_label!r} marks no row of y, so all rows have a label.",
            stacklevel=3,
        )
    check_no_target_missing(y, is_labeled, missing_label)
    check_labels_are_alike(y, is_labeled)
    targets = known_targets(y, is_labeled)
    task = _check_task(targets, task, missing_label)
    targets = targets.astype(float) if task == REGRESSION else targets
    everything = X if X_unlabeled is None else _joined(X, X_unlabeled)
    n_more = 0 if X_unlabeled is None else _num_samples(X_unlabeled)
    is_labeled = np.concatenate([is_labeled, np.zeros(n_more, dtype=bool)])
    rows = as_rows(everything, frames=True, missing=True)
    mark = None if is_labeled.all() else np.nan if missing_label is None else missing_label
    return ComparisonData(
        X=everything,
        y=_marked(targets, is_labeled, mark),
        rows=rows,
        labeled=np.flatnonzero(is_labeled),
        unlabeled=np.flatnonzero(~is_labeled),
        targets=targets,
        task=task,
        missing_label=mark,
        folds=_folds(targets, cv, task, seed),
    )


def _plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, which is shown without its type."""
    return value.item() if isinstance(value, np.generic) else value


def check_numbers(data: ComparisonData) -> None:
    """Raise ValueError if a number is missing or infinite, which students cannot read."""
    advice = "Fill it first, for example with sklearn.impute.SimpleImputer, or set models=None."
    if data.rows.kind == "numeric":
        names = getattr(data.X, "columns", None)
        check_finite(data.rows.values, columns=names, advice=advice)
    if data.rows.kind == "frame":
        for name in data.rows.values.columns:
            column = data.rows.column(name, missing=True)
            if column.kind == "numeric":
                check_finite(column.values, columns=[name], advice=advice)


def _check_task(targets: np.ndarray, task: str, missing_label: Any) -> str:
    """Return the type of the targets; raise if they do not fit it."""
    if task not in ("auto", CLASSIFICATION, REGRESSION):
        raise ValueError(f"task is {task!r}, expected 'auto', 'classification' or 'regression'.")
    with warnings.catch_warnings():
        # Of many distinct classes it warns, and for these there is an error below.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        kind = type_of_target(targets)
    n_distinct = len(np.unique(targets))
    are_numbers = targets.dtype.kind in "iuf"
    are_many = len(targets) >= _FEWEST_ROWS_TO_JUDGE and n_distinct > _DISTINCT_SHARE * len(targets)
    if are_numbers:
        are_many |= n_distinct > _MANY_NUMBERS and n_distinct * _ROWS_OF_CLASS > len(targets)
    if kind == "unknown":
        raise ValueError(f"y holds {type(targets.flat[0]).__name__}, expected classes or numbers.")
    looks_continuous = kind == "continuous" or (targets.dtype.kind == "f" and are_many)
    if task == REGRESSION or (task == "auto" and looks_continuous):
        if not are_numbers:
            raise ValueError(f"Regression needs numbers in y, and y holds {_plain(targets[0])!r}.")
        if n_distinct < 2:
            raise ValueError(
                f"All {len(targets)} targets are {_plain(targets[0])!r}: nothing to predict."
            )
        return REGRESSION
    if kind == "continuous":
        fraction = targets[targets != np.round(targets)][0]
        raise ValueError(
            f"y looks continuous: it holds {fraction}. Set task='regression' to predict numbers, "
            "or make classes of them."
        )
    if n_distinct < 2:
        raise ValueError(
            f"All {len(targets)} labelled rows are of one class, {_plain(targets[0])!r}: expected "
            "two or more classes."
        )
    if are_many and task == "auto":
        how = "Set task='regression' to predict numbers. " if are_numbers else ""
        raise ValueError(
            f"y has {n_distinct} distinct labels in {len(targets)} labelled rows, so it looks "
            f"continuous, or like an identifier. {how}If these are classes, set "
            "task='classification'."
        )
    mark = mark_among(targets) if missing_label is None else None
    if mark is not None and n_distinct > 2:
        raise ValueError(
            f"y holds {mark!r}, which often marks rows without a label: if it does, set "
            f"missing_label={mark!r}. If it is a class, set missing_label to a value that y does "
            "not hold."
        )
    return CLASSIFICATION


def _joined(X: Any, X_unlabeled: Any) -> Any:
    """Return the rows of both, in a container like the first."""
    if is_frame(X) != is_frame(X_unlabeled):
        raise ValueError(
            f"X is a {type(X).__name__} and X_unlabeled a {type(X_unlabeled).__name__}: give both "
            "in the same form."
        )
    if is_frame(X):
        require_columns(X_unlabeled, list(X.columns))
        X_unlabeled = X_unlabeled[list(X.columns)]
    if hasattr(X, "iloc"):
        import pandas

        # Rows that only one of them holds as a Series are given an index of their own, too.
        more = X_unlabeled if hasattr(X_unlabeled, "iloc") else pandas.Series(list(X_unlabeled))
        return pandas.concat([X, more], ignore_index=True)
    if is_frame(X):
        return X.vstack(X_unlabeled)
    are_arrays = isinstance(X, np.ndarray) and isinstance(X_unlabeled, np.ndarray)
    if are_arrays and X.shape[1:] == X_unlabeled.shape[1:]:
        return np.concatenate([X, X_unlabeled])
    if are_arrays and X.ndim == 2:
        raise ValueError(
            f"X has {X.shape[1]} columns, and X_unlabeled has shape {X_unlabeled.shape}."
        )
    return [*X, *X_unlabeled]


def _marked(targets: np.ndarray, is_labeled: np.ndarray, mark: Any) -> np.ndarray:
    """Return the targets of all rows, in a type that can hold the mark."""
    if mark is None:
        return targets
    is_nan = isinstance(mark, Real) and bool(np.isnan(mark))
    fits = targets.dtype.kind == "f" and isinstance(mark, Real)
    fits |= targets.dtype.kind in "iu" and isinstance(mark, Integral)
    values: np.ndarray = np.empty(len(is_labeled), dtype=targets.dtype if fits else object)
    values[is_labeled] = targets if fits else targets.tolist()
    values[~is_labeled] = None if is_nan and not fits else mark
    return values


def _folds(targets: np.ndarray, cv: Any, task: str, seed: int) -> Folds:
    """Return the splits of the labelled rows; raise if there are too few for them."""
    is_classification = task == CLASSIFICATION
    if isinstance(cv, Integral) and not isinstance(cv, bool):
        n_folds = int(cv)
        if n_folds < 2:
            raise ValueError(f"cv={n_folds}, expected at least 2 folds.")
        if len(targets) < n_folds:
            raise ValueError(f"cv={n_folds} folds need as many labelled rows, got {len(targets)}.")
        if is_classification:
            counts = Counter(targets.tolist()).most_common()
            if counts[0][1] < n_folds:
                raise ValueError(
                    f"cv={n_folds} folds need a class with as many labelled rows, and the largest, "
                    f"{counts[0][0]!r}, has {counts[0][1]}: label more rows, or use a smaller cv."
                )
            splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
        else:
            splitter = KFold(n_folds, shuffle=True, random_state=seed)
    else:
        splitter = check_cv(cv, targets, classifier=is_classification)
    numbers = np.arange(len(targets))
    with warnings.catch_warnings():
        # Rare classes are named below.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splits = list(splitter.split(np.zeros((len(targets), 1)), targets))
    try:
        # Masks become numbers.
        folds = [(numbers[np.asarray(train)], numbers[np.asarray(test)]) for train, test in splits]
    except IndexError as error:
        raise ValueError(
            f"cv has an index that is none of the {len(targets)} labelled rows ({error}): its "
            "indices count labelled rows only."
        ) from error
    if not folds:
        raise ValueError("cv yields no folds.")
    if is_classification:
        _check_classes(targets, folds)
    return folds


def _check_classes(targets: np.ndarray, folds: Folds) -> None:
    """Raise if a fold trains on one class; warn if a class is absent from its training rows."""
    for number, (train, _) in enumerate(folds):
        if len(np.unique(targets[train])) < 2:
            raise ValueError(
                f"The training rows of fold {number} are all of the class "
                f"{_plain(targets[train][0])!r}: "
                "use a splitter that keeps classes in all folds, or label more rows."
            )
    rare = [name for name, count in Counter(targets.tolist()).items() if count < len(folds)]
    if rare:
        shown = ", ".join(map(str, rare[:5])) + (", ..." if len(rare) > 5 else "")
        many = f"{len(rare)} classes have" if len(rare) > 1 else "A class has"
        warnings.warn(
            f"{many} fewer labelled rows than there are folds ({len(folds)}): {shown}. Scores of "
            "such classes are of little use.",
            stacklevel=5,
        )
