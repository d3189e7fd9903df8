"""Foundation models by name, as arguments of `FoundationFeatureExtractor`."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone


def teacher(name: str) -> dict[str, Any]:
    """Return the arguments ``model`` and ``layers``.

    Parameters
    ----------
    name : str
        Names of models with " + " between them, or "minilm, layer 4" or "minilm, layers 4 and 6".
    """
    model, _, layers = name.partition(", layer")
    if layers:
        return {"model": model, "layers": [int(of) for of in layers.strip("s ").split(" and ")]}
    models = [_FUNCTIONS[part]() if part in _FUNCTIONS else part for part in name.split(" + ")]
    is_last = {"layers": [-1]} if name == "minilm" else {}
    return {"model": models[0] if len(models) == 1 else models, **is_last}


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


def minilm_and_noise(texts: list[str], width: int) -> np.ndarray:
    """Return MiniLM's features, and as large numbers that are the same for a text each time.

    They are one model: the features of several models would be brought to one scale.
    """
    features = FoundationFeatureExtractor("minilm", layers=[-1]).fit_transform(texts).features
    drawn = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=width) for text in texts]
    noise = np.stack(drawn) / np.sqrt(features.shape[1])
    return np.hstack([features, noise]).astype(np.float32)


def _function(function: Callable[..., Any], **settings: int) -> Callable[[], CallableBackbone]:
    described = ", ".join(f"{name}={value}" for name, value in settings.items())
    return lambda: CallableBackbone(
        partial(function, **settings), fingerprint=f"benchmark {function.__name__} {described}"
    )


_FUNCTIONS: dict[str, Callable[[], CallableBackbone]] = {
    "wordllama": _function(wordllama, width=256),
    "wordllama, 64 of 256": _function(wordllama, width=64),
    "minilm and 1,536 noise": _function(minilm_and_noise, width=1536),
}
