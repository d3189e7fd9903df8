"""Finds rows with a label, and rows that lack one without being marked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from sk_aft._data._missing import missing_mask

# What unlabelled rows are often marked with.
_MARKS = (-1, "-1", "", "?", "nan", "unknown", "unlabeled", "unlabelled")


def labeled_mask(y: Any, missing_label: Any) -> np.ndarray:
    """Return which rows have a target.

    Parameters
    ----------
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Targets.
    missing_label : object
        Marks an unknown target. NaN also matches None and ``pandas.NA``; None means that all
        are known. If rows have several targets, either all of a row are missing or none.

    Returns
    -------
    labeled_mask : ndarray of shape (n_rows,), bool
        True where the target is known.

    Raises
    ------
    ValueError
        If the mark is a number that NumPy has turned into a text, because ``y`` holds texts.
    """
    values = _as_array(y)
    if missing_label is None:
        return np.ones(len(values), dtype=bool)
    if values.dtype.kind == "U" and not isinstance(missing_label, str):
        as_text = str(missing_label)
        if (values == as_text).any():
            raise ValueError(
                f"y has the text {as_text!r}, and missing_label is {missing_label!r}: NumPy turns "
                f"numbers among texts into texts. Mark unlabelled rows with a text, such as "
                f'missing_label="", or give y as an array of dtype object.'
            )
    if isinstance(missing_label, Real) and np.isnan(missing_label):
        missing = missing_mask(values)
    elif values.dtype.kind in "biuf" and not isinstance(missing_label, Real):
        missing = np.zeros(values.shape, dtype=bool)  # a text among numbers marks none of them
    else:
        missing = _equal(values, missing_label)
    return ~np.all(missing.reshape(len(values), -1), axis=1)


def known_targets(y: Any, labeled: np.ndarray) -> np.ndarray:
    """Return the targets of labelled rows, in the dtype that they have on their own."""
    if not labeled.all():
        # Before it is an array: NumPy makes floats of ints and missing values.
        y = _safe_indexing(y, np.flatnonzero(labeled))
    known = np.asarray(y)
    if known.dtype != object:
        return known
    values = known.tolist()
    are_alike = all(isinstance(value, str) for value in values) or not any(
        isinstance(value, str) for value in values
    )
    return np.array(values) if are_alike else known


def check_no_target_missing(y: Any, labeled: np.ndarray, missing_label: Any) -> None:
    """Raise ValueError if a target is missing but not marked by ``missing_label``.

    Parameters
    ----------
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Targets.
    labeled : ndarray of shape (n_rows,), bool
        Which rows have a target, see `labeled_mask`.
    missing_label : object
        Marks the other rows.
    """
    values = _as_array(y)
    unmarked = missing_mask(values).reshape(len(values), -1).any(axis=1) & labeled
    if not unmarked.any():
        return
    row = int(np.flatnonzero(unmarked)[0])
    what = f"Row {row} of y holds a missing value ({values[row]})"
    if missing_label is None:
        raise ValueError(
            f"{what}, so Input y contains NaN: missing_label=np.nan says that such rows have no "
            "label. Otherwise fill them, or leave them out."
        )
    raise ValueError(
        f"{what}, which missing_label={missing_label!r} does not mark: mark all rows without a "
        "label in one way, in all of their targets."
    )


def check_labels_are_alike(y: Any, labeled: np.ndarray) -> None:
    """Raise ValueError if some labels are strings and others are not; names a row of the fewer.

    Parameters
    ----------
    y : array-like of shape (n_rows,) or (n_rows, 1)
        Labels.
    labeled : ndarray of shape (n_rows,), bool
        Which rows have one, see `labeled_mask`.
    """
    values = _as_array(y)
    if values.dtype != object:
        return
    is_text = np.array([isinstance(value, str) for value in values.flat])
    odd, others = sorted(
        (np.flatnonzero(is_text & labeled), np.flatnonzero(~is_text & labeled)), key=len
    )
    if not len(odd):
        return
    value, other = values.flat[odd[0]], values.flat[others[0]]
    mark = next((each for each in (value, other) if each in _MARKS), value)
    raise ValueError(
        f"Row {odd[0]} of y is {value!r}, and row {others[0]} is {other!r}: labels have to be all "
        f"strings or all numbers. If {mark!r} marks rows without a label, set "
        f"missing_label={mark!r}."
    )


def warn_of_mark(classes: np.ndarray, owner: str) -> None:
    """Warn if one of more than two classes is a usual mark of unlabelled rows.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The labels.
    owner : str
        Name of the class that learns them.
    """
    mark = mark_among(classes)
    if len(classes) > 2 and mark is not None:
        warnings.warn(
            f"y holds {mark!r} and {len(classes) - 1} other classes, so {owner} learns {mark!r} as "
            f"a class: if it marks rows without a label, set missing_label={mark!r}, and "
            f"cross-validate with sk_aft.model_selection.LabeledFold(missing_label={mark!r}).",
            stacklevel=2,
        )


def mark_among(y: Any) -> int | str | None:
    """Return a usual mark that is a target in y, or all targets of a row; None if there is none."""
    values = _as_array(y)
    # Numbers are not equal to texts, and NumPy does not compare arrays of them.
    values = values.astype(object) if values.dtype.kind in "US" else values
    are_texts = values.dtype == object
    for mark in (mark for mark in _MARKS if are_texts or not isinstance(mark, str)):
        if _equal(values, mark).reshape(len(values), -1).all(axis=1).any():
            return mark
    return None


def _as_array(y: Any) -> np.ndarray:
    values = np.asarray(y)
    # If there are strings, NumPy also turns None, NaN and -1 into strings.
    if values.dtype.kind in "US" and isinstance(y, Sequence):
        return np.asarray(y, dtype=object)
    return values


def _equal(values: np.ndarray, value: Any) -> np.ndarray:
    if values.dtype != object:
        return np.asarray(values == value, dtype=bool)
    # pandas.NA is neither equal nor unequal.
    return np.asarray(np.where(missing_mask(values), None, values) == value, dtype=bool)
