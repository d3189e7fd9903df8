"""Texts -> bags of n-grams."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sk_aft.preprocessing._ngrams import ngram_hashes


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
    vocabulary_ : ndarray of shape (n_tokens_,), uint64
        Hashes of the tokens, sorted; their order is that of the columns.

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
        hashes, _ = self._hashes(X)
        if not len(hashes):
            raise ValueError(
                "The training texts hold no words to build a vocabulary from: are they empty?"
            )
        tokens, counts = np.unique(hashes, return_counts=True)
        if len(tokens) > self.max_tokens:
            most_frequent = np.argsort(-counts, kind="stable")[: self.max_tokens]
            tokens = np.sort(tokens[most_frequent])
        self.vocabulary_ = tokens
        self.n_tokens_ = len(tokens)
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
        hashes, text_of = self._hashes(X)
        tokens: Any = np.searchsorted(self.vocabulary_, hashes)
        tokens[tokens == self.n_tokens_] = 0
        known = self.vocabulary_[tokens] == hashes
        tokens, text_of = tokens[known], text_of[known]
        lengths = np.bincount(text_of, minlength=len(X))
        scale = (1 / np.sqrt(np.maximum(lengths, 1))).astype(np.float32)
        # A token that occurs twice is there twice: bags add them up anyway.
        return scipy.sparse.csr_matrix(
            (scale[text_of], tokens, np.concatenate([[0], np.cumsum(lengths)])),
            shape=(len(X), self.n_tokens_),
        )

    def _hashes(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        return ngram_hashes(X, self.word_ngrams, self.character_ngrams)
