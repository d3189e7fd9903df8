"""The column of labels: which rows have one, and whether they are classes or numbers."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sk_aft._command._cells import is_empty
from sk_aft._command._messages import CommandError, counted, listed
from sk_aft._data._labels import mark_among

AUTO, CLASSIFICATION, REGRESSION = "auto", "classification", "regression"
# A column with so many different values, most of them in one row only, is not made of classes.
_MANY_CLASSES = 20
# As programs write whole numbers, also those of a column with empty cells; "01" is a name.
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})(\.0)?")


@dataclass(frozen=True)
class Labels:
    """The targets of labelled rows.

    Parameters
    ----------
    targets : ndarray of shape (n_labeled,)
        Classes (int, bool or str) or numbers (float).
    labeled : ndarray of shape (n_rows,), bool
        Which rows have a label.
    task : {"classification", "regression"}
        What the targets are.
    """

    targets: np.ndarray
    labeled: np.ndarray
    task: str


def read_labels(
    cells: Sequence[Any], *, column: str, missing_label: str | None = None, task: str = AUTO
) -> Labels:
    """Read and check a column of labels.

    Parameters
    ----------
    cells : sequence
        As the file has them. Empty ones have no label.
    column : str
        Its name, for messages.
    missing_label : str, optional
        Marks further rows without a label.
    task : {"auto", "classification", "regression"}, default="auto"
        What the labels are; "auto" is classes, unless they look like measurements.

    Returns
    -------
    labels : Labels
        Whole numbers become int, other labels stay as they are written.

    Raises
    ------
    CommandError
        If no row has a label, all have the same, or they are not of the task.
    """
    labeled = np.array([has_label(cell, missing_label) for cell in cells], dtype=bool)
    known = [cell for cell, has_label in zip(cells, labeled, strict=True) if has_label]
    if not known:
        raise CommandError(f"No row has a label in the column {column!r}: all cells are empty.")
    if task == REGRESSION:
        return Labels(_numbers(known, column), labeled, REGRESSION)
    if task == AUTO:
        _check_are_classes(known, column)
    targets = _classes(known)
    distinct = np.unique(targets)
    if len(distinct) < 2:
        raise CommandError(
            f"{_all_labelled(len(known))} the label {distinct.tolist()[0]!r} in the column "
            f"{column!r}: at least two classes are needed."
        )
    if missing_label is None:
        _warn_of_mark(targets)
    return Labels(targets, labeled, CLASSIFICATION)


def has_label(cell: Any, missing_label: str | None = None) -> bool:
    """Return whether a cell of a column of labels is neither empty nor a mark."""
    return not (is_empty(cell) or _is_mark(cell, missing_label))


def warn_of_unused_mark(cells: Sequence[Any], column: str, missing_label: str | None) -> None:
    """Warn if the user named a mark of rows without a label that no cell has."""
    if missing_label is not None and not any(_is_mark(cell, missing_label) for cell in cells):
        warnings.warn(f"No row of {column!r} is marked by --missing-label {missing_label!r}.")


def _warn_of_mark(targets: np.ndarray) -> None:
    """Warn if one of more than two classes is a usual mark of rows without a label."""
    mark = mark_among(targets)
    if mark is not None and len(np.unique(targets)) > 2:
        warnings.warn(
            f"{mark!r} is learned as a class. If it marks rows without a label, say "
            f"--missing-label={mark}"
        )


def check_folds(labels: Labels, n_folds: int) -> None:
    """Raise CommandError if there are fewer labelled rows, or rows of a class, than folds."""
    n_rows = len(labels.targets)
    what = "labelled rows"
    if labels.task == CLASSIFICATION:
        n_rows = max(Counter(labels.targets.tolist()).values())
        what = "rows of the largest class"
    if n_rows == 1:
        raise CommandError(
            f"Every class has one labelled row: label more rows, at least two of a class are "
            f"needed, or {n_folds} for {n_folds} folds."
        )
    if n_rows < n_folds:
        raise CommandError(
            f"{n_folds} folds are more than the {n_rows:,} {what}: label more rows, or set --cv "
            f"to {n_rows} or less."
        )


def classes_of_one_row(labels: Labels) -> list[str]:
    """Return the classes that have a single labelled row: a slip of the pen, or too few labels."""
    if labels.task == REGRESSION:
        return []
    return [str(label) for label, n in Counter(labels.targets.tolist()).items() if n == 1]


def _is_mark(cell: Any, missing_label: str | None) -> bool:
    if missing_label is None:
        return False
    if isinstance(cell, str):
        return cell.strip() == missing_label.strip()
    try:
        return float(missing_label) == float(cell)
    except (TypeError, ValueError):
        return str(cell) == missing_label


def _as_whole(cell: Any) -> int | None:
    """Return a cell as an int if it is a whole number."""
    if isinstance(cell, str):
        return int(cell.removesuffix(".0")) if _WHOLE.fullmatch(cell) else None
    if isinstance(cell, bool):
        return None
    try:
        return int(cell) if float(cell).is_integer() else None
    except (TypeError, ValueError, OverflowError):
        return None


def _classes(known: list) -> np.ndarray:
    whole = [_as_whole(cell) for cell in known]
    if None not in whole:
        return np.array(whole)
    if all(isinstance(cell, bool) for cell in known):
        return np.array(known)
    return np.array([str(cell) for cell in known])


def _numbers(known: list, column: str) -> np.ndarray:
    values = []
    for cell in known:
        try:
            values.append(float(cell))
        except (TypeError, ValueError):
            raise CommandError(
                f"The label {cell!r} in the column {column!r} is not a number, which "
                "--task regression needs."
            ) from None
    targets = np.array(values)
    if not np.isfinite(targets).all():
        raise CommandError(f"The column {column!r} holds an infinite number.")
    if np.ptp(targets) == 0:
        raise CommandError(
            f"{_all_labelled(len(values))} the number {values[0]:g} in the column {column!r}: "
            "there is nothing to predict."
        )
    return targets


def _all_labelled(n_rows: int) -> str:
    """Return the start of a sentence about rows with the same label."""
    return "The only labelled row has" if n_rows == 1 else f"All {n_rows:,} labelled rows have"


def _check_are_classes(known: list, column: str) -> None:
    """Raise if labels look like measurements, or like the names of rows."""
    numbers = _floats(known)
    fractions = [cell for cell in numbers or [] if not cell.is_integer()]
    distinct = Counter(map(str, known))
    how = (
        "--task regression predicts numbers, --task classification takes each value for a class."
        if numbers
        else "choose another column with --label, or say --task classification."
    )
    if fractions:
        raise CommandError(
            f"The column {column!r} looks continuous, it has the label {fractions[0]:g}: {how}"
        )
    if len(distinct) > _MANY_CLASSES and len(distinct) > len(known) / 2:
        looks = "looks continuous" if numbers else "looks like names or texts, not classes"
        raise CommandError(
            f"The column {column!r} {looks}, it has {len(distinct):,} different values in "
            f"{counted(len(known), 'labelled row')}: {how}"
        )


def _floats(known: list) -> list[float] | None:
    """Return the labels as numbers if all are."""
    if any(isinstance(cell, bool) for cell in known):
        return None
    try:
        return [float(cell) for cell in known]
    except (TypeError, ValueError):
        return None


def shown_classes(labels: Labels) -> str:
    """Return the labels for a message: how many rows, and which classes."""
    n = counted(len(labels.targets), "labelled row")
    if labels.task == REGRESSION:
        low, high = labels.targets.min(), labels.targets.max()
        return f"{n}, numbers from {low:g} to {high:g}"
    classes = np.unique(labels.targets)
    names = f" ({listed(classes)})" if len(classes) <= 5 else ""
    return f"{n} of {counted(len(classes), 'class')}{names}"
