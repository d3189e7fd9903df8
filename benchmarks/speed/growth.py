"""How time and memory grow with rows, with the width of the features, and with the batch.

    python -m benchmarks.speed.growth

Each point is one epoch in a separate process, on features from a store on disk, with and without
transfer: seconds of ``fit`` and the peak memory of the process. Rows are 10^3 to
10^6 with 384 features and batches of 128; widths 10^2 to 10^4 with 20,000 rows; batches 32 to
2,048 with 20,000 rows of 2,560 features. Takes a quarter of an hour and 3 GB of disk in the
temporary directory. Points that were already measured are skipped, so it is resumable: delete
results/growth.json to start again.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed._timing import RESULTS, keep, options, show
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone

ROWS = (1_000, 10_000, 100_000, 1_000_000)
WIDTHS = (100, 300, 1_000, 3_000, 10_000)
BATCHES = (32, 128, 512, 2_048)


def main() -> None:
    """Measure what is missing, print everything and draw it."""
    device = options(__doc__).device
    path = RESULTS / ("growth.json" if device == "cpu" else "growth_cuda.json")
    figures = json.loads(path.read_text())["figures"] if path.exists() else []
    known = {figure["what"] for figure in figures}
    for axis, n_rows, width, batch_size in points():
        what = f"{axis}: {n_rows:,} rows, d = {width:,}, B = {batch_size:,}"
        if what in known:
            continue
        without, with_transfer = point(n_rows, width, batch_size, device)
        figures.append(
            {
                "what": what,
                "floor": f"{without['seconds']:.2f} s, {without['MB']:.0f} MB (beta=0)",
                "ours": f"{with_transfer['seconds']:.2f} s, {with_transfer['MB']:.0f} MB",
                "axis": axis,
                "value": {"rows": n_rows, "width": width, "batch": batch_size}[axis],
                "without": without,
                "with transfer": with_transfer,
            }
        )
        show(figures[-1])
        keep("growth", figures, device)
    for axis in ("rows", "width", "batch"):
        print(f"{axis}: {exponents([f for f in figures if f['axis'] == axis])}")


def points() -> Iterator[tuple[str, int, int, int]]:
    """Yield axis, rows, width and batch."""
    for n_rows in ROWS:
        yield "rows", n_rows, 384, 128
    for width in WIDTHS:
        yield "width", 20_000, width, 128
    for batch_size in BATCHES:
        yield "batch", 20_000, 2_560, batch_size


def point(n_rows: int, width: int, batch_size: int, device: str) -> list[dict[str, float]]:
    """Fill a store, then train without the transfer and with it."""
    with tempfile.TemporaryDirectory() as directory:
        in_process(f"fill({directory!r}, {n_rows}, {width})")
        calls = [
            f"train({directory!r}, {n_rows}, {width}, {batch_size}, {beta}, {device!r})"
            for beta in (0, 10)
        ]
        return [json.loads(in_process(call).splitlines()[-1]) for call in calls]


def in_process(call: str) -> str:
    """Run a call in a process of its own and return what it prints."""
    code = f"from benchmarks.speed.growth import *; {call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def table(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows that are small compared with their features, and labels."""
    X = np.random.default_rng(0).normal(size=(n_rows, 16)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64)


def extractor(directory: str, width: int) -> FoundationFeatureExtractor:
    """Return an extractor whose model takes next to no time."""
    mixing = np.random.default_rng(1).normal(size=(16, width)).astype(np.float32)
    model = CallableBackbone(lambda X: np.tanh(X @ mixing), fingerprint=f"mixing {width}")
    return FoundationFeatureExtractor(model, cache=directory, batch_size=4096)


def fill(directory: str, n_rows: int, width: int) -> None:
    """Put the features of all rows into a store."""
    extractor(directory, width).precompute(table(n_rows)[0])


def train(
    directory: str, n_rows: int, width: int, batch_size: int, beta: float, device: str
) -> None:
    """Print the seconds of one epoch and the peak memory of this process in MB."""
    X, y = table(n_rows)
    rows = extractor(directory, width).fit_transform(X)
    student = AFTClassifier(
        beta=beta, max_epochs=1, batch_size=batch_size, device=device, random_state=0
    )
    student.fit(rows[:1000], y[:1000])  # what happens once only
    start = time.perf_counter()
    student.fit(rows, y)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in status if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "MB": int(peak.split()[1]) / 1024}))


def exponents(figures: list[dict[str, Any]]) -> str:
    """Say with which power of an axis the transfer's time grew at its upper end."""
    below, most = figures[-2:]
    power = math.log(most["with transfer"]["seconds"] / below["with transfer"]["seconds"])
    power /= math.log(most["value"] / below["value"])
    return f"from {below['value']:,} to {most['value']:,}, time grows with the power {power:.2f}"


if __name__ == "__main__":
    main()
