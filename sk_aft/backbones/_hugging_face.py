"""Text encoders of the Hugging Face hub with mean pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sk_aft._data._rows import Rows
from sk_aft.backbones._base import Backbone, LoadedOnDemand
from sk_aft.backbones._encoder_files import EncoderSize, import_transformers, size_of
from sk_aft.backbones._fingerprint import directory_digest
from sk_aft.backbones._hidden_states import EncoderBackbone, TokenLayers, mean_over_tokens
from sk_aft.backbones._hub import load_from_hub
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


class HuggingFaceBackbone(EncoderBackbone, LoadedOnDemand):
    """A text encoder loaded with transformers; features are the mean of its last hidden states.

    Parameters
    ----------
    name_or_path : str
        Name on the hub (downloaded at the first use, then cached by huggingface_hub) or a
        directory with the model's files.
    max_length : int, default=256
        Texts are truncated to this number of tokens, with a warning.

    Notes
    -----
    Weights are read with transformers' defaults: safetensors if available, and no code from the
    hub is run. With the extra ``onnx``, many texts run in ONNX Runtime on a CPU. The features
    agree to 1e-3.
    """

    kind = "text"
    batch_size = 128

    def __init__(self, name_or_path: str, *, max_length: int = 256) -> None:
        self.name_or_path = name_or_path
        self.max_length = max_length
        self.name = Path(name_or_path).name

    def fingerprint(self) -> dict[str, Any]:
        """Return the revision on the hub or the digest of the files, and the pooling."""
        return {
            "type": "transformers",
            **resolved_revision(self.name_or_path),
            "pooling": "mean",
            "max_length": self.max_length,
            "dtype": "float32",
        }

    @property
    def licence(self) -> str | None:
        """What the model card says."""
        return licence_of_files(self.name_or_path)

    @property
    def n_features_out(self) -> int | None:
        """Width of the hidden states, from the model's configuration."""
        return getattr(_config(self.name_or_path), "hidden_size", None)

    @cached_property  # the hub may be slow to answer
    def encoder_size(self) -> EncoderSize | None:
        """What the model's configuration says of its layers."""
        return size_of(_config(self.name_or_path))

    def load(self, device: torch.device) -> tuple[Any, Network]:
        """Load tokenizer and model."""
        transformers = import_transformers()
        with quiet_loading():
            tokenizer = load_tokenizer(self.name_or_path)
            load = partial(transformers.AutoModel.from_pretrained, self.name_or_path)
            model = load_from_hub(self.name_or_path, partial(load, dtype=torch.float32))
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        module = MeanOverTokens(model.to(device))
        return tokenizer, token_network(
            module, device, select=partial(TokenLayers, module), n_layers=self.n_layers
        )

    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Tokenize, run and pool; texts of similar length share a batch to reduce padding."""
        tokenizer, network = self.loaded(device)
        network = network.of_layers(layers)
        return embed_with_tokenizer(network, tokenizer, rows.values, self.max_length, batch_size)

    def tunable_copy(self) -> Backbone:
        """Return a copy whose weights may change."""
        return self._unloaded_copy()

    def tunable(self, device: torch.device) -> TunableModel:
        """Return the encoder with mean pooling, and its layers."""
        tokenizer, network = self.loaded(device)
        read = partial(read_tokens, tokenizer, self.max_length)
        return tunable_encoder(network.module, self.name, read)

    def note(self, rows: Rows) -> str | None:
        """Say how many texts were truncated."""
        if self._loaded is None:
            return None
        tokenizer, _ = self._loaded[1]
        return truncation_note(rows.values, tokenizer, self.max_length, "raise max_length")


def embed_with_tokenizer(
    network: Network, tokenizer: Any, texts: Sequence[str], max_length: int, batch_size: int
) -> np.ndarray:
    """Return the features of texts; see `embed_texts`."""
    tokenize = _tokenize(tokenizer, max_length)
    return embed_texts(network, tokenize, texts, batch_size=batch_size)


def read_tokens(tokenizer: Any, max_length: int, rows: Rows) -> TakeTensors:
    """Return a function from indices of texts to their tokens."""
    return take_tokens(_tokenize(tokenizer, max_length)(list(rows.values)))


def _tokenize(tokenizer: Any, max_length: int) -> Callable:
    return partial(
        tokenizer, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    )


class MeanOverTokens(torch.nn.Module):
    """The mean of an encoder's last hidden states over the tokens of each text."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return (n_texts, n_features) for the tensors of `INPUTS`."""
        tokens = dict(zip(INPUTS, inputs, strict=False))
        return mean_over_tokens(self.model(**tokens).last_hidden_state, tokens["attention_mask"])


@contextmanager
def quiet_loading(*, reports: bool = True) -> Iterator[None]:
    """Disable the progress bars of transformers, but not those of downloads.

    Parameters
    ----------
    reports : bool, default=True
        Whether transformers reports weights that a model lacks or does not use.
    """
    logging = import_module("transformers.utils.logging")
    was_enabled, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    if was_enabled:
        import_module("huggingface_hub.utils").enable_progress_bars()
    if not reports:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if was_enabled:
            logging.enable_progress_bar()


def resolved_revision(name_or_path: str) -> dict[str, str]:
    """Return what identifies a model's weights: a digest of local files, or the hub's commit."""
    if Path(name_or_path).exists():
        return {"files": directory_digest(name_or_path)}
    revision = getattr(_config(name_or_path), "_commit_hash", None)
    return {"name": name_or_path, "revision": str(revision)}


def load_tokenizer(name_or_path: str) -> Any:
    """Load the tokenizer of a directory or a name on the hub."""
    load = partial(import_transformers().AutoTokenizer.from_pretrained, name_or_path)
    return load_from_hub(name_or_path, load)


def _config(name_or_path: str) -> Any:
    load = partial(import_transformers().AutoConfig.from_pretrained, name_or_path)
    return load_from_hub(name_or_path, load)
