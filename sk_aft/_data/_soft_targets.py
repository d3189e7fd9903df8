"""Soft targets: class probabilities or predicted numbers of rows, from any source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from sklearn.utils import _safe_indexing

from sk_aft._data._containers import (
    is_frame,
    is_sparse,
    require_distinct_columns,
    to_array,
)
from sk_aft._data._feature_rows import StoredRows
from sk_aft._data._rows import Rows

_LARGEST_ERROR = 0.05  # of the sum of a row, such as of ten classes rounded to two digits
_ROUNDING = 1e-6  # probabilities below 0 by less are 0
# If less of a row's probability is left, the rest is not scaled up.
_SMALLEST_SHARE = 0.5
_HARD = " To use hard labels, pass pandas.get_dummies(labels, dtype=float)."


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
        soft_targets : ndarray of shape (n_rows, n_classes) or (n_rows, n_outputs)
            Class probabilities (float32) or predicted numbers; NaN in rows without them.
        """


def check_probabilities(soft_targets: Any, n_rows: int, classes: np.ndarray) -> np.ndarray:
    """Return class probabilities given by a user.

    Parameters
    ----------
    soft_targets : array-like of shape (n_rows, n_classes)
        Probabilities in the order of ``classes``. The columns of a DataFrame are named after the
        classes, in any order, or numbered from 0; further columns are ignored. NaN in rows
        without soft targets.
    n_rows : int
        Expected number of rows.
    classes : ndarray of shape (n_classes,)
        The labels.

    Returns
    -------
    probabilities : ndarray of shape (n_rows, n_classes), float32
        Every row sums to 1, or is NaN. A row is also NaN if most of its probability is in columns
        that are not among the classes.

    Raises
    ------
    ValueError
        If these are no probabilities of these rows and classes; the message says how to fix it.
    """
    others: Any = 0.0
    if is_frame(soft_targets):
        chosen = _columns_of_classes(soft_targets, classes.tolist())
        others = _sum_of_others(soft_targets, chosen)
        soft_targets = _safe_indexing(soft_targets, chosen, axis=1)
    values = _numbers(
        soft_targets, n_rows, f"class probabilities of shape (n_rows, {len(classes)})", _HARD
    )
    if values.ndim != 2 or values.shape[1] != len(classes):
        raise ValueError(
            f"soft_targets has shape {values.shape}, expected ({n_rows}, {len(classes)}): "
            f"one column for each of the classes, in this order: {classes.tolist()}."
            + _advice_of_shape(values, len(classes))
        )
    _check_rows(values)
    sums = values.sum(axis=1)
    # Unrelated numbers beside probabilities that are complete do not matter.
    totals = np.where(_is_near(sums, 1), sums, sums + others)
    _check_sums(values, totals)
    values[sums < _SMALLEST_SHARE * totals] = np.nan
    if absent_mask(values).all():
        raise ValueError(
            "No row of soft_targets has most of its probability in the columns of the classes of "
            f"y, {classes.tolist()}: label a row of each class, or leave soft_targets out."
        )
    return normalized(values)


