"""Makes arrays smaller: float16, or int8 with a scale for each row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sk_aft.serving._arrays import SCALE

DTYPES = ("float32", "float16", "int8")
# Smaller arrays, such as biases and statistics, stay as they are.
_FEWEST_NUMBERS = 1024
_LARGEST_FLOAT16 = 65504.0
_LARGEST_INT8 = 127


def in_number_format(arrays: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Return arrays in a smaller number format; `dequantized` of `sk_aft.serving` undoes it.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Weights and other tensors of a network.
    dtype : {"float32", "float16", "int8"}
        Number format of large matrices of floats; those of "int8" have a scale for each entry of
        the first axis, such as a token. Integers become int32 if they fit.

    Returns
    -------
    arrays : dict of str to ndarray
        The same arrays, and scales.
    """
    smaller: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        is_large = array.dtype == np.float32 and array.ndim > 1 and array.size >= _FEWEST_NUMBERS
        if is_large and dtype == "int8":
            smaller[name], smaller[name + SCALE] = _int8(array)
        elif is_large and dtype == "float16" and np.abs(array).max() <= _LARGEST_FLOAT16:
            smaller[name] = array.astype(np.float16)
        else:
            smaller[name] = _small_integers(array) if array.dtype == np.int64 else array
    return smaller


def _int8(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    largest = np.abs(array).reshape(len(array), -1).max(axis=1)
    scale = np.where(largest > 0, largest / _LARGEST_INT8, 1).astype(np.float32)
    rows = array / scale.reshape(-1, *[1] * (array.ndim - 1))
    return np.rint(rows).astype(np.int8), scale


def _small_integers(array: np.ndarray) -> np.ndarray:
    limits = np.iinfo(np.int32)
    fits = array.size == 0 or (array.min() >= limits.min and array.max() <= limits.max)
    return array.astype(np.int32) if fits else array
