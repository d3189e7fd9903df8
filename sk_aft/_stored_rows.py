"""Rows of features that are read when somebody asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class RowMatrix(Protocol):
    """Rows of features, in memory or on disk."""

    is_on_disk: bool

    @property
    def width(self) -> int:
        """Number of features of a row."""

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return rows as a float32 array in memory; NaN where the place is -1."""

    def view(self, start: int, stop: int) -> np.ndarray:
        """Return rows that follow each other, not copied if that can be avoided."""


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

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return rows as an array of their own; NaN where the place is -1."""
        rows = self._matrix[places] if len(self._matrix) else np.empty((len(places), self.width))
        if len(places) and places.min() < 0:
            rows[places < 0] = np.nan
        return rows

    def view(self, start: int, stop: int) -> np.ndarray:
        """Return rows that follow each other."""
        return self._matrix[start:stop]


@dataclass(frozen=True)
class StoredRows:
    """Rows of a matrix that is usually on disk: gathered when asked for.

    Parameters
    ----------
    matrix : RowMatrix
        All stored rows of one model.
    places : ndarray of shape (n_rows,), int64
        Which of them these rows are; -1 for rows without features.
    """

    matrix: RowMatrix
    places: np.ndarray

    @classmethod
    def of_array(cls, array: np.ndarray) -> StoredRows:
        """Return the rows of an array."""
        matrix = MatrixInMemory(array.astype(np.float32, copy=False))
        return cls(matrix, np.arange(len(array)))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of these rows and of features."""
        return len(self.places), self.matrix.width

    @property
    def is_on_disk(self) -> bool:
        """Whether taking rows means reading a file."""
        return self.matrix.is_on_disk

    @property
    def is_masked(self) -> np.ndarray:
        """Which rows have no features, (n_rows,) bool."""
        return self.places < 0

    def __len__(self) -> int:
        return len(self.places)

    def take(self, indices: Any) -> np.ndarray:
        """Return some of the rows as an array in memory; NaN for rows without features."""
        return self.matrix.take(self.places[indices])

    def subset(self, indices: Any) -> StoredRows:
        """Return some of the rows without reading them."""
        return StoredRows(self.matrix, self.places[indices])

    def view(self) -> np.ndarray:
        """Return all rows, still memory-mapped where they follow each other in the matrix."""
        first = int(self.places[0]) if len(self.places) else 0
        stop = first + len(self.places)
        if first >= 0 and np.array_equal(self.places, np.arange(first, stop)):
            return self.matrix.view(first, stop)
        return self.matrix.take(self.places)
