"""Reads what a student is trained on: rows with and without labels, and the kinds of columns."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
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
from sk_aft._command._image_folders import check_images, labeled_images, unlabeled_images
from sk_aft._command._labels import (
    CLASSIFICATION,
    Labels,
    has_label,
    read_labels,
    warn_of_unused_mark,
)
from sk_aft._command._messages import CommandError, counted, listed, missing_column
from sk_aft._command._stream import PATH, Columns, Table, open_table
from sk_aft._optional import import_optional

TEXT, IMAGE, CATEGORY, NUMBER = "text", "image", "category", "numeric"

# A column of texts with few different ones is a column of categories.
_MOST_CATEGORIES = 50
_FEWEST_ROWS_OF_A_CATEGORY = 5
# Whole numbers that are all different are no identifier in a file of a few rows.
_FEWEST_ROWS_OF_AN_IDENTIFIER = 10
_ROWS_AT_ONCE = 4096
# The name that pandas gives to the numbers of rows in Parquet files.
_INDEX = "__index_level_"


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on.

    Parameters
    ----------
    kinds : dict of str to {"text", "image", "category", "numeric"}
        The columns that are read, and what they hold.
    rows : list or DataFrame of n_rows rows
        Those with a label come first. A single column of texts or images is a list.
    labels : Labels
        The labels.
    left_out : list of str
        Columns that are not read because they are empty or have no name.
    hints : list of str
        What the user may not expect, a sentence each.
    """

    kinds: dict[str, str]
    rows: Any
    labels: Labels
    left_out: list[str]
    hints: list[str]

    @property
    def n_labeled(self) -> int:
        """Number of rows with a label."""
        return len(self.labels.targets)

    @property
    def n_unlabeled(self) -> int:
        """Number of rows without a label."""
        return len(self.rows) - self.n_labeled

    @property
    def X(self) -> Any:
        """The rows with a label."""
        return self.rows[: self.n_labeled]

    @property
    def X_unlabeled(self) -> Any:
        """The other rows, None if there are none."""
        return self.rows[self.n_labeled :] if self.n_unlabeled else None


def read_training_data(options: argparse.Namespace) -> TrainingData:
    """Read and check the rows to train on.

    Parameters
    ----------
    options : Namespace
        ``data``, ``label``, ``text``, ``image``, ``category``, ``number``, ``unlabeled``,
        ``missing_label`` and ``task``, as `_arguments` defines them.

    Returns
    -------
    data : TrainingData
        At least two targets are different.

    Raises
    ------
    CommandError
        If something cannot be read or is missing; the message says how to mend it.
    """
    if Path(options.data).expanduser().is_dir():
        return _images_of_folder(options)
    table = open_table(options.data)
    columns = _collected(table)
    if options.label not in columns:
        raise missing_column(options.label, list(columns), table.path)
    labels = read_labels(
        columns[options.label],
        column=options.label,
        missing_label=options.missing_label,
        task=options.task,
    )
    warn_of_unused_mark(columns[options.label], options.label, options.missing_label)
    kinds, left_out = _kinds(options, columns, table)
    hints = [] if _named(options) else _hints_of_identifiers(columns, kinds)
    parts = [
        _cells(columns, kinds, table, np.flatnonzero(labels.labeled)),
        _cells(columns, kinds, table, np.flatnonzero(~labels.labeled)),
    ]
    if options.unlabeled is not None:
        others, ignored = _other_cells(options, kinds)
        parts.append(others)
        hints += ignored
    return _training_data(kinds, parts, labels, left_out, hints)


def check_numbers_are_there(data: TrainingData) -> None:
    """Raise CommandError if a number is missing, which most students cannot fill."""
    if isinstance(data.rows, list):
        return
    numbers = [name for name, kind in data.kinds.items() if kind == NUMBER]
    n_missing = {name: int(data.rows[name].isna().sum()) for name in numbers}
    holes = [name for name, n in n_missing.items() if n]
    if holes:
        raise CommandError(
            f"Numbers are missing in {listed(holes)} ({counted(n_missing[holes[0]], 'row')} of "
            f"{holes[0]!r}): fill them, for example with the mean, or name the "
            "columns to read with --text, --image, --category, --number."
        )


