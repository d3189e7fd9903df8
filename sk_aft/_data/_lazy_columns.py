"""Columns of a data set on disk, whose rows are read when they are used."""

from __future__ import annotations

import errno
import glob
import os
import platform
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sk_aft._data._containers import as_objects, is_frame, select_columns, to_array
from sk_aft._data._missing import is_missing
from sk_aft._data._streams import (
    ROWS_PER_BATCH,
    are_number_lists,
    batches_of,
    column_values,
    holds_objects,
    is_path,
    is_stream,
    is_string,
    is_table,
    is_transformed,
    missing_values,
    numbers_of_lists,
    opened_files,
    several_columns,
    table_rows,
)
from sk_aft._optional import import_optional

_DISK_IS_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
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
    file : _TemporaryFile, optional
        The file of the data set, if it has to be removed.
    """

    def __init__(
        self, dataset: Any, indices: np.ndarray | None = None, file: _TemporaryFile | None = None
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
    file : _TemporaryFile or None
        The file of the data set, if it has to be removed.
    """

    def __init__(self, dataset: Any, name: str, file: _TemporaryFile | None) -> None:
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


class _TemporaryFile:
    """A file of rows that is removed with the last object that refers to it.

    Those of processes that were killed are removed with the next one that is made.
    """

    def __init__(self) -> None:
        host = re.sub(r"\W", "-", platform.node())  # processes of others may share the directory
        prefix = f"sk_aft_rows_{host}_"
        _remove_of_dead_processes(Path(tempfile.gettempdir()), prefix)
        directory = tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}_")
        self.path = str(Path(directory, "rows.arrow"))
        weakref.finalize(self, _remove, directory, os.getpid())

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy in another process does not remove it

    def __deepcopy__(self, memo: Any) -> _TemporaryFile:
        return self


def _remove(directory: str, creator: int) -> None:
    if os.getpid() == creator:  # and not a copy of the process
        shutil.rmtree(directory, ignore_errors=True)


