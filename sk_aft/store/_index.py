"""The index of a model's rows: sorted arrays in memory over the digests in a file."""

from __future__ import annotations

import numpy as np

_INDEX_MASK = np.uint64(2**32 - 1)


class DigestIndex:
    """Finds digests in an append-only table.

    Digests are uniformly distributed, so the upper half of a digest's first word and its index
    in the table are packed into one 64-bit sort key: 8 bytes a row, and a million rows are sorted
    in milliseconds. New rows form a new sorted run; runs of similar length are merged.

    Parameters
    ----------
    runs : tuple of ndarray of uint64
        Sorted runs; made by `extended`.
    """

    def __init__(self, runs: tuple[np.ndarray, ...] = ()) -> None:
        self._runs = runs

    def extended(self, digests: np.ndarray, first: int) -> DigestIndex:
        """Return an index that covers more rows.

        Parameters
        ----------
        digests : ndarray of shape (n_rows, 2), uint64
            The digests appended to the table.
        first : int
            Index of the first of them in the table.
        """
        indices: np.ndarray = np.arange(first, first + len(digests)).astype(np.uint64)
        runs = [*self._runs, np.sort(_prefixes(digests) | indices)]
        while len(runs) > 1 and len(runs[-2]) < 2 * len(runs[-1]):
            runs[-2:] = [np.sort(np.concatenate(runs[-2:]))]
        return DigestIndex(tuple(runs))

    def find(self, digests: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Return the last index of each digest in the table, -1 if it is not there.

        Parameters
        ----------
        digests : ndarray of shape (n_rows, 2), uint64
            Digests to look up.
        table : ndarray of shape (n_stored, 2), uint64
            All digests.
        """
        prefixes = _prefixes(digests)
        indices: np.ndarray = np.full(len(digests), -1, dtype=np.int64)
        for run in self._runs:
            positions: np.ndarray = np.asarray(np.searchsorted(run, prefixes))
            pending = np.flatnonzero(positions < len(run))
            # Usually one iteration. More are needed for digests that share a prefix by chance
            # and for rows that were written more than once.
            while len(pending):
                entries = run[positions[pending]]
                prefix_mask = (entries ^ prefixes[pending]) <= _INDEX_MASK
                pending = pending[prefix_mask]
                candidates = (entries[prefix_mask] & _INDEX_MASK).astype(np.int64)
                equal_mask = (table[candidates] == digests[pending]).all(axis=1)
                matched = pending[equal_mask]
                indices[matched] = np.maximum(indices[matched], candidates[equal_mask])
                positions[pending] += 1
                pending = pending[positions[pending] < len(run)]
        return indices


def _prefixes(digests: np.ndarray) -> np.ndarray:
    return digests[:, 0] & ~_INDEX_MASK
