"""A column of features in Parquet and Arrow files, read with the memory of the result only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sk_aft._data._table_files import PARQUET_SUFFIXES
from sk_aft._optional import import_optional

# Larger batches need more memory and are no faster.
_ROWS_PER_BATCH = 2048
# Without a buffer pyarrow reads a whole row group before it decodes the first row.
_BUFFER_BYTES = 64 * 1024


class Column(NamedTuple):
    """A column of one file.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        The column.
    n_rows : int
        Number of rows.
    """

    path: Path
    name: str
    n_rows: int

    def chunks(self) -> Iterator[Any]:
        """Yield the column as Arrow arrays, a few rows at a time."""
        with explained(self.path):
            if self.path.suffix in PARQUET_SUFFIXES:
                yield from (batch.column(0) for batch in parquet_batches(self.path, [self.name]))
                return
            with _arrow_batches(self.path, self.name) as batches:
                yield from (batch.column(self.name) for batch in batches)

    def mapped(self) -> np.ndarray | None:
        """Return the rows memory-mapped; None if the file does not hold them as one array."""
        if self.path.suffix in PARQUET_SUFFIXES:
            return None
        # pyarrow copies the column if it is told which one is needed.
        with explained(self.path), _arrow_batches(self.path, None) as batches:
            chunk = batches.only_chunk(self.name)
            if chunk is None or chunk.null_count:
                return None
            rows, _ = rows_of(chunk, self.path)
            offset = batches.offset_of(rows)
        if offset is None or rows.dtype != np.dtype("<f4") or not rows.size:
            return None
        # An array that NumPy has mapped is passed to other processes without a copy.
        return np.memmap(self.path, "<f4", mode="r", offset=offset, shape=rows.shape)


def arrow(name: str) -> Any:
    """Return pyarrow or a module of it."""
    return import_optional(name, extra="arrow", purpose="features in Parquet and Arrow files")


def open_column(path: Path, name: str) -> Column:
    """Return a column of a file, checked; raise if it cannot hold features."""
    with explained(path):
        if path.suffix in PARQUET_SUFFIXES:
            with arrow("pyarrow.parquet").ParquetFile(path) as file:
                schema, n_rows = file.schema_arrow, file.metadata.num_rows
            _check_column(schema, name, path)
        else:
            with _arrow_batches(path, None) as batches:
                _check_column(batches.schema, name, path)
            with _arrow_batches(path, name) as batches:
                n_rows = sum(batch.num_rows for batch in batches)
    return Column(path, name, n_rows)


def read_columns(columns: list[Column]) -> np.ndarray:
    """Return the rows of all columns as one float32 array; null rows become NaN.

    The array is allocated once, and each batch is decoded and copied into it. Reading a whole
    column as one Arrow array without this copy takes up to five times the memory, because
    pyarrow's buffers grow by doubling.
    """
    n_rows = sum(column.n_rows for column in columns)
    matrix: np.ndarray | None = None
    start = 0
    for column in columns:
        first_row = start
        for chunk in column.chunks():
            stop = start + len(chunk)
            rows, valid_mask = rows_of(chunk, column.path, start - first_row, matrix)
            if matrix is None and rows.shape[1]:
                matrix = np.empty((n_rows, rows.shape[1]), np.float32)
                matrix[:start] = np.nan
            if matrix is not None:
                target = matrix[start:stop]
                if valid_mask is None:
                    target[:] = rows
                else:
                    target[:] = np.nan
                    target[valid_mask] = rows
            start = stop
    if matrix is None:
        raise ValueError(f"{columns[0].path} has no row with features.")
    return matrix


def rows_of(
    chunk: Any, path: Path, first_row: int = 0, like: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the lists of an Arrow array as a matrix, a view if possible.

    Parameters
    ----------
    chunk : pyarrow.Array
        Lists of numbers.
    path : Path
        For messages.
    first_row : int, default=0
        Number of the first row, for messages.
    like : ndarray, optional
        A matrix whose width the lists have to have.

    Returns
    -------
    rows : ndarray of shape (n_valid, n_features)
        The lists that are not null; no columns if there are none.
    valid_mask : ndarray of shape (n_rows,), bool, or None
        Which rows these are; None if no row is null.
    """
    if isinstance(chunk.type, arrow("pyarrow").BaseExtensionType):
        chunk = chunk.storage
    valid_mask = None
    if chunk.null_count:
        valid_mask = np.asarray(chunk.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
        if not valid_mask.any():
            return np.empty((0, 0 if like is None else like.shape[1]), np.float32), valid_mask
        chunk = chunk.drop_null()
    lengths = np.asarray(arrow("pyarrow.compute").list_value_length(chunk))
    width = int(lengths[0]) if like is None and len(lengths) else 0
    width = width if like is None else like.shape[1]
    if (lengths != width).any() or (len(lengths) and width == 0):
        position = int(np.flatnonzero((lengths != width) | (width == 0))[0])
        row = position if valid_mask is None else int(np.flatnonzero(valid_mask)[position])
        raise ValueError(
            f"Row {first_row + row} of the features in {path} has {lengths[position]} numbers, but "
            f"the first has {width}: expected the same number, at least 1, in all rows."
        )
    values = chunk.flatten()
    if values.null_count:
        raise ValueError(
            f"A list of features in {path} holds null instead of a number: write null instead of "
            "the list for a row without features."
        )
    return values.to_numpy(zero_copy_only=False).reshape(-1, width), valid_mask


def parquet_batches(
    path: Path, columns: list[str], most_rows: int = _ROWS_PER_BATCH
) -> Iterator[Any]:
    """Yield record batches of a Parquet file, a few rows at a time."""
    module = arrow("pyarrow.parquet")
    with module.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
        yield from file.iter_batches(batch_size=min(most_rows, _ROWS_PER_BATCH), columns=columns)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Name the file in errors of pyarrow."""
    pyarrow = arrow("pyarrow")
    try:
        yield
    except (pyarrow.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the operating system
            raise
        raise ValueError(f"{path} cannot be read; is it damaged? {error}") from error


@contextmanager
def _arrow_batches(path: Path, column: str | None) -> Iterator[_ArrowBatches]:
    """Yield the record batches of an Arrow file, memory-mapped; ``column`` is needed of them."""
    pyarrow, ipc = arrow("pyarrow"), arrow("pyarrow.ipc")
    with pyarrow.memory_map(str(path)) as source:
        content = source.read_buffer()
        is_file = content.size >= 6 and content[:6].to_pybytes() == b"ARROW1"
        open_reader = ipc.open_file if is_file else ipc.open_stream
        with open_reader(content) as reader:
            schema = reader.schema
        fields = None if column is None else [schema.get_field_index(column)]
        with open_reader(content, options=ipc.IpcReadOptions(included_fields=fields)) as reader:
            yield _ArrowBatches(reader, schema, content, is_file)


class _ArrowBatches:
    """The record batches of a file or stream."""

    def __init__(self, reader: Any, schema: Any, content: Any, is_file: bool) -> None:
        self.schema = schema
        self._reader = reader
        self._content = content
        self._is_file = is_file

    def __iter__(self) -> Iterator[Any]:
        if not self._is_file:
            return iter(self._reader)
        return (self._reader.get_batch(i) for i in range(self._reader.num_record_batches))

    def only_chunk(self, column: str) -> Any:
        """Return a column of the only batch; None if there are none or several."""
        if self._is_file and self._reader.num_record_batches != 1:
            return None
        batches = list(itertools.islice(self, 2))
        return batches[0].column(column) if len(batches) == 1 else None

    def offset_of(self, rows: np.ndarray) -> int | None:
        """Return where in the file an array lies; None if it was decompressed or converted."""
        offset = rows.ctypes.data - self._content.address
        return offset if 0 <= offset <= self._content.size - rows.nbytes else None


def _check_column(schema: Any, name: str, path: Path) -> None:
    if name not in schema.names:
        raise ValueError(f"{path} has no column {name!r}; it has {schema.names}.")
    pyarrow = arrow("pyarrow")
    types = pyarrow.types
    found = kind = schema.field(name).type
    if isinstance(kind, pyarrow.BaseExtensionType):
        kind = kind.storage_type
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    is_empty = types.is_null(kind) or (is_list and types.is_null(kind.value_type))
    if not is_empty and not (is_list and types.is_floating(kind.value_type)):
        raise ValueError(
            f"Column {name!r} of {path} is of type {found}: expected lists of floating-point "
            "numbers, one list for each row."
        )
