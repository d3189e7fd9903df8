"""Foundation features in Ray Data and Dask on one machine, compared with the plain call.

    python -m benchmarks.speed.clusters

All ways compute the features of the same texts with MiniLM and as many threads: the plain call in
one process, the engines in one process for each thread. Starting the engines and loading the
models is not counted, and nothing comes from a store. Needs the extras ``clusters`` and ``text``.
Takes about three minutes on two cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from benchmarks.speed._timing import medians, report
from sk_aft import FoundationFeatureExtractor

N_TEXTS = 2048
ROWS_PER_BATCH = 512
ROUNDS = 5
WORDS = ["card", "lost", "stolen", "declined", "exchange", "rate", "transfer", "payment", "cheque"]


def main() -> None:
    """Measure and print everything."""
    n_threads = torch.get_num_threads()
    texts = some_texts()
    extractor = FoundationFeatureExtractor("minilm", cache=None, device="cpu").fit(texts)

    def plain() -> np.ndarray:
        return extractor.transform(texts).features  # fit would load the model again

    with ExitStack() as stack:
        ways = {
            "plain": plain,
            "Ray Data": stack.enter_context(in_ray(extractor, texts, n_threads)),
            "Dask": stack.enter_context(in_dask(extractor, texts, n_threads)),
        }
        expected = plain()
        for name, way in ways.items():
            if not np.allclose(way(), expected, atol=1e-5):
                raise RuntimeError(f"{name} has other features.")
        seconds = medians(ways, rounds=ROUNDS)
    report("clusters", [figure(name, n_threads, seconds) for name in ("Ray Data", "Dask")])


def some_texts() -> list[str]:
    """Return different texts of 4 to 24 words."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(4, 25, N_TEXTS)
    return [f"{number} {' '.join(draw.choice(WORDS, n))}" for number, n in enumerate(lengths)]


@contextmanager
def in_ray(extractor: Any, texts: list[str], n_workers: int) -> Iterator[Any]:
    """Yield a function that computes all features on a local cluster of Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    ray.init(num_cpus=n_workers, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    function = extractor.as_batch_function("text")
    rows = [{"number": number, "text": text} for number, text in enumerate(texts)]
    n_blocks = N_TEXTS // ROWS_PER_BATCH
    dataset = ray.data.from_items(rows, override_num_blocks=n_blocks).materialize()

    def compute() -> np.ndarray:
        done = dataset.map_batches(function, batch_size=ROWS_PER_BATCH, batch_format="pyarrow")
        tables = ray.get(done.to_arrow_refs())
        numbers = np.concatenate([table["number"].to_numpy() for table in tables])
        features = np.concatenate([matrix(table["features"]) for table in tables])
        return features[np.argsort(numbers)]

    try:
        yield compute
    finally:
        ray.shutdown()


@contextmanager
def in_dask(extractor: Any, texts: list[str], n_workers: int) -> Iterator[Any]:
    """Yield a function that computes all features on a local cluster of Dask."""
    import dask.dataframe
    import pandas
    import pyarrow
    from distributed import Client, LocalCluster

    function = extractor.as_batch_function("text")
    rows = pandas.DataFrame({"text": texts})
    frame = dask.dataframe.from_pandas(rows, chunksize=ROWS_PER_BATCH)
    lazy = frame.map_partitions(function, meta=function(frame._meta))

    def compute() -> np.ndarray:
        return matrix(pyarrow.Table.from_pandas(lazy.compute())["features"])

    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(n_workers)
        yield compute


def matrix(column: Any) -> np.ndarray:
    """Return an Arrow column of lists of one length as a matrix."""
    width = column.type.list_size
    return np.concatenate(
        [chunk.flatten().to_numpy().reshape(-1, width) for chunk in column.chunks]
    )


def figure(name: str, n_threads: int, seconds: dict[str, float]) -> dict[str, Any]:
    """Return the figure of one engine."""
    own, plain = seconds[name], seconds["plain"]
    return {
        "what": f"{name}, {n_threads} processes of one thread, MiniLM, {N_TEXTS} texts",
        "floor": f"{N_TEXTS / plain:.0f} texts/s (plain call, {n_threads} threads)",
        "ours": f"{N_TEXTS / own:.0f} texts/s, {own / plain:.2f}x the time",
        "target": "at most 1.3x",
    }


if __name__ == "__main__":
    main()
