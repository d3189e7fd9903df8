"""Chooses a preprocessor for a kind of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

from sk_aft._parameters import reject_unknown
from sk_aft.preprocessing._columns import OF_KIND, ColumnPreprocessor

_DEFAULTS = {**OF_KIND, "frame": ColumnPreprocessor}


def make_preprocessor(
    preprocessor: Any, kind: str, default: Callable[..., Any] | None = None, **parameters: Any
) -> Any:
    """Return an unfitted preprocessor for rows of one kind.

    Parameters
    ----------
    preprocessor : "auto", estimator or None
        "auto" scales numbers, one-hot encodes categories, resizes images and tokenizes texts;
        in a DataFrame, each column by its kind. An estimator is cloned. None changes nothing.
    kind : {"numeric", "image", "text", "category", "frame"}
        The kind of the rows.
    default : callable, optional
        Makes the automatic preprocessor; by default it is chosen by the kind.
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
        make = default or _DEFAULTS[kind]
        reject_unknown("preprocessor", make, parameters)
        return make(**parameters)
    return clone(preprocessor).set_params(**parameters)


def transform_checked(preprocessor: Any, numbers: np.ndarray) -> np.ndarray:
    """Apply a preprocessor to numbers that are already checked.

    `StandardScaler.transform` would check them again. For few rows, this takes longer than a
    small network.

    Parameters
    ----------
    preprocessor : estimator
        A fitted preprocessor, made for ``preprocessor="auto"``.
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
