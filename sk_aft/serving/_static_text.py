"""The network of static token embeddings, `sk_aft.modules.StaticText`, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

_EPSILON = 1e-5

_erf = np.frompyfunc(math.erf, 1, 1)


class StaticTextNetwork:
    """Adds up the vectors of a text's tokens and pairs of tokens; a linear layer follows.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The weights, by their names in `sk_aft.modules.StaticText`.

    Raises
    ------
    KeyError, ValueError
        If arrays are missing or do not fit together.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        _check_shapes(arrays)
        weights = np.exp(arrays["bag.log_weights"])
        self._vectors = arrays["bag.weight"] * weights[:, None]
        self._starts_word: list[bool] = arrays["bag.starts_word"].astype(bool).tolist()
        pairs = enumerate(arrays["bag.pairs"].tolist(), start=len(self._starts_word))
        self._place_of = {pair: place for place, pair in pairs if pair >= 0}
        self._norm = arrays["norm.weight"], arrays["norm.bias"]
        self._hidden = None
        if "hidden.0.weight" in arrays:
            self._hidden = [arrays[f"hidden.{k}"] for k in ("0.weight", "0.bias")]
            self._hidden += [arrays[f"hidden.{k}"] for k in ("2.weight", "2.bias")]
        self._head = arrays["head.weight"], arrays["head.bias"]

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return len(self._starts_word)

    @property
    def n_outputs(self) -> int:
        """Number of classes or targets."""
        return len(self._head[1])

    def __call__(self, tokens: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and features.

        Parameters
        ----------
        tokens : sequence of n_texts sequences of int
            Tokens of each text.

        Returns
        -------
        logits : ndarray of shape (n_texts, n_outputs), float32
            Scores.
        features : ndarray of shape (n_texts, width), float32
            The features of the last layer.
        """
        features = _normalised(self._sums(tokens), *self._norm)
        if self._hidden is not None:
            features = features + _hidden_layer(features, *self._hidden)
        weight, bias = self._head
        return features @ weight.T + bias, features

    def _sums(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        # Text by text, so that the vectors of all tokens are never in memory at once.
        sums = np.zeros((len(tokens), self._vectors.shape[1]), dtype=np.float32)
        for row, text in enumerate(tokens):
            if text:
                vectors, weights = self._vectors_of(text)
                own = self._vectors.take(vectors, axis=0)
                np.dot(np.array(weights, dtype=np.float32), own, out=sums[row])
        return sums

    def _vectors_of(self, text: Sequence[int]) -> tuple[list[int], list[float]]:
        """Return the vectors of a text's tokens and of its pairs of tokens, and their weights."""
        # Loops and a dict: a text has few tokens, and each call of NumPy takes as long as them.
        n_tokens, place_of = len(self._starts_word), self._place_of
        keys = [first * n_tokens + second for first, second in pairwise(text)]
        pairs = [place_of[key] for key in keys if key in place_of]
        n_pieces: list[int] = []
        for token in text:
            if self._starts_word[token] or not n_pieces:
                n_pieces.append(1)
            else:
                n_pieces[-1] += 1
        weights = [1 / n for n in n_pieces for _ in range(n)]
        return [*text, *pairs], weights + [1.0] * len(pairs)


def _check_shapes(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError if arrays do not fit together; KeyError if one is missing."""
    n_vectors, width = arrays["bag.weight"].shape
    n_tokens, n_outputs = len(arrays["bag.starts_word"]), len(arrays["head.bias"])
    expected: dict[str, tuple[int, ...]] = {
        "bag.log_weights": (n_vectors,),
        "bag.starts_word": (n_tokens,),
        "bag.pairs": (n_vectors - n_tokens,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (n_outputs, width),
        "head.bias": (n_outputs,),
    }
    if "hidden.0.weight" in arrays:
        n_hidden = len(arrays["hidden.0.bias"])
        expected |= {
            "hidden.0.weight": (n_hidden, width),
            "hidden.0.bias": (n_hidden,),
            "hidden.2.weight": (width, n_hidden),
            "hidden.2.bias": (width,),
        }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"its layers do not fit together: {name} has the shape {arrays[name].shape} "
                f"instead of {shape}"
            )


def _normalised(sums: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    # Methods of arrays: for one text, functions such as np.mean take longer than their work.
    n_numbers = sums.shape[1]
    centered = sums - sums.sum(axis=1, keepdims=True) / n_numbers
    variance = (centered * centered).sum(axis=1, keepdims=True) / n_numbers
    return centered / np.sqrt(variance + _EPSILON) * weight + bias


def _hidden_layer(
    features: np.ndarray, weight: np.ndarray, bias: np.ndarray, outer: np.ndarray, last: np.ndarray
) -> np.ndarray:
    inner: Any = features @ weight.T + bias
    # The exact GELU, as in PyTorch.
    activated = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)).astype(np.float32))
    return activated @ outer.T + last
