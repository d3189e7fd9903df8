"""Networks that start from a foundation model, by its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from torch import nn

from sk_aft._data._tensors import InputTensors
from sk_aft.backbones._encoder_layers import encoder_files, load_tokenizer_json
from sk_aft.backbones._specs import resolve_backbone
from sk_aft.modules._transformer_text import TransformerText
from sk_aft.preprocessing._subword import SubwordTokenizer

# More tokens cost time, and few texts are longer.
_MOST_TOKENS = 256
_EXPECTED = (
    "expected 'auto', 'minilm', 'st:NAME' or 'hf:NAME' (NAME is on the Hugging Face hub, or a "
    "directory), a directory, or a network: a class, a function or an instance"
)


class NamedNetwork(NamedTuple):
    """What ``module="minilm"`` and other names stand for.

    Parameters
    ----------
    name : str
        The name.
    build : callable
        Builds it from ``module__x`` and the sizes of its inputs.
    make_preprocessor : callable
        Makes the unfitted preprocessor of ``preprocessor="auto"`` from ``preprocessor__x``.
    kind : {"text", "image"}
        Kind of rows that the network reads.
    """

    name: str
    build: Callable[..., nn.Module]
    make_preprocessor: Callable[..., Any]
    kind: str

    def check_kind(self, kind: str) -> None:
        """Raise if the rows are of another kind."""
        if kind != self.kind:
            raise ValueError(
                f"module={self.name!r} reads rows of kind {self.kind!r}, and these are of kind "
                f"{kind!r}: use module='auto', or a network for such rows."
            )

    def check_tensors(self, tensors: InputTensors, tokenizer: SubwordTokenizer | None) -> None:
        """Raise if the preprocessor made something else of texts than tokens of this encoder."""
        if self.kind != "text":
            return
        if tensors.lengths is None:
            raise ValueError(
                f"module={self.name!r} reads sequences of tokens, and the preprocessor returned "
                "something else: use preprocessor='auto', which is the tokenizer of this model."
            )
        if tokenizer is None:
            return
        own = Tokenizer.from_str(self.make_preprocessor().tokenizer)
        if tokenizer.tokenizer_.get_vocab() != own.get_vocab():
            raise ValueError(
                f"The preprocessor's SubwordTokenizer has another vocabulary than {self.name!r}, "
                "whose embeddings its tokens would stand for: use preprocessor='auto', which is "
                "the tokenizer of this model."
            )


def named_network(module: Any) -> NamedNetwork | None:
    """Return what the name of a network stands for; nothing is loaded yet.

    Parameters
    ----------
    module : str, type, callable or torch.nn.Module
        The parameter of a student. A name is that of a foundation model, as in
        `FoundationFeatureExtractor`.

    Returns
    -------
    named : NamedNetwork or None
        Network and preprocessor; None for "auto" and for what is not a name.

    Raises
    ------
    ValueError
        If no network starts from such a model.
    """
    if not isinstance(module, str) or module == "auto":
        return None
    try:
        kind = resolve_backbone(module).kind
    except ValueError as error:
        raise ValueError(f"module={module!r} is unknown: {_EXPECTED}. {error}") from error
    if kind != "text":
        raise ValueError(f"module={module!r} is no model of texts: {_EXPECTED}.")
    return NamedNetwork(
        module,
        build=partial(TransformerText, module),
        make_preprocessor=partial(encoder_tokenizer, module),
        kind="text",
    )


def encoder_tokenizer(name: str, max_length: int | None = None) -> SubwordTokenizer:
    """Return the tokenizer of an encoder, by default for texts of at most 256 tokens."""
    document, n_positions = load_tokenizer_json(encoder_files(resolve_backbone(name)))
    if max_length is None:
        max_length = min(n_positions, _MOST_TOKENS)
    elif not 1 <= max_length <= n_positions:
        raise ValueError(
            f"max_length={max_length}, but {name!r} reads at most {n_positions} tokens: expected 1 "
            f"to {n_positions}."
        )
    return SubwordTokenizer(document, max_length=max_length)
