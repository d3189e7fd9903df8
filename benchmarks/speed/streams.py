"""Memory and speed of ``precompute`` on rows that come as a stream.

    python -m benchmarks.speed.streams [--rows 100000 1000000]

Texts come from Parquet files, and a static embedding of 256 dimensions computes their features,
because a slow model would hide what the stream costs. Each number of rows is a process of its own,
of which the peak of the anonymous memory is measured: what the process has allocated, without the
files that the system keeps in memory for it. The floor is a loop over the same files that encodes
each batch with the same model and keeps nothing. The target is that ten times the rows take at
most 1.2 times the memory. Takes about five minutes and 2.5 GB of disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.speed._timing import option_parser, report

_ROWS_PER_FILE = 100_000
_ROWS_PER_GROUP = 10_000
_WIDTH = 256


def main() -> None:
    """Measure each number of rows, and compare."""
    parser = option_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    sizes = parser.parse_args().rows
    figures = []
    with tempfile.TemporaryDirectory() as directory:
        in_process(f"save_model({directory!r})")
        for n_rows in sizes:
            in_process(f"write({directory!r}, {n_rows})")
            floor = in_process(f"encode({directory!r})")
            ours = in_process(f"precompute({directory!r})")
            figures.append(
                {
                    "what": f"a stream of {n_rows:,} texts",
                    "floor": f"{n_rows / floor['seconds']:,.0f} rows/s, {floor['MB']:.0f} MB",
                    "ours": f"{n_rows / ours['seconds']:,.0f} rows/s, {ours['MB']:.0f} MB",
                    "rows": n_rows,
                    "encode": floor,
                    "precompute": ours,
                }
            )
        growth = figures[-1]["precompute"]["MB"] / figures[0]["precompute"]["MB"]
        what = f"memory of {sizes[-1]:,} rows over that of {sizes[0]:,}"
        figures.append({"what": what, "ours": f"{growth:.2f}", "target": "1.2", "value": growth})
    report("streams", figures)


def in_process(call: str) -> dict[str, float]:
    """Run a call in a process of its own and return the figures that it prints."""
    code = f"from benchmarks.speed.streams import *; {call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads((done.stdout.splitlines() or ["{}"])[-1])


def save_model(directory: str) -> None:
    """Save a model of static embeddings with random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding

    from sk_aft.backbones import resolve_backbone

    torch.manual_seed(0)
    minilm = SentenceTransformer(resolve_backbone("minilm").full_name)
    table = StaticEmbedding(minilm.tokenizer.backend_tokenizer, embedding_dim=_WIDTH)
    SentenceTransformer(modules=[table]).save(f"{directory}/model")


def write(directory: str, n_rows: int) -> None:
    """Write distinct texts of about ten words to Parquet files."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(directory, "rows")
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    sentence = "my card was lost at the bank and what do i pay for a new one now"
    words = np.array(sentence.split(" "))
    random = np.random.default_rng(0)
    for start in range(0, n_rows, _ROWS_PER_FILE):
        drawn = words[random.integers(len(words), size=(min(_ROWS_PER_FILE, n_rows - start), 9))]
        texts = [f"{' '.join(row)} {start + number}" for number, row in enumerate(drawn)]
        table = pa.table({"text": texts, "label": np.arange(len(texts)) % 2})
        pq.write_table(table, folder / f"{start:09}.parquet", row_group_size=_ROWS_PER_GROUP)


def encode(directory: str) -> None:
    """Read the files and encode each batch, without keeping the features."""
    import pyarrow.dataset as ds
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(f"{directory}/model", device="cpu")
    files = ds.dataset(f"{directory}/rows")
    with measured():
        for batch in files.to_batches(columns=["text"], batch_size=8192):
            if batch.num_rows:
                model.encode(batch.column("text").to_pylist(), batch_size=256)


def precompute(directory: str) -> None:
    """Fill a new store from the files."""
    from sk_aft import FoundationFeatureExtractor

    with tempfile.TemporaryDirectory() as store:
        extractor = FoundationFeatureExtractor(
            {"text": f"st:{directory}/model"}, cache=store, batch_size=256, device="cpu"
        )
        with measured():
            extractor.precompute(f"{directory}/rows/*.parquet")


@contextmanager
def measured() -> Iterator[None]:
    """Print the seconds, and the peak of the anonymous memory in MB."""
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
    print(json.dumps({"seconds": seconds, "MB": peak[0]}))


def anonymous_memory() -> float:
    """Return the anonymous memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
