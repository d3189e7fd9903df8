"""Reads tables and folders of images in batches: CSV, JSON lines and Parquet.

Training and prediction both read through here, so that a cell is the same in both. Only Parquet
needs another package, pyarrow.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sk_aft._command._cells import is_image_path
from sk_aft._command._messages import CommandError

Columns = dict[str, list]
PATH = "path"  # the column of a folder of images

_DELIMITERS = (",", ";", "\t")
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_EXPECTED = "expected .csv, .tsv, .jsonl, .ndjson or .parquet, or a folder of images."
# A quote that is not closed would otherwise make a cell of the rest of the file.
_LONGEST_CELL = 10_000_000


@dataclass(frozen=True)
class Table:
    """A file of rows, or a folder of images, that is read in batches.

    Parameters
    ----------
    path : Path
        Where it is.
    columns : list of str
        Names of its columns; of JSON lines those of the first line.
    read : callable
        From a number of rows to an iterator of batches of at most so many rows, each a dict of
        columns. Batches of JSON lines may have further columns.
    are_texts : bool
        Whether all cells are texts, as in CSV.
    categories : frozenset of str
        Columns that the file stores as categories.
    """

    path: Path
    columns: list[str]
    read: Callable[[int], Iterator[Columns]]
    are_texts: bool
    categories: frozenset[str] = frozenset()

    @property
    def folder(self) -> Path:
        """The folder that paths of images are relative to."""
        return self.path if self.path.is_dir() else self.path.parent


def open_table(path: str | os.PathLike) -> Table:
    """Recognise a file or folder and read the names of its columns.

    Parameters
    ----------
    path : path-like
        A CSV file (separated by commas, semicolons or tabs), a Parquet file, a file of JSON lines,
        or a folder of images.

    Returns
    -------
    table : Table
        Nothing but its beginning is read yet.

    Raises
    ------
    CommandError
        If it is missing, empty, of another format, or cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise CommandError(f"There is no file {str(path)!r}.")
    if path.stat().st_size == 0:
        raise CommandError(f"{path} is empty.")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        table = _open_csv(path)
    elif suffix in _JSON_SUFFIXES:
        table = _open_json_lines(path)
    elif suffix in (".parquet", ".pq"):
        table = _open_parquet(path)
    else:
        raise CommandError(f"{path} is of an unknown format: {_EXPECTED}")
    _check_distinct(table.columns, path)
    return table


def image_paths(folder: Path) -> list[Path]:
    """Return the images in a folder and in the folders in it, sorted; hidden files are left out."""
    found: list[Path] = []
    for directory, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = [name for name in names if not name.startswith(".")]
        found += [Path(directory, name) for name in visible if is_image_path(name)]
    return sorted(found)


def in_batches(paths: Sequence[Path], n_rows: int) -> Iterator[Columns]:
    """Yield paths of images as batches of a table with one column."""
    for start in range(0, len(paths), n_rows):
        yield {PATH: [str(path) for path in paths[start : start + n_rows]]}


def _open_folder(path: Path) -> Table:
    paths = image_paths(path)
    if not paths:
        raise CommandError(f"The folder {path} holds no image (.jpg, .png, ...).")
    return Table(path, [PATH], lambda n_rows: in_batches(paths, n_rows), are_texts=True)


def _check_distinct(columns: list[str], path: Path) -> None:
    name, count = Counter(columns).most_common(1)[0] if columns else ("", 0)
    if count > 1:
        raise CommandError(f"{path} has {count} columns named {name!r}: rename one of them.")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the errors of a file that cannot be read into errors of the command."""
    try:
        yield
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise CommandError(
            f"{path} is not encoded in UTF-8 (byte 0x{byte:02x}): convert it, for example with "
            f"iconv -f LATIN1 -t UTF-8 {path.name} > converted{path.suffix}"
        ) from error
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}.") from error


def _open_csv(path: Path) -> Table:
    csv.field_size_limit(_LONGEST_CELL)
    with _explained(path), path.open(newline="", encoding="utf-8-sig") as file:
        delimiter = _delimiter(file.readline())
        file.seek(0)
        header = next(_csv_rows(file, delimiter, path), None)
    if header is None:
        raise CommandError(f"{path} is empty.")
    columns = header[1]
    return Table(path, columns, lambda n: _csv_batches(path, delimiter, columns, n), are_texts=True)


def _delimiter(line: str) -> str:
    """Return what separates the names of the columns."""
    return max(_DELIMITERS, key=line.count)


def _csv_rows(file: Any, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of a line and its cells; blank lines are left out."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise CommandError(
            f"{path}, line {reader.line_num}: {error}. Is a quote not closed?"
        ) from error


def _csv_batches(path: Path, delimiter: str, columns: list[str], n_rows: int) -> Iterator[Columns]:
    with _explained(path), path.open(newline="", encoding="utf-8-sig") as file:
        rows = _csv_rows(file, delimiter, path)
        next(rows)
        batch: list[list[str]] = []
        for line, cells in rows:
            if len(cells) != len(columns):
                raise CommandError(
                    f"{path}, line {line}: it has {len(cells)} cells, and the first line has "
                    f"{len(columns)}. Put cells that hold {delimiter!r} into double quotes."
                )
            batch.append(cells)
            if len(batch) == n_rows:
                yield _transposed(batch, columns)
                batch = []
        if batch:
            yield _transposed(batch, columns)


def _transposed(rows: list[list[str]], columns: list[str]) -> Columns:
    return dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))


def _open_json_lines(path: Path) -> Table:
    with _explained(path), path.open(encoding="utf-8-sig") as file:
        first = next(_records(file, path), None)
    if first is None:
        raise CommandError(f"{path} is empty.")
    return Table(path, list(first), lambda n: _json_batches(path, n), are_texts=False)


def _records(file: Any, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            is_document = number == 1 and line.lstrip()[0] in "[{"
            raise CommandError(
                f"{path}, line {number} is no JSON object ({error}). JSON lines have one object "
                "a line" + (": jq -c '.[]' makes them of a list." if is_document else ".")
            ) from error
        if not isinstance(record, dict):
            raise CommandError(
                f"{path}, line {number} is a JSON {type(record).__name__}, not an object. JSON "
                "lines have one object a line: jq -c '.[]' makes them of a list."
            )
        yield record


def _json_batches(path: Path, n_rows: int) -> Iterator[Columns]:
    with _explained(path), path.open(encoding="utf-8-sig") as file:
        batch: list[dict[str, Any]] = []
        for record in _records(file, path):
            batch.append(record)
            if len(batch) == n_rows:
                yield _columns_of(batch)
                batch = []
        if batch:
            yield _columns_of(batch)


def _columns_of(records: list[dict[str, Any]]) -> Columns:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


def _open_parquet(path: Path) -> Table:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise CommandError(
            f"pyarrow is needed to read {path}, and could not be imported ({error}). Install it "
            "with: pip install pyarrow"
        ) from error

    def read(n_rows: int) -> Iterator[Columns]:
        with _explained_parquet(path, arrow), parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=n_rows):
                if batch.num_rows:
                    yield batch.to_pydict()

    with _explained_parquet(path, arrow), parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
    categories = frozenset(field.name for field in schema if arrow.types.is_dictionary(field.type))
    return Table(path, list(schema.names), read, are_texts=False, categories=categories)


@contextmanager
def _explained_parquet(path: Path, arrow: Any) -> Iterator[None]:
    try:
        with _explained(path):
            yield
    except arrow.ArrowException as error:
        raise CommandError(
            f"{path} cannot be read as Parquet, or is truncated: {str(error).splitlines()[0]}"
        ) from error