def check_index(soft_targets: Any, X: Any, y: Any) -> None:
    """Raise ValueError if soft targets have another pandas index than X.

    Rows are taken by position, so they would be given the soft targets of other rows.

    Parameters
    ----------
    soft_targets, X, y : array-like of n_rows rows
        If X has no pandas index, that of y is compared. Nothing is if neither has one.
    """
    name = "y" if _index(X) is None else "X"
    index, other = _index(soft_targets), _index(y if name == "y" else X)
    # As objects, so that categories and time zones do not matter.
    if index is None or other is None or index.astype(object).equals(other.astype(object)):
        return
    pieces = [slice(row, row + 1) for row in range(len(index))]
    row = next(row for row, piece in enumerate(pieces) if not index[piece].equals(other[piece]))
    advice = f"soft_targets.set_axis({name}.index) if the order is the same"
    if index.is_unique and other.is_unique and set(index) == set(other):
        advice += f", or else soft_targets.loc[{name}.index]"
    raise ValueError(
        f"The index of soft_targets is not that of {name}: row {row} is {index[row]!r} in "
        f"soft_targets and {other[row]!r} in {name}. Rows are taken by position: pass {advice}."
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
        Every row sums to 1, or is NaN. A row is also NaN if most of it was left out.

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
    probabilities[~(probabilities.sum(axis=1) > _SMALLEST_SHARE)] = np.nan
    return normalized(probabilities)


def absent_mask(soft_targets: np.ndarray) -> np.ndarray:
    """Return which rows have no soft targets, (n_rows,) bool."""
    return np.isnan(soft_targets).all(axis=1)


def normalized(probabilities: np.ndarray) -> np.ndarray:
    """Return rows that sum to 1, as float32."""
    probabilities = np.maximum(probabilities, 0)  # NaN stays NaN
    return (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


def _numbers(soft_targets: Any, n_rows: int, expected: str, advice: str = "") -> np.ndarray:
    """Return an array of floats with the right number of rows."""
    message = f"soft_targets has to be an array of {expected}, got a {type(soft_targets).__name__}"
    if is_sparse(soft_targets):
        raise ValueError(f"{message}: pass soft_targets.toarray().")
    if is_frame(soft_targets):
        require_distinct_columns(soft_targets, "soft_targets")
    message += " whose elements are not all numbers. A row without soft targets is NaN throughout."
    try:
        values = to_array(soft_targets)
    except (TypeError, ValueError) as error:
        raise ValueError(message + advice) from error
    if values.ndim == 0 or values.dtype.kind not in "biuf":
        raise ValueError(message + advice)
    if len(values) != n_rows:
        raise ValueError(
            f"soft_targets has {len(values)} rows, but X has {n_rows}: give a row for each, NaN "
            "where there are no soft targets."
        )
    return values.astype(np.float64)


def _columns_of_classes(frame: Any, classes: list[Any]) -> list[int]:
    """Return the column of each class by its name; all columns if they are only numbered.

    Raise if names are neither the classes nor a numbering: then the order is not known.
    """
    require_distinct_columns(frame, "soft_targets")
    names = list(frame.columns)
    numbers = list(range(len(names)))
    is_numbered = names in (numbers, [f"column_{number}" for number in numbers])  # pandas, polars
    if is_numbered and len(names) != len(classes):
        return numbers  # an error of the shape
    for form in (str, _as_number):
        found, expected = list(map(form, names)), list(map(form, classes))
        if set(found) >= set(expected):
            return [found.index(label) for label in expected]
    if is_numbered and not all(isinstance(label, float) for label in expected):
        return numbers
    message = f"soft_targets has columns named {names}, but the classes are {classes}: "
    absent = [label for label, name in zip(classes, expected, strict=True) if name not in found]
    if len(absent) < len(classes):
        raise ValueError(
            f"{message}there is none for {absent[0]!r}. Name the columns after the classes; if a "
            "class was never predicted, add it with 0 in all rows."
        )
    raise ValueError(
        f"{message}name the columns after the classes, or pass soft_targets.to_numpy() if they "
        "are in this order."
    )


def _advice_of_shape(values: np.ndarray, n_classes: int) -> str:
    """Return what an array of another shape than (n_rows, n_classes) may be."""
    if values.size == len(values):  # one number a row
        if (values == np.round(values)).all():
            return _HARD
        if n_classes == 2:
            return (
                " If p is the probability of the second class, pass numpy.column_stack([1 - p, p])."
            )
    if values.ndim == 2 and values.shape[1] > n_classes:
        return (
            " If y lacks a class, as may happen in a split of cross-validation, pass a DataFrame "
            "whose columns are named after the classes."
        )
    return ""


def _sum_of_others(frame: Any, chosen: list[int]) -> np.ndarray:
    """Return the sum of the numbers in all other columns, (n_rows,)."""
    sums: np.ndarray = np.zeros(len(frame))
    for column in set(range(frame.shape[1])) - set(chosen):
        try:
            numbers: np.ndarray = to_array(_safe_indexing(frame, [column], axis=1)).astype(float)
        except (TypeError, ValueError):
            continue  # such as texts
        sums += np.nan_to_num(numbers[:, 0])
    return sums


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
            "others: a row without soft targets is NaN in all of its columns. If the others are "
            "0, fill them: soft_targets.fillna(0).where(soft_targets.notna().any(axis=1))."
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


def _check_sums(values: np.ndarray, sums: np.ndarray) -> None:
    """Raise if rows are no probabilities, and say what they may be."""
    is_negative = values < -_ROUNDING
    wrong = is_negative.any(axis=1) | ~(_is_near(sums, 1) | np.isnan(sums))
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
    return bool(_is_near(values.sum(axis=1), total).all())


def _is_near(sums: np.ndarray, total: float) -> np.ndarray:
    return np.abs(sums - total) <= _LARGEST_ERROR * total
