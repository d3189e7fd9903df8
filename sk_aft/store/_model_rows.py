"""The rows of one model on disk: two append-only files, one of digests and one of features."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash

from sk_aft.store._index import DigestIndex
from sk_aft.store._row_reader import RowReader

# What is written about each row, in the order of the rows of features.
RECORD = np.dtype([("digest", "<u8", 2), ("checksum", "<u8")])
STORED_DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_NAME = re.compile(r"(\d{4})-([0-9a-f]{8})_(\d+)_([a-z]+\d+)\.keys")
_ROWS_AT_A_TIME = 4096


class RowFiles(NamedTuple):
    """Where the rows of one model are.

    Width and dtype are part of the name, where no flipped byte reaches them. Removing rows
    writes both files anew, under the next number and another identity.
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
        """Name the files that come after the latest."""
        for features in directory.glob("*.features"):
            if not features.with_suffix(".keys").exists():
                features.unlink()  # left behind by a writer that died
        for unfinished in directory.glob("*.tmp"):
            unfinished.unlink()
        latest = cls.latest(directory)
        for keys in directory.glob("*.keys"):
            if latest is not None and keys != latest.keys:
                keys.unlink()  # the older files of a process that died while removing rows
                keys.with_suffix(".features").unlink(missing_ok=True)
        number = 1 if latest is None else latest.number + 1
        return cls(directory, number, uuid.uuid4().hex[:8], width, dtype)

    @property
    def keys(self) -> Path:
        """The file of digests and checksums; a row exists when it is listed here."""
        return self.directory / f"{self.number:04}-{self.identity}_{self.width}_{self.dtype}.keys"

    @property
    def features(self) -> Path:
        """The file of features."""
        return self.keys.with_suffix(".features")

    @property
    def row_bytes(self) -> int:
        """Size of the features of one row."""
        return self.width * np.dtype(STORED_DTYPES[self.dtype]).itemsize

    def n_rows(self) -> tuple[int, int]:
        """Return how many rows are complete in both files, and how many are listed."""
        n_listed = self.keys.stat().st_size // RECORD.itemsize
        size = self.features.stat().st_size if self.features.exists() else 0
        return min(n_listed, size // self.row_bytes), n_listed

    def append(self, digests: np.ndarray, stored: np.ndarray) -> None:
        """Write rows: on disk when this returns, and never listed before they are there.

        Whatever a writer that died left behind the last complete row is overwritten.
        """
        n_rows = self.n_rows()[0] if self.keys.exists() else 0
        records: np.ndarray = np.empty(len(digests), dtype=RECORD)
        records["digest"] = digests
        records["checksum"] = checksums(stored, digests)
        _write_at(self.features, n_rows * self.row_bytes, [stored])
        _write_at(self.keys, n_rows * RECORD.itemsize, [records])

    def write_anew(self, rows: ModelRows, places: np.ndarray) -> None:
        """Copy rows of older files into these, which count only once they are complete."""
        listed = self.keys.with_suffix(".tmp")
        steps = range(0, len(places), _ROWS_AT_A_TIME)
        copies = (rows._read(places[i : i + _ROWS_AT_A_TIME])[0] for i in steps)
        try:
            _write_at(self.features, 0, copies)
            _write_at(listed, 0, [rows.records[places]])
            listed.replace(self.keys)
        except BaseException:
            self.features.unlink(missing_ok=True)
            listed.unlink(missing_ok=True)
            raise


class ModelRows:
    """The rows of one model as they were when this was opened; later ones need `refreshed`.

    Parameters
    ----------
    files : RowFiles
        Where they are.

    Attributes
    ----------
    n_rows : int
        How many there are.
    n_lost : int
        How many more are listed, but lost with the end of the file of features.
    records : ndarray of shape (n_rows,)
        Digest and checksum of each, oldest first.
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
        """Return the rows as they are now, None if there are none any more."""
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
        """Number of features of a row."""
        return self.files.width

    def find(self, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look rows up.

        Parameters
        ----------
        digests : ndarray of shape (n_rows, 2), uint64
            Digests of the rows.

        Returns
        -------
        places : ndarray of shape (n_rows,), int64
            Numbers for `take`; -1 where there is no such row, or a damaged one.
        damaged : ndarray of int
            Positions of the rows that do not have their checksum any more.
        """
        places = self._index.find(digests, self.records["digest"])
        found = np.flatnonzero(places >= 0)
        damaged = found[~self._are_intact(places[found])]
        places[damaged] = -1
        return places, damaged

    def read(self, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Look rows up and read them, in one pass over their bytes.

        Parameters
        ----------
        digests : ndarray of shape (n_rows, 2), uint64
            Digests of the rows.

        Returns
        -------
        matrix : ndarray of shape (n_rows, width), float32
            NaN for rows that are not there, or damaged.
        places, damaged : ndarray
            As of `find`.
        """
        places = self._index.find(digests, self.records["digest"])
        found = np.flatnonzero(places >= 0)
        stored, intact = self._read(places[found])
        damaged = found[~intact]
        places[damaged] = -1
        return self._spread(stored[intact] if len(damaged) else stored, places), places, damaged

    def damaged(self) -> np.ndarray:
        """Return the digests of all rows that do not have their checksum."""
        intact = self._are_intact(np.arange(self.n_rows))
        return self.records["digest"][~intact]

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return rows as a float32 array in memory; NaN where the place is -1.

        Raises
        ------
        OSError
            If a row does not have its checksum any more.
        """
        stored, intact = self._read(places[places >= 0])
        n_damaged = int((~intact).sum())
        if n_damaged:
            raise OSError(
                f"{n_damaged} rows of {self.files.features} were damaged since they were looked "
                "up. Run again: they are found out then, and computed again."
            )
        return self._spread(stored, places)

    def view(self, start: int, stop: int) -> np.ndarray:
        """Return rows that follow each other; memory-mapped if they are stored as float32."""
        if self.files.dtype != "float32":
            return self.take(np.arange(start, stop))
        return self._reader.map(np.dtype("<f4"), (self.n_rows, self.width))[start:stop]

    def _spread(self, stored: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return the stored rows as float32, with NaN between them where the place is -1."""
        rows = as_float32(stored, self.files.dtype)
        if len(rows) == len(places):
            return rows
        spread: np.ndarray = np.full((len(places), self.width), np.nan, dtype=np.float32)
        spread[places >= 0] = rows
        return spread

    def _read(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows as they are stored, and which of them have their checksums."""
        stored: np.ndarray = np.empty((len(places), self.width), STORED_DTYPES[self.files.dtype])
        if not len(places):
            return stored, np.empty(0, dtype=bool)
        self._reader.read(places, stored)
        records = self.records[places]
        return stored, checksums(stored, records["digest"]) == records["checksum"]

    def _are_intact(self, places: np.ndarray) -> np.ndarray:
        """Return which rows have their checksums, without keeping the rows."""
        intact: np.ndarray = np.empty(len(places), dtype=bool)
        order = np.argsort(places)
        for start in range(0, len(places), _ROWS_AT_A_TIME):
            some = order[start : start + _ROWS_AT_A_TIME]
            intact[some] = self._read(places[some])[1]
        return intact


def checksums(stored: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Return one number for the content of each row and whose it is."""
    digest = xxhash.xxh3_64_intdigest
    seeds = digests[:, 1].tolist()
    found = [digest(row, seed) for row, seed in zip(stored, seeds, strict=True)]
    return np.array(found, dtype=np.uint64)


def as_stored(matrix: np.ndarray, dtype: str) -> np.ndarray:
    """Round a float32 matrix to a storage dtype; refuse what is not finite then."""
    if dtype == "bfloat16":
        # NumPy has no bfloat16: its bits are kept.
        rounded = torch.from_numpy(matrix).to(torch.bfloat16)
        stored = rounded.view(torch.int16).numpy().view("<u2")
        finite = rounded.isfinite().numpy()
    else:
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(matrix, dtype=STORED_DTYPES[dtype])
        finite = np.isfinite(stored)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"The store keeps finite numbers that {dtype} can hold, got {matrix[row, column]} in "
            f"column {column} of a row. bfloat16 holds numbers as large as float32 does."
        )
    return stored


def as_float32(stored: np.ndarray, dtype: str) -> np.ndarray:
    """Return rows of a storage dtype as float32."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float32, copy=False)


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
