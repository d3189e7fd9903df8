"""Rows that are read batch by batch: files of tables, data sets and iterators."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sk_aft._data._arrow_columns import (
    are_number_lists,
    column_values,
    file_of,
    holds_objects,
    is_string,
    numbers_of_lists,
)
from sk_aft._data._arrow_columns import are_numbers as _are_numbers
from sk_aft._data._containers import as_objects, is_frame
from sk_aft._data._images import is_pil_image
from sk_aft._data._table_files import (
    ARROW_SUFFIXES,
    CSV_SUFFIXES,
    PARQUET_SUFFIXES,
    suffix_of,
    table_files,
)
from sk_aft._optional import import_optional

ROWS_PER_BATCH = 8192
# A batch of images or long texts has fewer rows, so that it does not fill the memory.
_BYTES_PER_BATCH = 64 << 20
_ROWS_PER_READ = 1024
_ROWS_PER_TRANSFORM = 64  # which may decode images
_READ_AHEAD = {"batch_size": _ROWS_PER_READ, "batch_readahead": 1, "fragment_readahead": 0}
_FORMATS = {
    **dict.fromkeys(CSV_SUFFIXES, "csv"),
    **dict.fromkeys(PARQUET_SUFFIXES, "parquet"),
    **dict.fromkeys(ARROW_SUFFIXES, "ipc"),
}
_PURPOSE = "rows from files of tables"


def is_stream(X: Any) -> bool:
    """Return whether these are rows that are read batch by batch.

    Files of tables (a path, a directory or a pattern), tables and data sets of pyarrow, data sets
    of Hugging Face, and iterators are; collections in memory are not.
    """
    if isinstance(X, (list, np.ndarray)):  # at once, because a student predicts single rows
        return isinstance(X, list) and is_path(X)
    return (
        is_path(X)
        or is_hugging_face(X)
        or _is_arrow(X)
        or (isinstance(X, Iterator) and not is_frame(X))
    )


def is_path(X: Any) -> bool:
    """Return whether this names files of tables, a directory of them, or a pattern of their names.

    So does a list of ``pathlib.Path`` objects of tables. A list of strings is none, because they
    may be texts. Other strings are none either: a single text is a mistake that has an explanation
    of its own.
    """
    if isinstance(X, os.PathLike):
        return True
    if isinstance(X, list):
        is_first = bool(X) and isinstance(X[0], os.PathLike)
        return is_first and all(isinstance(x, os.PathLike) and _is_table(x) for x in X)
    return isinstance(X, str) and (suffix_of(Path(X)) in _FORMATS or os.path.isdir(X))


def check_are_no_tables(X: Any) -> None:
    """Raise ValueError if strings are paths of tables, which would be read as texts."""
    if not (isinstance(X, list) and X and all(isinstance(x, str) and _is_table(x) for x in X)):
        return
    if all(map(os.path.isfile, X)):
        raise ValueError(
            f"X is a list of strings that are paths of tables, such as {X[0]!r}. A list of strings "
            "is a list of texts: give pathlib.Path objects, a directory, or a pattern such as "
            "'*.parquet'."
        )


def _is_table(path: str | os.PathLike) -> bool:
    return os.fspath(path).endswith(tuple(_FORMATS))


def n_rows_of(X: Any) -> int | None:
    """Return the number of rows of a stream, None if finding it would mean reading it."""
    if _is_arrow(X) and hasattr(X, "count_rows"):
        kind = getattr(getattr(X, "format", None), "default_extname", None)
        return X.count_rows() if kind == "parquet" else None
    return len(X) if hasattr(X, "__len__") and not is_path(X) else None


def is_hugging_face(X: Any) -> bool:
    """Return whether this is a `datasets.Dataset` or a `datasets.IterableDataset`."""
    is_theirs = any(base.__module__.startswith("datasets.") for base in type(X).__mro__)
    return is_theirs and hasattr(X, "column_names") and hasattr(X, "iter")


def is_table(X: Any) -> bool:
    """Return whether this is a table or a record batch of pyarrow, which is in memory."""
    return _is_arrow(X) and hasattr(X, "num_rows")


def is_transformed(X: Any) -> bool:
    """Return whether a data set of Hugging Face computes its rows when they are read."""
    return is_hugging_face(X) and (getattr(X, "format", None) or {}).get("type") == "custom"


def batches_of(X: Any, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield the rows of a stream in lists or DataFrames of at most 8,192 rows.

    Parameters
    ----------
    X : path, pattern, data set, table or iterator
        See `is_stream`. An iterator yields rows (strings, bytes, paths, PIL images, or dicts of
        columns), or batches of them (lists, arrays, DataFrames), which are passed on as they are,
        or tables of pyarrow.
    columns : sequence of str, optional
        The columns to read, which come as a DataFrame. By default, there may be only one, which
        comes as a list, or columns of numbers.

    Yields
    ------
    batch : list, array or DataFrame
        Rows.

    Raises
    ------
    FileNotFoundError
        If no file has such a name.
    ValueError
        If a column is missing, or there are several and ``columns`` does not name any.
    """
    if is_path(X):
        X = opened_files(X)
    if _is_arrow(X):
        yield from _of_tables(_arrow_batches(X, columns), columns)
    elif is_hugging_face(X):
        yield from _of_hugging_face(X, columns)
    else:
        yield from _of_iterator(X, columns)


