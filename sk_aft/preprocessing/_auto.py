"""The preprocessor that fits a kind of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

from sk_aft._parameters import reject_unknown
from sk_aft.preprocessing._columns import OF_KIND, ColumnPreprocessor

_DEFAULTS = {**OF_KIND, "frame": ColumnPreprocessor}


def make_preprocessor(preprocessor: Any, kind: str, **parameters: Any) -> Any:
    """Return an unfitted preprocessor for rows of one kind.

    Parameters
    ----------
    preprocessor : "auto", estimator or None
        "auto" scales numbers, encodes categories one-hot, resizes images and tokenizes texts, of a
        DataFrame each column as it needs; an estimator is cloned; None leaves rows as they are.
    kind : {"numeric", "image", "text", "category", "frame"}
        What the rows are.
    **parameters
        Arguments of the automatic preprocessor, or parameters to set.

    Returns
    -------
    preprocessor : estimator or None
        With ``fit`` and ``transform``.
    """
    if preprocessor is None:
        return None
    if preprocessor == "auto":
        reject_unknown("preprocessor", _DEFAULTS[kind], parameters)
        return _DEFAULTS[kind](**parameters)
    return clone(preprocessor).set_params(**parameters)


def transform_checked(preprocessor: Any, numbers: np.ndarray) -> np.ndarray:
    """Return what `make_preprocessor` makes of numbers that were checked already.

    `StandardScaler.transform` would check them once more, which for few rows takes longer than a
    small network does.

    Parameters
    ----------
    preprocessor : estimator
        A fitted one that was made for ``preprocessor="auto"``.
    numbers : ndarray of shape (n_rows, n_columns)
        Checked rows.

    Returns
    -------
    transformed : ndarray of shape (n_rows, n_columns)
        Floating numbers.
    """
    is_plain = type(preprocessor) is StandardScaler and preprocessor.with_mean
    if not (is_plain and preprocessor.with_std):
        return preprocessor.transform(numbers)
    if numbers.dtype != np.float32:
        numbers = numbers.astype(np.float64)
    scaled = numbers - preprocessor.mean_.astype(numbers.dtype)
    scaled /= preprocessor.scale_.astype(numbers.dtype)
    return scaled
