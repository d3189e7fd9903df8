"""Reads the arrays of a safetensors file with NumPy alone, and undoes their quantization."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
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
_MOST_CHARACTERS = 100_000_000
_LONGEST_HEADER = 100_000_000  # bytes, as in the library safetensors


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
    if len(content) < 8 or n_header > min(len(content) - 8, _LONGEST_HEADER):
        raise ValueError("its header is longer than the file or than 100 MB")
    try:
        header = json.loads(content[8 : 8 + n_header])
        header.pop("__metadata__", None)
        body = memoryview(content)[8 + n_header :]
        _check_places([entry["data_offsets"] for entry in header.values()], len(body))
        return {name: _array(body, **entry) for name, entry in header.items()}
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"its header is damaged ({error!r})") from error


def _check_places(places: list[list[int]], n_bytes: int) -> None:
    """Raise ValueError if arrays overlap, leave gaps or lie outside of the file."""
    end = 0
    for start, stop in sorted(places):
        if start != end or stop < start:
            raise ValueError("its arrays overlap or leave gaps")
        end = stop
    if end != n_bytes:
        raise ValueError("its arrays are longer or shorter than the file: one lies outside of it")


def _array(body: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    start, stop = data_offsets
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"an array has the shape {shape}")
    return np.frombuffer(body[start:stop], dtype=_DTYPES[dtype]).reshape(shape)


def dequantized(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays of float16 and of int8 with scales as float32, others unchanged.

    Raises
    ------
    ValueError
        If scales do not belong to an array of int8.
    """
    plain: dict[str, Any] = {}
    for name, array in arrays.items():
        if name.endswith(SCALE):
            continue
        scale = arrays.get(name + SCALE)
        if scale is not None:
            # Other shapes could be multiplied too, and need any amount of memory.
            if array.dtype != np.int8 or scale.shape != array.shape[:1]:
                raise ValueError(f"the scales of {name!r} do not belong to it")
            plain[name] = array * scale.reshape(-1, *[1] * (array.ndim - 1))
        else:
            plain[name] = array.astype(np.float32) if array.dtype == np.float16 else array
    return plain


def as_strings(values: list[Any]) -> np.ndarray:
    """Return strings as an array; each needs the memory of the longest, which is bounded."""
    if len(values) * max(map(len, values), default=0) > _MOST_CHARACTERS:
        raise ValueError(f"its {len(values)} strings are too long for an array")
    return np.array(values, dtype=np.str_)
