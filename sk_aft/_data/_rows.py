"""Recognises rows of any container as texts, vectors of numbers, images or categories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import date, time, timedelta
from importlib import import_module
from pathlib import PurePath
from typing import Any

import numpy as np

from sk_aft._data._containers import (
    as_objects,
    category_names,
    check_is_collected,
    is_category,
    is_frame,
    require_distinct_columns,
    rows_of_frame,
    select_columns,
    to_array,
)
from sk_aft._data._images import find_ranges, has_image_suffix, is_pil_image, load_image
from sk_aft._data._lazy_columns import LazyColumn, LazyFrame, are_strings, which_are_missing
from sk_aft._data._missing import is_all_missing, missing_mask
from sk_aft._data._opened_streams import opened
from sk_aft._data._pixels import (
    UNSCALED,
    Ranges,
    are_finite,
    channels_last,
    ranges_after_fit,
    read_pixels,
)
from sk_aft._data._streams import ROWS_PER_BATCH, check_are_no_tables
from sk_aft.exceptions import SeveralKindsError

_DATES = (
    "dates and times are not numbers: convert them to numbers, for example with "
    "(X['day'] - X['day'].min()).dt.days, or X['duration'].dt.total_seconds(). "
    "X['month'].dt.to_timestamp() converts periods to dates."
)

_IMAGES_PER_PIECE = 1024


@dataclass(frozen=True)
class PairOf:
    """Two columns of a frame as pairs of texts; alone, they name the same columns side by side."""

    columns: Any


@dataclass(frozen=True)
class Rows:
    """Rows (samples) whose kind is known. `as_rows` recognises rows once and returns this.

    Parameters
    ----------
    kind : {"text", "pair", "image", "numeric", "category", "frame"}
        What each row is.
    values : ndarray or DataFrame
        "text": (n,) objects of type str. "pair": (n, 2) objects of type str, two texts that are
        read together. "numeric": (n, p) numbers. "image": (n, height, width)
        or (n, height, width, channels) numbers, or (n,) objects, each a path, the bytes of an
        image file, a PIL image or an array. "category": (n, 1) objects of type str. "frame": a
        DataFrame whose columns may be of any kind. A missing object is None. Texts and images may
        be a `LazyColumn`, and frames a `LazyFrame`, whose rows are read when they are used.
    indices : ndarray of shape (n,), optional
        Where the rows stood in what the user gave, for messages; default: 0 to n - 1.
    float_range : Ranges, optional
        What the numbers of images mean; default: nobody looked at them yet. Of a frame, a dict
        of the columns to look at, with the ranges that a fit has seen, None if this is the fit.
    column_kinds : dict, optional
        The kinds of a frame's columns that are known, by name.
    """

    kind: str
    values: Any
    _: KW_ONLY
    indices: np.ndarray | None = None
    float_range: Any = None
    # Found when a preprocessor was fitted, and used when it transforms the same rows.
    _found_ranges: Ranges | None = field(default=None, init=False, repr=False, compare=False)
    column_kinds: dict[Any, str] = field(default_factory=dict)
    # Columns of a frame that were recognised already, by name, names or `PairOf`.
    _columns: dict[Any, Rows] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: np.ndarray | slice) -> Rows:
        """Return some of the rows; messages number them from 0."""
        columns = {name: rows[key] for name, rows in self._columns.items()}
        return replace(self, values=self._values_at(key), indices=None, _columns=columns)

    def take(self, indices: np.ndarray | slice) -> Rows:
        """Return some of the rows; messages keep their numbers."""
        known = np.arange(len(self)) if self.indices is None else self.indices
        columns = {name: rows.take(indices) for name, rows in self._columns.items()}
        values = self._values_at(indices)
        return replace(self, values=values, indices=known[indices], _columns=columns)

    def counted_from(self, first: int) -> Rows:
        """Return the rows with other numbers in messages."""
        columns = {name: rows.counted_from(first) for name, rows in self._columns.items()}
        return replace(self, indices=np.arange(first, first + len(self)), _columns=columns)

    @property
    def is_lazy(self) -> bool:
        """Whether the rows are read from a file when they are used."""
        return isinstance(self.values, (LazyColumn, LazyFrame))

    def pieces(self) -> Iterator[Rows]:
        """Yield a few thousand rows at a time, in memory; fewer images, which are larger."""
        n_rows = ROWS_PER_BATCH if self.kind == "text" else _IMAGES_PER_PIECE
        for start in range(0, len(self), n_rows):
            yield self.take(slice(start, start + n_rows)).loaded()

    def loaded(self) -> Rows:
        """Return the rows in memory."""
        if not self.is_lazy:
            return self
        columns = {name: rows.loaded() for name, rows in self._columns.items()}
        assert isinstance(self.values, (LazyColumn, LazyFrame))
        return replace(self, values=self.values.loaded(), _columns=columns)

    def concat(self, others: Rows) -> Rows:
        """Return these rows and then others of the same kind."""
        if self.kind == "image" and _are_read_differently(self.float_range, others.float_range):
            return self._as_pixels().concat(others._as_pixels())
        float_range = self.float_range or others.float_range
        if self.kind == "image" and self.float_range and others.float_range:
            pairs = zip(self.float_range, others.float_range, strict=True)
            float_range = Ranges(*(mine or theirs for mine, theirs in pairs))
        if self.kind != "frame":
            parts = [self.values, others.values]
            if self.is_lazy or others.is_lazy:
                parts = [x if x.dtype == object else as_objects(list(x)) for x in parts]
                return Rows(self.kind, LazyColumn.chained(parts), float_range=float_range)
            if self.kind == "image" and len({(part.dtype, part.shape[1:]) for part in parts}) > 1:
                # As one array, uint8 would become floats of another range.
                parts = [as_objects(list(part)) for part in parts]
            return Rows(self.kind, np.concatenate(parts), float_range=float_range)
        library = import_module("pandas" if hasattr(self.values, "iloc") else "polars")
        columns = {}
        for name in self.values.columns:
            # pandas turns columns with different categories into strings.
            if name in self._columns or is_category(self.values[name]):
                rows = self.column(name, missing=True)
                columns[name] = rows.concat(others.column(name, kind=rows.kind, missing=True))
        values = library.concat([self.values, others.values])
        return replace(self, values=values, indices=None, float_range=float_range, _columns=columns)

    def read_as(self, kind: str) -> Rows:
        """Return the rows as another kind: strings as texts, images or categories, for example.

        Raises
        ------
        ValueError
            If the rows cannot be of this kind.
        """
        if kind == self.kind:
            return self
        if self.holds_strings and kind in ("text", "image"):
            return Rows(kind, self.values, indices=self.indices)
        if self.holds_strings and kind == "category":
            return Rows(kind, self.values[:, None], indices=self.indices)
        if self.kind == "category" and kind == "text":
            return Rows(kind, self.values[:, 0], indices=self.indices)
        raise ValueError(
            f"Expected {kind} rows, got {self.kind} rows (shape {np.shape(self.values)})"
            f"{_HOW_TO_CONVERT.get((self.kind, kind), '.')}"
        )

    @property
    def holds_strings(self) -> bool:
        """Whether these are texts or paths as strings, possibly missing."""
        return self.kind in ("text", "image") and are_strings(self.values)

    @property
    def missing_mask(self) -> np.ndarray:
        """Which texts or images are missing, (n,) bool; False for numbers and categories.

        A pair is missing if one of its texts is.
        """
        if self.kind == "pair":
            return np.array([None in pair for pair in self.values.tolist()], dtype=bool)
        if self.kind not in ("text", "image") or self.values.dtype != object:
            return np.zeros(len(self), dtype=bool)
        return which_are_missing(self.values)

    def check_complete(self, advice: str = "") -> None:
        """Raise ValueError if a row is missing; the message names the first and how to fix it."""
        missing = np.flatnonzero(self.missing_mask)
        if len(missing):
            raise self.missing_error(int(missing[0]), advice)

    def missing_error(self, index: int, advice: str = "") -> ValueError:
        """Return the error for the missing row at ``index``."""
        fill = (
            "fill it, for example with an empty string (X.fillna('')), or leave the row out."
            if self.kind in ("text", "pair")
            else "fill it with an image, or leave the row out."
        )
        return ValueError(f"Row {self.position(index)} of X is missing (None): {fill}{advice}")

    def in_float_range(self, fitted: Ranges | None = None) -> Rows:
        """Return images whose numbers are read in one range; other rows as they are.

        Parameters
        ----------
        fitted : Ranges, optional
            The ranges of the images seen during a fit; default: this is the fit.

        Returns
        -------
        rows : Rows
            With the ranges that are found now, or those of the fit. Rows that carry their ranges
            are not looked at again.

        Raises
        ------
        ValueError
            If the images cannot be compared with those seen during the fit.
        """
        if self.kind != "image":
            return self
        found = self.float_range or self._found_ranges
        if found is None:
            found = find_ranges(self.values, fitted)
            if fitted is None:
                object.__setattr__(self, "_found_ranges", found)
        return replace(self, float_range=ranges_after_fit(fitted, found))

    def column(self, column: Any, *, kind: str | None = None, missing: bool = False) -> Rows:
        """Return one column of a frame, or a tuple of columns, as rows.

        Parameters
        ----------
        column : object
            Name of the column, or a tuple of names.
        kind : {"text", "pair", "image", "numeric", "category"}, optional
            Required kind of the rows. "pair" is for a tuple of two columns of texts.
        missing : bool, default=False
            Whether texts and images may be missing.

        Returns
        -------
        rows : Rows
            Recognised at the first call and kept. That call decides what strings are.

        Raises
        ------
        ValueError
            If there is no such column, or it cannot be read; the message names it.
        """
        key = PairOf(column) if kind == "pair" else column
        if key not in self._columns and kind == "pair":
            texts = [self.column(name, kind="text", missing=True).values for name in column]
            self._columns[key] = Rows("pair", np.column_stack(texts), indices=self.indices)
        if key not in self._columns:
            names = column if isinstance(column, tuple) else [column]
            frame = select_columns(self.values, names)
            with named(column):
                first_kind = self.column_kinds.get(column, kind)
                rows = as_rows(frame, default_kind=first_kind, missing=True)
                if rows.holds_strings and first_kind in ("text", "image"):
                    rows = rows.read_as(first_kind)
                if column in (self.float_range or {}):
                    rows = rows.in_float_range(self.float_range[column])
            self._columns[column] = replace(rows, indices=self.indices)
        rows = self._columns[key]
        with named(column):
            rows = rows if kind is None else rows.read_as(kind)
            if not missing:
                rows.check_complete(_OR_CATEGORY if rows.kind == "text" else "")
        return rows

    def image(self, index: int) -> np.ndarray:
        """Decode the image at ``index``, see `load_image`."""
        return load_image(self.values[index], self.position(index), self.float_range)

    def images(self) -> np.ndarray:
        """Return the images of one array at once, decoded as by `image`."""
        values = self.values
        if not are_finite(values):
            for index in np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1)):
                self.image(int(index))  # raises, and names the row
        try:
            has_alpha = values.shape[3:] == (4,)
            return read_pixels(values, self.float_range or Ranges(), has_alpha=has_alpha)
        except ValueError:
            for row in range(len(values)):
                self.image(row)  # raises, and names the row
            raise

    def _as_pixels(self) -> Rows:
        """Return images as they are read, which need no range of their own any more."""
        images = [None if v is None else self.image(row) for row, v in enumerate(self.values)]
        floats = self.float_range.floats
        ranges = Ranges(floats if floats in UNSCALED else "fractions", "levels")
        return Rows(self.kind, as_objects(images), indices=self.indices, float_range=ranges)

    def position(self, index: int) -> int:
        """Return the position of the row at ``index`` in the user's data."""
        return index if self.indices is None else int(self.indices[index])

    def _values_at(self, key: np.ndarray | slice) -> Any:
        if self.kind == "frame":
            return rows_of_frame(self.values, np.arange(len(self))[key])
        return self.values[key]

    def __getstate__(self) -> dict[str, Any]:
        # Columns are read again, as what they were recognised as.
        kinds = {
            name: rows.kind for name, rows in self._columns.items() if not isinstance(name, PairOf)
        }
        ranges = {
            name: rows.float_range
            for name, rows in self._columns.items()
            if rows.float_range is not None
        }
        known = {"column_kinds": {**self.column_kinds, **kinds}, "_columns": {}}
        if self.kind == "frame":
            known["float_range"] = {**(self.float_range or {}), **ranges}
        return {**vars(self), **known}


