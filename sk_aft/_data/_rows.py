"""What a row is: a text, a vector of numbers or an image, whatever container it comes in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import PurePath
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.utils import _safe_indexing

from sk_aft._data._images import (
    find_float_range,
    has_image_suffix,
    is_pil_image,
    load_image,
)
from sk_aft._data._pixels import channels_last, range_after_fit, read_pixels
from sk_aft.exceptions import SeveralKindsError


@dataclass(frozen=True)
class Rows:
    """Rows whose kind is known: they are recognised once, by `as_rows`, and travel as this.

    Parameters
    ----------
    kind : {"text", "image", "numeric", "frame"}
        What each row is.
    values : ndarray or DataFrame
        "text": (n,) objects of type str. "numeric": (n, p) numbers. "image": (n, height, width)
        or (n, height, width, channels) numbers, or (n,) objects, each a path, the bytes of an
        image file, a PIL image or an array. "frame": a DataFrame whose columns are of any kinds.
    indices : ndarray of shape (n,), optional
        Where the rows stood in what the user gave, for messages; default: 0 to n - 1.
    float_range : str, optional
        What floats mean in images, see `sk_aft._data._pixels`; default: not known, or there are
        none. Of a frame, a dict with the range of each column that a fit has seen.
    """

    kind: str
    values: Any
    indices: np.ndarray | None = None
    float_range: Any = None
    # Columns of a frame that were recognised already.
    _columns: dict[Any, Rows] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: np.ndarray | slice) -> Rows:
        """Return some of the rows as rows of their own, which messages number from 0."""
        columns = {name: rows[key] for name, rows in self._columns.items()}
        return Rows(self.kind, self._values_at(key), None, self.float_range, columns)

    def take(self, indices: np.ndarray | slice) -> Rows:
        """Return some of the rows, which messages number as they are numbered here."""
        known = np.arange(len(self)) if self.indices is None else self.indices
        columns = {name: rows.take(indices) for name, rows in self._columns.items()}
        values = self._values_at(indices)
        return Rows(self.kind, values, known[indices], self.float_range, columns)

    def concat(self, others: Rows) -> Rows:
        """Return these rows and then others of the same kind."""
        if self.kind == "frame":
            library = import_module("pandas" if hasattr(self.values, "iloc") else "polars")
            values = library.concat([self.values, others.values])
        else:
            parts = [self.values, others.values]
            if self.kind == "image" and len({(part.dtype, part.shape[1:]) for part in parts}) > 1:
                # As one array, uint8 would become floats of another range.
                parts = [_objects(list(part)) for part in parts]
            values = np.concatenate(parts)
        return Rows(self.kind, values, float_range=self.float_range or others.float_range)

    def read_as(self, kind: str) -> Rows:
        """Return the same rows as of another kind; only strings may be read in two ways.

        Raises
        ------
        ValueError
            If the rows cannot be of this kind.
        """
        if kind == self.kind:
            return self
        holds_strings = self.kind in ("text", "image") and isinstance(self.values[0], str)
        if not (holds_strings and kind in ("text", "image")):
            shape = np.shape(self.values)
            raise ValueError(f"Expected {kind} rows, got {self.kind} rows (shape {shape}).")
        return Rows(kind, self.values, self.indices)

    def in_float_range(self, fitted: str | None = "any") -> Rows:
        """Return images whose floats are read in one range; other rows as they are.

        Parameters
        ----------
        fitted : str or None, default="any"
            The range of the images seen during a fit; None if there were no floats, "any" if this
            is the fit.

        Returns
        -------
        rows : Rows
            With the range that is found now, or that of the fit.

        Raises
        ------
        ValueError
            If the images cannot be compared with those seen during the fit.
        """
        if self.kind != "image":
            return self
        return replace(self, float_range=range_after_fit(fitted, find_float_range(self.values)))

    def column(self, column: Any, *, kind: str | None = None) -> Rows:
        """Return one column of a frame, or a tuple of columns, as rows.

        Parameters
        ----------
        column : object
            Name of the column, or a tuple of names.
        kind : {"text", "image", "numeric"}, optional
            What the rows have to be.

        Returns
        -------
        rows : Rows
            Recognised at the first call, and kept.

        Raises
        ------
        ValueError
            If there is no such column, or it cannot be read; names it.
        """
        if column not in self._columns:
            names = column if isinstance(column, tuple) else [column]
            frame = select_columns(self.values, names)
            with _named(column):
                rows = as_rows(frame)
                rows = rows.in_float_range((self.float_range or {}).get(column, "any"))
            self._columns[column] = replace(rows, indices=self.indices)
        if kind is None:
            return self._columns[column]
        with _named(column):
            return self._columns[column].read_as(kind)

    def image(self, index: int) -> np.ndarray:
        """Decode the image at ``index``, see `load_image`."""
        return load_image(self.values[index], self.position(index), self.float_range)

    def images(self) -> np.ndarray:
        """Return the images of one array at once, as `image` returns each of them."""
        values = self.values
        if values.dtype.kind == "f":
            for index in np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1)):
                self.image(int(index))  # raises, and names the row
        return read_pixels(values, self.float_range, has_alpha=values.shape[3:] == (4,))

    def position(self, index: int) -> int:
        """Return where the row at ``index`` stood in what the user gave."""
        return index if self.indices is None else int(self.indices[index])

    def _values_at(self, key: np.ndarray | slice) -> Any:
        if self.kind == "frame":
            return _safe_indexing(self.values, np.arange(len(self))[key])
        return self.values[key]

    def __reduce__(self) -> Any:
        return Rows, (self.kind, self.values, self.indices, self.float_range)


def as_rows(X: Any, *, kind: str | None = None, frames: bool = False) -> Rows:
    """Find out what the rows of ``X`` are and put them into an indexable array.

    Parameters
    ----------
    X : array-like, list, Series or DataFrame, or Rows
        Strings, 2-D numbers, image arrays, PIL images, paths of images, encoded image bytes, or
        a DataFrame with one column of any of these. Strings that all end like image files
        (".png", ".jpg", ...) are paths. Arrays are grey images (n, height, width), or have
        channels in the axis that `channels_last` finds. `Rows` are known already.
    kind : {"text", "image", "numeric", "frame"}, optional
        What the rows have to be; strings are taken as paths where images are expected.
    frames : bool, default=False
        Whether a DataFrame whose columns are not all numbers is of kind "frame", as it is,
        or an error.

    Returns
    -------
    rows : Rows
        The kind and the values. Numeric arrays are not copied.

    Raises
    ------
    ValueError
        If the rows are of several types, missing, of an unknown type, or not of ``kind``.
    """
    if isinstance(X, Rows):
        return X if kind is None else X.read_as(kind)
    if kind == "frame":
        return _frame_rows(X)
    try:
        values = _to_array(X)
    except SeveralKindsError:
        if frames:
            return _frame_rows(X)
        raise
    if values.dtype.kind in "US":
        values = values.astype(object)
    if values.ndim and len(values) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={values.shape}) while a minimum of 1 is required."
        )
    if values.dtype == object:
        rows = _object_rows(values)
    elif values.ndim <= 1:
        raise ValueError(
            f"Expected 2D array, got {values.ndim}D array instead: numbers are rows of a table, "
            "images are 3-D or 4-D arrays. Reshape your data using array.reshape(-1, 1) if it "
            "has a single feature or array.reshape(1, -1) if it is a single row."
        )
    elif values.dtype.kind not in "biuf":
        if values.dtype.kind == "c":
            raise ValueError("Complex data not supported: rows have to be real numbers.")
        raise ValueError(f"Cannot use rows of dtype {values.dtype}: give numbers, texts or images.")
    elif values.ndim == 2:
        rows = Rows("numeric", values)
    elif values.ndim in (3, 4):
        rows = Rows("image", channels_last(values) if values.ndim == 4 else values)
    else:
        raise ValueError(
            f"Found array with dim {values.ndim}. Expected 2-D numbers or images of shape "
            "(n, height, width) or (n, height, width, channels)."
        )
    return rows if kind is None else rows.read_as(kind)


def is_frame(X: Any) -> bool:
    """Whether these are rows of a DataFrame, of whatever library."""
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def require_columns(X: Any, names: Sequence[Any]) -> None:
    """Raise ValueError if this is no DataFrame, or one that lacks some of the columns."""
    if not is_frame(X):
        raise ValueError(
            f"X has to be a DataFrame with the columns {list(names)}, got a {type(X).__name__}."
        )
    present = list(X.columns)
    missing = [name for name in names if name not in present]
    if missing:
        which = "column " if len(missing) == 1 else "columns "
        which += ", ".join(map(repr, missing)) + (" is" if len(missing) == 1 else " are")
        raise ValueError(f"{which} missing from X, which has {present}.")


def select_columns(X: Any, names: Sequence[Any]) -> Any:
    """Return a DataFrame of some columns in this order; raises ValueError if one is missing."""
    require_columns(X, names)
    return X if list(X.columns) == list(names) else X[list(names)]


def rows_for(preprocessor: Any, rows: Rows) -> Any:
    """Return what a preprocessor is given: ours take `Rows`, others plain values."""
    return rows if getattr(preprocessor, "_accepts_rows", False) else rows.values


@contextmanager
def _named(column: Any) -> Iterator[None]:
    """Put the name of a column before the message of an error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {column!r}: {error}") from error


