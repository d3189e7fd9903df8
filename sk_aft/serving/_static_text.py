"""The network of static token embeddings, `sk_aft.modules.StaticText`, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

# Those of sk_aft.modules.StaticText.
_HASHES = ((1_000_003, 786_433), (393_241, 1_572_869))
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
        self._starts_word: np.ndarray = arrays["bag.starts_word"].astype(bool)
        self._pairs: np.ndarray = arrays["bag.pairs"].astype(np.int64)
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
        lengths = np.array([len(ids) for ids in tokens])
        ends = lengths.cumsum()
        starts = ends - lengths
        ids = np.array(list(chain.from_iterable(tokens)), dtype=np.int64)
        weights = self._weights_of_pieces(ids, starts[lengths > 0])
        pairs, is_known = self._find_pairs(ids)
        is_known[ends[(ends > 0) & (ends < len(ids))] - 1] = False  # between two texts
        sums = np.zeros((len(tokens), self._vectors.shape[1]), dtype=np.float32)
        # Text by text, so that the vectors of all tokens are never in memory at once.
        for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            if start == end:
                continue
            sums[row] = weights[start:end] @ self._vectors[ids[start:end]]
            own = pairs[start : end - 1][is_known[start : end - 1]]
            if len(own):
                sums[row] += self._vectors[own].sum(axis=0)
        return sums

    def _weights_of_pieces(self, ids: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return one divided by the number of pieces of each token's word, (n_tokens,)."""
        begins = self._starts_word[ids]
        begins[starts] = True
        word = begins.cumsum() - 1
        return (np.float32(1) / np.bincount(word).astype(np.float32))[word]

    def _find_pairs(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the vector of each pair of adjacent tokens, and whether there is one."""
        n_tokens, n_places = len(self._starts_word), len(self._pairs)
        first, second = ids[:-1], ids[1:]
        if n_places == 0:
            return first, np.zeros(len(first), dtype=bool)
        pair = first * n_tokens + second
        one, other = ((first * a + second * b) % n_places for a, b in _HASHES)
        places = np.where(self._pairs[one] == pair, one, other)
        return n_tokens + places, self._pairs[places] == pair


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
