"""Foundation features on a CPU, compared with plain use of PyTorch and sentence-transformers.

    python -m benchmarks.speed.embedding --data DIR

Both sides start with rows (arrays of images, texts) and end with features; models are loaded and
exported before, and nothing comes from a store. Images: EfficientNet-Lite against the same network
in eager PyTorch, in batches of 32 that are resized as a whole. Texts: MiniLM against
`SentenceTransformer.encode` with its defaults. Without --data, Fashion-MNIST and Banking77 come
from `sk_aft.datasets`. Takes about four minutes on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F

from benchmarks.accuracy._data import load
from benchmarks.speed._timing import medians, options, report
from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import Backbone, EfficientNetLiteBackbone, SentenceTransformerBackbone
from sk_aft.datasets import load_banking77, load_fashion_mnist

CPU = torch.device("cpu")
N_IMAGES = 512
N_TEXTS = 1024
ROUNDS = 5


def main() -> None:
    """Measure and print everything."""
    directory = options(__doc__).data
    rows = []
    name, images = test_images(directory)
    for variant in (0, 2):
        rows += of_images(variant, name, images)
    for name, texts in test_texts(directory):
        rows += of_texts(name, texts)
    report("embedding", rows)


def test_images(directory: str | None) -> tuple[str, np.ndarray]:
    """Return the first test images."""
    if directory is None:
        return "Fashion-MNIST", load_fashion_mnist(subset="test").data[:N_IMAGES]
    return "CIFAR-10", load("cifar10", directory).test_rows[:N_IMAGES]


def test_texts(directory: str | None) -> Iterator[tuple[str, list[str]]]:
    """Yield the first test texts of each data set, without repetitions."""
    if directory is None:
        sets = [("Banking77", load_banking77(subset="test").data)]
    else:
        names = (("Banking77", "banking77"), ("SST-2", "sst2"))
        sets = [(title, load(name, directory).test_rows) for title, name in names]
    for title, texts in sets:
        yield title, list(dict.fromkeys(texts))[:N_TEXTS]


def of_images(variant: int, data: str, images: np.ndarray) -> list[dict[str, Any]]:
    """Time one EfficientNet-Lite."""
    backbone = EfficientNetLiteBackbone(variant)
    model = backbone.load(CPU).module.model.to(memory_format=torch.contiguous_format)
    what = f"EfficientNet-Lite{variant} at 128 x 128, {data}"
    cost, network = export_cost(backbone, images)

    def eager() -> np.ndarray:
        features = []
        with torch.inference_mode():
            for batch in torch.from_numpy(images).split(32):
                pixels = batch if batch.ndim == 4 else batch[..., None]
                pixels = pixels.permute(0, 3, 1, 2).contiguous().float()
                pixels = F.interpolate(pixels, (128, 128), mode="bilinear", antialias=True)
                pixels = ((pixels - 127) / 128).expand(-1, 3, -1, -1)
                features.append(model.extract_features(pixels).mean(dim=(2, 3)))
        return torch.cat(features).numpy()

    seconds = medians({"floor": eager, "ours": lambda: ours(backbone, images)}, rounds=ROUNDS)
    expected, features = eager(), ours(backbone, images)
    distances = np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)
    difference = {
        "what": f"{what}: largest relative difference of a row",
        "ours": f"{distances.max():.1e}",
        "target": "1e-3",
    }
    speed = rows_per_second(what, "images", len(images), seconds, "4x")
    return [speed, difference, one_time(what, cost, network)]


def of_texts(data: str, texts: list[str]) -> list[dict[str, Any]]:
    """Time MiniLM."""
    backbone = SentenceTransformerBackbone.minilm()
    model = SentenceTransformer(backbone.name_or_path, device="cpu")
    what = f"MiniLM, {data}"
    cost, network = export_cost(backbone, texts)
    ways = {"floor": lambda: model.encode(texts), "ours": lambda: ours(backbone, texts)}
    seconds = medians(ways, rounds=ROUNDS)
    expected, features = model.encode(texts), ours(backbone, texts)
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (features * expected).sum(axis=1) / norms
    agreement = {
        "what": f"{what}: smallest cosine of a row",
        "ours": f"{cosines.min():.7f}",
        "target": "> 0.9999",
    }
    speed = rows_per_second(what, "texts", len(texts), seconds, "1.5x")
    return [speed, agreement, one_time(what, cost, network)]


def ours(backbone: Backbone, rows: Any) -> np.ndarray:
    """Compute the features again and return them."""
    extractor = FoundationFeatureExtractor(backbone, cache=None, device="cpu")
    return extractor.fit_transform(rows).features


def export_cost(backbone: Any, rows: Any) -> tuple[float, str]:
    """Return the seconds that the first embedding of many rows takes more, and what runs then."""
    loaded = backbone.loaded(CPU)
    start = time.perf_counter()
    ours(backbone, rows)
    first = time.perf_counter() - start
    start = time.perf_counter()
    ours(backbone, rows)
    second = time.perf_counter() - start
    network = loaded[1] if isinstance(loaded, tuple) else loaded
    return first - second, "PyTorch" if network.session is None else "ONNX Runtime"


def one_time(what: str, cost: float, network: str) -> dict[str, Any]:
    """Return a line on what is paid once."""
    return {"what": f"{what}: export, once a process", "ours": f"{cost:.1f} s ({network})"}


def rows_per_second(
    what: str, unit: str, n_rows: int, seconds: dict[str, float], target: str
) -> dict[str, Any]:
    """Return a line on speed."""
    ratio = seconds["floor"] / seconds["ours"]
    return {
        "what": what,
        "floor": f"{n_rows / seconds['floor']:.0f} {unit}/s",
        "ours": f"{n_rows / seconds['ours']:.0f} {unit}/s = {ratio:.2f}x",
        "target": target,
    }


if __name__ == "__main__":
    main()