def _frame_rows(X: Any) -> Rows:
    if len(X) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    return Rows("frame", X)


def _to_array(X: Any) -> np.ndarray:
    """Put any container into a NumPy array without touching its elements."""
    if X is None:
        raise ValueError("X is None: give the rows to learn from.")
    if scipy.sparse.issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but dense data is required. "
            "Use '.toarray()' to convert to a dense numpy array."
        )
    if isinstance(X, (str, bytes)):
        raise ValueError("X is a single string: give a list of rows, for example [text].")
    if is_frame(X):
        return _frame_to_array(X)
    if hasattr(X, "to_numpy"):
        return _numbers_if_possible(np.asarray(X.to_numpy()))
    if isinstance(X, (list, tuple)):
        return _list_to_array(X)
    try:
        return _numbers_if_possible(np.asarray(X))
    except ValueError as error:
        raise ValueError(
            f"X of type {type(X).__name__} is not an array of rows: {error}"
        ) from error


def _frame_to_array(X: Any) -> np.ndarray:
    values = np.asarray(X.to_numpy())
    if values.dtype.kind in "OUS" and values.ndim == 2 and values.shape[1] > 1:
        try:
            return values.astype(float)
        except (TypeError, ValueError):
            names = ", ".join(map(str, X.columns))
            raise SeveralKindsError(
                f"X is a DataFrame whose columns ({names}) are not all numbers: pass the one "
                "column that holds the texts or images, for example X['text'], or select it "
                "with a ColumnTransformer. A mapping such as model={'text': 'minilm'} says which "
                "foundation model reads which column."
            ) from None
    return _numbers_if_possible(values)