def table_rows(table: Any, columns: Sequence[str] | None) -> Any:
    """Return the rows of a table or record batch of pyarrow: a list, or a DataFrame."""
    names = table.schema.names
    chosen = _chosen(names, columns, lambda: _are_numbers(table.schema.types))
    if columns is None and are_number_lists(table.schema.types):
        return numbers_of_lists(table.column(0))
    if columns is None and len(chosen) == 1 and not _are_numbers(table.schema.types):
        return column_values(table.column(chosen[0]))
    pandas = import_optional("pandas", extra="streams", purpose=_PURPOSE)
    return pandas.DataFrame({name: _series(table.column(name), pandas) for name in chosen})


def several_columns(names: Sequence[Any]) -> ValueError:
    """Return the error for rows of several columns, of which none is named."""
    return ValueError(
        f"X has the columns {list(names)}: say which column a model reads, as in "
        "FoundationFeatureExtractor({'text': 'minilm'}, inputs='text'), give a DataFrame, which "
        "a student reads whole, or give rows of one column."
    )


def _is_arrow(X: Any) -> bool:
    is_theirs = any(base.__module__.startswith("pyarrow") for base in type(X).__mro__)
    known = ("to_batches", "read_next_batch", "num_rows")  # tables, readers, record batches
    return is_theirs and any(hasattr(X, name) for name in known)


def opened_files(X: Any, texts: Collection[Any] = ()) -> Any:
    """Return files of tables as a data set of pyarrow, or of Hugging Face, if these are theirs.

    Parameters
    ----------
    X : path, pattern or list of paths
        The files.
    texts : collection, default=()
        Columns that hold texts, whatever the first rows of a CSV file look like; None is all.
    """
    if not isinstance(X, list):
        _check_not_saved(Path(X))
    files = list(map(Path, X)) if isinstance(X, list) else table_files(X, _FORMATS)
    name = os.fspath(files[0] if isinstance(X, list) else X)
    suffix = suffix_of(files[0])
    if suffix not in _FORMATS:
        raise ValueError(
            f"{name!r} is no file of a table, which ends in one of {', '.join(_FORMATS)}: "
            "give paths of single rows, such as images, in a list."
        )
    if suffix in ARROW_SUFFIXES and all(map(_is_arrow_stream, files)):
        datasets = import_optional("datasets", extra="streams", purpose=_PURPOSE)
        return datasets.concatenate_datasets([datasets.Dataset.from_file(str(f)) for f in files])
    dataset = import_optional("pyarrow.dataset", extra="streams", purpose=_PURPOSE)
    read = partial(dataset.dataset, [str(file) for file in files], format=_FORMATS[suffix])
    with _explained(name):
        opened = read()
        if not texts or suffix not in CSV_SUFFIXES:
            return opened
        arrow = import_optional("pyarrow", extra="streams", purpose=_PURPOSE)
        fields = [
            field.with_type(arrow.string()) if None in texts or field.name in texts else field
            for field in opened.schema
        ]
        return read(schema=arrow.schema(fields))


