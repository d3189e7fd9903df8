"""Reading rows of a file in any order."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from pathlib import Path

import numpy as np

# A separate read costs as much time as reading this many more bytes.
_MAX_GAP = 16 * 1024
# Bytes of one read at most: they stay in the processor's cache while the rows are copied out.
_SPAN = 2 * 1024 * 1024


class RowReader:
    """Rows of equal size in a file, read on demand.

    The file is not memory-mapped, for two reasons. The operating system maps up to 2 MB around
    each row that is accessed, so nearly the whole file would soon count as this process's memory.
    And if another program truncated the file, the process would be killed by a signal; a read
    turns this into an error.

    Parameters
    ----------
    path : Path
        The file. It stays open, so its rows can be read even after it is removed.
    row_bytes : int
        Size of one row.
    """

    def __init__(self, path: Path, row_bytes: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._row_bytes = row_bytes
        self._position_lock = threading.Lock()

    def read(self, indices: np.ndarray, out: np.ndarray) -> None:
        """Read rows into ``out``; rows beyond the end of the file become zeros.

        Parameters
        ----------
        indices : ndarray of shape (n_rows,), int64
            Indices of the rows in the file.
        out : ndarray of shape (n_rows, width), C-contiguous
            Filled with the rows.
        """
        order = np.argsort(indices, kind="stable")
        offsets = indices[order] * self._row_bytes
        gap_mask = np.diff(offsets) > _MAX_GAP
        gap_mask |= np.diff(offsets // _SPAN) > 0
        edges = [0, *(np.flatnonzero(gap_mask) + 1).tolist(), len(indices)]
        positions = order.tolist()
        starts = offsets.tolist()
        for first, stop in itertools.pairwise(edges):
            if stop - first == 1:
                self._read_at(out[positions[first]], starts[first])
            elif stop > first:
                self._read_span(indices, order[first:stop], out)

    def _read_span(self, indices: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
        """Read neighbouring rows and the bytes between them in one call."""
        start, stop = int(indices[positions[0]]), int(indices[positions[-1]]) + 1
        span = np.empty((stop - start, out.shape[1]), out.dtype)
        self._read_at(span.reshape(-1), start * self._row_bytes)
        out[positions] = span[indices[positions] - start]

    def is_open_at(self, path: Path) -> bool:
        """Return whether ``path`` still refers to the open file."""
        return os.path.samestat(os.fstat(self._file.fileno()), os.stat(path))

    def map(self, dtype: np.dtype, shape: tuple[int, int]) -> np.ndarray:
        """Return the rows as one memory-mapped array."""
        return np.memmap(self._file, dtype=dtype, mode="r", shape=shape)

    def _read_at(self, part: np.ndarray, offset: int) -> None:
        n_bytes = self._read_once(part.data, offset)
        if n_bytes == part.nbytes:
            return
        # A read may return fewer bytes than requested, and the file may be too short.
        content: np.ndarray = part.view(np.uint8)
        done = n_bytes
        while n_bytes and done < len(content):
            n_bytes = self._read_once(content[done:].data, offset + done)
            done += n_bytes
        content[done:] = 0

    def _read_once(self, part: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [part], offset)
        with self._position_lock:
            self._file.seek(offset)
            return self._file.readinto(part) or 0
