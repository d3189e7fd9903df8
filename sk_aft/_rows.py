"""What a row is: a text, a vector of numbers or an image, whatever container it comes in."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.utils import _safe_indexing

from sk_aft._optional import import_optional

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

_DEEP_GREY_MODES = ("I;16", "I;16L", "I;16B", "I", "F")
_GREY_MODES = ("1", "L", *_DEEP_GREY_MODES)


class SeveralKindsError(ValueError):
    """The columns of a frame are not all numbers."""


@dataclass(frozen=True)
class Rows:
    """Rows of one kind in one container.

    Parameters
    ----------
    kind : {"text", "image", "numeric", "frame"}
        What each row is.
    values : ndarray or DataFrame
        "text": (n,) objects of type str. "numeric": (n, p) numbers. "image": (n, height, width)
        or (n, height, width, channels) numbers, or (n,) objects, each a path, the bytes of an
        image file, a PIL image or an array. "frame": a DataFrame whose columns are of any kinds.
    numbers : ndarray of shape (n,), optional
        Where the rows stood in what the user gave, for messages; default: 0 to n - 1.
    """

    kind: str
    values: Any
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: np.ndarray) -> Rows:
        """Return the rows at ``indices``."""
        numbers = indices if self.numbers is None else self.numbers[indices]
        return Rows(self.kind, self.values_at(indices), numbers)

    def values_at(self, indices: np.ndarray | slice) -> Any:
        """Return the values of the rows at ``indices``."""
        if self.kind == "frame":
            return _safe_indexing(self.values, np.arange(len(self))[indices])
        return self.values[indices]

    def followed_by(self, others: Rows) -> Rows:
        """Return these rows and then others of the same kind."""
        if self.kind != "frame":
            return Rows(self.kind, np.concatenate([self.values, others.values]))
        library = import_module("pandas" if hasattr(self.values, "iloc") else "polars")
        return Rows(self.kind, library.concat([self.values, others.values]))

    def image(self, index: int) -> np.ndarray:
        """Decode the image at ``index``, see `load_image`."""
        number = index if self.numbers is None else int(self.numbers[index])
        return load_image(self.values[index], number)


def as_rows(X: Any, *, kind: str | None = None, frames: bool = False) -> Rows:
    """Find out what the rows of ``X`` are and put them into an indexable array.

    Parameters
    ----------
    X : array-like, list, Series or DataFrame
        Strings, 2-D numbers, image arrays (NHWC; NCHW is recognised by its channel axis),
        PIL images, paths of images, encoded image bytes, or a DataFrame with one column of
        any of these. Strings that all end like image files (".png", ".jpg", ...) are paths.
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
        rows = Rows("image", _channels_last(values))
    else:
        raise ValueError(
            f"Found array with dim {values.ndim}. Expected 2-D numbers or images of shape "
            "(n, height, width) or (n, height, width, channels)."
        )
    if (
        rows.values.dtype == object
        and isinstance(rows.values[0], str)
        and kind in ("text", "image")
    ):
        return Rows(kind, rows.values)
    if kind is not None and rows.kind != kind:
        raise ValueError(f"Expected {kind} rows, got {rows.kind} rows (shape {values.shape}).")
    return rows


def is_frame(X: Any) -> bool:
    """Whether these are rows of a DataFrame, of whatever library."""
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def select_columns(X: Any, names: Sequence[Any]) -> Any:
    """Return a DataFrame of some columns in this order; raises ValueError if one is missing."""
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
    return X if present == list(names) else X[list(names)]


def column_rows(X: Any, column: Any, *, kind: str | None = None) -> Rows:
    """Return what `as_rows` makes of one column of a DataFrame, or of a tuple of columns."""
    frame = select_columns(X, column if isinstance(column, tuple) else [column])
    try:
        return as_rows(frame, kind=kind)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {column!r}: {error}") from error


