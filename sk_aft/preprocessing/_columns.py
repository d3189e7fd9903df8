"""DataFrame of texts, images, numbers and categories -> the parts of a network's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_aft._data._rows import Rows, as_rows, check_finite, filled_by, named, rows_for
from sk_aft.preprocessing._image import ImageResizer
from sk_aft.preprocessing._subword import SubwordTokenizer


def dense_one_hot_encoder(
    handle_unknown: str = "ignore",
    sparse_output: bool = False,
    dtype: Any = np.float32,
    **parameters: Any,
) -> OneHotEncoder:
    """Return a `OneHotEncoder` that ignores unknown categories, by default a dense one."""
    return OneHotEncoder(
        handle_unknown=handle_unknown, sparse_output=sparse_output, dtype=dtype, **parameters
    )


OF_KIND = {
    "numeric": StandardScaler,
    "category": dense_one_hot_encoder,
    "image": ImageResizer,
    "text": SubwordTokenizer,
}
_HOW_TO_FILL = (
    "fill it, for example with preprocessor=ColumnPreprocessor(numeric="
    "make_pipeline(SimpleImputer(), StandardScaler()))."
)
# Kinds whose columns become one part.
_TABLES = ("numeric", "category")
_NUMBERS = "numbers"


class ColumnPreprocessor(TransformerMixin, BaseEstimator):
    """Preprocess each column of a DataFrame by its kind.

    Each column of texts or images has its own preprocessor. All columns of numbers share one, and
    so do all columns of categories. It is like scikit-learn's ``ColumnTransformer``, but the
    outputs are not concatenated, because a network reads images and texts differently.

    A column's kind depends only on that column:

    - numbers: int, float and bool, also nullable, and objects that are numbers;
    - categories: pandas' "category", and polars' Categorical and Enum;
    - texts: strings, even of digits. They are paths of images if all end like image files.

    Parameters
    ----------
    text : "auto" or estimator, default="auto"
        Preprocesses each column of texts; "auto" is `SubwordTokenizer`. Columns with few distinct
        strings are texts, too; ``.astype("category")`` makes them categories.
    image : "auto" or estimator, default="auto"
        Preprocesses each column of images; "auto" is `ImageResizer`.
    numeric : "auto" or estimator, default="auto"
        Preprocesses the columns of numbers, an (n_rows, n_numeric_columns) array; "auto" is
        `sklearn.preprocessing.StandardScaler`. If numbers are missing, use
        ``make_pipeline(SimpleImputer(), StandardScaler())``.
    category : "auto" or estimator, default="auto"
        Preprocesses the columns of categories, an (n_rows, n_category_columns) array of str;
        "auto" is `sklearn.preprocessing.OneHotEncoder`. A missing category (None) is a separate
        category if it occurs in training; categories unseen in training are all zeros.

    Attributes
    ----------
    kinds_ : dict of str to {"text", "image", "numeric", "category"}
        The kind of each column.
    transformers_ : list of (str, estimator, tuple of str)
        Name of each part, its fitted preprocessor and its columns. Columns of numbers and of
        categories are concatenated to the part "numbers"; other parts are named by their column.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, if they are strings.

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

    def __init__(
        self,
        text: Any = "auto",
        image: Any = "auto",
        numeric: Any = "auto",
        category: Any = "auto",
    ) -> None:
        self.text = text
        self.image = image
        self.numeric = numeric
        self.category = category

    def fit(self, X: Any, y: Any = None) -> ColumnPreprocessor:
        """Find the kind of each column and fit its preprocessor.

        Parameters
        ----------
        X : DataFrame of n_rows rows
            Columns of texts, images (paths, bytes, PIL images or arrays), numbers or categories.
        y : ignored
            Present for the convention of scikit-learn.

        Returns
        -------
        self : ColumnPreprocessor
            The fitted transformer.

        Raises
        ------
        ValueError
            If a column cannot be read, or holds missing values that its preprocessor does not
            fill; the message names the column and the row.
        """
        rows = as_rows(X, kind="frame")
        validate_data(self, rows.values, skip_check_array=True)
        self.kinds_ = {
            column: rows.column(column, missing=True).kind for column in rows.values.columns
        }
        columns_of = {
            kind: [column for column, its_kind in self.kinds_.items() if its_kind == kind]
            for kind in OF_KIND
        }
        parts = [
            (str(column), (column,)) for column, kind in self.kinds_.items() if kind not in _TABLES
        ]
        numbers = _NUMBERS if _NUMBERS not in dict(parts) else f"{_NUMBERS}_"
        parts += [(numbers, tuple(columns_of[kind])) for kind in _TABLES if columns_of[kind]]
        self.transformers_ = []
        for name, columns in parts:
            kind = self.kinds_[columns[0]]
            given = getattr(self, kind)
            transformer = OF_KIND[kind]() if isinstance(given, str) else clone(given)
            self._apply(transformer.fit, transformer, rows, columns)
            self.transformers_.append((name, transformer, columns))
        return self

    def transform(self, X: Any) -> dict[str, Any]:
        """Prepare the columns.

        Parameters
        ----------
        X : DataFrame of n_rows rows
            With the columns seen during fit, in any order; other columns are ignored.

        Returns
        -------
        parts : dict of str to array or sparse matrix of n_rows rows
            The outputs of the preprocessors, by the names in ``transformers_``.
        """
        check_is_fitted(self)
        rows = as_rows(X, kind="frame")
        parts: dict[str, Any] = {}
        for name, transformer, columns in self.transformers_:
            part = self._apply(transformer.transform, transformer, rows, columns)
            parts[name] = part if name not in parts else _side_by_side(parts[name], part)
        return parts

    def _apply(self, method: Any, transformer: Any, rows: Rows, columns: tuple) -> Any:
        """Call a method of a preprocessor with its columns; errors name the column."""
        kind = self.kinds_[columns[0]]
        if kind == "category":
            read = [rows.column(column, kind=kind) for column in columns]
            return method(np.hstack([column.values for column in read]))
        column = columns[0] if len(columns) == 1 else columns
        is_automatic = isinstance(getattr(self, kind), str)
        part = rows.column(column, kind=kind, missing=not is_automatic)
        if kind == "numeric" and is_automatic:
            check_finite(part.values, columns=columns, advice=_HOW_TO_FILL)
        with named(column), filled_by(part):
            return method(rows_for(transformer, part))


def _side_by_side(*parts: Any) -> np.ndarray:
    return np.hstack([part.toarray() if scipy.sparse.issparse(part) else part for part in parts])
