"""Soft targets: class probabilities or predicted numbers of rows, from any source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from sklearn.utils import _safe_indexing

from sk_aft._data._containers import is_frame, is_sparse, to_array
from sk_aft._data._feature_rows import StoredRows
from sk_aft._data._rows import Rows

_LARGEST_ERROR = 1e-2  # of the sum of a row, such as of 16-bit floats
_ROUNDING = 1e-6  # probabilities below 0 by less are 0


class SoftTargetSource(Protocol):
    """Computes the soft targets of `FoundationFeatures` when they are first used."""

    @property
    def classes(self) -> np.ndarray | None:
        """Labels of the columns, (n_classes,); None if the soft targets are predicted numbers."""

    def compute(self, rows: Rows, parts: Sequence[StoredRows]) -> np.ndarray:
        """Return the soft targets of some rows.

        Parameters
        ----------
        rows : Rows
            The rows as the models read them.
        parts : sequence of StoredRows
            Their features, one item for each model.

        Returns
        -------
        soft_targets : ndarray of shape (n_rows, n_classes) or (n_rows, n_outputs), float32
            Class probabilities or predictions; NaN in rows without them.
        """


def check_probabilities(soft_targets: Any, n_rows: int, classes: np.ndarray) -> np.ndarray:
    """Return class probabilities given by a user.

    Parameters
    ----------
    soft_targets : array-like of shape (n_rows, n_classes)
        Probabilities in the order of ``classes``. The columns of a DataFrame may have another
        order if they are named after the classes. Those that are named otherwise are left out.
        NaN in rows without soft targets.
    n_rows : int
        Expected number of rows.
    classes : ndarray of shape (n_classes,)
        The labels.

    Returns
    -------
    probabilities : ndarray of shape (n_rows, n_classes), float32
        Every row sums to 1, or is NaN. It is NaN, too, if all of it was left out.

    Raises
    ------
    ValueError
        If these are no probabilities of these rows and classes; the message says how to fix it.
    """
    expected = f"class probabilities of shape (n_rows, {len(classes)})"
    n_columns = len(soft_targets.columns) if is_frame(soft_targets) else 0
    if n_columns:
        soft_targets = _named_after(soft_targets, classes.tolist())
    values = _numbers(soft_targets, n_rows, expected)
    if values.ndim != 2 or values.shape[1] != len(classes):
        per_class = f"one column for each of the classes, in this order: {classes.tolist()}"
        is_of_two = len(classes) == 2 and values.size == len(values)
        advice = (
            " If p is the probability of the second class, pass numpy.column_stack([1 - p, p])."
            if is_of_two
            else ""
        )
        if values.ndim == 2 and values.shape[1] > len(classes):
            advice = (
                " If y lacks a class, as may happen in a split of cross-validation, pass a "
                "DataFrame whose columns are named after the classes."
            )
        raise ValueError(
            f"soft_targets has shape {values.shape}, expected ({n_rows}, {len(classes)}): "
            f"{per_class}.{advice}"
        )
    _check_rows(values)
    if n_columns > len(classes):
        values[values.sum(axis=1) <= _ROUNDING] = np.nan
        _check_sums(values, smallest=0)
    else:
        _check_sums(values)
    return normalized(values)


def check_same_rows(soft_targets: Any, X: Any, y: Any) -> None:
    """Raise ValueError if the pandas index of soft targets is not that of X or y.

    Rows are taken by position. An index that numbers the rows from 0 is accepted beside an index
    of other labels, because soft targets are often a new DataFrame.

    Parameters
    ----------
    soft_targets, X, y : array-like of n_rows rows
        Those without a pandas index are not checked.
    """
    index = _index(soft_targets)
    for name, other in (("X", _index(X)), ("y", _index(y))):
        if index is None or other is None or index.equals(other):
            continue
        is_numbered = index.tolist() == list(range(len(index)))
        if is_numbered and set(index) != set(other):
            continue
        labels, others = index.tolist(), other.tolist()
        row = next(row for row in range(len(labels)) if labels[row] != others[row])
        raise ValueError(
            f"The index of soft_targets differs from that of {name}: row {row} is {labels[row]!r} "
            f"in soft_targets and {others[row]!r} in {name}, and rows are taken by position. Pass "
            f"soft_targets.loc[{name}.index], or soft_targets.to_numpy() if the order is the same."
        )


def _index(rows: Any) -> Any:
    """Return the pandas index of rows, None if they have none."""
    index = getattr(rows, "index", None)
    return index if hasattr(index, "equals") else None


def check_predictions(soft_targets: Any, n_rows: int, n_outputs: int) -> np.ndarray:
    """Return predicted numbers given by a user.

    Parameters
    ----------
    soft_targets : array-like of shape (n_rows,) or (n_rows, n_outputs)
        Predictions in the unit of the targets. NaN in rows without soft targets.
    n_rows, n_outputs : int
        Expected shape.

    Returns
    -------
    predictions : ndarray of shape (n_rows, n_outputs), float64
        The same numbers.

    Raises
    ------
    ValueError
        If these are no predictions of these rows and targets.
    """
    shape = "(n_rows,)" if n_outputs == 1 else f"(n_rows, {n_outputs})"
    values = _numbers(soft_targets, n_rows, f"predictions of shape {shape}")
    if values.ndim > 2 or values.size != n_rows * n_outputs:
        raise ValueError(
            f"soft_targets has shape {values.shape}, expected {shape} with n_rows={n_rows}: "
            "predictions in the unit of y, one column for each target."
        )
    values = values.reshape(n_rows, n_outputs)
    _check_rows(values)
    return values


def aligned(soft_targets: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return class probabilities in the order of other classes.

    Parameters
    ----------
    soft_targets : ndarray of shape (n_rows, n_labels)
        Class probabilities; NaN in rows without them.
    labels : ndarray of shape (n_labels,)
        Labels of its columns.
    classes : ndarray of shape (n_classes,)
        All labels of the result. Those that are not among ``labels`` have probability 0.
        ``labels`` that are not among these classes are left out.

    Returns
    -------
    probabilities : ndarray of shape (n_rows, n_classes), float32
        Every row sums to 1, or is NaN. It is NaN, too, if all of it was left out.

    Raises
    ------
    ValueError
        If none of ``labels`` is among the classes.
    """
    column_of = {label: number for number, label in enumerate(classes.tolist())}
    known = [number for number, label in enumerate(labels.tolist()) if label in column_of]
    if not known:
        raise ValueError(
            f"The soft targets of X are for the classes {labels.tolist()}, none of which is among "
            f"the classes of y: {classes.tolist()}. Fit the extractor to the labels that the "
            "student learns."
        )
    probabilities: np.ndarray = np.zeros((len(soft_targets), len(classes)))
    columns = [column_of[label] for label in labels[known].tolist()]
    probabilities[:, columns] = soft_targets[:, known]
    # What is left of a row may be rounding errors only.
    probabilities[~(probabilities.sum(axis=1) > _ROUNDING)] = np.nan
    return normalized(probabilities)


