"""Texts -> bags of n-grams."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sk_aft._data._rows import as_rows
from sk_aft.preprocessing._ngrams import ngram_hashes

# What the warning of texts that are too long begins with, as a pattern.
TRUNCATION = r"\d+ of \d+ texts have more than max_length"


class NgramTokenizer(TransformerMixin, BaseEstimator):
    """Tokenize texts into words, pairs of words and character n-grams, and learn the vocabulary.

    Pairs of words keep some of the word order. Character n-grams match misspelt, inflected and
    unseen words to those seen in training. A character that is neither part of a word nor
    a space, such as "?", "+" or an emoji, is a word by itself. Case is ignored. Tokens are weighted
    as in tf-idf: more if a text repeats them, less if many texts contain them. N-grams that did
    not occur in training are dropped; an empty text has no tokens.

    Parameters
    ----------
    word_ngrams : tuple of int, default=(1, 2)
        Shortest and longest run of words.
    character_ngrams : tuple of int, default=(3, 4)
        Shortest and longest run of characters within a word.
    character_weight : float, default=0.5
        Total weight of the character n-grams of a text, relative to 1 for its words. Without it,
        the far more numerous character n-grams would dominate.
    max_tokens : int, default=65536
        Maximum size of the vocabulary, which bounds the size of the student. The most frequent
        tokens of the training texts are kept; at most half of them are character n-grams.
    max_length : int, default=100_000
        Maximum number of characters read from a text (some 30 pages), which bounds memory and
        time. The rest is dropped, and `transform` warns of such texts.

    Attributes
    ----------
    n_tokens_ : int
        Size of the vocabulary.
    vocabulary_ : ndarray of shape (n_tokens_,), uint64
        Sorted hashes of the tokens, in the order of the columns.
    idf_ : ndarray of shape (n_tokens_,)
        Inverse document frequency of each token, as in
        `sklearn.feature_extraction.text.TfidfTransformer`.

    Examples
    --------
    >>> from sk_aft.preprocessing import NgramTokenizer
    >>> tokenizer = NgramTokenizer().fit(["my card", "my cards"])
    >>> tokenizer.transform(["your card"]).shape == (1, tokenizer.n_tokens_)
    True
    """

    _accepts_rows = True  # texts need not be recognised again

    def __init__(
        self,
        word_ngrams: tuple[int, int] = (1, 2),
        character_ngrams: tuple[int, int] = (3, 4),
        character_weight: float = 0.5,
        max_tokens: int = 65536,
        max_length: int = 100_000,
    ) -> None:
        self.word_ngrams = word_ngrams
        self.character_ngrams = character_ngrams
        self.character_weight = character_weight
        self.max_tokens = max_tokens
        self.max_length = max_length

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
        texts = self._texts(X)
        hashes, text_of = self._hashes(texts)
        if not len(hashes):
            raise ValueError(
                "The training texts have no words to build a vocabulary from: are they empty?"
            )
        self.vocabulary_ = self._most_frequent(hashes)
        self.n_tokens_ = len(self.vocabulary_)
        n_texts = np.bincount(
            self._counts(hashes, text_of, len(texts)).indices, minlength=self.n_tokens_
        )
        self.idf_ = np.log((1 + len(texts)) / (1 + n_texts)) + 1
        return self

    def transform(self, X: Any) -> scipy.sparse.csr_matrix:
        """Return the weights of the tokens of each text.

        Parameters
        ----------
        X : sequence of n_texts str
            Texts.

        Returns
        -------
        weights : csr_matrix of shape (n_texts, n_tokens_), float32
            A token that occurs n times in a text has the weight ``(1 + log(n)) * idf``. Weights of
            words and of characters are normalised separately to Euclidean norm 1 per text; those
            of characters are then multiplied by ``character_weight``.
        """
        check_is_fitted(self)
        texts = self._texts(X)
        n_long = sum(len(text) > self.max_length for text in texts)
        if n_long:
            warnings.warn(
                f"{n_long} of {len(texts)} texts have more than max_length={self.max_length} "
                "characters: the rest of each is dropped.",
                stacklevel=2,
            )
        rows = self._counts(*self._hashes(texts), len(texts))
        weights = (1 + np.log(rows.data)) * self.idf_[rows.indices]
        is_character = _is_of_characters(self.vocabulary_)[rows.indices]
        # Two groups for each text: its words and its character n-grams.
        group = 2 * np.repeat(np.arange(len(texts)), np.diff(rows.indptr)) + is_character
        weights /= np.sqrt(np.bincount(group, weights**2))[group]
        rows.data = np.where(is_character, self.character_weight * weights, weights)
        return rows.astype(np.float32)

    @staticmethod
    def _texts(X: Any) -> np.ndarray:
        return as_rows(X, kind="text").values

    def _hashes(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        read = [text[: self.max_length] for text in texts]
        return ngram_hashes(read, self.word_ngrams, self.character_ngrams)

    def _most_frequent(self, hashes: np.ndarray) -> np.ndarray:
        tokens, counts = np.unique(hashes, return_counts=True)
        of_characters = _is_of_characters(tokens)
        n_pieces = min(int(of_characters.sum()), self.max_tokens // 2)
        kept = []
        for kind, n_kept in (
            (~of_characters, self.max_tokens - n_pieces),
            (of_characters, n_pieces),
        ):
            order = np.argsort(-counts[kind], kind="stable")
            kept.append(tokens[kind][order[:n_kept]])
        return np.sort(np.concatenate(kept))

    def _counts(
        self, hashes: np.ndarray, text_of: np.ndarray, n_texts: int
    ) -> scipy.sparse.csr_matrix:
        """Return how often each token occurs in each text."""
        tokens: Any = np.searchsorted(self.vocabulary_, hashes)
        tokens[tokens == self.n_tokens_] = 0
        known = self.vocabulary_[tokens] == hashes
        ends = np.cumsum(np.bincount(text_of[known], minlength=n_texts))
        counts = scipy.sparse.csr_matrix(
            (np.ones(ends[-1]), tokens[known], np.concatenate([[0], ends])),
            shape=(n_texts, self.n_tokens_),
        )
        counts.sum_duplicates()
        return counts


def _is_of_characters(tokens: np.ndarray) -> np.ndarray:
    return (tokens & np.uint64(1)).astype(bool)
