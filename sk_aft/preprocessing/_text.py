"""Texts -> bags of n-grams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils.validation import check_is_fitted


class NgramTokenizer(TransformerMixin, BaseEstimator):
    """Words, pairs of words and pieces of words as tokens; the vocabulary is learned.

    Words carry the meaning, pairs some of the order, character n-grams what misspelt, inflected
    and unseen words have in common with those seen. N-grams that did not occur in training are
    dropped.

    Parameters
    ----------
    word_ngrams : tuple of int, default=(1, 2)
        Shortest and longest run of words.
    character_ngrams : tuple of int, default=(3, 4)
        Shortest and longest run of characters within a word.
    max_tokens : int, default=65536
        At most this many tokens, the most frequent in the training texts; bounds the size of
        the student.

    Attributes
    ----------
    n_tokens_ : int
        Size of the vocabulary.

    Examples
    --------
    >>> from sk_aft.preprocessing import NgramTokenizer
    >>> tokenizer = NgramTokenizer().fit(["my card", "my cards"])
    >>> tokenizer.transform(["your card"]).shape == (1, tokenizer.n_tokens_)
    True
    """

    def __init__(
        self,
        word_ngrams: tuple[int, int] = (1, 2),
        character_ngrams: tuple[int, int] = (3, 4),
        max_tokens: int = 65536,
    ) -> None:
        self.word_ngrams = word_ngrams
        self.character_ngrams = character_ngrams
        self.max_tokens = max_tokens

    def fit(self, X: Any, y: Any = None) -> NgramTokenizer:
        """Learn the vocabulary.

        Parameters
        ----------
        X : sequence of str
            Texts.
        y : ignored
            Present for the convention of scikit-learn.

        Returns
        -------
        self : NgramTokenizer
            The fitted tokenizer.
        """
        self.vectorizer_ = _NgramCounter(
            # Words of one letter count: "I" and "a" tell questions apart.
            token_pattern=r"(?u)\b\w+\b",
            ngram_range=self.word_ngrams,
            character_ngrams=self.character_ngrams,
            max_features=self.max_tokens,
            dtype=np.float32,
        )
        try:
            self.vectorizer_.fit(X)
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
            raise ValueError(
                "The training texts hold no words to build a vocabulary from: are they empty?"
            ) from error
        self.n_tokens_ = len(self.vectorizer_.vocabulary_)
        return self

    def transform(self, X: Any) -> scipy.sparse.csr_matrix:
        """Count the tokens of each text.

        Parameters
        ----------
        X : sequence of n_texts str
            Texts.

        Returns
        -------
        counts : csr_matrix of shape (n_texts, n_tokens_), float32
            Each row divided by the square root of its sum, so that the sum of random token
            vectors is of one size whatever the length of the text.
        """
        check_is_fitted(self)
        counts = scipy.sparse.csr_matrix(self.vectorizer_.transform(X))
        totals = counts @ np.ones(self.n_tokens_, dtype=np.float32)
        scale = 1 / np.sqrt(np.maximum(totals, 1))
        counts.data *= np.repeat(scale, np.diff(counts.indptr)).astype(np.float32)
        return counts


class _NgramCounter(CountVectorizer):
    """Count n-grams of words and of characters in one pass and one vocabulary."""

    def __init__(
        self,
        token_pattern: str,
        ngram_range: tuple[int, int],
        character_ngrams: tuple[int, int],
        max_features: int,
        dtype: type,
    ) -> None:
        super().__init__(
            token_pattern=token_pattern,
            ngram_range=ngram_range,
            max_features=max_features,
            dtype=dtype,
        )
        self.character_ngrams = character_ngrams

    def build_analyzer(self) -> Callable[[str], list[str]]:
        words = super().build_analyzer()
        characters = CountVectorizer(
            analyzer="char_wb", ngram_range=self.character_ngrams
        ).build_analyzer()
        return lambda text: words(text) + characters(text)
