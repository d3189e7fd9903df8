"""Text models that the user has loaded: objects of sentence-transformers and of transformers."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import xxhash

from sk_aft._data._rows import Rows
from sk_aft.backbones._base import Backbone
from sk_aft.backbones._encoder_files import EncoderSize, size_of
from sk_aft.backbones._hidden_states import (
    EncoderBackbone,
    TokenLayers,
    encode_layers,
    without_traces,
)
from sk_aft.backbones._hugging_face import (
    PooledTokens,
    check_separates_pairs,
    embed_with_tokenizer,
    encoder_of,
    load_tokenizer,
    n_tokens_read,
    read_tokens,
    with_padding,
)
from sk_aft.backbones._loaded_models import LoadedModel
from sk_aft.backbones._network import Network
from sk_aft.backbones._sentence_transformers import tunable_sentence_transformer
from sk_aft.backbones._tokens import truncation_note
from sk_aft.backbones._torch import borrowed
from sk_aft.backbones._tunable import TunableModel, transformer_of, tunable_encoder

# How to give a model whose tokenizer is not found.
_PIPELINE = "transformers.pipeline('feature-extraction', model=model, tokenizer=tokenizer)"


class TextObject(EncoderBackbone, LoadedModel):
    """A text model that the user has loaded."""

    kind = "text"
    batch_size = 128

    @property
    def encoder_size(self) -> EncoderSize | None:
        """What the configuration of the transformer says of its layers."""
        try:
            transformer: Any = transformer_of(self.model, self.name)
        except ValueError:  # there is none
            return None
        return size_of(transformer.config)

    def check_tunable(self) -> None:
        """Raise ValueError unless the model contains a transformer."""
        transformer_of(self.model, self.name)

    def tunable_copy(self) -> Backbone:
        """Return a copy with a model of its own, in float32: half precision loses small steps."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).float()
        return other


