"""Reads the arrays of a safetensors file with NumPy alone, and undoes their quantization."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}
# The scales of an array of int8, one for each entry of its first axis, have its name and this.
SCALE = ":scale"


def parse_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file; they are read-only views of its content.

    Parameters
    ----------
    content : bytes
        The file: the length of a JSON header in 8 bytes, the header, and the arrays' bytes.

    Returns
    -------
    arrays : dict of str to ndarray
        The arrays.

    Raises
    ------
    ValueError
        If the file is not of this format, or an array is not where its header says.
    """
    n_header = int.from_bytes(content[:8], "little")
    if len(content) < 8 or n_header > len(content) - 8:
        raise ValueError("its header is longer than the file")
    try:
        header = json.loads(content[8 : 8 + n_header])
        header.pop("__metadata__", None)
        body = memoryview(content)[8 + n_header :]
        return {name: _array(body, **entry) for name, entry in header.items()}
    except (AttributeError, KeyError, RecursionError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"its header is damaged ({error!r})") from error


def _array(body: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    start, stop = data_offsets
    if not 0 <= start <= stop <= len(body):
        raise ValueError("an array lies outside of it")
    return np.frombuffer(body[start:stop], dtype=_DTYPES[dtype]).reshape(shape)


def dequantized(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays of float16 and of int8 with scales as float32, others unchanged."""
    plain: dict[str, Any] = {}
    for name, array in arrays.items():
        if name.endswith(SCALE):
            continue
        scale = arrays.get(name + SCALE)
        if scale is not None:
            plain[name] = array * scale.reshape(-1, *[1] * (array.ndim - 1))
        else:
            plain[name] = array.astype(np.float32) if array.dtype == np.float16 else array
    return plain
