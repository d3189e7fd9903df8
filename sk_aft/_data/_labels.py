"""Which rows have a label."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np


def labeled_mask(y: Any, missing_label: Any) -> np.ndarray:
    """Return which rows have a target.

    Parameters
    ----------
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Targets.
    missing_label : object
        What stands for a target that is not known. NaN stands for None and ``pandas.NA``, too;
        None says that all are known. Where rows have several targets, all are missing or none.

    Returns
    -------
    labeled_mask : ndarray of shape (n_rows,), bool
        True where the target is known.

    Raises
    ------
    ValueError
        If the mark is a number and was turned into a text, as NumPy does beside texts.
    """
    values = np.asarray(y)
    if missing_label is None:
        return np.ones(len(values), dtype=bool)
    if values.dtype.kind == "U" and not isinstance(missing_label, str):
        as_text = str(missing_label)
        if (values == as_text).any():
            raise ValueError(
                f"y has the text {as_text!r}, and missing_label is {missing_label!r}: NumPy turns "
                f"numbers beside texts into texts. Mark unlabelled rows with a text, such as "
                f'missing_label="", or give y as an array of dtype object.'
            )
    if isinstance(missing_label, Real) and np.isnan(missing_label):
        if values.dtype == object:
            missing = np.frompyfunc(_is_nothing, 1, 1)(values).astype(bool)
        else:
            missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    elif values.dtype.kind in "biuf" and not isinstance(missing_label, Real):
        missing = np.zeros(values.shape, dtype=bool)  # a text among numbers marks none of them
    else:
        missing = np.asarray(values == missing_label, dtype=bool)
    return ~missing.reshape(len(values), -1).all(axis=1)


def known_targets(y: Any, labeled: np.ndarray) -> Any:
    """Return the targets of labelled rows, in the dtype that they have without the others."""
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


def _is_nothing(value: Any) -> bool:
    is_nan = isinstance(value, Real) and np.isnan(value)
    return value is None or bool(is_nan) or str(value) == "<NA>"
