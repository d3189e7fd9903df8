"""Claims: processes that share a store announce which rows they compute, so none is done twice."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType

import filelock
import numpy as np

from sk_aft.store._keys import DIGEST_SIZE


class Claims:
    """The rows of one model that this worker is computing; a context manager.

    A worker writes the digests of its rows to a file and holds an operating system lock on a
    second file beside it. The lock is released when the process ends, and the claim ends with
    it: the next process that needs the rows claims them.

    Files of a process that was killed have no effect. They stay until another process claims rows
    of the model, which removes them.

    Parameters
    ----------
    directory : Path
        Directory of the claims on one model's rows.
    lock : filelock.BaseFileLock
        Held while claims are read and written, so that no two workers claim the same row.
    writing : callable, optional
        Returns a context manager in which files are written; it explains errors.
    """

    def __init__(
        self,
        directory: Path,
        lock: filelock.BaseFileLock,
        writing: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self._directory = directory
        self._lock = lock
        self._writing = writing
        self._rows = directory / f"{uuid.uuid4().hex}.rows"
        self._alive = filelock.FileLock(_lock_of(self._rows))

    def __enter__(self) -> Claims:
        with self._writing(), self._lock:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made first and removed last: a lock file without rows would not be found.
            self._rows.touch()
            self._alive.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._alive.release()
            _lock_of(self._rows).unlink(missing_ok=True)
            self._rows.unlink(missing_ok=True)

    def claim(
        self, digests: Sequence[bytes], missing: Callable[[], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Claim rows; this replaces earlier claims.

        Parameters
        ----------
        digests : sequence of bytes of length 16
            Digests of the rows that are needed, all distinct.
        missing : callable
            Returns the indices of those that are not in the store; called while no other worker
            can write or claim.

        Returns
        -------
        mine : ndarray of int
            Indices of the rows that this worker has to compute now.
        others : ndarray of int
            Indices of the rows that other workers are computing.
        """
        with self._writing(), self._lock:
            claimed = self._claimed_by_others()
            absent = missing()
            others_mask = np.array([digests[i] in claimed for i in absent.tolist()], dtype=bool)
            mine = absent[~others_mask]
            self._rows.write_bytes(b"".join(digests[i] for i in mine.tolist()))
        return mine, absent[others_mask]

    def _claimed_by_others(self) -> set[bytes]:
        claimed: set[bytes] = set()
        for rows in self._directory.glob("*.rows"):
            if rows == self._rows:
                continue
            if _is_held(_lock_of(rows)):
                content = rows.read_bytes()
                claimed.update(
                    content[start : start + DIGEST_SIZE]
                    for start in range(0, len(content), DIGEST_SIZE)
                )
            else:
                rows.unlink(missing_ok=True)
        return claimed


def _lock_of(rows: Path) -> Path:
    return rows.with_suffix(".lock")


def _is_held(path: Path) -> bool:
    """Return whether a running process holds a lock; remove the lock file of one that ended."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    lock.release()
    path.unlink(missing_ok=True)
    return False
