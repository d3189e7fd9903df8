"""The first layers of a text encoder of transformers, and its tokenizer."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch

from sk_aft.backbones._base import Backbone
from sk_aft.backbones._encoder_files import (
    EncoderFiles,
    files_in_sentence_transformer,
    import_transformers,
)
from sk_aft.backbones._hugging_face import (
    HuggingFaceBackbone,
    check_knows_words,
    quiet_loading,
)
from sk_aft.backbones._sentence_transformers import SentenceTransformerBackbone

# Types of transformers that read texts and whose configuration names no other files.
# fmt: off
TEXT_ENCODERS = frozenset((
    "albert", "bert", "big_bird", "bloom", "camembert", "convbert", "data2vec-text", "deberta",
    "deberta-v2", "distilbert", "electra", "ernie", "esm", "eurobert", "falcon", "gemma",
    "gemma2", "gpt2", "gpt_neo", "gpt_neox", "gptj", "layoutlm", "llama", "longformer",
    "mistral", "mobilebert", "modernbert", "modernbert-decoder", "mpnet", "mt5", "nomic_bert",
    "nystromformer", "opt", "phi", "phi3", "qwen2", "qwen3", "rembert", "roberta",
    "roberta-prelayernorm", "roformer", "squeezebert", "t5", "umt5", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
))
# fmt: on
# Entries of a configuration that make transformers look for other files, or for code.
_NAMES_OF_FILES = ("_name_or_path", "auto_map", "quantization_config")


def encoder_files(backbone: Backbone) -> EncoderFiles:
    """Return the files of the transformer of a text model, which is not loaded.

    Parameters
    ----------
    backbone : SentenceTransformerBackbone or HuggingFaceBackbone
        The text model.

    Returns
    -------
    files : EncoderFiles
        In a sentence-transformers model, the files of its first module.

    Raises
    ------
    ValueError
        If it is no text encoder, or its first module is not a transformer.
    """
    if isinstance(backbone, HuggingFaceBackbone):
        return EncoderFiles(backbone.name_or_path)
    if not isinstance(backbone, SentenceTransformerBackbone):
        raise ValueError(f"{backbone.name!r} is not an encoder of texts with layers to train.")
    return files_in_sentence_transformer(backbone.full_name)


def load_encoder(files: EncoderFiles, n_layers: int) -> Any:
    """Return the first layers of an encoder, without pooler and decoder.

    Parameters
    ----------
    files : EncoderFiles
        Where it is.
    n_layers : int
        Number of layers to keep.

    Returns
    -------
    encoder : transformers.PreTrainedModel
        In evaluation mode, float32, on the CPU.

    Raises
    ------
    ValueError
        If it has fewer layers, does not read texts, or lacks weights.
    """
    transformers = import_transformers()
    config = files.load(transformers.AutoConfig)
    _keep_layers(config, n_layers, files.name_or_path)
    with quiet_loading(reports=False):
        model, found = files.load(
            transformers.AutoModel, config=config, dtype=torch.float32, output_loading_info=True
        )
    encoder = _without_pooler_and_decoder(model)
    if encoder.main_input_name != "input_ids":
        raise ValueError(
            f"{files.name_or_path!r} reads {encoder.main_input_name}: expected an encoder of texts."
        )
    kept = set(map(id, encoder.parameters()))
    named = model.named_parameters(remove_duplicate=False)
    missing = {name for name, weight in named if id(weight) in kept} & set(found["missing_keys"])
    if missing:
        raise ValueError(
            f"{files.name_or_path!r} lacks weights of its first {n_layers} layers: "
            f"{sorted(missing)[:3]}. Is it the whole model?"
        )
    return encoder


def encoder_without_weights(config: dict[str, Any]) -> Any:
    """Return an encoder whose tensors are on the device "meta".

    Parameters
    ----------
    config : dict
        Configuration of an encoder from `load_encoder`, from its ``to_dict``. Entries that name
        files, code or kernels of attention are ignored.

    Returns
    -------
    encoder : transformers.PreTrainedModel
        The encoder.
    """
    transformers = import_transformers()
    config = transformers.AutoConfig.for_model(**_without_names_of_files(config))
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config, trust_remote_code=False)
    return _without_pooler_and_decoder(model)


def _without_names_of_files(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_names_of_files(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _without_names_of_files(item)
        for name, item in value.items()
        if name not in _NAMES_OF_FILES and "attn_implementation" not in name
    }


def load_tokenizer_json(files: EncoderFiles) -> tuple[str, int]:
    """Return an encoder's tokenizer, and how many tokens of a text the encoder can read.

    Parameters
    ----------
    files : EncoderFiles
        Where the encoder is.

    Returns
    -------
    document : str
        JSON document of a `tokenizers.Tokenizer`.
    n_positions : int
        Largest number of tokens.

    Raises
    ------
    ValueError
        If it is a tokenizer that runs in Python only, or knows no words.
    """
    transformers = import_transformers()
    tokenizer = files.load(transformers.AutoTokenizer)
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "to_str"):
        raise ValueError(
            f"{files.name_or_path!r} has a tokenizer that runs only in Python "
            f"({type(tokenizer).__name__}): expected one of the library tokenizers, with a file "
            "tokenizer.json. Pass a preprocessor that returns the token ids of each text."
        )
    check_knows_words(tokenizer, files.name_or_path)
    config = files.load(transformers.AutoConfig)
    n_positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    return backend.to_str(), min(n_positions, tokenizer.model_max_length)


def _keep_layers(config: Any, n_layers: int, name: str) -> None:
    n_available = getattr(config, "num_hidden_layers", None)
    if n_available is None:
        raise ValueError(f"{name!r} ({config.model_type}) is not an encoder of texts.")
    if not (isinstance(n_layers, Integral) and 1 <= int(n_layers) <= n_available):
        raise ValueError(
            f"n_layers={n_layers!r}, but the encoder has {n_available} layers: expected an integer "
            f"from 1 to {n_available}."
        )
    config.num_hidden_layers = int(n_layers)  # NumPy's integers cannot be written as JSON
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:n_layers]
    config.use_cache = False  # of decoders that generate texts


def _without_pooler_and_decoder(model: Any) -> Any:
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder
