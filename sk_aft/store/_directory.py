"""The directory of a store: its models, their rows and locks, and errors of writing explained."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from sk_aft._runtime._threads import call_after_fork
from sk_aft.store._keys import DIGEST_SIZE, model_digest
from sk_aft.store._model_rows import ModelRows, RowFiles, drop_rows

_UNUSABLE = (
    "The feature store cannot be written to ({}): give cache= (or the variable SK_AFT_CACHE) a "
    "directory of your own, or cache=None to keep features in memory"
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)

# Open models and counts of look-ups, shared by all FeatureStore objects of this process.
_lock = threading.Lock()
_open_models: dict[Path, ModelRows] = {}
_lookups: dict[Path, dict[str, int]] = {}


class StoreDirectory:
    """What `FeatureStore` keeps on disk.

    Parameters
    ----------
    path : Path
        The directory.
    read_only : bool, default=False
        Whether anything that would write raises.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only

    def __str__(self) -> str:
        return f"the feature store {str(self.path)!r}"

    def of_model(self, model: bytes) -> Path:
        """Return the directory of a model."""
        return self.path / model.hex()

    def models(self) -> list[bytes]:
        """Return the digests of all models."""
        if not self.path.is_dir():
            return []
        names = sorted(path.name for path in self.path.iterdir() if path.is_dir())
        return [bytes.fromhex(name) for name in names if _is_digest(name)]

    def description(self, model: bytes) -> dict[str, Any] | None:
        """Return the registered description; None if there is none or the file is damaged."""
        try:
            text = (self.of_model(model) / "model.json").read_text(encoding="utf-8")
            description = json.loads(text)
            is_intact = model == model_digest(description["fingerprint"], description["dtype"])
            return description if is_intact else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def describe(self, model: bytes, description: dict[str, Any]) -> None:
        """Register a model's name, dtype and fingerprint."""
        path = self.of_model(model) / "model.json"
        with self.writing(), self.lock(model):
            self.make_directory(path.parent)
            written = path.with_suffix(".tmp")
            written.write_text(json.dumps(description, indent=1), encoding="utf-8")
            written.replace(path)

    def name(self, model: bytes) -> str:
        """Return a model's name; empty if it is not known."""
        description = self.description(model)
        return description["name"] if description else ""

    def last_used(self, model: bytes) -> float:
        """Return when a model was last registered, in seconds since 1970."""
        path = self.of_model(model)
        description = path / "model.json"
        return (description if description.exists() else path).stat().st_mtime

    def note_use(self, model: bytes) -> None:
        """Record that a model is used, if that can be written."""
        path = self.of_model(model) / "model.json"
        if not self.read_only and os.access(path, os.W_OK):
            os.utime(path)

    def rows(self, model: bytes) -> ModelRows | None:
        """Return the current rows of a model, None if there are none."""
        directory = self.of_model(model).absolute()
        for attempt in range(3):
            with _lock:
                try:
                    known = _open_models.get(directory)
                    files = RowFiles.latest(directory) if known is None else None
                    if known is not None:
                        rows = known.refreshed()
                    else:
                        rows = None if files is None else ModelRows(files)
                except FileNotFoundError:  # another process is removing or rewriting them
                    _open_models.pop(directory, None)
                    if attempt == 2:
                        raise
                    continue
                if rows is None:
                    _open_models.pop(directory, None)
                else:
                    _open_models[directory] = rows
                    if rows is not known and rows.n_lost:
                        self._warn_of_damage(rows.n_lost)
                return rows
        raise AssertionError("unreachable")

    def locate(
        self, model: bytes, digests: np.ndarray
    ) -> tuple[ModelRows | None, np.ndarray, np.ndarray]:
        """Return the model's current rows, and what `ModelRows.find` returns."""
        rows = self.rows(model)
        return (rows, *(none_found(digests) if rows is None else rows.find(digests)))

    def add(
        self,
        model: bytes,
        digests: np.ndarray,
        width: int,
        dtype: str,
        stored_of: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> int:
        """Append the rows that are not there; they are on disk when this returns.

        Parameters
        ----------
        model : bytes of length 16
            Digest of the model.
        digests : ndarray of shape (n_rows, 2), uint64
            Digests of the rows.
        width, dtype : int, str
            Number of features, and the type in which they are stored.
        stored_of : callable
            Maps positions of absent rows to (records, features as stored) of those that shall be
            appended; called while no other process writes.

        Returns
        -------
        n_rows : int
            Number of rows appended.
        """
        with self.writing(), self.lock(model):
            rows, indices, _ = self.locate(model, digests)
            if rows is not None and rows.n_lost:
                drop_rows(rows, first=0)  # drops the lost rows from the list
                rows, indices, _ = self.locate(model, digests)
            absent = np.flatnonzero(indices < 0)
            if not len(absent):
                return 0
            # A row that is given twice is stored once.
            fresh = absent[np.sort(np.unique(digests[absent], axis=0, return_index=True)[1])]
            directory = self.of_model(model)
            if rows is None:
                self.make_directory(directory)
                files = RowFiles.next(directory, width, dtype)
            else:
                files = rows.files
            if files.width != width:
                raise ValueError(
                    f"The store holds {files.width} features per row of this model, got "
                    f"{width}. A model whose width changed needs another fingerprint."
                )
            records, stored = stored_of(fresh)
            if len(records):
                files.append(records, stored)
            return len(records)

    def count(self, indices: np.ndarray, damaged: np.ndarray) -> None:
        """Count hits and misses of this process, and warn of damaged rows."""
        hits = int((indices >= 0).sum())
        with _lock:
            counts = _lookups.setdefault(self.path.absolute(), {"hits": 0, "misses": 0})
            counts["hits"] += hits
            counts["misses"] += len(indices) - hits
        if len(damaged):
            self._warn_of_damage(len(damaged))

    @property
    def lookups(self) -> dict[str, int]:
        """The numbers of "hits" and "misses" of this process."""
        return dict(_lookups.get(self.path.absolute(), {"hits": 0, "misses": 0}))

    @property
    def locks(self) -> Path:
        """The directory of locks; made if it is not there."""
        self.check_writable()
        self.make_directory(self.path / "locks")
        return self.path / "locks"

    def lock(self, model: bytes) -> filelock.BaseFileLock:
        """Return the lock for writing a model's rows; it is released when its process ends."""
        return filelock.FileLock(self.locks / f"{model.hex()}.lock", mode=0o600)

    def check_writable(self) -> None:
        """Raise if the store was opened read-only."""
        if self.read_only:
            raise io.UnsupportedOperation(
                f"{self} was opened read-only, so nothing is added to it or removed from it: open "
                "it without read_only=True, or merge it into a store of your own "
                "(FeatureStore.merge)."
            )

    def make_directory(self, path: Path) -> None:
        """Make the store and a directory in it, readable by this user only."""
        try:
            for directory in (self.path, path):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise
            message = _UNUSABLE.format(error.strerror)
            raise type(error)(error.errno, message, str(self.path)) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Re-raise errors of writing with an explanation of what to do."""
        self.check_writable()
        try:
            yield
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise OSError(
                    error.errno,
                    "The disk of the feature store is full. Features computed before this batch "
                    "are kept: free space (FeatureStore.reduce_size, remove) and run again to "
                    "resume, or give cache= a directory on another disk",
                    str(self.path),
                ) from error
            if error.errno in _NOT_PERMITTED:
                message = _UNUSABLE.format(error.strerror)
                raise type(error)(error.errno, message, str(self.path)) from error
            raise

    def _warn_of_damage(self, n_rows: int) -> None:
        warnings.warn(
            f"{n_rows} rows in {self} are damaged: a file differs from what was written. They are "
            "not used, and are computed again when their features are needed.",
            stacklevel=4,
        )


def none_found(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what `ModelRows.find` returns of a model without rows."""
    return np.full(len(digests), -1, dtype=np.int64), np.empty(0, dtype=np.int64)


def _is_digest(name: str) -> bool:
    return len(name) == 2 * DIGEST_SIZE and not set(name) - set("0123456789abcdef")


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.Lock()


call_after_fork(_reset_after_fork)
