"""Text models of the Hugging Face hub with pooling over the tokens."""

from __future__ import annotations

import copy
import inspect
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
from sk_aft.backbones._hidden_states import (
    EncoderBackbone,
    TokenLayers,
    last_token,
    mean_over_tokens,
)
from sk_aft.backbones._hub import load_from_hub
from sk_aft.backbones._hugging_face_rows import family_of, model_class
from sk_aft.backbones._licences import licence_of_files
from sk_aft.backbones._network import Network
from sk_aft.backbones._tokens import (
    INPUTS,
    embed_texts,
    take_tokens,
    text_arguments,
    token_network,
    truncation_note,
)
from sk_aft.backbones._tunable import TakeTensors, TunableModel, tunable_encoder

_POOLINGS = {"mean": mean_over_tokens, "last": last_token}
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.vocab", "tekken.json")
_SPACES = " \u2581\u0120"  # SentencePiece and GPT-2 write a space as the last two
# Weights that only training reads.
_NOT_IN_FEATURES = ("mask_token", "logit_scale", "logit_bias")


class HuggingFaceBackbone(EncoderBackbone, LoadedOnDemand):
    """A text model loaded with transformers, whose last hidden states are pooled.

    It is an encoder (BERT), the encoder of an encoder-decoder (T5), or a causal language model
    (GPT-2, Llama), whose head is not used. A causal language model is given the text without a
    chat template. Texts are padded on the right, where padding changes no features.

    Parameters
    ----------
    name_or_path : str
        Name on the hub (downloaded at the first use, then cached by huggingface_hub) or a
        directory with the model's files.
    max_length : int, default=256
        Texts are truncated to this number of tokens, with a warning, or to the tokenizer's
        ``model_max_length`` if that is smaller.
    pooling : {"mean", "last"}, default="mean"
        The mean over the tokens, or the last token, which is the only one that reads the whole
        text in a causal language model. Layers before the last are always means.

    Raises
    ------
    ValueError
        If there is no such pooling, or the model of a directory reads images; of a model on the hub
        this is found out before any row is run.

    Notes
    -----
    A pair of texts, from a tuple of two columns, is read in one pass, as the tokenizer joins it.
    It is truncated from the longer text.

    Weights are read with transformers' defaults: safetensors if available, and no code from the
    hub is run. With the extra ``onnx``, many texts run in ONNX Runtime on a CPU. The features
    agree to 1e-3.
    """

    kind = "text"
    reads_pairs = True
    batch_size = 128

    def __init__(self, name_or_path: str, *, max_length: int = 256, pooling: str = "mean") -> None:
        if pooling not in _POOLINGS:
            raise ValueError(f"pooling={pooling!r}: expected 'mean' or 'last'.")
        check_has_no_prefix(name_or_path, type(self).__name__)
        if Path(name_or_path).is_dir():
            check_reads_texts(name_or_path)
        self.name_or_path = name_or_path
        self.max_length = max_length
        self.pooling = pooling
        self.name = Path(name_or_path).name

    def fingerprint(self) -> dict[str, Any]:
        """Return the revision on the hub or the digest of the files, and the pooling."""
        return {
            "type": "transformers",
            **resolved_revision(self.name_or_path),
            "pooling": self.pooling,
            "max_length": self.max_length,
            "dtype": "float32",
        }

    @property
    def licence(self) -> str | None:
        """What the model card says."""
        return licence_of_files(self.name_or_path)

    @property
    def n_features_out(self) -> int | None:
        """Width of the last hidden states, from the model's configuration."""
        config = load_config(self.name_or_path)
        projected = getattr(config, "word_embed_proj_dim", None)  # of OPT
        return projected or getattr(config, "hidden_size", None)

    @cached_property  # the hub may be slow to answer
    def encoder_size(self) -> EncoderSize | None:
        """What the model's configuration says of its layers."""
        return size_of(load_config(self.name_or_path))

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if the model reads no texts, or no pairs because nothing would separate them."""
        del names
        check_reads_texts(self.name_or_path)
        if rows.kind == "pair":
            check_separates_pairs(load_tokenizer(self.name_or_path), self.name)

    def load(self, device: torch.device) -> tuple[Any, Network]:
        """Load tokenizer and model."""
        with quiet_loading():
            tokenizer = with_padding(load_tokenizer(self.name_or_path))
            model = load_model(self.name_or_path, encoder_of, unused=("pooler.",))
        model.config.use_cache = False  # of decoders that generate texts
        module = PooledTokens(model.to(device), self.pooling)
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
        """Return the model with its pooling, and its layers."""
        tokenizer, network = self.loaded(device)
        read = partial(read_tokens, tokenizer, self.max_length)
        return tunable_encoder(network.module, self.name, read)

    def note(self, rows: Rows) -> str | None:
        """Say how many texts were truncated."""
        if self._loaded is None:
            return None
        tokenizer, _ = self._loaded[1]
        length = n_tokens_read(tokenizer, self.max_length)
        remedy = (
            "raise max_length"
            if length == self.max_length
            else "use a model that reads longer texts"
        )
        return truncation_note(rows.values, tokenizer, length, remedy)


def embed_with_tokenizer(
    network: Network, tokenizer: Any, texts: Sequence[Any], max_length: int, batch_size: int
) -> np.ndarray:
    """Return the features of texts, or of pairs; see `embed_texts`."""
    tokenize = _tokenize(tokenizer, max_length)
    return embed_texts(network, tokenize, texts, batch_size=batch_size)


def read_tokens(tokenizer: Any, max_length: int, rows: Rows) -> TakeTensors:
    """Return a function from indices of texts to their tokens."""
    return take_tokens(_tokenize(tokenizer, max_length)(list(rows.values)))


def _tokenize(tokenizer: Any, max_length: int) -> Callable:
    def tokenize(texts: Sequence[Any]) -> Any:
        tokens = tokenizer(
            *text_arguments(texts),
            padding=True,
            padding_side="right",  # positions count from the first token
            truncation=True,
            max_length=n_tokens_read(tokenizer, max_length),
            return_tensors="pt",
        )
        if tokens["input_ids"].shape[1]:
            return tokens
        # Empty texts and a tokenizer without special tokens: models read at least one position.
        return {name: torch.nn.functional.pad(ids.long(), (0, 1)) for name, ids in tokens.items()}

    return tokenize


def n_tokens_read(tokenizer: Any, max_length: int) -> int:
    """Return the number of tokens to which texts are truncated."""
    return min(max_length, tokenizer.model_max_length)


class PooledTokens(torch.nn.Module):
    """A model's last hidden states, pooled over the tokens of each text.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Returns hidden states.
    pooling : {"mean", "last"}, default="mean"
        The mean over the tokens, or the last token.
    """

    def __init__(self, model: Any, pooling: str = "mean") -> None:
        super().__init__()
        self.model = model
        self.pool = _POOLINGS[pooling]
        # Some tokenizers return token types that the model does not read.
        read = inspect.signature(model.forward).parameters
        self.names = [name for name in INPUTS if name != "token_type_ids" or name in read]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return (n_texts, n_features) for the tensors of `INPUTS`."""
        tokens = dict(zip(self.names, inputs, strict=False))
        return self.pool(self.model(**tokens).last_hidden_state, tokens["attention_mask"])