def absent_mask(soft_targets: np.ndarray) -> np.ndarray:
    """Return which rows have no soft targets, (n_rows,) bool."""
    return np.isnan(soft_targets).all(axis=1)


def normalized(probabilities: np.ndarray) -> np.ndarray:
    """Return rows that sum to 1, as float32."""
    probabilities = np.maximum(probabilities, 0)  # NaN stays NaN
    return (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


def _numbers(soft_targets: Any, n_rows: int, expected: str) -> np.ndarray:
    """Return an array of floats with the right number of rows."""
    message = f"soft_targets has to be an array of {expected}, got a {type(soft_targets).__name__}"
    if is_sparse(soft_targets):
        raise ValueError(f"{message}: pass soft_targets.toarray().")
    message += " whose elements are not all numbers. A row without soft targets is NaN throughout."
    try:
        values = to_array(soft_targets)
    except (TypeError, ValueError) as error:
        raise ValueError(message) from error
    if values.ndim == 0 or values.dtype.kind not in "biuf":
        raise ValueError(message)
    if len(values) != n_rows:
        raise ValueError(
            f"soft_targets has {len(values)} rows, but X has {n_rows}: give a row for each, NaN "
            "where there are no soft targets."
        )
    return values.astype(np.float64)


def _named_after(frame: Any, classes: list[Any]) -> Any:
    """Return the columns that are named after the classes; all of them if no name is a class.

    Raise if the names are others of the same kind: then the order is not known.
    """
    names = list(frame.columns)
    if len(set(names)) < len(names):
        raise ValueError(f"The columns of soft_targets have the same name twice: {names}.")
    are_alike = False
    for form in (str, _as_number):
        found, expected = list(map(form, names)), list(map(form, classes))
        if set(found) >= set(expected):
            return _safe_indexing(frame, [found.index(label) for label in expected], axis=1)
        are_alike |= not set(found).isdisjoint(expected)
    if are_alike or all(isinstance(label, float) for label in [*found, *expected]):
        raise ValueError(
            f"soft_targets has columns named {names}, but the classes are {classes}: name the "
            "columns after the classes, or pass soft_targets.to_numpy() if the columns are in the "
            "order of the classes."
        )
    return frame


def _as_number(label: Any) -> float | str:
    """Return a label as a float, so that 2, 2.0 and "2" are equal; as text if it is no number."""
    try:
        return float(label)
    except (TypeError, ValueError):
        return str(label)


def _check_rows(values: np.ndarray) -> None:
    """Raise if rows are NaN in part, if all are NaN, or if there is an infinity."""
    missing = np.isnan(values)
    some = missing.any(axis=1) & ~missing.all(axis=1)
    if some.any():
        row = int(np.flatnonzero(some)[0])
        raise ValueError(
            f"Row {row} of soft_targets is NaN in column {int(missing[row].argmax())}, but not in "
            "others: a row without soft targets is NaN in all of its columns."
        )
    if missing.all():
        raise ValueError(
            "All rows of soft_targets are NaN, so there is nothing to learn from them: leave it "
            "out."
        )
    if np.isinf(values).any():
        row, column = np.argwhere(np.isinf(values))[0]
        raise ValueError(
            f"soft_targets holds {values[row, column]} in row {row}, column {column}: fix it, or "
            "set the row to NaN."
        )


def _check_sums(values: np.ndarray, smallest: float = 1) -> None:
    """Raise if rows are no probabilities, or sum to less than the smallest."""
    sums = values.sum(axis=1)
    is_negative = values < -_ROUNDING
    is_sum = (sums >= smallest - _LARGEST_ERROR) & (sums <= 1 + _LARGEST_ERROR)
    wrong = is_negative.any(axis=1) | ~(is_sum | np.isnan(sums))
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong)[0])
    if is_negative[row].any():
        column = int(is_negative[row].argmax())
        found = f"holds {values[row, column]:.4g} in column {column}"
    else:
        found = f"sums to {sums[row]:.4g}"
    raise ValueError(
        f"Row {row} of soft_targets {found}, but class probabilities are not negative, and those "
        f"of a row sum to 1. {_advice(values[~absent_mask(values)], values[row])}"
    )


def _advice(values: np.ndarray, wrong: np.ndarray) -> str:
    """Return how to make probabilities of numbers that are none."""
    if not wrong.any():
        return "Set rows without soft targets to NaN."
    if (values <= 0).all() and _sum_to(np.exp(values), 1):
        return "These look like log-probabilities: pass numpy.exp(soft_targets)."
    if (values < 0).any():
        return "These look like logits: pass scipy.special.softmax(soft_targets, axis=1)."
    if _sum_to(values, 100):
        return "These look like percentages: pass soft_targets / 100."
    if (values > 1).any():
        return (
            "These look like logits or counts: pass scipy.special.softmax(soft_targets, axis=1) "
            "of logits, and divide each row of counts by its sum."
        )
    return "Divide each row by its sum, if these are the shares of the classes."


def _sum_to(values: np.ndarray, total: float) -> bool:
    return bool((np.abs(values.sum(axis=1) - total) <= _LARGEST_ERROR * total).all())
