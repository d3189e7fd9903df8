"""Finds rows with a label, and rows that lack one without being marked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from sk_aft._data._missing import missing_mask


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


def known_targets(y: Any, labeled: np.ndarray) -> Any:
    """Return the targets of labelled rows, in the dtype that they have on their own."""
    if labeled.all():
        return y
    known = np.asarray(y)[labeled]
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


def warn_of_minus_one(classes: np.ndarray) -> None:
    """Warn if -1 is one of more than two classes, because it often marks unlabelled rows."""
    if len(classes) > 2 and has_minus_one(classes):
        warnings.warn(
            f"y holds -1 and {len(classes) - 1} other classes, so -1 is learned as a class: "
            "if it marks rows without a label, set missing_label=-1, and cross-validate with "
            "sk_aft.model_selection.LabeledFold(missing_label=-1).",
            stacklevel=2,
        )


def has_minus_one(y: Any) -> bool:
    """Whether a target is -1; if rows have several targets, whether all of a row are."""
    values = _as_array(y)
    if values.dtype.kind not in "if" and values.dtype != object:
        return False
    return bool(_equal(values, -1).reshape(len(values), -1).all(axis=1).any())


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
