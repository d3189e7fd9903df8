"""What one cell of a table is: empty, a number, the path of an image."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from sk_aft._data._images import IMAGE_SUFFIXES
from sk_aft._data._missing import is_missing

# How programs write a number that is not there.
_NOTHING = frozenset({"", "na", "n/a", "nan", "null", "none"})
# Not 007: a number that starts with a zero is a code.
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def is_empty(cell: Any) -> bool:
    """Return whether a cell holds nothing: null, NaN, or no character but blanks."""
    return is_missing(cell) or (isinstance(cell, str) and not cell.strip())


def is_no_number(cell: Any) -> bool:
    """Return whether a cell of a column of numbers says that the number is missing."""
    return is_missing(cell) or (isinstance(cell, str) and cell.strip().lower() in _NOTHING)


def is_written_number(text: str) -> bool:
    """Return whether a text is a number as it is usually written; "007" is not."""
    return _NUMBER.fullmatch(text.strip()) is not None


def as_number(cell: Any) -> float:
    """Return a cell as a number, NaN if it is missing; raises ValueError if it is no number."""
    if is_no_number(cell):
        return math.nan
    if isinstance(cell, (bytes, list, dict)):
        raise ValueError
    return float(cell)


def is_image_path(cell: Any) -> bool:
    """Return whether a cell is a text that ends as the name of an image file does."""
    return isinstance(cell, str) and Path(cell).suffix.lower() in IMAGE_SUFFIXES


def as_image(cell: Any, folder: Path) -> Any:
    """Return what can be read as an image: a path, or the bytes of a file.

    Parameters
    ----------
    cell : str, bytes or dict
        A path relative to the folder, the bytes of an image file, or a dict with "bytes", as
        Parquet files of Hugging Face data sets hold.
    folder : Path
        The folder that holds the table.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    return folder / cell if isinstance(cell, str) else cell
