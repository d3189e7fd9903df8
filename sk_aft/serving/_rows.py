"""One row or many, in any container -> checked rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from os import PathLike
from typing import Any

import numpy as np

from sk_aft._data._containers import (
    category_name,
    is_category,
    is_frame,
    require_columns,
    select_columns,
)
from sk_aft._data._images import is_pil_image
from sk_aft._data._missing import is_missing
from sk_aft._data._rows import Rows, as_rows, check_finite, named

_FILL = "fill it, as the rows that the student was trained on were."
_EXPECTED = {
    "text": "a text or a list of texts",
    "image": "an image or a list of images (paths, bytes, PIL images or arrays)",
}


def check_rows(
    X: Any,
    kind: str,
    *,
    n_features_in: int | None = None,
    names: Sequence[str] | None = None,
    column_kinds: Mapping[Any, str] | None = None,
    n_bands: int | None = None,
    image_size: Sequence[int] | None = None,
    allow_nan: bool = False,
) -> Rows:
    """Recognise and check rows as in training.

    Parameters
    ----------
    X : object
        One row or many: a text or a list of texts; an image or several; numbers; of columns of
        several kinds, a DataFrame, a mapping of columns or a list of mappings.
    kind : {"text", "image", "numeric", "category", "frame"}
        Kind of the rows that the student was trained on.
    n_features_in : int, optional
        Number of columns of a table.
    names : sequence of str, optional
        Names of the columns of a table.
    column_kinds : mapping, optional
        Kind of each column of a frame.
    n_bands : int, optional
        Number of bands of the images.
    image_size : tuple of (height, width), optional
        Size of the images.
    allow_nan : bool, default=False
        Whether numbers may be missing.

    Returns
    -------
    rows : Rows
        At least one.

    Raises
    ------
    ValueError, TypeError
        If the rows cannot be read, or are not like those of training.
    """
    if kind == "frame":
        return _check_frame(X, column_kinds or {})
    if kind == "numeric" and names is not None:
        X = _table(X, list(names))
    if kind in _EXPECTED:
        _check_no_other_rows(X, kind)
    if kind == "image":
        _check_not_flat(X, n_bands, image_size)
    rows = as_rows(_as_many(X, kind, n_bands), kind=kind)
    if kind == "numeric":
        n_columns = rows.values.shape[1]
        if n_features_in is not None and n_columns != n_features_in:
            raise ValueError(
                f"X has {n_columns} columns, but the student was trained on {n_features_in}."
            )
        if not allow_nan:
            check_finite(rows.values, columns=names, advice=_FILL)
    return rows


def _table(X: Any, names: list) -> Any:
    """Return the columns of a table by their names, if it has names."""
    if is_frame(X):
        return select_columns(X, names)
    rows = X if isinstance(X, Sequence) and len(X) else [X]
    if not isinstance(rows[0], Mapping):
        return X
    columns = _columns(X, names)
    return np.column_stack([_numbers(columns[name], name) for name in names])


def _numbers(column: Any, name: Any) -> np.ndarray:
    try:
        return np.array([np.nan if is_missing(v) else v for v in column], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name!r} holds something else than numbers: {error}") from error


def _check_no_other_rows(X: Any, kind: str) -> None:
    """Raise if rows are dicts, numbers or nothing, where texts or images are expected."""
    is_list = isinstance(X, (list, tuple)) and len(X) > 0
    first = X[0] if is_list else X
    is_other = isinstance(first, (Mapping, Number)) or (kind == "text" and isinstance(first, bytes))
    if X is None or (is_other and not (is_list and is_missing(first))):
        got = f"a {type(X).__name__} of {type(first).__name__}" if is_list else f"{X!r:.60}"
        raise ValueError(f"Expected {_EXPECTED[kind]}, got {got}.")


def _check_not_flat(X: Any, n_bands: int | None, size: Sequence[int] | None) -> None:
    """Raise if images are rows of numbers, of which an array looks like a single grey image."""
    if size is None or not isinstance(X, np.ndarray) or X.ndim != 2:
        return
    n_pixels = size[0] * size[1]
    if X.shape[1] in (n_pixels, n_pixels * (n_bands or 1)) and size[1] != X.shape[1]:
        raise ValueError(
            f"X has the shape {X.shape}, as flattened images have: give them as an array "
            f"(n_images, {size[0]}, {size[1]}) or with bands, for example X.reshape(-1, {size[0]}, "
            f"{size[1]})."
        )


def _as_many(X: Any, kind: str, n_bands: int | None) -> Any:
    """Return a single row as a list or array of one row."""
    is_file = isinstance(X, (bytes, bytearray, PathLike)) or is_pil_image(X)
    if isinstance(X, str) or (kind == "image" and is_file):
        return [X]
    if kind == "numeric" and not is_frame(X):
        X = np.asarray(X)
        return X[None] if X.ndim == 1 else X
    if kind == "image" and isinstance(X, np.ndarray) and _is_one_image(X, n_bands):
        return X[None]
    return X


def _is_one_image(array: np.ndarray, n_bands: int | None) -> bool:
    if array.dtype == object:
        return False
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4, n_bands))


def _check_frame(X: Any, column_kinds: Mapping[Any, str]) -> Rows:
    columns = _columns(X, list(column_kinds))
    n_rows = {len(column) for column in columns.values()}
    if n_rows == {0}:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    if len(n_rows) != 1:
        raise ValueError(f"The columns of X have different lengths: {sorted(n_rows)}.")
    read = {}
    for name, column in columns.items():
        with named(name):
            read[name] = _column(column, column_kinds[name], name)
    # The columns are recognised, so the frame itself is only asked for its length.
    return Rows("frame", np.arange(*n_rows), _columns=read)


def _columns(X: Any, names: list) -> dict[Any, Any]:
    if is_frame(X):
        require_columns(X, names)
        return {name: X[name] for name in names}
    if isinstance(X, Mapping):
        is_one = not any(_is_column(value) for value in X.values())
        X = [X] if is_one else X
    if isinstance(X, Mapping):
        _require(X, names)
        return {name: X[name] for name in names}
    if not isinstance(X, Sequence) or not all(isinstance(row, Mapping) for row in X):
        raise ValueError(
            f"X is a {type(X).__name__}: expected a DataFrame, a dict with the columns {names}, or "
            "a list of dicts."
        )
    for row in X:
        _require(row, names)
    return {name: [row[name] for row in X] for name in names}


def _require(row: Mapping, names: list) -> None:
    missing = [name for name in names if name not in row]
    if missing:
        raise ValueError(f"X lacks the columns {missing}, it has {list(row)}.")


def _is_column(value: Any) -> bool:
    if isinstance(value, (list, tuple)) or hasattr(value, "dtypes") or hasattr(value, "to_numpy"):
        return True
    # An array of two or three dimensions may be an image.
    return isinstance(value, np.ndarray) and value.ndim in (1, 4)


def _column(column: Any, kind: str, name: Any) -> Rows:
    if kind == "category":
        if is_category(column):
            return as_rows(column)
        values = [None if is_missing(value) else category_name(value) for value in column]
        return Rows(kind, np.array(values, dtype=object)[:, None])
    if kind == "numeric":
        numbers = _numbers(column, name)
        check_finite(numbers[:, None], columns=[name], advice=_FILL)
        return Rows(kind, numbers[:, None])
    return as_rows(column, kind=kind)