def read_test_data(options: argparse.Namespace, data: TrainingData) -> tuple[Any, np.ndarray]:
    """Return the rows and targets of the file ``options.test``; only those with a label."""
    path = Path(options.test).expanduser()
    if path.is_dir():
        if list(data.kinds.values()) != [IMAGE]:
            raise CommandError(f"--test {path} is a folder, and the student reads other columns.")
        (name,) = data.kinds
        paths, labels = labeled_images(path)
        cells = {name: [paths[row] for row in np.flatnonzero(labels.labeled)]}
        check_images(cells[name])
    else:
        table = open_table(path)
        columns = _collected(table)
        for name in (options.label, *data.kinds):
            if name not in columns:
                raise missing_column(name, list(columns), f"--test {path}")
        labels = read_labels(
            columns[options.label],
            column=options.label,
            missing_label=options.missing_label,
            task=data.labels.task,
        )
        cells = _cells(columns, data.kinds, table, np.flatnonzero(labels.labeled))
    if labels.task == CLASSIFICATION:
        _check_classes_are_known(labels, data.labels, path)
    return _rows(cells, data.kinds), labels.targets


def _check_classes_are_known(labels: Labels, training: Labels, path: Path) -> None:
    strangers = set(labels.targets.tolist()) - set(training.targets.tolist())
    if strangers:
        raise CommandError(
            f"--test {path} has labels that no training row has, {listed(sorted(strangers))}: a "
            "student cannot predict them."
        )


def _images_of_folder(options: argparse.Namespace) -> TrainingData:
    paths, labels = labeled_images(Path(options.data).expanduser())
    known, others = (
        {PATH: [paths[row] for row in np.flatnonzero(mask)]}
        for mask in (labels.labeled, ~labels.labeled)
    )
    parts = [known, others]
    kinds = {PATH: IMAGE}
    check_images(paths)
    hints: list[str] = []
    if options.unlabeled is not None:
        others, hints = _other_cells(options, kinds)
        parts.append(others)
    return _training_data(kinds, parts, labels, [], hints)


def _training_data(
    kinds: dict[str, str],
    parts: list[Columns],
    labels: Labels,
    left_out: list[str],
    hints: list[str],
) -> TrainingData:
    """Return parts as rows of one container; the first part has the labels."""
    whole = {name: [cell for part in parts for cell in part[name]] for name in kinds}
    return TrainingData(kinds, _rows(whole, kinds), labels, left_out, hints)


def _collected(table: Table) -> Columns:
    """Return all columns of a file; cells that a line of JSON lacks are None."""
    columns: Columns = {}
    n_rows = 0
    for batch in table.read(_ROWS_AT_ONCE):
        size = len(next(iter(batch.values())))
        for name in batch:
            columns.setdefault(name, [None] * n_rows)
        for name, cells in columns.items():
            cells += batch.get(name) or [None] * size
        n_rows += size
    if not n_rows:
        raise CommandError(f"{table.path} has columns and no rows.")
    return columns


def _kinds(
    options: argparse.Namespace, columns: Columns, table: Table
) -> tuple[dict[str, str], list[str]]:
    """Return the kind of each column that is read, and the columns that are left out."""
    named = _named(options)
    for name, _ in named:
        if name not in columns:
            raise missing_column(name, list(columns), table.path)
        if name == options.label:
            raise CommandError(f"The column {name!r} is the label: a student cannot read it, too.")
    kinds = dict(named)
    if len(kinds) < len(named):
        raise CommandError("A column is named twice among --text, --image, --category, --number.")
    if kinds:
        return kinds, []
    found = {
        name: _kind(name, cells, table) for name, cells in columns.items() if name != options.label
    }
    kinds = {name: kind for name, kind in found.items() if kind is not None}
    if not kinds:
        raise CommandError(f"{table.path} has no column to learn from beside {options.label!r}.")
    return kinds, [name for name, kind in found.items() if kind is None]


