"""The rows of one model on disk: two append-only files, one of digests and one of features."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash

from sk_aft.store._index import DigestIndex
from sk_aft.store._row_reader import RowReader

# One entry for each row, in the order of the rows of the features file.
RECORD = np.dtype([("digest", "<u8", 2), ("checksum", "<u8")])
STORED_DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_NAME = re.compile(r"(\d{4})-([0-9a-f]{8})_(\d+)_([a-z]+\d+)\.keys")
_ROWS_AT_A_TIME = 4096


class RowFiles(NamedTuple):
    """The two files of one model's rows.

    Width and dtype are part of the file name, so damaged file content cannot change them.
    Removing rows rewrites both files under the next number and a new identity.
    """

    directory: Path
    number: int
    identity: str
    width: int
    dtype: str

    @classmethod
    def latest(cls, directory: Path) -> RowFiles | None:
        """Return the newest files in a model's directory, None if there are none."""
        try:
            names = [_NAME.fullmatch(name) for name in os.listdir(directory)]
        except FileNotFoundError:
            return None
        files = [
            cls(directory, int(name[1]), name[2], int(name[3]), name[4])
            for name in names
            if name is not None and name[4] in STORED_DTYPES
        ]
        return max(files, key=lambda file: file.number, default=None)

    @classmethod
    def next(cls, directory: Path, width: int, dtype: str) -> RowFiles:
        """Return names for files that follow the latest, and remove leftovers of dead writers."""
        for features in directory.glob("*.features"):
            if not features.with_suffix(".keys").exists():
                features.unlink()  # its writer died before listing the rows
        for unfinished in directory.glob("*.tmp"):
            unfinished.unlink()
        latest = cls.latest(directory)
        for keys in directory.glob("*.keys"):
            if latest is not None and keys != latest.keys:
                keys.unlink()  # its process died while removing rows
                keys.with_suffix(".features").unlink(missing_ok=True)
        number = 1 if latest is None else latest.number + 1
        return cls(directory, number, uuid.uuid4().hex[:8], width, dtype)

    @property
    def keys(self) -> Path:
        """The file of digests and checksums; a row exists once it is listed here."""
        return self.directory / f"{self.number:04}-{self.identity}_{self.width}_{self.dtype}.keys"

    @property
    def features(self) -> Path:
        """The file of features."""
        return self.keys.with_suffix(".features")

    @property
    def row_bytes(self) -> int:
        """Size of one row's features in bytes."""
        return self.width * np.dtype(STORED_DTYPES[self.dtype]).itemsize

    def n_rows(self) -> tuple[int, int]:
        """Return how many rows are complete in both files, and how many are listed."""
        n_listed = self.keys.stat().st_size // RECORD.itemsize
        size = self.features.stat().st_size if self.features.exists() else 0
        return min(n_listed, size // self.row_bytes), n_listed

    @property
    def bytes_on_disk(self) -> int:
        """Size of one row with its digest and checksum."""
        return self.row_bytes + RECORD.itemsize

    def append(self, records: np.ndarray, stored: np.ndarray) -> None:
        """Write rows; they are on disk when this returns.

        Features are written before the rows are listed. Incomplete data that a dead writer left
        after the last complete row is overwritten.
        """
        n_rows = self.n_rows()[0] if self.keys.exists() else 0
        _write_at(self.features, n_rows * self.row_bytes, [stored])
        _write_at(self.keys, n_rows * RECORD.itemsize, [records])

    def rewrite(self, rows: ModelRows, indices: np.ndarray) -> None:
        """Copy rows of older files into these; they become visible once they are complete."""
        listed = self.keys.with_suffix(".tmp")
        steps = range(0, len(indices), _ROWS_AT_A_TIME)
        copies = (rows._read(indices[i : i + _ROWS_AT_A_TIME])[0] for i in steps)
        try:
            _write_at(self.features, 0, copies)
            _write_at(listed, 0, [rows.records[indices]])
            listed.replace(self.keys)
        except BaseException:
            self.features.unlink(missing_ok=True)
            listed.unlink(missing_ok=True)
            raise


class ModelRows:
    """A snapshot of the rows of one model; `refreshed` returns a newer one.

    Parameters
    ----------
    files : RowFiles
        The files of the rows.

    Attributes
    ----------
    n_rows : int
        Number of complete rows.
    n_lost : int
        Number of rows that are listed but missing from a truncated features file.
    records : ndarray of shape (n_rows,)
        Digest and checksum of each row, oldest first.
    """

    is_on_disk = True

    def __init__(self, files: RowFiles, known: ModelRows | None = None) -> None:
        self.files = files
        self.n_rows, n_listed = files.n_rows()
        self.n_lost = n_listed - self.n_rows
        self.records = np.asarray(_map(files.keys, RECORD, (self.n_rows,)))
        self._reader: Any = None if known is None else known._reader
        if self._reader is None and self.n_rows:
            self._reader = RowReader(files.features, files.row_bytes)
        first = 0 if known is None else known.n_rows
        index = DigestIndex() if known is None else known._index
        if self.n_rows > first:
            index = index.extended(self.records["digest"][first:], first)
        self._index: DigestIndex = index

    def refreshed(self) -> ModelRows | None:
        """Return the current rows, or None if all were removed."""
        files = RowFiles.latest(self.files.directory)
        if files is None:
            return None
        n_rows = files.n_rows()[0]
        was_replaced = self._reader is not None and not self._reader.is_open_at(files.features)
        if files != self.files or n_rows < self.n_rows or was_replaced:
            return ModelRows(files)
        return self if n_rows == self.n_rows else ModelRows(files, known=self)

    @property
    def width(self) -> int:
        """Number of features in a row."""
        return self.files.width

    def find(self, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look rows up without returning their features.

        Parameters
        ----------
        digests : ndarray of shape (n_rows, 2), uint64
            Digests of the rows.

        Returns
        -------
        indices : ndarray of shape (n_rows,), int64
            Indices for `take`; -1 for rows that are absent or damaged.
        damaged : ndarray of int
            Positions in ``digests`` of the rows whose checksum is wrong.
        """
        indices = self._index.find(digests, self.records["digest"])
        found = np.flatnonzero(indices >= 0)
        damaged = found[~self._intact_mask(indices[found])]
        indices[damaged] = -1
        return indices, damaged

    def read(self, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Look rows up and read them in one pass over their bytes.

        Parameters
        ----------
        digests : ndarray of shape (n_rows, 2), uint64
            Digests of the rows.

        Returns
        -------
        matrix : ndarray of shape (n_rows, width), float32
            NaN for rows that are absent or damaged.
        indices, damaged : ndarray
            See `find`.
        """
        indices = self._index.find(digests, self.records["digest"])
        found = np.flatnonzero(indices >= 0)
        stored, intact_mask = self._read(indices[found])
        damaged = found[~intact_mask]
        indices[damaged] = -1
        intact = stored[intact_mask] if len(damaged) else stored
        return self._scatter(intact, indices), indices, damaged

    def damaged(self) -> np.ndarray:
        """Return the digests of all rows whose checksum is wrong."""
        intact_mask = self._intact_mask(np.arange(self.n_rows))
        return self.records["digest"][~intact_mask]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return rows as a float32 array in memory; NaN where the index is -1.

        Raises
        ------
        OSError
            If the checksum of a row is wrong.
        """
        stored, intact_mask = self._read(indices[indices >= 0])
        n_damaged = int((~intact_mask).sum())
        if n_damaged:
            raise OSError(
                f"{n_damaged} rows of {self.files.features} were damaged since they were looked "
                "up. Run again: they will be detected and computed again."
            )
        return self._scatter(stored, indices)

    def pieces(self, n_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield the bounds of consecutive rows that have about this size together."""
        step = max(1, n_bytes // self.files.row_bytes)
        for start in range(0, self.n_rows, step):
            yield start, min(start + step, self.n_rows)

    def current(self, start: int, stop: int) -> np.ndarray:
        """Return the indices from ``start`` to ``stop`` without rows that were written again."""
        digests = self.records["digest"]
        indices = np.arange(start, stop)
        return indices[self._index.find(digests[start:stop], digests) == indices]

    def intact(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the records and the stored features of the rows whose checksum is right."""
        stored, intact_mask = self._read(indices)
        records = self.records[indices]
        return (
            (records, stored) if intact_mask.all() else (records[intact_mask], stored[intact_mask])
        )

    def view(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive rows; memory-mapped if they are stored as float32."""
        if self.files.dtype != "float32":
            return self.take(np.arange(start, stop))
        return self._reader.map(np.dtype("<f4"), (self.n_rows, self.width))[start:stop]

    def _scatter(self, stored: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Return the stored rows as float32, with NaN rows where the index is -1."""
        rows = as_float32(stored, self.files.dtype)
        if len(rows) == len(indices):
            return rows
        scattered: np.ndarray = np.full((len(indices), self.width), np.nan, dtype=np.float32)
        scattered[indices >= 0] = rows
        return scattered

    def _read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows as they are stored, and a mask of those whose checksum is right."""
        stored: np.ndarray = np.empty((len(indices), self.width), STORED_DTYPES[self.files.dtype])
        if not len(indices):
            return stored, np.empty(0, dtype=bool)
        self._reader.read(indices, stored)
        records = self.records[indices]
        return stored, checksums(stored, records["digest"]) == records["checksum"]

    def _intact_mask(self, indices: np.ndarray) -> np.ndarray:
        """Return a mask of the rows whose checksum is right, without keeping the rows in memory."""
        intact_mask: np.ndarray = np.empty(len(indices), dtype=bool)
        order = np.argsort(indices)
        for start in range(0, len(indices), _ROWS_AT_A_TIME):
            chunk = order[start : start + _ROWS_AT_A_TIME]
            intact_mask[chunk] = self._read(indices[chunk])[1]
        return intact_mask


def drop_rows(rows: ModelRows, *, first: int) -> int:
    """Keep the intact rows from ``first`` on, in new files; return the number of rows dropped."""
    digests = rows.records["digest"][first:]
    indices = rows.find(digests)[0]
    # A row that was written twice is kept once; a damaged row is dropped.
    kept = np.unique(indices[indices >= first])
    files = RowFiles.next(rows.files.directory, rows.width, rows.files.dtype)
    files.rewrite(rows, kept)
    rows.files.keys.unlink()
    rows.files.features.unlink(missing_ok=True)
    return rows.n_rows - len(kept)


def records_of(digests: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Return the entries of rows in the list of digests and checksums."""
    records: np.ndarray = np.empty(len(digests), dtype=RECORD)
    records["digest"] = digests
    records["checksum"] = checksums(stored, digests)
    return records


def checksums(stored: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Return a checksum of each row's content and digest."""
    digest = xxhash.xxh3_64_intdigest
    seeds = digests[:, 1].tolist()
    values = [digest(row, seed) for row, seed in zip(stored, seeds, strict=True)]
    return np.array(values, dtype=np.uint64)


def as_stored(matrix: np.ndarray, dtype: str) -> np.ndarray:
    """Round a float32 matrix to a storage dtype; raise if the result is not finite."""
    if dtype == "bfloat16":
        # NumPy has no bfloat16, so its bits are stored as integers.
        rounded = torch.from_numpy(matrix).to(torch.bfloat16)
        stored = rounded.view(torch.int16).numpy().view("<u2")
        finite_mask = rounded.isfinite().numpy()
    else:
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(matrix, dtype=STORED_DTYPES[dtype])
        finite_mask = np.isfinite(stored)
    if not finite_mask.all():
        row, column = np.argwhere(~finite_mask)[0]
        raise ValueError(
            f"The store keeps finite numbers that {dtype} can hold, got {matrix[row, column]} in "
            f"column {column} of a row. bfloat16 has the range of float32."
        )
    return stored


def as_float32(stored: np.ndarray, dtype: str) -> np.ndarray:
    """Return rows of a storage dtype as float32."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float32, copy=False)


def flush(path: Path) -> None:
    """Return when the content of a file is on disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _write_at(path: Path, offset: int, contents: Iterable[np.ndarray]) -> None:
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    with open(descriptor, "r+b") as file:
        file.seek(offset)
        for content in contents:
            file.write(content.data)
        file.flush()
        os.fsync(file.fileno())
    if is_new and os.name != "nt":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _map(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)
