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
    """Words, pairs of words and pieces of words as tokens; the vocabulary is learned.

    Words carry the meaning, pairs some of the order, character n-grams what misspelt, inflected
    and unseen words have in common with those seen. A character that is neither part of a word nor
    a space, such as "?", "+" or an emoji, is a word of its own. Case does not count. Tokens count
    as in tf-idf: more where a text repeats them, less where many texts hold them. N-grams that did
    not occur in training are dropped; an empty text has no tokens.

    Parameters
    ----------
    word_ngrams : tuple of int, default=(1, 2)
        Shortest and longest run of words.
    character_ngrams : tuple of int, default=(3, 4)
        Shortest and longest run of characters within a word.
    character_weight : float, default=0.5
        How much the character n-grams of a text count, all together, where its words count 1.
        There are many more of them, and they would drown the words.
    max_tokens : int, default=65536
        At most this many tokens, the most frequent in the training texts, and at most half of
        them n-grams of characters; bounds the size of the student.
    max_length : int, default=100_000
        Characters of a text that are read (some 30 pages), which bounds memory and time. What
        comes after them is dropped; `transform` warns of such texts.

    Attributes
    ----------
    n_tokens_ : int
        Size of the vocabulary.
    vocabulary_ : ndarray of shape (n_tokens_,), uint64
        Hashes of the tokens, sorted; their order is that of the columns.
    idf_ : ndarray of shape (n_tokens_,)
        Inverse document frequency of each token, as of
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
                "The training texts hold no words to build a vocabulary from: are they empty?"
            )
        self.vocabulary_ = self._most_frequent(hashes)
        self.n_tokens_ = len(self.vocabulary_)
        n_texts = np.bincount(
            self._counts(hashes, text_of, len(texts)).indices, minlength=self.n_tokens_
        )
        self.idf_ = np.log((1 + len(texts)) / (1 + n_texts)) + 1
        return self

    def transform(self, X: Any) -> scipy.sparse.csr_matrix:
        """Weigh the tokens of each text.

        Parameters
        ----------
        X : sequence of n_texts str
            Texts.

        Returns
        -------
        weights : csr_matrix of shape (n_texts, n_tokens_), float32
            Of a token that occurs n times, ``(1 + log(n)) * idf``, divided by the Euclidean norm
            of the text's n-grams of words, or of characters; those of characters then times
            ``character_weight``.
        """
        check_is_fitted(self)
        texts = self._texts(X)
        n_long = sum(len(text) > self.max_length for text in texts)
        if n_long:
            warnings.warn(
                f"{n_long} of {len(texts)} texts have more than max_length={self.max_length} "
                "characters: what comes after them is dropped.",
                stacklevel=2,
            )
        rows = self._counts(*self._hashes(texts), len(texts))
        weights = (1 + np.log(rows.data)) * self.idf_[rows.indices]
        is_character = _is_of_characters(self.vocabulary_)[rows.indices]
        # One group for the words of each text, and one for its characters.
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
        """Return how often each text holds each token."""
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
