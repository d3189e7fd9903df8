"""Columns of a data set on disk, whose rows are read when they are used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from sk_aft._data._arrow_columns import (
    are_number_lists,
    column_values,
    holds_objects,
    is_string,
    missing_values,
    numbers_of_lists,
)
from sk_aft._data._containers import as_objects
from sk_aft._data._streams import ROWS_PER_BATCH, several_columns
from sk_aft._data._temporary_files import TemporaryFile
from sk_aft._optional import import_optional

_ROWS_PER_MASK = 256
_PURPOSE = "training on rows from a file or a stream"


class _Reader(Protocol):
    """Reads values by their numbers."""

    def __len__(self) -> int: ...

    @property
    def missing_mask(self) -> np.ndarray:
        """Which values are missing, (n,) bool; they are not read for that."""

    @property
    def holds_strings(self) -> bool:
        """Whether the values are strings."""

    def read(self, indices: np.ndarray) -> list:
        """Return some values in this order."""


class LazyColumn:
    """Texts or images that are read when they are used; as an array of objects, (n,).

    Parameters
    ----------
    reader : _Reader
        Reads the values.
    indices : ndarray of shape (n,), int64, optional
        Which of them these are; default: all.
    """

    dtype = np.dtype(object)
    ndim = 1

    def __init__(self, reader: _Reader, indices: np.ndarray | None = None) -> None:
        self._reader = reader
        self._indices = np.arange(len(reader)) if indices is None else indices

    @classmethod
    def chained(cls, parts: Sequence[Any]) -> LazyColumn:
        """Return the values of several arrays of objects or columns, one after another."""
        return cls(_Chain(parts))

    @property
    def shape(self) -> tuple[int]:
        """Number of values."""
        return (len(self),)

    @property
    def missing_mask(self) -> np.ndarray:
        """Which values are missing, (n,) bool; they are not read for that."""
        return self._reader.missing_mask[self._indices]

    @property
    def holds_strings(self) -> bool:
        """Whether the values are strings, possibly missing."""
        return self._reader.holds_strings

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, (int, np.integer)):
            return self._reader.read(self._indices[[key]])[0]
        return LazyColumn(self._reader, self._indices[key])

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), ROWS_PER_BATCH):
            yield from self._reader.read(self._indices[start : start + ROWS_PER_BATCH])

    def loaded(self) -> np.ndarray:
        """Return the values as an array in memory."""
        return as_objects(self._reader.read(self._indices))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.loaded().astype(object if dtype is None else dtype, copy=False)

    def __repr__(self) -> str:
        return f"LazyColumn({len(self)} rows)"


class LazyFrame:
    """Columns of a data set, which are read when they are used.

    Parameters
    ----------
    dataset : datasets.Dataset
        The data set.
    indices : ndarray of shape (n,), int64, optional
        Which of its rows these are; default: all.
    file : TemporaryFile, optional
        The file of the data set, if it has to be removed.
    """

    def __init__(
        self, dataset: Any, indices: np.ndarray | None = None, file: TemporaryFile | None = None
    ) -> None:
        self._dataset = dataset
        self._file = file
        self._indices = np.arange(len(dataset)) if indices is None else indices

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._dataset.column_names)

    @property
    def dtypes(self) -> list[Any]:
        """The types of the columns in pyarrow."""
        return list(self._dataset.features.arrow_schema.types)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return len(self._indices), len(self.columns)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, list):
            return LazyFrame(self._dataset.select_columns(key), self._indices, self._file)
        if isinstance(key, str):
            return self._column(key)
        return LazyFrame(self._dataset, self._indices[key], self._file)

    def _column(self, name: str) -> Any:
        one = self._dataset.select_columns([name])
        (kind,) = one.features.arrow_schema.types
        if holds_objects(kind):
            return LazyColumn(_ColumnOfDataset(one, name, self._file), self._indices)
        table = one.with_format("arrow")[:]  # numbers and categories are small
        column = table.column(name).take(self._indices)
        return numbers_of_lists(column) if are_number_lists([kind]) else column.to_pandas()

    @property
    def is_small(self) -> bool:
        """Whether these are numbers and categories only, which fit into memory."""
        return not any(map(holds_objects, self.dtypes))

    def as_rows(self) -> Any:
        """Return the only column, or a DataFrame of numbers and categories."""
        if are_number_lists(self.dtypes):
            return self[self.columns[0]]
        if self.is_small:
            return self.loaded()
        if len(self.columns) > 1:
            raise several_columns(self.columns)
        return self[self.columns[0]]

    def loaded(self) -> Any:
        """Return the columns as a DataFrame in memory."""
        pandas = import_optional("pandas", extra="streams", purpose=_PURPOSE)
        columns = {}
        for name in self.columns:
            column = self._column(name)
            is_lazy = isinstance(column, LazyColumn)
            if is_lazy:
                column = pandas.Series(column.loaded(), dtype=object)
            columns[name] = list(column) if np.ndim(column) == 2 else column
        return pandas.DataFrame(columns)


class _ColumnOfDataset:
    """A column of a data set of Hugging Face, which maps its file into memory.

    Parameters
    ----------
    dataset : datasets.Dataset
        A data set of this column alone.
    name : str
        Its name.
    file : TemporaryFile or None
        The file of the data set, if it has to be removed.
    """

    def __init__(self, dataset: Any, name: str, file: TemporaryFile | None) -> None:
        self._dataset = dataset.with_format("arrow")
        self._name = name
        self._file = file

    def __len__(self) -> int:
        return len(self._dataset)

    @cached_property
    def missing_mask(self) -> np.ndarray:
        """Which values are missing, (n,) bool."""
        # A few rows at a time: those of selected rows are copied.
        masks = [
            missing_values(table.column(self._name)) for table in self._dataset.iter(_ROWS_PER_MASK)
        ]
        return np.concatenate([np.zeros(0, dtype=bool), *masks])

    @property
    def holds_strings(self) -> bool:
        """Whether the values are strings."""
        (kind,) = self._dataset.features.arrow_schema.types
        return is_string(kind)

    def read(self, indices: np.ndarray) -> list:
        """Return some values in this order."""
        if not len(indices):
            return []
        first, last = int(indices[0]), int(indices[-1])
        is_range = len(indices) == last - first + 1 and bool((np.diff(indices) == 1).all())
        key: Any = slice(first, last + 1) if is_range else indices.tolist()
        return column_values(self._dataset[key].column(self._name))


class _Chain:
    """Values of several arrays of objects or columns, one after another."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = list(parts)
        self._stops = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._stops[-1])

    @cached_property
    def missing_mask(self) -> np.ndarray:
        """Which values are missing, (n,) bool."""
        return np.concatenate([which_are_missing(part) for part in self._parts])

    @property
    def holds_strings(self) -> bool:
        """Whether the values are strings."""
        return all(map(are_strings, self._parts))

    def read(self, indices: np.ndarray) -> list:
        """Return some values in this order."""
        values: np.ndarray = np.empty(len(indices), dtype=object)
        part_of = np.searchsorted(self._stops, indices, side="right")
        for number, part in enumerate(self._parts):
            mine = np.flatnonzero(part_of == number)
            if len(mine):
                first = self._stops[number] - len(part)
                some = part[indices[mine] - first]
                values[mine] = some.loaded() if isinstance(some, LazyColumn) else some
        return list(values)


def which_are_missing(values: np.ndarray | LazyColumn) -> np.ndarray:
    """Return which texts or images of an array of objects or of a column are None, (n,) bool."""
    if isinstance(values, LazyColumn):
        return values.missing_mask
    return np.array([value is None for value in values], dtype=bool)


def are_strings(values: np.ndarray | LazyColumn) -> bool:
    """Return whether the first value of an array of objects, or a column, is a string."""
    if isinstance(values, LazyColumn):
        return values.holds_strings
    return isinstance(next((value for value in values if value is not None), ""), str)
