"""What a linear model reads of the student's rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft._data._rows import Rows
from sk_aft.preprocessing._columns import dense_one_hot_encoder
from sk_aft.transfer._teacher_memory import remembered

# Latent dimensions of texts: 384 were no better with 10 and 50 labels a class.
_N_COMPONENTS = 128
_MOST_TEXTS_TO_FIT = 20_000
_MOST_CATEGORIES = 100


def linear_columns(rows: Rows, seed: int) -> np.ndarray | None:
    """Return the rows as columns of scale 1.

    Texts become the leading components of their TF-IDF matrix, numbers are standardised, and
    categories are one-hot encoded. Images have no columns.

    Parameters
    ----------
    rows : Rows
        Rows of the student, with and without labels.
    seed : int
        Seed of the decomposition.

    Returns
    -------
    columns : ndarray of shape (n_rows, n_columns), float32, or None
        None if there are no columns.
    """
    parts = [part for part in _parts(rows, seed) if part is not None and part.shape[1]]
    return np.hstack(parts).astype(np.float32) if parts else None


def _parts(rows: Rows, seed: int) -> list[np.ndarray | None]:
    if rows.kind == "frame":
        columns = [_column(rows, name) for name in rows.values.columns]
        return [part for column in columns if column is not None for part in _parts(column, seed)]
    if rows.kind == "text":
        texts = ["" if text is None else text for text in rows.values]
        return [remembered(_components, texts, seed)]
    if rows.kind == "numeric":
        numbers = np.where(np.isfinite(rows.values), rows.values, np.nan).astype(np.float64)
        fill = SimpleImputer(keep_empty_features=True)
        return [make_pipeline(fill, StandardScaler()).fit_transform(numbers)]
    if rows.kind == "category":
        return [dense_one_hot_encoder(max_categories=_MOST_CATEGORIES).fit_transform(rows.values)]
    return [None]


def _column(rows: Rows, name: Any) -> Rows | None:
    """Return a column; None for one that only the user's preprocessor can read, such as dates."""
    try:
        return rows.column(name, missing=True)
    except ValueError:
        return None


def _components(texts: list[str], seed: int) -> np.ndarray | None:
    """Return the leading components of the TF-IDF matrix of words and pairs of words.

    Texts that have no word in common, such as Chinese sentences or symbols, become characters.
    """
    random = np.random.RandomState(seed)
    drawn = random.permutation(len(texts))[:_MOST_TEXTS_TO_FIT]
    read = [texts[row] for row in drawn]
    vectorizer = _fitted(read, ngram_range=(1, 2)) or _fitted(
        read, analyzer="char", ngram_range=(1, 3)
    )
    if vectorizer is None:
        return None
    matrix = vectorizer.transform(texts)
    n_components = min(_N_COMPONENTS, matrix.shape[1] - 1, len(drawn) - 1)
    if n_components < 1:
        return None
    with np.errstate(invalid="ignore"):  # equal texts have no variance to explain
        svd = TruncatedSVD(n_components, random_state=random).fit(matrix[drawn])
    components = np.asarray(svd.transform(matrix))  # see sklearn.set_config(transform_output)
    scale = components.std()
    return components / scale if scale > 0 else None


def _fitted(texts: list[str], **parameters: Any) -> Any:
    """Return a TF-IDF of what occurs twice; None if nothing does."""
    vectorizer: Any = TfidfVectorizer(
        min_df=min(2, len(texts)), sublinear_tf=True, dtype=np.float32, **parameters
    )
    try:
        return vectorizer.fit(texts)
    except ValueError:
        return None
