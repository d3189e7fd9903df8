"""How a network of static embeddings starts from a foundation model's embeddings of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer

from sk_aft.modules._static_text import STARTED_SCALE, WeightedBag, table_of_pairs

# Tokens and pairs that are this share of all tokens weigh half as much as rare ones. Smaller
# values hide the question words of TREC, larger ones let the articles of SST-2 through.
_HALF_WEIGHT = 0.02
_PAIR_WEIGHT = 0.6
_FEWEST_OCCURRENCES = 2
# A pair is left out if both of its places are taken. A table of few pairs has this many places for
# each; a table that is too small for that is offered more pairs than it has places.
_PLACES_PER_PAIR = 4
_PAIRS_PER_PLACE = 2

Embed = Callable[[list[str]], np.ndarray]


def set_vocabulary(
    bag: WeightedBag, sequences: Sequence[np.ndarray], tokenizer: Tokenizer | None
) -> None:
    """Choose the pairs of a bag and its weights by how often they occur in some texts.

    Parameters
    ----------
    bag : WeightedBag
        Changed in place.
    sequences : sequence of ndarray
        The tokens of each text.
    tokenizer : tokenizers.Tokenizer or None
        Tells which tokens start a word; None if there is none.
    """
    n_tokens = bag.n_tokens
    counts = np.bincount(np.concatenate([*sequences, [0]]).astype(np.int64), minlength=n_tokens)
    counts[0] -= 1
    pairs, pair_counts = frequent_pairs(sequences, n_tokens, _PAIRS_PER_PLACE * len(bag.pairs))
    n_bigrams = min(len(bag.pairs), _PLACES_PER_PAIR * len(pairs))
    bag.keep_pairs(n_bigrams)
    table = table_of_pairs(torch.from_numpy(pairs), n_bigrams, n_tokens)
    count_of = dict(zip((pairs[:, 0] * n_tokens + pairs[:, 1]).tolist(), pair_counts, strict=True))
    of_table = np.array([count_of.get(pair, 0) for pair in table.tolist()], dtype=np.int64)
    n_in_all = max(counts.sum(), 1)
    weights = np.concatenate(
        [
            frequency_weights(counts / n_in_all),
            _PAIR_WEIGHT * frequency_weights(of_table / n_in_all),
        ]
    )
    with torch.no_grad():
        bag.pairs.copy_(table)
        bag.log_weights.copy_(torch.from_numpy(np.log(weights)))
        if tokenizer is not None:
            bag.starts_word.copy_(torch.from_numpy(starts_word(tokenizer, n_tokens)))


def set_embeddings(bag: WeightedBag, tokenizer: Tokenizer, embed: Embed) -> None:
    """Replace the vectors of a bag by a foundation model's vectors of its tokens and pairs.

    Each token and each pair is a text of its own. The vectors are projected to the principal
    components of those of the tokens.

    Parameters
    ----------
    bag : WeightedBag
        Its pairs are set; its vectors are changed in place.
    tokenizer : tokenizers.Tokenizer
        Says which text each token stands for.
    embed : callable
        From a list of n_texts str to an (n_texts, n_features) array.
    """
    table = bag.pairs.tolist()
    tokens = [[token] for token in range(bag.n_tokens)]
    tokens += [[*divmod(pair, bag.n_tokens)] if pair >= 0 else [] for pair in table]
    texts = texts_of(tokenizer, tokens)
    # Bytes that are a part of a character, and special tokens, stand for no text.
    readable = {index: text for index, text in enumerate(texts) if text}
    indices = np.array(list(readable), dtype=np.int64)
    of_tokens = indices < bag.n_tokens
    if not of_tokens.any():
        return
    vectors = embed(list(readable.values()))
    projected = project(vectors, vectors[of_tokens], bag.weight.shape[1])
    projected *= STARTED_SCALE / max(np.sqrt((projected[of_tokens] ** 2).mean()), 1e-12)
    with torch.no_grad():
        bag.weight.zero_()
        start = torch.from_numpy(projected.astype(np.float32)).to(bag.weight.device)
        bag.weight[torch.from_numpy(indices).to(bag.weight.device)] = start


def frequent_pairs(
    sequences: Sequence[np.ndarray], n_tokens: int, n_pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the most frequent pairs of adjacent tokens that occur at least twice.

    Parameters
    ----------
    sequences : sequence of ndarray
        The tokens of each text.
    n_tokens : int
        Size of the vocabulary.
    n_pairs : int
        How many pairs to return at most.

    Returns
    -------
    pairs : ndarray of shape (n_found, 2), int64
        The most frequent first; equally frequent ones by their tokens.
    counts : ndarray of shape (n_found,), int64
        How often each occurs.
    """
    found = [tokens[:-1] * n_tokens + tokens[1:] for tokens in sequences if len(tokens) > 1]
    if not (found and n_pairs):
        return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.int64)
    keys, counts = np.unique(np.concatenate(found), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:n_pairs]
    order = order[counts[order] >= _FEWEST_OCCURRENCES]
    return np.stack(np.divmod(keys[order], n_tokens), axis=1), counts[order]


def frequency_weights(shares: np.ndarray) -> np.ndarray:
    """Return the weights of tokens from their shares of all tokens; 1 for unseen ones."""
    return _HALF_WEIGHT / (_HALF_WEIGHT + shares)


def project(vectors: np.ndarray, reference: np.ndarray, width: int) -> np.ndarray:
    """Return vectors in the first principal components of some others.

    Parameters
    ----------
    vectors : ndarray of shape (n_vectors, n_features)
        Vectors to project.
    reference : ndarray of shape (n_reference, n_features)
        Vectors whose mean and components are used.
    width : int
        Number of components; further columns than n_features are 0.

    Returns
    -------
    projected : ndarray of shape (n_vectors, width), float64
        The projections.
    """
    mean = reference.mean(axis=0, dtype=np.float64)
    centered = reference - mean
    _, components = np.linalg.eigh(centered.T @ centered)
    components = components[:, ::-1][:, :width]
    # The sign of an eigenvector is arbitrary, and differs between machines.
    components *= np.sign(components[np.abs(components).argmax(axis=0), range(components.shape[1])])
    projected = np.zeros((len(vectors), width))
    projected[:, : components.shape[1]] = (vectors - mean) @ components
    return projected


def texts_of(tokenizer: Tokenizer, tokens: list[list[int]]) -> list[str]:
    """Return the texts that some tokens stand for, "" if it is none."""
    texts = [text.strip().removeprefix("##") for text in tokenizer.decode_batch(tokens)]
    return ["" if "\ufffd" in text else text for text in texts]


def starts_word(tokenizer: Tokenizer, n_tokens: int) -> np.ndarray:
    """Return which tokens are the first piece of a word, (n_tokens,) bool."""
    names = [tokenizer.id_to_token(token) or "" for token in range(n_tokens)]
    # BPE marks the beginnings of words, by a space that is written as one of these; WordPiece
    # marks all pieces but the first.
    begins = np.array([name.startswith(("\u0120", "\u2581")) for name in names])
    continues = np.array([name.startswith("##") for name in names])
    return begins if begins.any() else ~continues