def _check_not_saved(path: Path) -> None:
    if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        raise ValueError(
            f"{str(path)!r} is what datasets.Dataset.save_to_disk wrote: give "
            f"datasets.load_from_disk({str(path)!r})."
        )


def _is_arrow_stream(path: Path) -> bool:
    """Return whether a file of Arrow is in the stream format, which data sets are cached in."""
    with open(path, "rb") as file:
        return file.read(4) == b"\xff\xff\xff\xff"


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Name the file in errors of pyarrow."""
    arrow = import_optional("pyarrow", extra="streams", purpose=_PURPOSE)
    try:
        yield
    except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
        advice = _HOW_TO_READ_TEXTS if "CSV conversion error" in str(error) else ""
        raise ValueError(f"{path!r} cannot be read: {error}{advice}") from error


def _arrow_batches(X: Any, columns: Sequence[str] | None) -> Iterator[Any]:
    if not (hasattr(X, "scanner") and hasattr(X, "schema")):  # a table, a reader or a scanner
        if hasattr(X, "to_batches"):
            return X.to_batches()
        return iter([X]) if hasattr(X, "num_rows") else iter(X)
    chosen = _chosen(X.schema.names, columns, lambda: _are_numbers(X.schema.types))
    try:
        fragments = list(X.get_fragments())
    except ValueError:  # the data set is filtered
        return X.to_batches(columns=chosen, **_READ_AHEAD)
    return chain.from_iterable(_of_fragment(part, X, chosen) for part in fragments)


_HOW_TO_READ_TEXTS = (
    " The first rows decide whether a column holds numbers or texts. To say that it holds texts, "
    "give pandas.read_csv(path, dtype={'text': str}), or pyarrow.csv.read_csv(path, "
    "convert_options=pyarrow.csv.ConvertOptions(column_types={'text': pyarrow.string()}))."
)


def _of_fragment(fragment: Any, dataset: Any, columns: list[str]) -> Iterator[Any]:
    """Yield the record batches of a file.

    A scanner of the whole data set reads up to a gigabyte ahead of a slow model.
    """
    with _explained(getattr(fragment, "path", "X")):
        yield from _batches_of_fragment(fragment, dataset, columns)


def _batches_of_fragment(fragment: Any, dataset: Any, columns: list[str]) -> Iterator[Any]:
    if hasattr(fragment, "split_by_row_group"):
        groups = fragment.split_by_row_group(schema=dataset.schema)
    elif _is_csv(fragment) and set(columns) <= set(fragment.physical_schema.names):
        yield from _open_csv(fragment, dataset.schema, columns)
        return
    else:
        groups = [fragment]
    for group in groups:
        yield from group.to_batches(schema=dataset.schema, columns=columns, **_READ_AHEAD)


def _is_csv(fragment: Any) -> bool:
    return hasattr(fragment, "format") and fragment.format.default_extname == "csv"


def _open_csv(fragment: Any, schema: Any, columns: list[str]) -> Iterator[Any]:
    csv = import_optional("pyarrow.csv", extra="streams", purpose=_PURPOSE)
    types = {name: schema.field(name).type for name in columns}
    # An empty cell is a missing text, as pandas reads it; "NA" and "null" are texts.
    as_texts = all(map(is_string, types.values()))
    blank = {"null_values": [""], "strings_can_be_null": True} if as_texts else {}
    options = csv.ConvertOptions(include_columns=columns, column_types=types, **blank)
    opened_file = fragment.filesystem.open_input_stream(fragment.path)  # decompressed
    with opened_file as file, csv.open_csv(file, convert_options=options) as reader:
        yield from reader


def _of_hugging_face(X: Any, columns: Sequence[str] | None) -> Iterator[Any]:
    # A transform may read and return other columns than those that are stored.
    if X.column_names is not None and not is_transformed(X):
        X = X.select_columns(_chosen(X.column_names, columns, lambda: _holds_numbers(X)))
    if getattr(X, "features", None) is not None and not is_transformed(X):
        # Images come as the bytes of their files, which decodes them only if they are not stored.
        yield from _of_tables(X.with_format("arrow").iter(_ROWS_PER_READ), columns)
        return
    rows = (
        dict(zip(batch, values, strict=True))
        for batch in X.iter(_ROWS_PER_TRANSFORM)
        for values in zip(*batch.values(), strict=True)
    )
    yield from _of_iterator(rows, columns)


def _holds_numbers(X: Any) -> bool:
    features = getattr(X, "features", None)
    return features is not None and _are_numbers(features.arrow_schema.types)


def _of_tables(tables: Iterable[Any], columns: Sequence[str] | None) -> Iterator[Any]:
    """Join small tables to batches."""
    arrow = import_optional("pyarrow", extra="streams", purpose=_PURPOSE)
    joined: list[Any] = []
    n_rows = n_bytes = 0
    for read in tables:
        whole = read if isinstance(read, arrow.Table) else arrow.Table.from_batches([read])
        fitting = whole.num_rows * _BYTES_PER_BATCH // max(whole.nbytes, 1)
        step = min(max(fitting, 1), ROWS_PER_BATCH)
        for start in range(0, whole.num_rows, step):
            table = whole.slice(start, step)
            n_rows, n_bytes = n_rows + table.num_rows, n_bytes + table.nbytes
            if joined and (n_rows > ROWS_PER_BATCH or n_bytes > _BYTES_PER_BATCH):
                yield table_rows(arrow.concat_tables(joined), columns)
                joined, n_rows, n_bytes = [], table.num_rows, table.nbytes
            joined.append(table)
    if n_rows:
        yield table_rows(arrow.concat_tables(joined), columns)


def _of_iterator(X: Iterator[Any], columns: Sequence[str] | None) -> Iterator[Any]:
    rows: list[Any] = []
    n_bytes = 0
    for item in X:
        is_arrow = _is_arrow(item)
        if not (is_arrow or _is_batch(item)):
            rows.append(item)
            n_bytes += _size_of(item)
            if len(rows) >= ROWS_PER_BATCH or n_bytes >= _BYTES_PER_BATCH:
                yield _collected(rows, columns)
                rows, n_bytes = [], 0
            continue
        if rows:
            yield _collected(rows, columns)
            rows, n_bytes = [], 0
        if is_arrow:
            yield from _of_tables([item], columns)
        elif len(item):
            yield item
    if rows:
        yield _collected(rows, columns)


def _is_batch(item: Any) -> bool:
    if isinstance(item, (str, bytes, bytearray, memoryview, os.PathLike, Mapping)):
        return False
    if isinstance(item, tuple):
        raise ValueError(
            "X yields tuples, which may be rows with their labels, or batches: yield rows alone, "
            "or lists of rows."
        )
    return item is not None and not is_pil_image(item) and hasattr(item, "__len__")


def _collected(rows: list[Any], columns: Sequence[str] | None) -> Any:
    """Return single rows as a list, or a DataFrame of their columns."""
    if not isinstance(rows[0], Mapping):
        return rows
    names = _chosen(list(rows[0]), columns, lambda: _are_all_numbers(rows[0].values()))
    try:
        values = {name: [file_of(row[name]) for row in rows] for name in names}
    except KeyError as error:
        raise ValueError(f"Some rows of the stream have no column {error}.") from None
    if columns is None and len(names) == 1 and not _are_all_numbers([values[names[0]][0]]):
        return values[names[0]]
    pandas = import_optional("pandas", extra="streams", purpose=_PURPOSE)
    are_numbers = {name: _are_all_numbers(column[:1]) for name, column in values.items()}
    return pandas.DataFrame(
        {
            name: column if are_numbers[name] else pandas.Series(as_objects(column), dtype=object)
            for name, column in values.items()
        }
    )


def _chosen(names: Sequence[str], columns: Sequence[str] | None, are_numbers: Any) -> list[str]:
    """Return the names of the columns to read."""
    if columns is None:
        if len(names) > 1 and not are_numbers():
            raise several_columns(names)
        return list(names)
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(f"columns {missing} are missing from X, which has {list(names)}.")
    return list(columns)


def _series(column: Any, pandas: Any) -> Any:
    if not holds_objects(column.type):
        return column.to_pandas()
    return pandas.Series(as_objects(column_values(column)), dtype=object)


def _are_all_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(value, (int, float, np.number, np.bool_)) for value in values)


def _size_of(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_size_of, value.values()))
    if is_pil_image(value):
        return 4 * value.width * value.height
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    return getattr(value, "nbytes", 0)