def _remove_of_dead_processes(parent: Path, prefix: str) -> None:
    if os.name != "posix":
        return
    for directory in parent.glob(f"{glob.escape(prefix)}*"):
        creator = directory.name.removeprefix(prefix).split("_")[0]
        with suppress(OSError):  # another process has removed it
            is_own = directory.stat().st_uid == os.getuid()
            if is_own and creator.isdecimal() and not _is_alive(int(creator)):
                shutil.rmtree(directory, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


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


def opened(X: Any, columns: Sequence[str] | None = None) -> Any:
    """Return a stream as rows that can be read in any order; other rows as they are.

    Data sets of Hugging Face are read where they are, unless they transform their rows. Other
    streams are written to a temporary file first, because they may be read only once or only from
    their beginning.

    Parameters
    ----------
    X : object
        Rows of any container; see `is_stream`.
    columns : sequence of str, optional
        The columns to read of a stream; default: all.

    Returns
    -------
    X : LazyColumn, LazyFrame, DataFrame, array or object
        Tables of pyarrow, which are in memory already, and streams of columns of numbers are read
        into a DataFrame, and one column of lists of numbers into an array of their rows.
    """
    if not is_stream(X):
        return X
    if is_table(X):
        is_matrix = columns is None and are_number_lists(X.schema.types)
        return table_rows(X, None if is_matrix else columns or X.schema.names)
    datasets = import_optional("datasets", extra="streams", purpose=_PURPOSE)
    if is_path(X):
        X = opened_files(X)
    file = None
    if not isinstance(X, datasets.Dataset) or is_transformed(X):
        file = _TemporaryFile()
        _write(X, columns, file.path)
        X = datasets.Dataset.from_file(file.path)
    if columns is not None:
        missing = [name for name in columns if name not in X.column_names]
        if missing:
            raise ValueError(f"columns {missing} are missing from X, which has {X.column_names}.")
        return LazyFrame(X.select_columns(list(dict.fromkeys(columns))), file=file)
    return LazyFrame(X, file=file).as_rows()


def _write(X: Any, columns: Sequence[str] | None, path: str) -> None:
    """Write a stream to a file of Arrow."""
    arrow = import_optional("pyarrow", extra="streams", purpose=_PURPOSE)
    file = _WideningFile(path, arrow)
    try:
        for batch in batches_of(X, columns):
            file.write(_as_table(batch, columns, arrow))
        file.close()
    except OSError as error:
        if error.errno not in _DISK_IS_FULL:
            raise
        raise OSError(
            error.errno,
            f"The directory of temporary files, {os.path.dirname(path)!r}, is full: X is written "
            "there while a student trains. Set the environment variable TMPDIR to a larger one, "
            "or give a datasets.Dataset, which is read where it is.",
        ) from error
    if file.schema is None:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")


class _WideningFile:
    """A file of Arrow, whose types are widened for the tables that are written to it.

    The numbers of a later table may be floats, for example, or all values of the first missing.

    Parameters
    ----------
    path : str
        The file.
    arrow : module
        pyarrow.
    """

    schema: Any = None

    def __init__(self, path: str, arrow: Any) -> None:
        self._path = path
        self._arrow = arrow
        self._writer: Any = None

    def write(self, table: Any) -> None:
        """Append a table."""
        schema = self._schema_with(table.schema)
        if schema != self.schema:
            self._rewrite(schema)
        self._writer.write_table(table.select(schema.names).cast(schema))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()

    def _schema_with(self, others: Any) -> Any:
        if self.schema is None or others.equals(self.schema):
            return others
        if set(others.names) != set(self.schema.names):
            raise ValueError(
                f"X yields batches with different columns: {self.schema.names} and {others.names}."
            )
        try:
            # A number and a missing one, an int and a float, for example.
            schemas = [self.schema, others]
            return self._arrow.unify_schemas(schemas, promote_options="permissive")
        except (self._arrow.ArrowTypeError, self._arrow.ArrowInvalid) as error:
            raise ValueError(f"X yields batches whose types differ: {error}") from error

    def _rewrite(self, schema: Any) -> None:
        former = f"{self._path}.former"
        self.close()
        if self._writer is not None:
            os.replace(self._path, former)
        self._writer = self._arrow.ipc.new_stream(self._path, schema)
        if self.schema is not None:
            with self._arrow.OSFile(former) as file, self._arrow.ipc.open_stream(file) as reader:
                for batch in reader:
                    self._writer.write_table(self._arrow.Table.from_batches([batch]).cast(schema))
            os.remove(former)
        self.schema = schema


def _as_table(batch: Any, columns: Sequence[str] | None, arrow: Any) -> Any:
    """Return a batch of a stream as a table of pyarrow."""
    if is_frame(batch):
        frame = batch if columns is None else select_columns(batch, columns)
        is_pandas = hasattr(frame, "iloc")
        table = arrow.Table.from_pandas(frame, preserve_index=False) if is_pandas else None
        return (table or frame.to_arrow()).replace_schema_metadata()
    array = to_array(batch)
    if array.ndim == 2 and array.dtype != object:
        numbers = arrow.array(array.ravel())
        lists = arrow.FixedSizeListArray.from_arrays(numbers, array.shape[1])
        return arrow.table({"rows": lists})
    values = [
        None if is_missing(row) else os.fspath(row) if isinstance(row, os.PathLike) else row
        for row in array
    ]
    others = [row for row in values if not (row is None or isinstance(row, (str, bytes)))]
    if others:
        raise ValueError(
            f"X yields rows of type {type(others[0]).__name__}, which cannot be kept in a file "
            "while a student trains: make it a list, yield texts, paths or bytes of files, or "
            "replace a transform of a datasets.Dataset by ds.map(...)."
        )
    return arrow.table({"rows": values})
