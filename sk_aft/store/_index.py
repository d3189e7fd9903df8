"""Where a row is: a sorted array in memory over the digests in a file."""

from __future__ import annotations

import numpy as np

_PLACE_BITS = np.uint64(32)
_PLACE_MASK = np.uint64(2**32 - 1)


class DigestIndex:
    """Finds digests in an append-only table of them.

    Digests are uniformly distributed, so half of their first word and their place in the table
    make one number to sort by: 8 bytes a row, and a million rows are sorted in milliseconds.
    New rows make a new sorted run; runs of similar length are merged.

    Parameters
    ----------
    runs : tuple of ndarray of uint64
        Sorted runs; made by `extended`.
    """

    def __init__(self, runs: tuple[np.ndarray, ...] = ()) -> None:
        self._runs = runs

    def extended(self, digests: np.ndarray, first: int) -> DigestIndex:
        """Return an index that knows more rows.

        Parameters
        ----------
        digests : ndarray of shape (n_rows, 2), uint64
            The digests that follow in the table.
        first : int
            Their place in the table.
        """
        places: np.ndarray = np.arange(first, first + len(digests)).astype(np.uint64)
        runs = [*self._runs, np.sort(_prefixes(digests) | places)]
        while len(runs) > 1 and len(runs[-2]) < 2 * len(runs[-1]):
            runs[-2:] = [np.sort(np.concatenate(runs[-2:]))]
        return DigestIndex(tuple(runs))

    def find(self, digests: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Return the last place of each digest in the table, -1 where it is not there.

        Parameters
        ----------
        digests : ndarray of shape (n_rows, 2), uint64
            What to look for.
        table : ndarray of shape (n_stored, 2), uint64
            All digests.
        """
        prefixes = _prefixes(digests)
        places: np.ndarray = np.full(len(digests), -1, dtype=np.int64)
        for run in self._runs:
            positions: np.ndarray = np.asarray(np.searchsorted(run, prefixes))
            rows = np.flatnonzero(positions < len(run))
            # Mostly one turn: rows that share a prefix by chance, or were written again, follow.
            while len(rows):
                entries = run[positions[rows]]
                same = (entries ^ prefixes[rows]) <= _PLACE_MASK
                rows, candidates = rows[same], (entries[same] & _PLACE_MASK).astype(np.int64)
                equal = (table[candidates] == digests[rows]).all(axis=1)
                places[rows[equal]] = np.maximum(places[rows[equal]], candidates[equal])
                positions[rows] += 1
                rows = rows[positions[rows] < len(run)]
        return places


def _prefixes(digests: np.ndarray) -> np.ndarray:
    return digests[:, 0] & ~_PLACE_MASK