def load_image(value: Any, row: int) -> np.ndarray:
    """Decode one image.

    Parameters
    ----------
    value : str, PathLike, bytes, PIL.Image.Image or ndarray
        One element of the values of image rows.
    row : int
        Number of the row, for the error message.

    Returns
    -------
    image : ndarray of shape (height, width) or (height, width, channels)
        Greyscale or RGB, uint8 unless the row was an array of another dtype.

    Raises
    ------
    ValueError
        If the row cannot be read as an image; names the row and its path.
    """
    if isinstance(value, np.ndarray):
        return whole_numbers_as_bytes(value)
    image = open_image(value, row)
    try:
        if image.mode in _DEEP_GREY_MODES:
            return _eight_bits(np.asarray(image))
        if image.mode in _GREY_MODES:
            return np.asarray(image.convert("L"))
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(_unreadable(value, row, error)) from error


def whole_numbers_as_bytes(images: np.ndarray) -> np.ndarray:
    """Make images of whole numbers uint8; float images are left as they are.

    Raises
    ------
    ValueError
        If a whole number is not between 0 and 255.
    """
    if images.dtype == np.uint8 or images.dtype.kind not in "iu":
        return images
    if images.size and (images.min() < 0 or images.max() > 255):
        raise ValueError(
            f"Images of whole numbers have to be 0 to 255, got {images.min()} to {images.max()}: "
            "scale them, or give floats between 0 and 1."
        )
    return images.astype(np.uint8)


def image_shape(value: Any, row: int) -> tuple[int, ...]:
    """Return the shape that `load_image` would give, without decoding the pixels."""
    if isinstance(value, np.ndarray):
        return value.shape
    image = open_image(value, row)
    return (image.height, image.width) + (() if image.mode in _GREY_MODES else (3,))


def open_image(value: Any, row: int) -> Any:
    """Open one encoded image without decoding its pixels; raises ValueError as `load_image`."""
    image_module = import_optional("PIL.Image", extra="vision", purpose="reading images")
    if isinstance(value, image_module.Image):
        return value
    try:
        return image_module.open(io.BytesIO(image_bytes(value, row)))
    except image_module.UnidentifiedImageError:
        raise ValueError(_unreadable(value, row, "its format is not known")) from None
    except (OSError, SyntaxError) as error:
        raise ValueError(_unreadable(value, row, error)) from error


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Bring 16 bits, or floats in [0, 1], to 0..255; Pillow would make all above 255 white."""
    scale = 255 if grey.dtype.kind == "f" else 1 / 257
    return np.clip(grey * scale, 0, 255).round().astype(np.uint8)


def image_bytes(value: Any, row: int) -> bytes:
    """Return the content of one image file given by its path or its bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    try:
        return Path(value).read_bytes()
    except OSError as error:
        raise ValueError(_unreadable(value, row, error)) from error


def _unreadable(value: Any, row: int, error: Exception | str) -> str:
    what = repr(str(value)) if isinstance(value, (str, PurePath)) else f"{type(value).__name__}"
    return f"Row {row} ({what}) is not a readable image: {error}. Repair the row or leave it out."


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
    if len(X) and (isinstance(X[0], (str, bytes, PurePath)) or _is_pil(X[0])):
        return _objects(X)
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


def _is_pil(value: Any) -> bool:
    # Comparing the module name keeps Pillow optional and unimported.
    return any(base.__module__.startswith("PIL.") for base in type(value).__mro__)


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
        if all(_has_image_suffix(value) for value in values):
            return Rows("image", values)
        return Rows("text", values)
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
    if _is_pil(value):
        return "a PIL image"
    if value is None or (isinstance(value, float) and np.isnan(value)) or str(value) == "<NA>":
        return "missing"
    return f"of type {type(value).__name__}"


def _has_image_suffix(text: str) -> bool:
    # A suffix is looked for in the last few characters only: texts may be long.
    dot = text.rfind(".", -5)
    return dot > 0 and text[dot:].lower() in IMAGE_SUFFIXES


def _channels_last(values: np.ndarray) -> np.ndarray:
    if values.ndim == 4 and values.shape[3] not in (1, 3, 4) and values.shape[1] in (1, 3):
        return np.moveaxis(values, 1, 3)
    return values
