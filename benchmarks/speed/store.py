"""The feature store: reading, opening, keys, writing, and memory while training from it.

    python -m benchmarks.speed.store

Takes about three minutes and 3 GB of disk in the temporary directory.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed._timing import medians, options, report
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone, resolve_backbone
from sk_aft.datasets import load_banking77
from sk_aft.store import FeatureStore

WIDTH = 384


def main() -> None:
    """Measure and print everything."""
    options(__doc__)
    figures = []
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        figures += [reading(root), opening(root), *keys(), writing(root)]
        figures += memory(root, [50_000, 200_000, 800_000])
    report("store", figures)


def reading(root: Path) -> dict[str, Any]:
    """20,000 rows of 1,280 in shuffled order, checksums verified."""
    matrix = np.random.default_rng(0).normal(size=(20_000, 1280)).astype(np.float32)
    order = np.random.default_rng(1).permutation(20_000)
    np.save(root / "matrix.npy", matrix)
    store = FeatureStore(root / "reading")
    random = np.random.default_rng(2)
    keys = [bytes(16) + random.bytes(16) for _ in matrix]
    store.put_many(keys, matrix)
    shuffled = [keys[i] for i in order]
    seconds = medians(
        {
            "numpy": lambda: np.load(root / "matrix.npy", mmap_mode="r")[order],
            "store": lambda: store.get_many(shuffled),
        }
    )
    np.testing.assert_array_equal(store.get_many(shuffled)[0], matrix[order])
    return {
        "what": "warm read of 20,000 x 1,280 float32, shuffled",
        "floor": f"{1000 * seconds['numpy']:.0f} ms (fancy indexing of a memory-mapped .npy)",
        "ours": f"{1000 * seconds['store']:.0f} ms = {seconds['store'] / seconds['numpy']:.2f}x",
        "target": "3x",
    }


def opening(root: Path) -> dict[str, Any]:
    """Time a store of a million rows, from nothing to the first row read."""
    store = FeatureStore(root / "opening")
    digests = np.random.default_rng(0).bytes(16 * 1_000_000)
    keys = [bytes(16) + digests[i : i + 16] for i in range(0, len(digests), 16)]
    store.put_many(keys, np.zeros((len(keys), 4), np.float32))

    place = store.path

    def open_and_read() -> None:
        nonlocal place  # files at a known path stay open, so each round moves them
        place = place.rename(place.with_name(f"{place.name} moved"))
        assert FeatureStore(place).get_many(keys[-1:])[1].all()

    def read() -> None:
        (file,) = place.rglob("*.keys")
        file.read_bytes()

    seconds = medians({"read": read, "store": open_and_read})
    return {
        "what": "opening a store of 1,000,000 rows and reading one",
        "floor": f"{1000 * seconds['read']:.0f} ms (reading its list of keys)",
        "ours": f"{1000 * seconds['store']:.0f} ms",
        "target": "50 ms",
    }


def keys() -> list[dict[str, Any]]:
    """How fast rows are digested."""
    images = np.random.default_rng(0).integers(0, 256, (2000, 224, 224, 3), dtype=np.uint8)
    texts = [f"a short text, number {number}" for number in range(200_000)]
    backbone = CallableBackbone(lambda rows: np.zeros((len(rows), 1)), fingerprint="zeros")
    of_images = FoundationFeatureExtractor(backbone).fit(images[:1])
    of_texts = FoundationFeatureExtractor(backbone).fit(texts[:1])
    seconds = medians(
        {
            "sum": lambda: images.reshape(-1).view(np.uint64).sum(),
            "images": lambda: of_images.store_keys(images),
            "encode": lambda: [text.encode() for text in texts],
            "texts": lambda: of_texts.store_keys(texts),
        }
    )
    gigabytes = images.nbytes / 1e9
    return [
        {
            "what": "keys of 2,000 images of 224 x 224 x 3",
            "floor": f"{gigabytes / seconds['sum']:.1f} GB/s (reading and adding them up)",
            "ours": f"{gigabytes / seconds['images']:.1f} GB/s",
            "target": "1 GB/s",
        },
        {
            "what": "keys of 200,000 short strings",
            "floor": f"{0.2 / seconds['encode']:.1f} million/s (encoding them)",
            "ours": f"{0.2 / seconds['texts']:.1f} million/s",
            "target": "0.5 million/s",
        },
    ]


def writing(root: Path) -> dict[str, Any]:
    """Claiming and writing rows, compared with computing them."""
    texts = load_banking77(labels_per_class=10, return_X_y=True)[0][:512]
    backbone = resolve_backbone("minilm")
    extractor = FoundationFeatureExtractor(backbone, cache=None).fit(texts)
    features = np.asarray(extractor.fit_transform(texts))
    random = np.random.default_rng(0)

    def write() -> None:
        store = FeatureStore(root / "writing")
        model = store.register_model(backbone.fingerprint())
        digests = [random.bytes(16) for _ in texts]
        keys = [model + digest for digest in digests]
        with store.claims(model) as claims:
            claims.claim(digests, lambda: store.missing(keys))
            store.put_many(keys, features)

    seconds = medians({"embed": lambda: extractor.fit_transform(texts), "write": write}, rounds=3)
    return {
        "what": "writing 512 rows of MiniLM (one commit)",
        "floor": f"{1000 * seconds['embed']:.0f} ms (embedding them)",
        "ours": f"{1000 * seconds['write']:.1f} ms = {seconds['write'] / seconds['embed']:.2%}",
        "target": "5%",
    }


# ---------------------------------------------------------------- memory


def rows(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows that are small compared with their features, and labels."""
    X = np.random.default_rng(0).normal(size=(n_rows, 8)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64)


def embed(X: np.ndarray) -> np.ndarray:
    """Stand for a foundation model whose features are as wide as MiniLM's."""
    mixing = np.random.default_rng(1).normal(size=(8, WIDTH)).astype(np.float32)
    return np.tanh(X @ mixing)


def extractor(path: str) -> FoundationFeatureExtractor:
    """Return the extractor whose store is read."""
    backbone = CallableBackbone(embed, fingerprint="mixing")
    return FoundationFeatureExtractor(backbone, cache=path, batch_size=8192)


def train(path: str, n_rows: int, beta: float) -> None:
    """Print the peak memory of one epoch, in MB; run in a process of its own."""
    X, y = rows(n_rows)
    features = extractor(path).fit_transform(X)
    AFTClassifier(beta=beta, max_epochs=1, batch_size=1024, random_state=0).fit(features, y)
    # Unlike ru_maxrss, this does not begin with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in status if line.startswith("VmHWM"))
    print(int(peak.split()[1]) / 1024)


def memory(root: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Peak memory of training from the store, compared with training on the rows alone."""
    figures = []
    for n_rows in sizes:
        path = str(root / f"memory {n_rows}")
        _in_process(f"extractor({path!r}).precompute(rows({n_rows})[0])")
        with_features, without = (_peak(path, n_rows, beta) for beta in (10, 0))
        size = 4 * WIDTH * n_rows / 2**20
        figures.append(
            {
                "what": f"peak memory, one epoch on {n_rows:,} rows with {size:.0f} MB of features",
                "floor": f"{without:.0f} MB (beta=0)",
                "ours": f"{with_features:.0f} MB = {with_features - without:+.0f} MB",
            }
        )
    return figures


def _peak(path: str, n_rows: int, beta: float) -> float:
    return float(_in_process(f"train({path!r}, {n_rows}, {beta})").split()[-1])


def _in_process(call: str) -> str:
    code = f"from benchmarks.speed.store import *; {call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