def with_padding(tokenizer: Any) -> Any:
    """Return a tokenizer that can pad: one without a pad token uses the token of the end."""
    if tokenizer.pad_token is None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def check_has_no_prefix(name_or_path: str, kind: str) -> None:
    """Raise ValueError if a name is a spec."""
    if name_or_path.startswith("hf:"):
        name = name_or_path.removeprefix("hf:")
        raise ValueError(
            f"{kind} got {name_or_path!r}: leave the prefix out, {kind}({name!r}), or give "
            f"{name_or_path!r} itself as the model."
        )


def check_reads_texts(name_or_path: str) -> None:
    """Raise ValueError if a model is known to read images."""
    try:
        config = load_config(name_or_path)
        family = family_of(model_class(config), config)
    except (ImportError, OSError, ValueError):  # it is not known, or loading will say more
        return
    if family != "text":
        other = {"image": "HuggingFaceImageBackbone", "clip": "HuggingFaceClipBackbone"}[family]
        raise ValueError(
            f"HuggingFaceBackbone is for text models, but {name_or_path!r} ({config.model_type}) "
            f"reads images: use {other}({name_or_path!r}), or 'hf:{name_or_path}' as the model."
        )


def check_separates_pairs(tokenizer: Any, name: str) -> None:
    """Raise ValueError if a tokenizer joins the texts of a pair with nothing between them."""
    n_alone, n_joined = (tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
    if n_joined <= n_alone:
        raise ValueError(
            f"Model {name!r} cannot read pairs of texts: its tokenizer puts nothing between the "
            "two. Join them in one column, as a prompt that names both, or give each column a "
            "model of its own."
        )


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
    revision = getattr(load_config(name_or_path), "_commit_hash", None)
    return {"name": name_or_path, "revision": str(revision)}


def load_tokenizer(name_or_path: str) -> Any:
    """Load the tokenizer of a directory or a name on the hub.

    Raises
    ------
    ValueError
        If there is none, or it knows no words.
    """
    try:
        tokenizer = load_part(import_transformers().AutoTokenizer, name_or_path)
    except Exception as error:  # of several types, depending on the tokenizer and the version
        if not Path(name_or_path).is_dir() or _has_tokenizer_files(name_or_path):
            raise
        raise _without_tokenizer(name_or_path) from error
    check_knows_words(tokenizer, name_or_path)
    return tokenizer


def check_knows_words(tokenizer: Any, name_or_path: str) -> None:
    """Raise ValueError if a tokenizer knows no words; transformers makes such a one without files.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        The tokenizer.
    name_or_path : str
        Where it was loaded from, for the message.
    """
    try:
        entries = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    except NotImplementedError:  # it needs no vocabulary
        return
    if not any(not isinstance(entry, str) or entry.strip(_SPACES) for entry in entries):
        raise _without_tokenizer(name_or_path)


def _has_tokenizer_files(directory: str) -> bool:
    return any(next(Path(directory).glob(pattern), None) for pattern in _TOKENIZER_FILES)


def _without_tokenizer(name_or_path: str) -> ValueError:
    return ValueError(
        f"{name_or_path!r} has no tokenizer, or one that knows no words, so texts cannot be read: "
        "save the model's tokenizer to the directory, with tokenizer.save_pretrained(DIRECTORY)."
    )


def load_config(name_or_path: str) -> Any:
    """Load the configuration of a directory or a name on the hub."""
    return load_part(import_transformers().AutoConfig, name_or_path)


def load_model(
    name_or_path: str, part: Callable[[Any], Any] | None = None, *, unused: tuple[str, ...] = ()
) -> Any:
    """Load the model of a directory or a name on the hub without its head, in float32.

    Parameters
    ----------
    name_or_path : str
        Directory, or name on the hub.
    part : callable, optional
        Returns the part of the model that computes the features; default: the whole model.
    unused : tuple of str, default=()
        Beginnings of the names of weights within the part that features do not depend on.

    Returns
    -------
    model : transformers.PreTrainedModel
        The part.

    Raises
    ------
    ValueError
        If the checkpoint lacks weights of the part: transformers would make random ones.
    """
    auto = import_transformers().AutoModel
    with quiet_loading(reports=False):  # they name weights that are not used
        model, found = load_part(auto, name_or_path, dtype=torch.float32, output_loading_info=True)
    used = model if part is None else part(model)
    missing = _missing_weights(model, used, set(found["missing_keys"]), unused)
    if missing:
        raise ValueError(
            f"{name_or_path!r} lacks {len(missing)} weights of its {type(model).__name__}, such as "
            f"{missing[:3]}; random ones would make the features worthless. Save the whole model "
            "again, with model.save_pretrained(DIRECTORY)."
        )
    return used


def _missing_weights(
    model: Any, used: Any, missing: set[str], unused: tuple[str, ...]
) -> list[str]:
    """Return the names of weights that are random; a tied one has several names."""
    names: dict[int, list[str]] = {}
    for name, tensor in _named_tensors(model):
        names.setdefault(id(tensor), []).append(name)
    needed = [
        tensor
        for name, tensor in _named_tensors(used)
        if not name.startswith(unused) and not name.endswith(_NOT_IN_FEATURES)
    ]
    random = [names[id(tensor)] for tensor in needed if set(names[id(tensor)]) <= missing]
    return sorted({some[0] for some in random})


def _named_tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield weights and the statistics of normalisation."""
    yield from model.named_parameters(remove_duplicate=False)
    for name, tensor in model.named_buffers(remove_duplicate=False):
        if tensor.is_floating_point():
            yield name, tensor


def encoder_of(model: Any) -> Any:
    """Return the encoder of a model with encoder and decoder, else the model."""
    # The configuration of an encoder that was saved alone does not say so.
    has_decoder = "decoder_input_ids" in inspect.signature(model.forward).parameters
    return model.get_encoder() if has_decoder else model


def load_part(kind: Any, name_or_path: str, **parameters: Any) -> Any:
    """Call ``kind.from_pretrained`` with a directory or a name on the hub; runs no code of it."""
    load = partial(kind.from_pretrained, name_or_path, trust_remote_code=False, **parameters)
    return load_from_hub(name_or_path, load)