def _list_to_array(X: list | tuple) -> np.ndarray:
    if len(X) and (isinstance(X[0], (str, bytes, PurePath)) or is_pil_image(X[0])):
        return _objects(X)
    if len(X) and type(X[0]).__module__ == "torch":
        X = [np.asarray(tensor) for tensor in X]
    if len(X) and isinstance(X[0], np.ndarray) and X[0].ndim >= 2:
        if all(isinstance(x, np.ndarray) and x.shape == X[0].shape for x in X):
            return np.stack(X)
        return _objects(X)
    try:
        array = np.asarray(X)
    except ValueError:
        return _objects(X)
    return _numbers_if_possible(array)


def _numbers_if_possible(values: np.ndarray) -> np.ndarray:
    """Numbers that were held as objects become numbers; other objects stay as they are."""
    if values.dtype != object or values.ndim < 2 or values.size == 0:
        return values
    if values.ndim == 2 and values.shape[1] == 1 and isinstance(values[0, 0], (str, bytes)):
        return values
    try:
        return values.astype(float)
    except ValueError as error:
        if values.ndim == 2 and values.shape[1] > 1:
            raise ValueError(f"X has rows that are neither numbers nor one text: {error}") from None
        return values
    except TypeError:
        if values.ndim == 2 and values.shape[1] > 1:
            raise TypeError(
                "X holds objects that are not numbers: every argument must be a string or a "
                "number, an image, or one column of these."
            ) from None
        return values


def _objects(X: list | tuple) -> np.ndarray:
    # Element by element: assigned as a whole, images would be taken for arrays and decoded.
    return np.fromiter(X, dtype=object, count=len(X))


def _object_rows(values: np.ndarray) -> Rows:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"Expected one text or image a row, got an array of shape {values.shape}.")
    names = [_type_name(value) for value in values]
    first = names[0]
    for row, name in enumerate(names):
        if name == "missing":
            raise ValueError(
                f"Row {row} of X is missing ({values[row]!r}): fill it, for example with an empty "
                "string, or leave the row out."
            )
        if name != first:
            raise ValueError(
                f"X mixes types: row 0 is {first} and row {row} is {name}. "
                "All rows have to be of one type."
            )
    if first == "text":
        if any(type(value) is not str for value in values):
            values = _objects([str(value) for value in values])
        if all(has_image_suffix(value) for value in values):
            return Rows("image", values)
        return Rows("text", values)
    if first == "an image array" and any(value.ndim == 3 for value in values):
        values = _objects([_channels_last(value, row) for row, value in enumerate(values)])
    if first in ("a path", "bytes", "a PIL image", "an image array"):
        return Rows("image", values)
    raise ValueError(
        f"Row 0 of X is of type {type(values[0]).__name__}: rows have to be numbers, texts, "
        "images, paths of images or bytes of images. Reshape your data into 2-D if each row "
        "is one number."
    )


def _type_name(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, PurePath):
        return "a path"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes"
    if isinstance(value, np.ndarray) and value.ndim in (2, 3):
        return "an image array"
    if is_pil_image(value):
        return "a PIL image"
    if value is None or (isinstance(value, float) and np.isnan(value)) or str(value) == "<NA>":
        return "missing"
    return f"of type {type(value).__name__}"


def _channels_last(image: np.ndarray, row: int) -> np.ndarray:
    try:
        return channels_last(image) if image.ndim == 3 else image
    except ValueError as error:
        raise ValueError(f"Row {row} of X: {error}") from None
