"""Running tokenized texts through a network in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sk_aft.backbones._network import Network
from sk_aft.backbones._onnx import Inputs

INPUTS = _IDS, _MASK, _TYPES = ("input_ids", "attention_mask", "token_type_ids")
# Tensors of the rows with these indices.
TakeTensors = Callable[[np.ndarray], tuple[Tensor, ...]]
# In ONNX Runtime each core runs its own batch; this many tokens fit its caches. Twice as many and
# half as many were measured with MiniLM, and neither was faster.
_TOKENS_PER_CORE = 256
# Texts tokenized at a time: bounds the memory of the tokens, padded to the longest text.
_TEXTS_TOKENIZED = 4096
# This many characters for each token read are enough to tell whether a text is too long.
_MOST_CHARACTERS_A_TOKEN = 16
_SPECIAL_TOKENS = 4
# The export takes a second or two and saves about a millisecond per text.
_TEXTS_WORTH_EXPORT = 1000
_TEXTS_OF_GROUP = 8  # smaller products are less efficient


def token_network(module: nn.Module, device: torch.device, **layers: Any) -> Network:
    """Return a network whose inputs are (n_texts, n_tokens) tensors, see `INPUTS`."""
    return Network(
        module, device, n_rows_worth_export=_TEXTS_WORTH_EXPORT, varying_axes=(0, 1), **layers
    )


def embed_texts(
    network: Network,
    tokenize: Callable[[list], Mapping[str, Tensor]],
    texts: Sequence[Any],
    *,
    batch_size: int,
) -> np.ndarray:
    """Return the features of texts.

    Parameters
    ----------
    network : Network
        Takes the token ids, the attention mask and, if there are any, the token types.
    tokenize : callable
        Returns these tensors for a list of texts, padded to the longest.
    texts : sequence of str, or of pairs of str
        Texts of any length.
    batch_size : int
        Largest number of texts in a batch.

    Returns
    -------
    features : ndarray of shape (n_texts, n_features), float32
        One vector for each text.
    """
    if network.device.type == "cuda":
        return embed_as_tokenized(network, tokenize, texts, batch_size=batch_size)
    parts = []
    for start in range(0, len(texts), _TEXTS_TOKENIZED):
        tokens = tokenize(list(texts[start : start + _TEXTS_TOKENIZED]))
        parts.append(_embed(network, tokens, batch_size))
    return np.concatenate(parts)


def embed_as_tokenized(
    network: Network,
    tokenize: Callable[[list], Mapping[str, Tensor]],
    texts: Sequence[Any],
    *,
    batch_size: int,
) -> np.ndarray:
    """Return the features of texts, which are tokenized batch by batch while a GPU computes.

    Batches hold texts of a similar number of characters, which is known before they are tokenized.
    Parameters are those of `embed_texts`.
    """
    lengths = np.array([sum(map(len, row)) for row in zip(*text_arguments(texts), strict=True)])
    batches = list(_batches_of_similar_length(lengths, batch_size, None))
    inputs = (_tokenized(tokenize, [texts[row] for row in batch]) for batch in batches)
    return _in_order(batches, network.run(inputs))


def _tokenized(tokenize: Callable[[list], Mapping[str, Tensor]], texts: list) -> Inputs:
    return take_tokens(tokenize(texts))(np.arange(len(texts)))


def text_arguments(texts: Sequence[Any]) -> list[list[str]]:
    """Return what a tokenizer is called with: texts, or the first and the second of each pair."""
    if len(texts) and not isinstance(texts[0], str):
        return [list(part) for part in zip(*texts, strict=True)]
    return [list(texts)]


def truncation_note(
    texts: Sequence[Any], tokenizer: Any, max_length: Any, remedy: str
) -> str | None:
    """Return a sentence that counts the texts of which a model read only the beginning.

    Parameters
    ----------
    texts : sequence of str, or of pairs of str
        Texts that the model was given.
    tokenizer : callable
        Its tokenizer; only tokenizers of transformers are used.
    max_length : int or None
        Number of tokens that it reads.
    remedy : str
        How to raise it; completes "or ... to read more".

    Returns
    -------
    note : str or None
        None if it read every text to the end.
    """
    if not hasattr(tokenizer, "model_input_names") or not max_length or np.isinf(max_length):
        return None
    arguments = text_arguments(texts)
    # A token is at least one byte. The beginning of a very long text already has too many tokens.
    long = [
        tuple(text[: _MOST_CHARACTERS_A_TOKEN * max_length] for text in row)
        for row in zip(*arguments, strict=True)
        if sum(map(_n_bytes, row)) > max_length - _SPECIAL_TOKENS
    ]
    n_truncated = 0
    for start in range(0, len(long), _TEXTS_TOKENIZED):
        some = long[start : start + _TEXTS_TOKENIZED]
        parts = map(list, zip(*some, strict=True))
        tokens = tokenizer(*parts, truncation=False, padding=False, verbose=False)["input_ids"]
        n_truncated += sum(len(ids) > max_length for ids in tokens)
    if not n_truncated:
        return None
    what = "texts" if len(arguments) == 1 else "pairs of texts"
    return (
        f"{n_truncated} of {len(texts)} {what} are longer than {max_length} tokens, and the model "
        f"read only that many from the beginning. Split them into shorter rows, or {remedy} to "
        "read more."
    )


def _n_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _embed(network: Network, tokens: Mapping[str, Tensor], batch_size: int) -> np.ndarray:
    take = take_tokens(tokens)
    lengths = tokens["attention_mask"].sum(dim=1).numpy()
    network.export(len(lengths), lambda: take(np.argsort(-lengths)[:4]))
    budget = None if network.session is None else _TOKENS_PER_CORE
    batches = list(_batches_of_similar_length(lengths, batch_size, budget))
    return _in_order(batches, network.run(map(take, batches)))


def _in_order(batches: Sequence[np.ndarray], matrices: Iterator[np.ndarray]) -> np.ndarray:
    """Return the features of batches in the order of the rows, whose indices the batches are."""
    features: np.ndarray | None = None
    for batch, matrix in zip(batches, matrices, strict=True):
        if features is None:
            features = np.empty((sum(map(len, batches)), matrix.shape[1]), dtype=np.float32)
        features[batch] = matrix
    assert features is not None
    return features


def take_tokens(tokens: Mapping[str, Tensor]) -> TakeTensors:
    """Return a function from indices of texts to the tensors of `INPUTS`, without padding."""
    types = [tokens[_TYPES]] if _TYPES in tokens else []
    inputs = (tokens[_IDS], tokens[_MASK], *types)
    return lambda batch: _some_rows(inputs, torch.from_numpy(batch))


class InGroupsOfLength(nn.Module):
    """Runs texts of similar length together, because padding costs as much as tokens on a CPU.

    Parameters
    ----------
    module : torch.nn.Module
        Maps the tensors of `INPUTS` to features, (n_texts, n_features).
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the features of the texts, in their order."""
        if inputs[0].device.type != "cpu":
            return self.module(*inputs)
        _, mask, *_ = inputs
        order = mask.sum(dim=1).argsort(stable=True)
        groups = order.split(_TEXTS_OF_GROUP)
        features = [self.module(*_some_rows(inputs, group)) for group in groups]
        return torch.cat(features)[order.argsort()]


def _some_rows(inputs: Sequence[Tensor], indices: Tensor) -> tuple[Tensor, ...]:
    """Return tensors of some texts, without columns in which none of them has a token."""
    _, mask, *_ = inputs
    # By column, since tokenizers pad on the left or on the right.
    column_mask = mask[indices].any(dim=0)
    column_mask[0] |= not column_mask.any()  # a batch of empty texts keeps one
    return tuple(tensor[indices][:, column_mask] for tensor in inputs)


def _batches_of_similar_length(
    lengths: np.ndarray, batch_size: int, budget: int | None
) -> Iterator[np.ndarray]:
    """Yield indices, those of the longest texts first, so that a lack of memory shows at once."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        longest = max(int(lengths[order[0]]), 1)
        n_rows = batch_size if budget is None else min(batch_size, max(budget // longest, 1))
        yield order[:n_rows]
        order = order[n_rows:]
