"""Static embeddings: a vector for each word, which a foundation model computed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from sk_aft._extractor import FoundationFeatureExtractor

_MOST_WORDS = 20_000


class StaticEmbeddings(TransformerMixin, BaseEstimator):
    """Texts -> means of word vectors, weighted by TF-IDF and normalised.

    The words are those of the training texts, the 20,000 most frequent if there are more. The
    foundation model embeds each of them once, alone. Predictions do not need it, and the pickle of
    a fitted transformer holds none, so that only the name of a model can be fitted again from it.

    Parameters
    ----------
    model : str, Backbone, torch.nn.Module, callable, or list or mapping of these
        As for `FoundationFeatureExtractor`; it has to read texts. Of a mapping, the models of its
        only column.

    Attributes
    ----------
    vectorizer_ : TfidfVectorizer
        Knows the words.
    word_vectors_ : ndarray of shape (n_words, n_features), float32
        Their features.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, X: Any, y: Any = None) -> StaticEmbeddings:
        """Learn the words and embed them.

        Parameters
        ----------
        X : ndarray of shape (n_rows,), str
            Texts.
        y : ignored
            Present for the convention of scikit-learn.

        Returns
        -------
        self : StaticEmbeddings
            The fitted transformer.
        """
        if self.model is None:
            raise ValueError(
                "This StaticEmbeddings comes from the pickle of a fitted one, which holds no "
                "foundation model: set one with set_params(model=...) to fit it again."
            )
        model = self.model
        if isinstance(model, Mapping):
            (model,) = model.values()
        self.vectorizer_ = TfidfVectorizer(
            token_pattern=r"(?u)\b\w+\b", max_features=_MOST_WORDS, dtype=np.float32
        ).fit(X)
        words = self.vectorizer_.get_feature_names_out()
        rows = FoundationFeatureExtractor(model).fit_transform(words)
        self.word_vectors_ = np.array(rows.features)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the vectors of texts, (n_rows, n_features) float32; 0 if no word is known."""
        return normalize(self.vectorizer_.transform(X) @ self.word_vectors_)

    def __sklearn_clone__(self) -> StaticEmbeddings:
        return type(self)(self.model)  # a frozen model is shared

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        is_fitted = "word_vectors_" in state
        return {**state, "model": None} if is_fitted and not _is_name(self.model) else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _is_name(model: Any) -> bool:
    if isinstance(model, Mapping):
        model = list(model.values())
    return isinstance(model, str) or (isinstance(model, list) and all(map(_is_name, model)))
