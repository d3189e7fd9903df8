"""Tensors of a .safetensors file, memory-mapped; and a file of features written piece by piece."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from sk_aft.store._keys import DIGEST_SIZE

# NumPy has no bfloat16: its bits are read as integers.
_NUMPY_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "|u1"}
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_ROOM_FOR_DIGITS = 64


class MappedTensor(NamedTuple):
    """A tensor in a file.

    Parameters
    ----------
    dtype : str
        As safetensors names it, such as "F32".
    array : ndarray
        Memory-mapped; bfloat16 as the integers of its bits.
    """

    dtype: str
    array: np.ndarray


def read_header(path: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """Return what the file says of its tensors, and its metadata; raise if it is damaged."""
    try:
        with safe_open(str(path), framework="numpy"):
            pass  # checks that shapes, types and offsets fit each other and the file
    except SafetensorError as error:
        raise ValueError(f"{path} is not a .safetensors file, or it is damaged: {error}") from error
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header, header.pop("__metadata__", {})


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file."""
    return read_header(path)[1]


def map_tensor(path: Path, name: str) -> MappedTensor:
    """Return a tensor of numbers, memory-mapped; raise if there is none of this name."""
    tensors, _ = read_header(path)
    if name not in tensors:
        raise ValueError(f"{path} has no tensor {name!r}; it has {sorted(tensors)}.")
    dtype, shape = tensors[name]["dtype"], tuple(tensors[name]["shape"])
    if dtype not in _NUMPY_DTYPES:
        raise ValueError(
            f"Tensor {name!r} of {path} is of type {dtype}: expected {list(_NUMPY_DTYPES)}."
        )
    if 0 in shape:
        return MappedTensor(dtype, np.empty(shape, _NUMPY_DTYPES[dtype]))
    with open(path, "rb") as file:
        n_header = 8 + int.from_bytes(file.read(8), "little")
    offset = n_header + tensors[name]["data_offsets"][0]
    array: np.ndarray = np.memmap(path, _NUMPY_DTYPES[dtype], mode="r", offset=offset, shape=shape)
    return MappedTensor(dtype, array)


def write_rows(
    path: Path,
    metadata: dict[str, str],
    shape: tuple[int, int],
    dtype: str,
    pieces: Iterable[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Write digests and features; 16 bytes for each row are kept in memory.

    Parameters
    ----------
    path : Path
        The file.
    metadata : dict of str to str
        Its metadata.
    shape : (int, int)
        The number of features, after the largest possible number of rows.
    dtype : {"float32", "float16", "bfloat16"}
        Type of the features.
    pieces : iterable of (digests, features)
        The rows, as they are stored.
    """
    n_header = len(_header(metadata, shape, dtype)) + _ROOM_FOR_DIGITS
    n_header += -n_header % 8  # the features begin at a multiple of 8 bytes
    digests: list[np.ndarray] = []
    with open(path, "wb") as file:
        file.seek(8 + n_header)
        for some, stored in pieces:
            file.write(stored.data)
            digests.append(some)
        for some in digests:
            file.write(some.tobytes())
        n_rows = sum(map(len, digests))
        file.seek(0)
        header = _header(metadata, (n_rows, shape[1]), dtype)
        file.write(n_header.to_bytes(8, "little") + header.ljust(n_header))
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path, dtype: str, n_bytes: int) -> tuple[int, Iterator]:
    """Return the width of a file of features, and its (digests, stored features) in pieces."""
    tensors, _ = read_header(path)
    if set(tensors) != {"features", "digests"}:
        raise ValueError(
            f"{path} has the tensors {sorted(tensors)}: expected 'features' and 'digests'."
        )
    features, digests = map_tensor(path, "features"), map_tensor(path, "digests")
    shape = features.array.shape
    if features.dtype != _DTYPES[dtype] or len(shape) != 2 or shape[1] == 0:
        raise ValueError(
            f"The features of {path} are of shape {shape} and type {features.dtype}: expected "
            f"(n_rows, n_features) and {_DTYPES[dtype]}."
        )
    if digests.dtype != "U8" or digests.array.shape != (shape[0], DIGEST_SIZE):
        raise ValueError(
            f"The digests of {path} are of shape {digests.array.shape} and type {digests.dtype}: "
            f"expected ({shape[0]}, {DIGEST_SIZE}) and U8."
        )
    step = max(1, n_bytes // max(1, features.array[:1].nbytes))
    pieces = (
        (
            np.frombuffer(digests.array[start : start + step].tobytes(), "<u8").reshape(-1, 2),
            np.array(features.array[start : start + step]),
        )
        for start in range(0, shape[0], step)
    )
    return shape[1], pieces


def _header(metadata: dict[str, str], shape: tuple[int, int], dtype: str) -> bytes:
    n_rows, width = shape
    n_features = n_rows * width * np.dtype(_NUMPY_DTYPES[_DTYPES[dtype]]).itemsize
    n_digests = n_rows * DIGEST_SIZE
    header = {
        "__metadata__": metadata,
        "features": {
            "dtype": _DTYPES[dtype],
            "shape": [n_rows, width],
            "data_offsets": [0, n_features],
        },
        "digests": {
            "dtype": "U8",
            "shape": [n_rows, DIGEST_SIZE],
            "data_offsets": [n_features, n_features + n_digests],
        },
    }
    return json.dumps(header, separators=(",", ":")).encode()
