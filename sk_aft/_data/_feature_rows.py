"""Rows of features that are read when they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

_ROWS_TO_SCALE = 4096


class FeatureRows(Protocol):
    """Features of n rows, in memory or on disk, as training reads them.

    Implemented by `FoundationFeatures`, `StoredRows`, `RowSubset`, `ScaledRows` and
    `ConcatenatedRows`.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of features."""

    @property
    def missing_mask(self) -> np.ndarray:
        """Which rows have no features, (n_rows,) bool; these are NaN."""

    @property
    def is_on_disk(self) -> bool:
        """Whether taking rows means reading a file."""

    def take(self, indices: Any) -> np.ndarray:
        """Return some of the rows as a float32 array in memory."""


class RowMatrix(Protocol):
    """All stored rows of one model, in memory or on disk, as `StoredRows` reads them."""

    is_on_disk: bool

    @property
    def width(self) -> int:
        """Number of features of a row."""

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return rows as a float32 array in memory; NaN where the index is -1."""

    def view(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive rows, without a copy if possible."""


class MatrixInMemory:
    """Rows of an array.

    Parameters
    ----------
    matrix : ndarray of shape (n_rows, n_features), float32
        The rows.
    """

    is_on_disk = False

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = matrix

    @property
    def width(self) -> int:
        """Number of features of a row."""
        return self._matrix.shape[1]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return rows as a new array; NaN where the index is -1."""
        rows = self._matrix[indices] if len(self._matrix) else np.empty((len(indices), self.width))
        if len(indices) and indices.min() < 0:
            rows[indices < 0] = np.nan
        return rows

    def view(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive rows."""
        return self._matrix[start:stop]


@dataclass(frozen=True)
class StoredRows:
    """Rows of a matrix that is usually on disk.

    Parameters
    ----------
    matrix : RowMatrix
        All stored rows of one model.
    indices : ndarray of shape (n_rows,), int64
        Which of them these rows are; -1 for rows without features.
    model : bytes, default=b""
        The digest of the model in the store's keys; empty if it is not known.
    columns : slice, default=slice(None)
        Which columns of the matrix these are.
    """

    matrix: RowMatrix
    indices: np.ndarray
    model: bytes = b""
    columns: slice = field(default_factory=lambda: slice(None))

    @classmethod
    def of_array(cls, array: np.ndarray) -> StoredRows:
        """Return the rows of an array; those that begin with NaN have no features."""
        matrix = MatrixInMemory(array.astype(np.float32, copy=False))
        return cls(matrix, np.where(np.isnan(array[:, 0]), -1, np.arange(len(array))))

    @classmethod
    def joined(cls, parts: Sequence[StoredRows]) -> StoredRows:
        """Return the rows of several matrices in memory, one after another."""
        matrices = [part.matrix.view(0, len(part)) for part in parts]
        first = np.cumsum([0, *map(len, matrices)])
        indices = [
            np.where(part.indices < 0, -1, part.indices + start)
            for part, start in zip(parts, first, strict=False)
        ]
        wide = [matrix for matrix in matrices if matrix.shape[1]]  # others have no rows
        matrix = np.concatenate(wide) if wide else matrices[0]
        return cls(MatrixInMemory(matrix), np.concatenate(indices), parts[0].model)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of these rows and of features."""
        return len(self.indices), len(range(self.matrix.width)[self.columns])

    @property
    def missing_mask(self) -> np.ndarray:
        """Which rows have no features, (n_rows,) bool."""
        return self.indices < 0

    @property
    def is_on_disk(self) -> bool:
        """Whether taking rows means reading a file."""
        return self.matrix.is_on_disk

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, indices: Any) -> np.ndarray:
        """Return some of the rows as an array in memory; NaN for rows without features."""
        # A copy, since a view would keep the other columns in memory.
        return np.ascontiguousarray(self.matrix.take(self.indices[indices])[:, self.columns])

    def subset(self, indices: Any) -> StoredRows:
        """Return some of the rows without reading them."""
        return replace(self, indices=self.indices[indices])

    def view(self) -> np.ndarray:
        """Return all rows, memory-mapped if they are consecutive in the matrix."""
        first = int(self.indices[0]) if len(self.indices) else 0
        stop = first + len(self.indices)
        if first >= 0 and np.array_equal(self.indices, np.arange(first, stop)):
            return self.matrix.view(first, stop)[:, self.columns]
        return self.take(slice(None))


class RowSubset:
    """Some rows of features, such as those of a training split.

    Parameters
    ----------
    features : FeatureRows
        All rows.
    indices : ndarray of shape (n_rows,)
        Which of them these are.
    """

    def __init__(self, features: FeatureRows, indices: np.ndarray) -> None:
        self._features = features
        self._indices = indices
        self.shape = (len(indices), features.shape[1])

    @cached_property
    def missing_mask(self) -> np.ndarray:
        """Which rows have no features, (n_rows,) bool."""
        return self._features.missing_mask[self._indices]

    @property
    def is_on_disk(self) -> bool:
        """Whether taking rows means reading a file."""
        return self._features.is_on_disk

    def take(self, indices: Any) -> np.ndarray:
        """Return some of the rows as a float32 array in memory."""
        return self._features.take(self._indices[indices])


class ScaledRows:
    """Features whose columns are multiplied by numbers.

    Parameters
    ----------
    features : FeatureRows
        The features.
    scales : ndarray of shape (n_features,), float32
        What each column is multiplied by.
    """

    def __init__(self, features: FeatureRows, scales: np.ndarray) -> None:
        self._features = features
        self._scales = scales
        self.shape = features.shape

    @property
    def missing_mask(self) -> np.ndarray:
        """Which rows have no features, (n_rows,) bool."""
        return self._features.missing_mask

    @property
    def is_on_disk(self) -> bool:
        """Whether taking rows means reading a file."""
        return self._features.is_on_disk

    def take(self, indices: Any) -> np.ndarray:
        """Return some of the rows as a float32 array in memory."""
        return self._features.take(indices) * self._scales


def scales_of(features: FeatureRows, slices: Mapping[str, slice], seed: int) -> np.ndarray:
    """Return numbers that give each slice of the features the total variance 1.

    Side by side, no model then drowns the others. Columns of a model keep their proportions.

    Parameters
    ----------
    features : FeatureRows
        Features of the training rows.
    slices : mapping of str to slice
        The columns of each model.
    seed : int
        Draws the rows that are looked at, if they are very many.

    Returns
    -------
    scales : ndarray of shape (n_features,), float32
        The same number in all columns of a slice; 1 if they do not vary.
    """
    known = np.flatnonzero(~features.missing_mask)
    some = np.sort(np.random.RandomState(seed).permutation(known)[:_ROWS_TO_SCALE])
    scales: np.ndarray = np.ones(features.shape[1], np.float32)
    if len(some):
        variances = features.take(some).var(axis=0, dtype=np.float64)
        for columns in slices.values():
            total = variances[columns].sum()
            if np.isfinite(total) and total > 0:
                scales[columns] = 1 / np.sqrt(total)
    return scales


class ConcatenatedRows:
    """The rows of several matrices one after the other, or their columns side by side.

    Parameters
    ----------
    pieces : sequence of FeatureRows or ndarray
        Matrices with equal numbers of columns (``axis=0``) or of rows (``axis=1``).
    axis : {0, 1}
        0 appends rows, 1 appends columns.
    """

    def __init__(self, pieces: Sequence[Any], axis: int) -> None:
        self._pieces: list[FeatureRows] = [
            StoredRows.of_array(piece) if isinstance(piece, np.ndarray) else piece
            for piece in pieces
        ]
        self._axis = axis
        lengths = [piece.shape[axis] for piece in self._pieces]
        self._stops = np.cumsum(lengths)
        total, other = int(self._stops[-1]), self._pieces[0].shape[1 - axis]
        self.shape = (total, other) if axis == 0 else (other, total)

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def missing_mask(self) -> np.ndarray:
        """Which rows have no features, (n_rows,) bool."""
        masks = [piece.missing_mask for piece in self._pieces]
        return np.concatenate(masks) if self._axis == 0 else np.any(masks, axis=0)

    @property
    def is_on_disk(self) -> bool:
        """Whether taking rows means reading a file."""
        return any(piece.is_on_disk for piece in self._pieces)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return some of the rows as a float32 array in memory."""
        if self._axis == 1:
            taken = [piece.take(indices) for piece in self._pieces]
            return np.concatenate(taken, axis=1, dtype=np.float32)
        rows: np.ndarray = np.empty((len(indices), self.shape[1]), dtype=np.float32)
        piece_of = np.searchsorted(self._stops, indices, side="right")
        for number, piece in enumerate(self._pieces):
            own = piece_of == number
            rows[own] = piece.take(indices[own] - (self._stops[number] - piece.shape[0]))
        return rows
