"""A fitted classifier or regressor, and the part of the rows that it reads."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import is_classifier, is_regressor

from sk_aft._data._containers import select_columns, to_array
from sk_aft._data._rows import Rows
from sk_aft.exceptions import SeveralKindsError
from sk_aft.store import row_digests


class Predictor(NamedTuple):
    """A fitted estimator that predicts soft targets.

    Parameters
    ----------
    estimator : estimator
        A fitted classifier with ``predict_proba``, or a fitted regressor.
    column : object, optional
        The column of a DataFrame that it reads, or a tuple of columns; default: whole rows.
    """

    estimator: Any
    column: Any = None

    @property
    def classes(self) -> np.ndarray | None:
        """Labels of the columns of its predictions; None of a regressor."""
        return np.asarray(self.estimator.classes_) if learns_classes(self.estimator) else None

    def predict(self, rows: Rows) -> np.ndarray:
        """Return the predictions of rows.

        Parameters
        ----------
        rows : Rows
            Rows as the extractor reads them.

        Returns
        -------
        predictions : ndarray of shape (n_rows, n_outputs), float32
            Class probabilities or numbers; NaN in rows that are missing.
        """
        predict = output_of(self.estimator)
        present = ~rows.missing_mask
        if present.all():
            return predict(self.read(rows))
        known = np.flatnonzero(present)
        width = 1 if self.classes is None else len(self.classes)
        predicted = predict(self.read(rows.take(known))) if len(known) else np.empty((0, width))
        predictions: np.ndarray = np.full((len(rows), predicted.shape[1]), np.nan, np.float32)
        predictions[known] = predicted
        return predictions

    def read(self, rows: Rows) -> Any:
        """Return what the estimator reads of the rows: a DataFrame, a column of it or an array."""
        if rows.kind != "frame" or self.column is None:
            return rows.values
        if isinstance(self.column, tuple):
            return select_columns(rows.values, list(self.column))
        return rows.values[self.column]


def learns_classes(estimator: Any) -> bool:
    """Return whether an estimator predicts classes; else it predicts numbers."""
    if is_regressor(estimator):
        return False
    return is_classifier(estimator) or hasattr(estimator, "predict_proba")


def output_of(estimator: Any) -> Callable[[Any], np.ndarray]:
    """Return the method that predicts soft targets, whose result is (n_rows, n_outputs)."""
    method = estimator.predict_proba if learns_classes(estimator) else estimator.predict

    def predict(values: Any) -> np.ndarray:
        predictions = np.asarray(method(values), dtype=np.float32)
        return predictions.reshape(len(predictions), -1)

    return predict


def content_keys(rows: Rows) -> list[bytes]:
    """Return a key of each row's content; equal rows have equal keys.

    Integers and floats of equal value are equal, because one missing number in a column turns
    integers into floats.
    """
    numbers = _numbers_in(rows)
    if numbers is not None:
        return [row.tobytes() for row in np.ascontiguousarray(numbers, dtype=np.float64)]
    if rows.kind != "frame":
        return row_digests(rows, on_error=lambda row, error: None)
    columns = [_column_keys(rows, name) for name in rows.values.columns]
    return [b"".join(parts) for parts in zip(*columns, strict=True)]


def _numbers_in(rows: Rows) -> np.ndarray | None:
    """Return a table of numbers, also of a DataFrame; None of other rows."""
    if rows.kind != "frame":
        return rows.values if rows.kind == "numeric" else None
    try:
        values = to_array(rows.values)
    except (SeveralKindsError, TypeError, ValueError):
        return None
    return values if values.dtype.kind in "biuf" else None


def _column_keys(rows: Rows, name: Any) -> list[bytes]:
    column = rows.values[name]
    if hasattr(column, "hash"):  # polars
        hashes = column.cast(float).hash() if column.dtype.is_numeric() else column.hash()
        return [value.tobytes() for value in hashes.to_numpy()]
    pandas = import_module("pandas")
    try:
        is_number = pandas.api.types.is_numeric_dtype(column)
        values = column.astype(float) if is_number else column
        hashes = pandas.util.hash_pandas_object(values, index=False)
        return [value.tobytes() for value in hashes.to_numpy()]
    except TypeError:  # images and other objects without a hash
        return row_digests(rows.column(name, missing=True), on_error=lambda row, error: None)
