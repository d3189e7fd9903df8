"""Raw rows of any container -> what scikit-learn's transformers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from sk_aft._data._rows import as_rows


class _Reader(TransformerMixin, BaseEstimator):
    """A transformer that learns nothing."""

    def fit(self, X: Any, y: Any = None) -> _Reader:
        """Return itself."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


class TextReader(_Reader):
    """Read texts.

    Parameters
    ----------
    column : object, default=None
        Column of a DataFrame that holds them. None means that the rows are texts.
    """

    def __init__(self, column: Any = None) -> None:
        self.column = column

    def transform(self, X: Any) -> np.ndarray:
        """Return the texts, (n_rows,) objects of type str; missing ones are an error."""
        if self.column is None:
            return as_rows(X, kind="text").values
        return as_rows(X, kind="frame").column(self.column, kind="text").values


class TableReader(_Reader):
    """Read columns of numbers or of categories.

    Parameters
    ----------
    kind : {"numeric", "category"}
        What they hold.
    columns : sequence, default=None
        Columns of a DataFrame. None means that the rows have no others.
    """

    def __init__(self, kind: str, columns: Sequence[Any] | None = None) -> None:
        self.kind = kind
        self.columns = columns

    def transform(self, X: Any) -> np.ndarray:
        """Return the columns, (n_rows, n_columns).

        Parameters
        ----------
        X : array-like or DataFrame of n_rows rows
            The table.

        Returns
        -------
        values : ndarray
            float64, NaN where one is missing; of categories str objects and None.
        """
        if self.columns is None:
            values = as_rows(X, kind=self.kind).values
        else:
            frame = as_rows(X, kind="frame")
            columns = [frame.column(name, kind=self.kind, missing=True) for name in self.columns]
            values = np.hstack([column.values for column in columns])
        return values.astype(float) if self.kind == "numeric" else values
