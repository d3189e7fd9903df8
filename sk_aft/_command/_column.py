"""Remembers which column of a file a student reads, for students of one column.

Such students are trained on a list and know no name. `fit` writes it beside them for `predict`.
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = "command_line.json"
_VERSION = 1


def write_column(folder: Path, kind: str | None, name: str | None, student: str) -> None:
    """Write the column that a student reads into its folder, or remove what is written there.

    Parameters
    ----------
    folder : Path
        The folder of the student.
    kind : {"text", "image"} or None
        What the column holds. None if the student knows the names of its columns.
    name : str or None
        Name of the column.
    student : str
        Identity of the student in its configuration. If another one is saved in this folder, the
        column is not read any more.
    """
    file = folder / FILE
    if kind is None:
        file.unlink(missing_ok=True)
        return
    content = {"version": _VERSION, kind: name, "student": student}
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_column(folder: Path, kind: str, student: str) -> str | None:
    """Return the column that a student reads; None if that is not written or not readable.

    Parameters
    ----------
    folder : Path
        The folder of the student.
    kind : {"text", "image"}
        What the student reads.
    student : str
        Identity of the student in its configuration.
    """
    try:
        content = json.loads((folder / FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        return None
    name = content.get(kind)
    return name if isinstance(name, str) and content.get("student") == student else None
