"""What a command says about the data before it works."""

from __future__ import annotations

from sk_aft._command._labels import classes_of_one_row, shown_classes
from sk_aft._command._messages import counted, listed
from sk_aft._command._tables import TrainingData

_NAMES = {"text": "text", "image": "image", "category": "category", "numeric": "number"}
_MANY = {"text": "texts", "image": "images", "category": "categories", "numeric": "numbers"}


def describe_data(data: TrainingData) -> list[str]:
    """Return lines that say what was read: rows, labels and columns.

    Parameters
    ----------
    data : TrainingData
        The rows.

    Returns
    -------
    lines : list of str
        One or two, one more for columns that are not read, and the hints.
    """
    others = f", and {counted(data.n_unlabeled, 'row')} without a label" if data.n_unlabeled else ""
    lines = [f"Data: {shown_classes(data.labels)}{others}."]
    if not isinstance(data.rows, list):
        of_kind = {
            kind: [name for name, its in data.kinds.items() if its == kind] for kind in _NAMES
        }
        read = [
            f"{(_NAMES if len(names) == 1 else _MANY)[kind]} {listed(names)}"
            for kind, names in of_kind.items()
            if names
        ]
        lines.append(f"Columns: {'; '.join(read)}.")
    if data.left_out:
        lines.append(f"Not read, because they are empty or unnamed: {listed(data.left_out)}.")
    if rare := classes_of_one_row(data.labels):
        have = "has" if len(rare) == 1 else "each have"
        lines.append(f"Labels of one row: {listed(rare)} {have} a single labelled row.")
    return [*lines, *data.hints]
