"""A DataFrame of texts, images and numbers -> the parts of a network's inputs."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_aft._data._rows import Rows, as_rows, rows_for
from sk_aft.preprocessing._image import ImageResizer
from sk_aft.preprocessing._text import NgramTokenizer

OF_KIND = {"numeric": StandardScaler, "image": ImageResizer, "text": NgramTokenizer}
_NUMBERS = "numbers"


class ColumnPreprocessor(TransformerMixin, BaseEstimator):
    """Prepare each column of a DataFrame as its kind asks for.

    Each column of texts or images gets a preprocessor of its own, and all columns of numbers one
    together. Like scikit-learn's ``ColumnTransformer``, but what comes out is not put side by
    side: a network reads images otherwise than texts.

    Parameters
    ----------
    text : "auto" or estimator, default="auto"
        What prepares a column of texts; "auto" is `NgramTokenizer`. Columns of few different
        strings are texts, too.
    image : "auto" or estimator, default="auto"
        What prepares a column of images; "auto" is `ImageResizer`.
    numeric : "auto" or estimator, default="auto"
        What prepares the columns of numbers, an (n_rows, n_numeric_columns) array; "auto" is
        `sklearn.preprocessing.StandardScaler`. Give one that fills numbers which are missing.

    Attributes
    ----------
    kinds_ : dict of str to {"text", "image", "numeric"}
        What each column holds.
    transformers_ : list of (str, estimator, tuple of str)
        Name of each part, its fitted preprocessor and its columns. Columns of numbers are the
        part "numbers"; other parts are named by their column.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, where they are strings.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_aft.preprocessing import ColumnPreprocessor
    >>> frame = pd.DataFrame({"text": ["my card", "a fee"], "age": [30, 40], "sum": [1.5, 2.5]})
    >>> parts = ColumnPreprocessor().fit_transform(frame)
    >>> list(parts), parts["numbers"].shape
    (['text', 'numbers'], (2, 2))
    """

    _accepts_rows = True  # columns need not be recognised again

    def __init__(self, text: Any = "auto", image: Any = "auto", numeric: Any = "auto") -> None:
        self.text = text
        self.image = image
        self.numeric = numeric

    def fit(self, X: Any, y: Any = None) -> ColumnPreprocessor:
        """Find out what each column holds and fit its preprocessor.

        Parameters
        ----------
        X : DataFrame of n_rows rows
            Columns of texts, images (paths, bytes, PIL images or arrays) or numbers.
        y : ignored
            Present for the convention of scikit-learn.

        Returns
        -------
        self : ColumnPreprocessor
            The fitted transformer.
        """
        rows = as_rows(X, kind="frame")
        validate_data(self, rows.values, skip_check_array=True)
        self.kinds_ = {column: rows.column(column).kind for column in rows.values.columns}
        others = [column for column, kind in self.kinds_.items() if kind != "numeric"]
        parts = {str(column): (column,) for column in others}
        numbers = tuple(column for column, kind in self.kinds_.items() if kind == "numeric")
        if numbers:
            parts[_NUMBERS if _NUMBERS not in parts else f"{_NUMBERS}_"] = numbers
        self.transformers_ = []
        for name, columns in parts.items():
            kind = self.kinds_[columns[0]]
            given = getattr(self, kind)
            transformer = OF_KIND[kind]() if isinstance(given, str) else clone(given)
            transformer.fit(rows_for(transformer, self._part(rows, columns)))
            self.transformers_.append((name, transformer, columns))
        return self

    def transform(self, X: Any) -> dict[str, Any]:
        """Prepare the columns.

        Parameters
        ----------
        X : DataFrame of n_rows rows
            With the columns seen during fit, in any order; further ones are ignored.

        Returns
        -------
        parts : dict of str to array or sparse matrix of n_rows rows
            What the preprocessors return, by the names in ``transformers_``.
        """
        check_is_fitted(self)
        rows = as_rows(X, kind="frame")
        return {
            name: transformer.transform(rows_for(transformer, self._part(rows, columns)))
            for name, transformer, columns in self.transformers_
        }

    def _part(self, rows: Rows, columns: tuple) -> Rows:
        """Return the rows of one part: a column, or the columns of numbers together."""
        column = columns[0] if len(columns) == 1 else columns
        return rows.column(column, kind=self.kinds_[columns[0]])
