"""``python -m sk_aft predict``: a deployed student and a file of rows -> predictions.

It needs the packages of `sk_aft.serving` only, and holds a batch of rows in memory.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sk_aft._command._cells import (
    as_image,
    as_number,
    is_empty,
    is_image_path,
    is_no_number,
    is_written_number,
)
from sk_aft._command._column import read_column
from sk_aft._command._messages import CommandError, complain, counted, listed, missing_column
from sk_aft._command._output import STANDARD_OUTPUT, RowWriter, complete_file, suffix_of
from sk_aft._command._stream import Columns, Table, open_table
from sk_aft.serving import ServedClassifier, load
from sk_aft.serving._folder import StudentFolder
from sk_aft.serving._hub import local_folder

PREDICTION, PROBABILITY = "prediction", "probability"
_ROWS_AT_ONCE = 1024
_IMAGES_AT_ONCE = 64

# From a batch and the number of rows before it to what the student reads.
ReadRows = Callable[[Columns, int], Any]


def predict(options: argparse.Namespace) -> None:
    """Predict all rows of a file.

    Parameters
    ----------
    options : Namespace
        ``model``, ``data``, ``out``, ``text``, ``image``, ``keep``, ``probabilities`` and
        ``quiet``, as `_arguments` defines them.

    Raises
    ------
    CommandError
        If the file cannot be read, or lacks what the student reads; no file is written then.
    """
    suffix = suffix_of(options.out)
    folder = local_folder(options.model)
    student, config = load(folder), StudentFolder.open(folder).config
    table = open_table(options.data)
    _check_is_other_file(options.out, table)
    has_images = table.path.is_dir() or "image" in _kinds(config).values()
    batches = table.read(_IMAGES_AT_ONCE if has_images else _ROWS_AT_ONCE)
    first = next(batches, None)
    if first is None:
        raise CommandError(f"{table.path} has no rows.")
    remembered = read_column(folder, config["rows"]["kind"], config["identity"])
    read_rows = _reader(config, table, first, options, remembered)
    kept = _kept_columns(options.keep, table, first)
    results = _result_names(student, config, options.probabilities)
    _check_names(results, kept, table)
    with complete_file(options.out) as file, _progress(options.quiet) as progress:
        writer, n_done = RowWriter(file, suffix, [*kept, *results]), 0
        for batch in chain([first], batches):
            _check_columns(batch, first, table, options.keep)
            n_rows = len(next(iter(batch.values())))
            with _at_rows(table.path, n_done):
                columns = _predictions(student, read_rows(batch, n_done), results)
            absent = [None] * n_rows
            writer.write({**{name: batch.get(name, absent) for name in kept}, **columns})
            n_done += n_rows
            progress(n_rows)
    if not options.quiet and options.out != STANDARD_OUTPUT:
        complain(f"{counted(n_done, 'row')} -> {options.out}")


def _predictions(student: Any, rows: Any, names: list[str]) -> dict[str, list]:
    """Return the columns of results, by their names."""
    if not isinstance(student, ServedClassifier):
        values = np.asarray(student.predict(rows))
        values = values.reshape(len(values), -1)
        return dict(zip(names, values.T.tolist(), strict=True))
    probabilities = student.predict_proba(rows)
    best = probabilities.argmax(axis=1)
    columns = [
        student.classes_[best],
        np.round(probabilities.max(axis=1), 6),
        *np.round(probabilities, 6).T,
    ]
    return {name: column.tolist() for name, column in zip(names, columns, strict=False)}


def _result_names(student: Any, config: dict[str, Any], all_classes: bool) -> list[str]:
    if isinstance(student, ServedClassifier):
        each = [f"{PROBABILITY}_{name}" for name in student.classes_.tolist()] * all_classes
        return [PREDICTION, PROBABILITY, *each]
    n_targets = config["targets"]["n_outputs"]
    if n_targets == 1:
        return [PREDICTION]
    return [f"{PREDICTION}_{number}" for number in range(1, n_targets + 1)]


def _kinds(config: dict[str, Any]) -> dict[str, str]:
    """Return the kind of each column that a student reads; "" is the name of the only one."""
    rows = config["rows"]
    if rows["kind"] == "frame":
        # Not there if the preprocessor is the user's own; its columns are read unchanged.
        state = (config["preprocessor"] or {}).get("state", {})
        kinds = state.get("kinds_", {})
        return {name: kinds.get(name, "") for name in rows["columns"]}
    if rows["feature_names_in"]:
        return dict.fromkeys(rows["feature_names_in"], rows["kind"])
    return {"": rows["kind"]}


def _reader(
    config: dict[str, Any],
    table: Table,
    first: Columns,
    options: argparse.Namespace,
    remembered: str | None,
) -> ReadRows:
    """Return the function that takes from a batch what the student reads."""
    kinds = _kinds(config)
    folder = Path() if table.path.is_dir() else table.folder
    if list(kinds) != [""]:
        for name in kinds:
            if name not in first:
                raise missing_column(name, list(first), table.path)
        return lambda batch, start: {
            name: _column(batch, name, kind, folder, start) for name, kind in kinds.items()
        }
    kind = kinds[""]
    if kind == "numeric":
        return _reader_of_unnamed_numbers(config["rows"]["n_features_in"], table, folder)
    name = _only_column(kind, table, first, options, remembered)
    return lambda batch, start: _column(batch, name, kind, folder, start)


def _reader_of_unnamed_numbers(n_columns: int, table: Table, folder: Path) -> ReadRows:
    names = table.columns
    if len(names) != n_columns:
        raise CommandError(
            f"{table.path} has the columns {listed(names)}, and the student reads {n_columns} "
            "columns of numbers, whose names it does not know: give a file with these columns only."
        )
    return lambda batch, start: np.column_stack(
        [_column(batch, name, "numeric", folder, start) for name in names]
    )


def _only_column(
    kind: str, table: Table, first: Columns, options: argparse.Namespace, remembered: str | None
) -> str:
    """Return the column of a student that reads one column and does not know its name."""
    given = options.image if kind == "image" else options.text
    if given is not None:
        if given not in first:
            raise missing_column(given, list(first), table.path)
        return given
    if remembered in first:
        return remembered
    names = list(first)
    if len(names) == 1:
        return names[0]
    candidates = [name for name in names if _may_be(kind, first[name])]
    if len(candidates) == 1:
        return candidates[0]
    option = "--image" if kind == "image" else "--text"
    what = "images" if kind == "image" else "texts"
    raise CommandError(
        f"Which column of {table.path} holds the {what}? Say so with {option} COLUMN; it has "
        f"{listed(names)}."
    )


def _may_be(kind: str, cells: list) -> bool:
    """Return whether a column, by its first cells, may hold the images or texts."""
    if kind == "image":
        return any(is_image_path(cell) or isinstance(cell, (bytes, dict)) for cell in cells)
    texts = [cell for cell in cells if isinstance(cell, str) and not is_no_number(cell)]
    return bool(texts) and not all(is_written_number(cell) for cell in texts)


def _column(batch: Columns, name: str, kind: str, folder: Path, start: int) -> Any:
    """Return a column of a batch as the student reads it."""
    cells = batch.get(name)
    if cells is None:  # JSON lines that lack it
        cells = [None] * len(next(iter(batch.values())))
    if kind == "text":
        return ["" if is_empty(cell) else str(cell) for cell in cells]
    if kind == "category":
        return [None if is_empty(cell) else cell for cell in cells]
    if kind == "image":
        for row, cell in enumerate(cells):
            if is_empty(cell):
                raise CommandError(f"row {start + row + 1}, column {name!r}: there is no image.")
        return [as_image(cell, folder) for cell in cells]
    if kind == "numeric":
        return np.array([_number(c, start + row, name) for row, c in enumerate(cells)])
    return cells


def _number(cell: Any, row: int, name: str) -> float:
    try:
        return as_number(cell)
    except (TypeError, ValueError):
        raise CommandError(f"row {row + 1}, column {name!r}: {cell!r} is not a number.") from None


def _kept_columns(keep: list[str] | None, table: Table, first: Columns) -> list[str]:
    """Return the columns of the input that are written again."""
    if keep is None:
        # Images are not written into a table.
        return [n for n in first if not any(isinstance(c, (bytes, dict)) for c in first[n])]
    for name in keep:
        if name not in first:
            raise missing_column(name, list(first), table.path)
    return keep


def _check_names(results: list[str], kept: list[str], table: Table) -> None:
    twice = [name for name in results if name in kept]
    if twice:
        raise CommandError(
            f"{table.path} has a column {twice[0]!r} already: name the columns to copy with --keep."
        )


def _check_columns(batch: Columns, first: Columns, table: Table, keep: list[str] | None) -> None:
    """Raise if all columns have to be copied and later rows have other ones than the first."""
    others = [name for name in batch if name not in first]
    if keep is None and others:
        raise CommandError(
            f"{table.path} has rows with {others[0]!r}, which the first rows lack: name the "
            "columns to copy with --keep."
        )


def _check_is_other_file(out: str, table: Table) -> None:
    if out != STANDARD_OUTPUT and Path(out).expanduser().resolve() == table.path.resolve():
        raise CommandError(f"--out {out} is the file to predict: give another name.")


@contextmanager
def _at_rows(path: Path, start: int) -> Iterator[None]:
    """Add the file to errors about rows, and count their rows from the first row of the file."""
    try:
        yield
    except (CommandError, TypeError, ValueError) as error:
        message = str(error)
        if not isinstance(error, CommandError):
            # Messages of the serving part count the rows of a batch, from 0.
            message = re.sub(
                r"\b([Rr]ow) (\d+)", lambda m: f"{m[1]} {int(m[2]) + start + 1}", message
            )
        raise CommandError(f"{path}: {message}") from error


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int], Any]]:
    """Show how many rows are done if tqdm is installed, on a terminal."""
    try:
        tqdm = import_module("tqdm").tqdm
    except ImportError:
        yield lambda n_rows: None
        return
    shown = not quiet and sys.stderr.isatty()
    with tqdm(unit=" rows", unit_scale=True, disable=not shown) as bar:
        yield bar.update