def as_rows(
    X: Any,
    *,
    kind: str | None = None,
    frames: bool = False,
    missing: bool = False,
    default_kind: str | None = None,
) -> Rows:
    """Recognise rows.

    Strings are texts, or paths if all of them end like image files; they are never numbers.

    Parameters
    ----------
    X : array-like, list, Series, DataFrame or Rows
        Rows of one kind. Arrays of images are grey, (n, height, width), or have channels in the
        axis that `channels_last` finds.
    kind : {"text", "image", "numeric", "category", "frame"}, optional
        Required kind of the rows. Strings are then read as this kind, regardless of suffix.
    frames : bool, default=False
        Whether a DataFrame with columns of several kinds is accepted; kind "frame" requires one.
    missing : bool, default=False
        Whether texts and images may be missing. Numbers may always be NaN.
    default_kind : {"text", "image", "numeric", "category"}, optional
        The kind to use if all rows are missing.

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
        rows = X if kind is None else X.read_as(kind)
    else:
        if kind is None:
            check_are_no_tables(X)
        X = opened(X)
        check_is_collected(X)
        rows = _frame_rows(X) if kind == "frame" else _recognised(X, frames, kind or default_kind)
        rows = rows if kind is None else rows.read_as(kind)
    if not missing:
        rows.check_complete()
    return rows


def check_finite(values: np.ndarray, *, columns: Any = None, advice: str) -> None:
    """Raise ValueError if a number is NaN or infinite; the message names its row and column.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
        Numbers.
    columns : sequence, optional
        Names of the columns; default: their numbers.
    advice : str
        How to fix it.
    """
    if are_finite(values):
        return
    row, column = np.argwhere(~np.isfinite(values))[0]
    what = "NaN" if np.isnan(values[row, column]) else "infinity (inf)"
    name = int(column) if columns is None else columns[column]
    raise ValueError(f"Input X contains {what} in row {row}, column {name!r}: {advice}")


@contextmanager
def filled_by(rows: Rows) -> Iterator[None]:
    """If a preprocessor fails and rows are missing, raise an error that says so."""
    try:
        yield
    except Exception:
        rows.check_complete()
        raise


def rows_for(preprocessor: Any, rows: Rows) -> Any:
    """Return the input of a preprocessor: `Rows` for this package's, else plain values."""
    return rows if getattr(preprocessor, "_accepts_rows", False) else rows.values


