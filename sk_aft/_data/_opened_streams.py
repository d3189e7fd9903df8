"""Streams as rows that can be read in any order."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

from sk_aft._data._containers import is_frame, select_columns, to_array
from sk_aft._data._lazy_columns import LazyFrame
from sk_aft._data._missing import is_missing
from sk_aft._data._streams import (
    are_number_lists,
    batches_of,
    is_path,
    is_stream,
    is_table,
    is_transformed,
    opened_files,
    table_rows,
)
from sk_aft._data._temporary_files import TemporaryFile
from sk_aft._optional import import_optional

_DISK_IS_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_PURPOSE = "training on rows from a file or a stream"


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
        file = TemporaryFile()
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
