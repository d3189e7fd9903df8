"""The door of an extractor: rows are recognised and checked here, once, before a model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_array

from sk_aft._data._containers import is_frame, require_columns, select_columns
from sk_aft._data._lazy_columns import LazyFrame
from sk_aft._data._opened_streams import opened
from sk_aft._data._rows import Rows, as_rows, check_finite, named
from sk_aft._data._streams import is_path, is_stream, is_transformed, opened_files
from sk_aft._extraction._row_faults import OR_MASK


class Seen(NamedTuple):
    """Rows that the extractor has checked.

    Parameters
    ----------
    inputs : array-like, list, Series or DataFrame of n_rows rows
        What the student gets, as it was given.
    rows : Rows
        The same, recognised.
    read : Rows
        What the models read.
    """

    inputs: Any
    rows: Rows
    read: Rows


class Known(NamedTuple):
    """What the rows of ``fit`` have decided for all later rows.

    Parameters
    ----------
    kind : str
        Their kind, if they are not the columns of a DataFrame.
    float_ranges : dict
        The range of the floats in each column of images; None for the rows as they are.
    """

    kind: str
    float_ranges: dict[Any, Any]


class Door(NamedTuple):
    """How an extractor reads its rows.

    Parameters
    ----------
    model, inputs, on_error : object
        The parameters of the extractor.
    kinds : dict of object to str
        By column, the kind that its models read, if they agree on one.
    has_readers : bool
        Whether any model has features; predictors have none.
    reads_frames : bool
        Whether a predictor reads whole rows, which may be of a DataFrame.
    """

    model: Any
    inputs: Any
    on_error: str
    kinds: dict[Any, str]
    has_readers: bool
    reads_frames: bool

    def seen(self, X: Any, known: Known | None, validate: Callable[[Any], None]) -> Seen:
        """Recognise and check rows.

        Parameters
        ----------
        X : list, array, Series or DataFrame of n_rows rows, or a stream
            The rows.
        known : Known or None
            What the rows of ``fit`` have decided; None for these rows themselves.
        validate : callable
            Called with a table, to check its columns as scikit-learn does.
        """
        names = columns_of_models(self.model)
        # Whole rows stay what the rows of fit were.
        X = files_with_texts(X, self.kinds if known is None or names else {None: known.kind})
        X = opened(X, names and self._columns_to_open(names, X, known))
        if names is not None:
            # At prediction, columns that only the models read may be missing.
            if known is None or not is_frame(X):
                require_columns(X, names)
            seen = self._columns_of_frame(X, known)
            if known is None:
                validate(X)
            return seen
        if self.inputs is not None:
            raise ValueError(
                f"inputs={self.inputs!r} names columns of a DataFrame, so model has to be a "
                "mapping such as {'text': 'minilm'}, which says which column each model reads."
            )
        return self._whole_rows(X, known, validate)

    def _whole_rows(self, X: Any, known: Known | None, validate: Callable[[Any], None]) -> Seen:
        # Texts are paths if all of them end in ".png"; a few rows cannot tell, so fit decides.
        reads_frame = self.reads_frames and is_frame(X)
        kind = None if known is None else known.kind
        rows = as_rows(X, kind=kind, frames=reads_frame, missing=True)
        X = rows.values if rows.is_lazy else X
        check_complete(rows, self.on_error)
        if known is None and rows.holds_strings:
            rows = rows.read_as(self.kinds.get(None, rows.kind))
        if rows.kind == "image":
            rows = rows.in_float_range(None if known is None else known.float_ranges.get(None))
        if rows.kind in ("numeric", "category", "frame"):
            table = X if is_frame(X) else rows.values
            validate(table)
            self._check_numbers(table, rows)
        inputs = X if hasattr(X, "__getitem__") else np.asarray(X)
        # An estimator reads the DataFrame itself.
        return Seen(inputs, rows, as_rows(X, kind="frame") if reads_frame else rows)

    def _columns_to_open(self, names: list[Any], X: Any, known: Known | None) -> list[Any]:
        """Return the columns of a stream that the models and the student read."""
        of_student = self.inputs if isinstance(self.inputs, list) else [self.inputs]
        in_stream = None if is_transformed(X) else getattr(X, "column_names", None)
        if in_stream is None and is_stream(X) and hasattr(X, "schema"):
            in_stream = X.schema.names
        if in_stream is not None and known is not None:
            names = [name for name in names if name in in_stream]
        elif in_stream is not None and self.inputs is None and set(in_stream) - set(names):
            raise ValueError(
                f"X has the columns {list(in_stream)}, of which the models read {names}: say which "
                f"the student reads, as in inputs={names[0]!r}."
            )
        return list(dict.fromkeys([*names, *(name for name in of_student or () if name)]))

    def _check_numbers(self, table: Any, rows: Rows) -> None:
        if rows.kind != "numeric":
            return
        check_array(rows.values, ensure_all_finite=False)
        # Estimators say themselves whether they read NaN.
        if self.on_error == "raise" and self.has_readers:
            columns = list(table.columns) if is_frame(table) else None
            advice = f"fill it before the extractor.{OR_MASK}"
            check_finite(rows.values, columns=columns, advice=advice)

    def _columns_of_frame(self, X: Any, known: Known | None) -> Seen:
        """Return the columns of a DataFrame that the student and the models get."""
        # What models take a column for, the student does, too.
        rows = as_rows(X, kind="frame")
        float_ranges = dict.fromkeys(self.model) if known is None else known.float_ranges
        read = replace(rows, float_range=float_ranges, column_kinds=self.kinds)
        is_one = self.inputs is not None and not isinstance(self.inputs, list)
        names = list(X.columns) if self.inputs is None else [self.inputs] if is_one else self.inputs
        require_columns(X, names)
        if is_one:
            return Seen(X[self.inputs], read.column(self.inputs, missing=True), read)
        frame = X if self.inputs is None else select_columns(X, self.inputs)
        if isinstance(frame, LazyFrame) and frame.is_small:
            frame = frame.loaded()
        if len(names) == 1:
            rows = read.column(names[0], missing=True)
            return Seen(rows.values if rows.is_lazy else frame, rows, read)
        if isinstance(frame, LazyFrame):
            raise ValueError(
                f"A student cannot read the columns {names} of a stream together: name the one "
                "that it reads, as in inputs="
                f"{names[0]!r}, give a DataFrame, or call partial_fit with one DataFrame after "
                "another."
            )
        rows = as_rows(frame, frames=True)
        if rows.kind != "frame":
            return Seen(frame, rows, read)
        # They share the columns that are recognised already.
        return Seen(frame, replace(read, values=frame), read)


def files_with_texts(X: Any, kinds: Mapping[Any, str]) -> Any:
    """Return files as a data set, in which what models of texts read is text; others as they are.

    Parameters
    ----------
    X : object
        Rows of any container, or a path.
    kinds : mapping of object to str
        By column, the kind that its models read; that of whole rows is of None.
    """
    if not is_path(X):
        return X
    texts = [column for column, kind in kinds.items() if kind in ("text", "image")]
    return opened_files(X, [name for column in texts for name in columns_of(column)])


def columns_of_models(model: Any) -> list[Any] | None:
    """Return the columns that models read; None if they read whole rows."""
    if not isinstance(model, Mapping):
        return None
    return list(dict.fromkeys(name for column in model for name in columns_of(column)))


def columns_of(column: Any) -> list[Any]:
    """Return the columns that a model reads, given its column or tuple of columns."""
    return list(column) if isinstance(column, tuple) else [column]


def check_complete(rows: Rows, on_error: str, column: Any = None) -> None:
    """Raise ValueError if a row is missing, before a model runs, unless such rows are masked."""
    if on_error == "raise":
        with named(column) if column is not None else nullcontext():
            rows.check_complete(OR_MASK)
