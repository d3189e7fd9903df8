"""Finds missing values."""

from __future__ import annotations

from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

# pandas.NA and NaT are matched by type name, because pandas is optional.
_TYPES_OF_NOTHING = ("NoneType", "NAType", "NaTType")


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, ``pandas.NA`` or NaT."""
    if type(value).__name__ in _TYPES_OF_NOTHING:
        return True
    is_scalar = isinstance(value, (Real, Decimal, np.datetime64, np.timedelta64))
    return is_scalar and bool(value != value)


def is_all_missing(values: np.ndarray) -> bool:
    """Return whether no element of an array is there."""
    if values.dtype == object:
        return all(map(is_missing, values.flat))
    return bool(missing_mask(values).all())


def missing_mask(values: np.ndarray) -> np.ndarray:
    """Return which elements are missing, in the shape of the array."""
    if values.dtype == object:
        return np.frompyfunc(is_missing, 1, 1)(values).astype(bool)
    if values.dtype.kind in "fc":
        return np.isnan(values)
    return np.isnat(values) if values.dtype.kind in "mM" else np.zeros(values.shape, dtype=bool)
