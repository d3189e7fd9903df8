"""A Parquet file of features, written and read piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sk_aft.store._feature_columns import arrow, explained, open_column, parquet_batches, rows_of
from sk_aft.store._keys import DIGEST_SIZE
from sk_aft.store._model_rows import as_float32, as_stored, flush

# More than any model has; see `_check_lengths`.
_MOST_FEATURES = 1_000_000


def write_rows(
    path: Path,
    metadata: dict[str, str],
    shape: tuple[int, int],
    dtype: str,
    pieces: Iterable[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Write digests and features, a row group for each piece; parameters as in `_safetensors`.

    Parquet has no bfloat16, and float16 only since pyarrow 15: all are written as float32.
    """
    pyarrow, parquet = arrow("pyarrow"), arrow("pyarrow.parquet")
    width = shape[1]
    fields = [("digest", pyarrow.binary(DIGEST_SIZE)), ("features", _lists(width))]
    schema = pyarrow.schema(fields, metadata=metadata)
    options = {"use_dictionary": False, "write_statistics": False}  # no two numbers are equal
    with parquet.ParquetWriter(path, schema, **options) as writer:
        for digests, stored in pieces:
            values = pyarrow.array(as_float32(stored, dtype).reshape(-1))
            columns = [
                pyarrow.array([row.tobytes() for row in digests], pyarrow.binary(DIGEST_SIZE)),
                pyarrow.FixedSizeListArray.from_arrays(values, width),
            ]
            writer.write_table(pyarrow.table(columns, schema=schema), row_group_size=len(digests))
    flush(path)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file; what is not text is left out."""
    with explained(path), arrow("pyarrow.parquet").ParquetFile(path) as file:
        metadata = file.schema_arrow.metadata or {}
    return {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in metadata.items()
    }


def read_rows(path: Path, dtype: str, n_bytes: int) -> tuple[int, Iterator]:
    """Return the width of a file of features, and its (digests, stored features) in pieces.

    A piece has at least one row, and no more than ``n_bytes`` of features or a few thousand rows.
    """
    pyarrow = arrow("pyarrow")
    open_column(path, "features")
    with explained(path), arrow("pyarrow.parquet").ParquetFile(path) as file:
        schema = file.schema_arrow
        if "digest" not in schema.names or schema.field("digest").type != pyarrow.binary(16):
            raise ValueError(f"{path} has no column 'digest' of {DIGEST_SIZE} bytes in each row.")
        _check_lengths(file, path)
    with explained(path):
        first = next(parquet_batches(path, ["features"], 1), None)
    width = 0 if first is None else rows_of(first.column("features"), path)[0].shape[1]
    most_rows = max(1, n_bytes // (4 * max(1, width)))
    return width, _pieces(path, dtype, width, most_rows)


def _pieces(
    path: Path, dtype: str, width: int, most_rows: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    like: np.ndarray = np.empty((0, width), np.float32)
    first_row = 0
    with explained(path):
        for batch in parquet_batches(path, ["digest", "features"], most_rows):
            digests, features = batch.column("digest"), batch.column("features")
            if digests.null_count or features.null_count:
                raise ValueError(f"{path} has rows that are null: expected none.")
            rows, _ = rows_of(features, path, first_row, like)
            matrix: np.ndarray = rows.astype(np.float32)  # a copy, as Arrow's is read-only
            finite_mask = np.isfinite(matrix).all(axis=1)
            if not finite_mask.all():
                row = first_row + int(np.flatnonzero(~finite_mask)[0])
                raise ValueError(f"Row {row} of {path} has NaN or infinity: no store wrote it.")
            stored = as_stored(matrix, dtype)
            if not np.array_equal(as_float32(stored, dtype), rows):
                raise ValueError(f"The features of {path} are not numbers of type {dtype}.")
            yield np.frombuffer(b"".join(digests.to_pylist()), "<u8").reshape(-1, 2), stored
            first_row += len(rows)


def _check_lengths(file: Any, path: Path) -> None:
    """Raise ValueError for lists that are too long, before they are decoded.

    A few kilobytes may hold one list of many millions of numbers that are all the same.
    """
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = (group.column(i) for i in range(group.num_columns))
        n_values = sum(c.num_values for c in chunks if c.path_in_schema.startswith("features."))
        if n_values > group.num_rows * _MOST_FEATURES:
            raise ValueError(
                f"{path} has {n_values // group.num_rows:,} features in each row: expected at most "
                f"{_MOST_FEATURES:,}."
            )


def _lists(width: int) -> object:
    pyarrow = arrow("pyarrow")
    return pyarrow.list_(pyarrow.float32(), width)
