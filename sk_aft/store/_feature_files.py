"""Features in a file, as an array that is memory-mapped or read once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sk_aft._data._table_files import ARROW_SUFFIXES, PARQUET_SUFFIXES, table_files
from sk_aft.store import _parquet, _safetensors
from sk_aft.store._exchange import EXPORTED
from sk_aft.store._feature_columns import open_column, read_columns
from sk_aft.store._model_rows import as_float32
from sk_aft.store._safetensors import map_tensor

_TABLES = (*PARQUET_SUFFIXES, *ARROW_SUFFIXES)
_SUFFIXES = (*_TABLES, ".npy", ".safetensors")


def read_features(path: str | os.PathLike, column: str = "features") -> np.ndarray:
    """Return the features in a file, without a copy where the format allows it.

    - Parquet (needs pyarrow): read once into the array that is returned. It needs no further
      memory but that of a batch of 2,048 rows, whatever the row groups are.
    - .npy, .safetensors, and Arrow files (.arrow, .feather) of one uncompressed batch:
      memory-mapped. Only the rows that are used are read, and processes of a search share them.
    - Arrow files that are compressed or have several batches: as Parquet.

    Numbers of another type than float32 are converted in memory.

    Parameters
    ----------
    path : path-like
        A file; or a directory or glob of Parquet or Arrow files, which are read in the order of
        their names, as by pandas, polars, pyarrow and datasets: "part.10" before "part.2".
        Directories are searched with their folders; names that begin with "." or "_" are skipped.
    column : str, default="features"
        The column, which holds a list of numbers in each row, or the tensor of a .safetensors
        file. Ignored for .npy, which holds one array.

    Returns
    -------
    features : ndarray of shape (n_rows, n_features), float32
        Rows in the order of the file. A row that is null is NaN: to a student, it has no
        features. Memory-mapped arrays are read-only.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file has no such column, or it does not hold lists of numbers of equal length.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> from sk_aft.store import read_features
    >>> path = os.path.join(tempfile.mkdtemp(), "features.npy")
    >>> np.save(path, np.eye(3, dtype=np.float32))
    >>> read_features(path).shape
    (3, 3)
    """
    files = _files_of(path)
    suffix = files[0].suffix
    if suffix in _TABLES:
        columns = [open_column(file, column) for file in files]
        mapped = columns[0].mapped() if len(columns) == 1 else None
        return read_columns(columns) if mapped is None else mapped
    if suffix == ".npy":
        return _checked(_map_array(files[0]), files[0])
    dtype, array = map_tensor(files[0], column)
    return _checked(as_float32(array, "bfloat16") if dtype == "BF16" else array, files[0])


def are_exported(path: str | os.PathLike) -> bool:
    """Return whether a store exported these features, whose rows are then in its own order."""
    file = _files_of(path)[0]
    if file.suffix == ".safetensors":
        return EXPORTED in _safetensors.read_metadata(file)
    return file.suffix in PARQUET_SUFFIXES and EXPORTED in _parquet.read_metadata(file)


def _map_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not an array of numbers in a .npy file: {error}") from error


def _checked(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind != "f":
        raise ValueError(
            f"{path} holds an array of shape {array.shape} of dtype {array.dtype}: expected "
            "floating-point numbers of shape (n_rows, n_features)."
        )
    # What is converted is in memory, and no np.memmap any more.
    return array if array.dtype == np.dtype("<f4") else np.array(array, np.float32, subok=False)


def _files_of(path: str | os.PathLike) -> list[Path]:
    """Return the files of features that a path means, in order."""
    files = table_files(path, _TABLES)
    suffix = files[0].suffix
    if suffix not in _SUFFIXES or (len(files) > 1 and suffix not in _TABLES):
        some = "" if len(files) == 1 else f"{len(files)} files of "
        raise ValueError(
            f"{str(path)!r} is {some}a format that features cannot be read from: expected one file "
            f"of {', '.join(_SUFFIXES)}, or several of {', '.join(_TABLES)}."
        )
    return files