class SentenceTransformerObject(TextObject):
    """A SentenceTransformer that the user has loaded, run by its own ``encode``."""

    def settings(self) -> dict[str, Any]:
        """Return the tokenizer's digest and what ``encode`` looks up in the model."""
        names = ("max_seq_length", "truncate_dim", "prompts", "default_prompt_name")
        return {
            "tokenizer": tokenizer_digest(getattr(self.model, "tokenizer", None)),
            **{name: repr(getattr(self.model, name, None)) for name in names},
        }

    @property
    def n_features_out(self) -> int | None:
        """Width of the sentence embedding, None if the model does not know it."""
        get_width = getattr(self.model, "get_embedding_dimension", None)  # from version 5.2 on
        return (get_width or self.model.get_sentence_embedding_dimension)()

    @property
    def encoder_size(self) -> EncoderSize | None:
        """What the transformer says of its layers; None unless all texts run through it."""
        is_first = type(self.model[0]).__name__ == "Transformer"
        return super().encoder_size if is_first else None

    def tunable(self, device: torch.device) -> TunableModel:
        """Return the model with its layers; its pooling is the model's own."""
        self.model.to(device).eval()
        return tunable_sentence_transformer(self.model, self.name)

    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Encode the texts."""
        with borrowed(self.model, device), without_traces(self.model):
            return encode_layers(
                self.model,
                layers,
                rows.values,
                batch_size=batch_size,
                device=str(device),
                show_progress_bar=False,
            )

    def note(self, rows: Rows) -> str | None:
        """Say how many texts were truncated."""
        tokenizer = getattr(self.model, "tokenizer", None)
        remedy = "set the model's max_seq_length"
        return truncation_note(rows.values, tokenizer, self.model.max_seq_length, remedy)


class TransformersObject(TextObject):
    """A text model of transformers that the user has loaded; the mean of its last hidden states.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Any text model; its encoder, or its decoder if it has no encoder, is used without the head.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        Default: the tokenizer of the directory or hub name from which the model was loaded.
    max_length : int, default=256
        Texts are truncated to this number of tokens.
    """

    reads_pairs = True

    def __init__(self, model: Any, tokenizer: Any = None, *, max_length: int = 256) -> None:
        name = type(model).__name__
        model = encoder_of(model.base_model)
        super().__init__(model)
        self.name = name.lower()
        tokenizer = _tokenizer_of(model, name) if tokenizer is None else tokenizer
        self.tokenizer = with_padding(tokenizer)
        self.max_length = max_length

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if rows are pairs that the tokenizer would join without a separator."""
        del names
        if rows.kind == "pair":
            check_separates_pairs(self.tokenizer, self.name)

    def settings(self) -> dict[str, Any]:
        """Return the tokenizer's digest, the pooling and the maximum length."""
        digest = tokenizer_digest(self.tokenizer)
        return {"tokenizer": digest, "pooling": "mean", "max_length": self.max_length}

    @property
    def n_features_out(self) -> int | None:
        """Width of the hidden states, from the model's configuration."""
        return getattr(self.model.config, "hidden_size", None)

    def tunable(self, device: torch.device) -> TunableModel:
        """Return the encoder with mean pooling, and its layers."""
        read = partial(read_tokens, self.tokenizer, self.max_length)
        return tunable_encoder(PooledTokens(self.model.to(device).eval()), self.name, read)

    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Tokenize, run and pool."""
        with borrowed(self.model, device), without_traces(self.model):
            pooled: torch.nn.Module = PooledTokens(self.model)
            if layers:
                pooled = TokenLayers(pooled, layers)
            network = Network(pooled, device, n_rows_worth_export=sys.maxsize)  # never exported
            return embed_with_tokenizer(
                network, self.tokenizer, rows.values, self.max_length, batch_size
            )

    def note(self, rows: Rows) -> str | None:
        """Say how many texts were truncated."""
        remedy = "give HuggingFaceBackbone(name, max_length=...)"
        length = n_tokens_read(self.tokenizer, self.max_length)
        return truncation_note(rows.values, self.tokenizer, length, remedy)


def is_sentence_transformer(model: Any) -> bool:
    """Return whether an object is a loaded SentenceTransformer."""
    return _is_a(model, "sentence_transformers", "SentenceTransformer")


def is_model_of_transformers(model: Any) -> bool:
    """Return whether an object is a loaded model of transformers."""
    return _is_a(model, "transformers", "PreTrainedModel")


def is_pipeline_of_transformers(model: Any) -> bool:
    """Return whether an object is a pipeline of transformers, for any task."""
    return _is_a(model, "transformers", "Pipeline")


def refuse_tokenizer(model: Any) -> None:
    """Raise if an object is a tokenizer, such as one in a tuple with its model."""
    if _is_a(model, "transformers", "PreTrainedTokenizerBase"):
        raise TypeError(
            f"model holds a tokenizer ({type(model).__name__}), which computes no features: give "
            f"{_PIPELINE}."
        )


def from_pipeline(pipeline: Any) -> TransformersObject:
    """Return the backbone of a pipeline for the task "feature-extraction"."""
    if pipeline.task != "feature-extraction" or pipeline.tokenizer is None:
        raise TypeError(
            f"model is a pipeline for the task {pipeline.task!r}, which returns no features: give "
            f"{_PIPELINE}."
        )
    return TransformersObject(pipeline.model, pipeline.tokenizer)


def _is_a(model: Any, package: str, name: str) -> bool:
    # By name, to avoid importing the package.
    return any(
        base.__name__ == name and base.__module__.partition(".")[0] == package
        for base in type(model).__mro__
    )


def _tokenizer_of(model: Any, name: str) -> Any:
    try:
        if not model.name_or_path:
            raise OSError("it was not loaded from a directory or the hub")
        return load_tokenizer(model.name_or_path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The tokenizer of this {name} cannot be found ({error}). Give model={_PIPELINE}."
        ) from error


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest the rules and the vocabulary of a tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "to_str"):
        rules = json.loads(backend.to_str())
        for name in ("truncation", "padding"):  # what it was called with last
            rules.pop(name, None)
    else:
        rules = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
    side = getattr(tokenizer, "truncation_side", None)
    text = json.dumps([type(tokenizer).__qualname__, side, rules], sort_keys=True)
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))