def _named(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the columns that the user named, with their kinds."""
    of_kind = (
        (TEXT, options.text),
        (IMAGE, options.image),
        (CATEGORY, options.category),
        (NUMBER, options.number),
    )
    return [(name, kind) for kind, names in of_kind for name in names or []]


def _hints_of_identifiers(columns: Columns, kinds: Mapping[str, str]) -> list[str]:
    """Return a sentence on columns of numbers that only tell rows apart, or none."""
    found = [name for name, kind in kinds.items() if kind == NUMBER and _tells_rows(columns[name])]
    if not found:
        return []
    looks = "looks like an identifier" if len(found) == 1 else "look like identifiers"
    left_out = "leave it out" if len(found) == 1 else "leave them out"
    return [
        f"{listed(found)} {looks}: to {left_out}, name the columns to read with --text, --image, "
        "--category, --number."
    ]


def _tells_rows(cells: list) -> bool:
    """Return whether a column of numbers holds whole numbers that are all different."""
    try:
        numbers = [as_number(cell) for cell in cells]
    except (TypeError, ValueError):
        return False
    are_many = len(numbers) >= _FEWEST_ROWS_OF_AN_IDENTIFIER
    return are_many and len({*numbers}) == len(numbers) and all(n.is_integer() for n in numbers)


def _kind(name: str, cells: list, table: Table) -> str | None:
    """Return the kind of a column by what it holds, None if it is left out."""
    filled = [cell for cell in cells if not is_empty(cell)]
    if not filled or not name or name.startswith(_INDEX):
        return None
    if name in table.categories:
        return CATEGORY
    if all(is_image_path(cell) or isinstance(cell, bytes) for cell in filled):
        return IMAGE
    if all(isinstance(cell, str) for cell in filled):
        numbers = [cell for cell in filled if not is_no_number(cell)]
        if table.are_texts and numbers and all(map(is_written_number, numbers)):
            return NUMBER
        n_distinct = len(set(filled))
        are_few = n_distinct <= min(_MOST_CATEGORIES, len(filled) / _FEWEST_ROWS_OF_A_CATEGORY)
        return CATEGORY if are_few else TEXT
    if all(isinstance(cell, Number) for cell in filled):
        return NUMBER
    odd = next(cell for cell in filled if not isinstance(cell, str))
    raise CommandError(
        f"The column {name!r} of {table.path} holds a {type(odd).__name__}, which is neither a "
        "text nor a number: name the columns to read with --text, --image, --category, --number."
    )


def _cells(
    columns: Columns, kinds: Mapping[str, str], table: Table, indices: np.ndarray
) -> Columns:
    """Return the columns that are read, of some rows, as a student reads them."""
    rows = indices.tolist()
    return {
        name: _read([columns[name][row] for row in rows], name, kind, table, rows)
        for name, kind in kinds.items()
    }


def _rows(columns: Columns, kinds: Mapping[str, str]) -> Any:
    """Return a list of texts or images, or a DataFrame."""
    if list(kinds.values()) in ([TEXT], [IMAGE]):
        return next(iter(columns.values()))
    pandas = import_optional("pandas", extra="demo", purpose="rows of several columns")
    frame = pandas.DataFrame(
        {
            name: pandas.Series(cells, dtype=float if kinds[name] == NUMBER else object)
            for name, cells in columns.items()
        }
    )
    return frame.astype({name: "category" for name, kind in kinds.items() if kind == CATEGORY})


def _read(cells: list, name: str, kind: str, table: Table, rows: Sequence[int]) -> list:
    """Return the cells of a column as a student reads them."""
    if kind == TEXT:
        return ["" if is_empty(cell) else str(cell) for cell in cells]
    if kind == CATEGORY:
        return [None if is_empty(cell) else str(cell) for cell in cells]
    if kind == NUMBER:
        return [_number(c, name, table.path, row) for c, row in zip(cells, rows, strict=True)]
    empty = [row for row, cell in zip(rows, cells, strict=True) if is_empty(cell)]
    if empty:
        raise CommandError(
            f"{table.path}, row {empty[0] + 1}: the column {name!r} names no image, as in "
            f"{counted(len(empty), 'row')}. Fill it or leave these rows out."
        )
    images = [as_image(cell, table.folder) for cell in cells]
    check_images([image for image in images if isinstance(image, Path)])
    return images


def _number(cell: Any, name: str, path: Path, row: int) -> float:
    try:
        number = as_number(cell)
    except (TypeError, ValueError):
        number = np.inf
    if np.isinf(number):
        raise CommandError(f"{path}, row {row + 1}: {cell!r} in {name!r} is not a finite number.")
    return number


def _other_cells(options: argparse.Namespace, kinds: dict[str, str]) -> tuple[Columns, list[str]]:
    """Return the columns of a file or folder without labels, and a hint on labels in it."""
    path = options.unlabeled
    folder = Path(path).expanduser()
    if folder.is_dir():
        if list(kinds.values()) != [IMAGE]:
            raise CommandError(
                f"--unlabeled {path} is a folder: expected a file with {listed(kinds)}."
            )
        images = unlabeled_images(folder)
        check_images(images)
        return dict.fromkeys(kinds, images), []
    table = open_table(path)
    columns = _collected(table)
    for name in kinds:
        if name not in columns:
            raise missing_column(name, list(columns), f"--unlabeled {path}")
    n_rows = len(next(iter(columns.values())))
    cells = _cells(columns, kinds, table, np.arange(n_rows))
    labels = [
        cell for cell in columns.get(options.label, []) if has_label(cell, options.missing_label)
    ]
    if not labels:
        return cells, []
    ignored = f"{counted(len(labels), 'label')} in {options.label!r}"
    are = "is" if len(labels) == 1 else "are"
    return cells, [f"--unlabeled {path}: {ignored} {are} ignored."]
