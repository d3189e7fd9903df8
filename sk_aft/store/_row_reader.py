"""Read rows of a file in any order."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from pathlib import Path

import numpy as np

# Reading a row of its own costs as much time as reading this many bytes more.
_MAX_GAP = 16 * 1024
# Read at once, to be in the processor's cache when its rows are picked.
_SPAN = 2 * 1024 * 1024
_HAS_PREADV = hasattr(os, "preadv")


class RowReader:
    """Rows of equal size in a file, read when asked for.

    The file is not mapped into memory: the operating system maps up to 2 MB around each row that
    is touched, so that a map soon counts as memory of this process in whole; and a file that
    another program truncates would end the process, where here it is an error.

    Parameters
    ----------
    path : Path
        The file. It stays open, so these rows can be read even after it was removed.
    row_bytes : int
        Size of a row.
    """

    def __init__(self, path: Path, row_bytes: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._row_bytes = row_bytes
        self._position = threading.Lock()

    def read(self, places: np.ndarray, out: np.ndarray) -> None:
        """Fill ``out`` with the rows at ``places``; with zeros where the file has no such row.

        Parameters
        ----------
        places : ndarray of shape (n_rows,), int64
            Which rows.
        out : ndarray of shape (n_rows, width), C-contiguous
            Where to put them.
        """
        order = np.argsort(places, kind="stable")
        offsets = places[order] * self._row_bytes
        is_far = np.diff(offsets) > _MAX_GAP
        is_far |= np.diff(offsets // _SPAN) > 0
        edges = [0, *(np.flatnonzero(is_far) + 1).tolist(), len(places)]
        first_of_each = order.tolist()
        starts = offsets.tolist()
        for first, stop in itertools.pairwise(edges):
            if stop - first == 1:
                self._read_at(out[first_of_each[first]], starts[first])
            elif stop > first:
                self._read_span(places, order[first:stop], out)

    def _read_span(self, places: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
        """Read rows that are near each other, and what is between them, at once."""
        start, stop = int(places[rows[0]]), int(places[rows[-1]]) + 1
        span = np.empty((stop - start, out.shape[1]), out.dtype)
        self._read_at(span.reshape(-1), start * self._row_bytes)
        out[rows] = span[places[rows] - start]

    def is_open_at(self, path: Path) -> bool:
        """Whether the open file is the one that is at ``path`` now."""
        return os.path.samestat(os.fstat(self._file.fileno()), os.stat(path))

    def map(self, dtype: np.dtype, shape: tuple[int, int]) -> np.ndarray:
        """Return the rows as a memory-mapped array, for whoever wants all of them as one."""
        return np.memmap(self._file, dtype=dtype, mode="r", shape=shape)

    def _read_at(self, part: np.ndarray, offset: int) -> None:
        n_bytes = self._read_once(part.data, offset)
        if n_bytes == part.nbytes:
            return
        # It may come in pieces, or end too early.
        content: np.ndarray = part.view(np.uint8)
        done = n_bytes
        while n_bytes and done < len(content):
            n_bytes = self._read_once(content[done:].data, offset + done)
            done += n_bytes
        content[done:] = 0

    def _read_once(self, part: memoryview, offset: int) -> int:
        if _HAS_PREADV:
            return os.preadv(self._file.fileno(), [part], offset)
        with self._position:
            self._file.seek(offset)
            return self._file.readinto(part) or 0
