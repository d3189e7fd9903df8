"""A fitted classifier or regressor, and the part of the rows that it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import is_classifier, is_regressor

from sk_aft._data._containers import require_columns, select_columns
from sk_aft._data._rows import Rows

CLASSES, NUMBERS = "classes", "numbers"


class Part(NamedTuple):
    """The part of the rows that an estimator reads.

    Parameters
    ----------
    column : object, optional
        The column of a DataFrame, or a tuple of columns; default: whole rows.
    """

    column: Any = None

    @property
    def columns(self) -> Sequence[Any] | None:
        """The names of the columns; None for whole rows."""
        if self.column is None:
            return None
        return list(self.column) if isinstance(self.column, tuple) else [self.column]

    def read(self, rows: Rows) -> Any:
        """Return what an estimator gets: a DataFrame, a column of it, or an array."""
        if rows.kind != "frame" or self.columns is None:
            return rows.values
        require_columns(rows.values, self.columns)
        if isinstance(self.column, tuple):
            return select_columns(rows.values, self.columns)
        return rows.values[self.column]

    def recognised(self, rows: Rows) -> Rows:
        """Return a single column of texts or images as rows, which may be missing."""
        names = self.columns
        if rows.kind != "frame" or names is None or len(names) > 1:
            return rows
        require_columns(rows.values, names)
        holds_objects = np.asarray(rows.values[names[0]]).dtype == object
        return rows.column(names[0], missing=True) if holds_objects else rows


class Predictor(NamedTuple):
    """A fitted estimator that predicts soft targets.

    Parameters
    ----------
    estimator : estimator
        A fitted classifier with ``predict_proba``, or a fitted regressor.
    part : Part
        What it reads.
    """

    estimator: Any
    part: Part

    @property
    def classes(self) -> np.ndarray | None:
        """Labels of the columns of its predictions; None of a regressor."""
        is_regressor = what_is_learned(self.estimator) == NUMBERS
        return None if is_regressor else np.asarray(self.estimator.classes_)

    def predict(self, rows: Rows) -> np.ndarray:
        """Return the predictions of rows.

        Parameters
        ----------
        rows : Rows
            Rows as the extractor reads them.

        Returns
        -------
        predictions : ndarray of shape (n_rows, n_outputs)
            Class probabilities (float32), or numbers (float64); NaN in rows that are missing.
        """
        predict = output_of(self.estimator)
        present = ~self.part.recognised(rows).missing_mask
        if present.all():
            return predict(self.part.read(rows))
        known = np.flatnonzero(present)
        width = 1 if self.classes is None else len(self.classes)
        predicted: np.ndarray = np.empty((0, width), np.float32)
        if len(known):
            predicted = predict(self.part.read(rows.take(known)))
        shape = len(rows), predicted.shape[1]
        predictions: np.ndarray = np.full(shape, np.nan, predicted.dtype)
        predictions[known] = predicted
        return predictions


def what_is_learned(estimator: Any) -> str | None:
    """Return whether an estimator predicts "classes" or "numbers"; None if neither is known."""
    try:
        if is_classifier(estimator):
            return CLASSES
        if is_regressor(estimator):
            return NUMBERS
    except (AttributeError, TypeError):  # not scikit-learn's
        pass
    if hasattr(estimator, "fit"):
        return {"classifier": CLASSES, "regressor": NUMBERS}.get(
            getattr(estimator, "_estimator_type", "")
        )
    return CLASSES if hasattr(estimator, "classes_") else NUMBERS


def output_of(estimator: Any) -> Callable[[Any], np.ndarray]:
    """Return the method that predicts soft targets, whose result is (n_rows, n_outputs)."""
    if what_is_learned(estimator) == CLASSES:
        return lambda values: np.asarray(estimator.predict_proba(values), dtype=np.float32)

    def predict(values: Any) -> np.ndarray:
        # In the unit of the target, where float32 may be too coarse.
        predictions = np.asarray(estimator.predict(values), dtype=np.float64)
        return predictions.reshape(len(predictions), -1)

    return predict