_HOW_TO_MAKE_NUMBERS = "all of them have to be numbers; .astype(float) makes them so."
_HOW_TO_PASS_COLUMNS = (
    "pass the one column that holds the texts or images, for example X['text'], or select it with "
    "a ColumnTransformer. A mapping such as model={'text': 'minilm'} says which foundation model "
    "reads which column."
)
# The end of messages about a missing row of a column that may be meant as categories.
_OR_CATEGORY = " A column of categories is one after astype('category')."
_HOW_TO_CONVERT = {
    ("text", "numeric"): ": strings are not numbers, make them numbers with .astype(float).",
    ("numeric", "text"): ": numbers are not texts, make them texts with .astype(str); "
    "of a CSV file, read it with pandas.read_csv(path, dtype=str).",
    ("numeric", "category"): ": make them categories with .astype('category').",
}


@contextmanager
def named(column: Any) -> Iterator[None]:
    """Prepend the name of a column to the message of an error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {column!r}: {error}") from error


def _are_read_differently(some: Ranges | None, others: Ranges | None) -> bool:
    pairs = zip(some or (), others or (), strict=False)
    return any(a != b and a is not None and b is not None for a, b in pairs)


def _frame_rows(X: Any) -> Rows:
    if len(X) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    if is_frame(X):
        require_distinct_columns(X)
    return Rows("frame", X)


def _recognised(X: Any, frames: bool, kind: str | None) -> Rows:
    if isinstance(X, LazyFrame):
        X = X.as_rows()
    if isinstance(X, LazyColumn):
        return _lazy_rows(X, kind)
    if is_category(X):
        values = category_names(X)[:, None]
        _check_not_empty(values)
        return Rows("category", values)
    try:
        values = to_array(X)
    except SeveralKindsError as error:
        if frames:
            return _frame_rows(X)
        advice = _HOW_TO_MAKE_NUMBERS if kind == "numeric" else _HOW_TO_PASS_COLUMNS
        raise SeveralKindsError(f"{error}{advice}") from None
    _check_not_empty(values)
    is_column = values.ndim == 1 or values.shape[1:] == (1,)
    if kind is not None and is_column and is_all_missing(values):
        return _missing_rows(kind, len(values))
    if values.dtype == object:
        return _object_rows(values)
    if values.dtype.kind in "mM":
        raise ValueError(f"Cannot use rows of dtype {values.dtype}: {_DATES}")
    if values.dtype.kind == "c":
        raise ValueError("Complex data not supported: rows have to be real numbers.")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"Cannot use rows of dtype {values.dtype}: give numbers, texts or images.")
    if values.ndim <= 1:
        raise ValueError(
            f"Expected 2D array, got {values.ndim}D array instead: numbers are rows of a table, "
            "images are 3-D or 4-D arrays. Reshape your data using array.reshape(-1, 1) if it "
            "has a single feature or array.reshape(1, -1) if it is a single row."
        )
    if values.ndim == 2:
        return Rows("numeric", values)
    if values.ndim in (3, 4):
        return Rows("image", channels_last(values) if values.ndim == 4 else values)
    raise ValueError(
        f"Found array with dim {values.ndim}. Expected 2-D numbers or images of shape "
        "(n, height, width) or (n, height, width, channels)."
    )


def _lazy_rows(column: LazyColumn, kind: str | None) -> Rows:
    _check_not_empty(column)
    if column.missing_mask.all():
        return _missing_rows(kind or "text", len(column))
    are_paths = not column.holds_strings or all(
        value is None or has_image_suffix(value) for value in column
    )
    return Rows("image" if are_paths else "text", column)


def _check_not_empty(values: np.ndarray | LazyColumn) -> None:
    if values.ndim and len(values) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={values.shape}) while a minimum of 1 is required."
        )


def _missing_rows(kind: str, n_rows: int) -> Rows:
    """Return rows of which none is there."""
    if kind == "numeric":
        return Rows(kind, np.full((n_rows, 1), np.nan))
    values: np.ndarray = np.full(n_rows, None, dtype=object)
    return Rows(kind, values[:, None] if kind == "category" else values)


def _object_rows(values: np.ndarray) -> Rows:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(
            f"Expected one text or image per row, got an array of shape {values.shape}."
        )
    values = _none_if_missing(values)
    present = np.flatnonzero([value is not None for value in values])
    if not len(present):
        missing = Rows("text", values).missing_error(0)
        raise ValueError(f"{missing} All {len(values)} rows are missing.")
    types = {int(row): _type_name(values[row]) for row in present}
    first_row, first = next(iter(types.items()))
    for row, name in types.items():
        if name != first:
            raise ValueError(
                f"X mixes types: row {first_row} is {first} and row {row} is {name}. "
                "All rows have to be of one type; .astype(str) makes texts of strings and numbers."
            )
    if first == "text":
        if any(type(values[row]) is not str for row in present):
            values = values.copy()
            values[present] = [str(values[row]) for row in present]
        are_paths = all(has_image_suffix(values[row]) for row in present)
        return Rows("image" if are_paths else "text", values)
    if first == "an image array" and any(values[row].ndim == 3 for row in present):
        values = values.copy()
        for index in present:
            values[index] = _channels_last(values[index], int(index))
    if first in ("a path", "bytes", "a PIL image", "an image array"):
        return Rows("image", values)
    if first == "a date":
        raise ValueError(f"Row {first_row} of X is of type {type(values[first_row])}: {_DATES}")
    raise ValueError(
        f"Row {first_row} of X is of type {type(values[first_row]).__name__}: rows have to be "
        "numbers, texts, images, paths of images or bytes of images. Reshape your data into 2-D if "
        "each row is one number."
    )


def _none_if_missing(values: np.ndarray) -> np.ndarray:
    missing = missing_mask(values)
    if not missing.any():
        return values
    values = values.astype(object)
    values[missing] = None
    return values


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
    if isinstance(value, (date, time, timedelta, np.datetime64, np.timedelta64)):
        return "a date"
    if type(value).__name__ == "Period":  # of pandas, which is optional
        return "a date"
    return f"of type {type(value).__name__}"


def _channels_last(image: np.ndarray, row: int) -> np.ndarray:
    try:
        return channels_last(image) if image.ndim == 3 else image
    except ValueError as error:
        raise ValueError(f"Row {row} of X: {error}") from None
