"""Timing several ways of doing the same thing, in turns."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy
import sklearn
import skorch
import torch

RESULTS = Path(__file__).parents[1] / "results"


def options(description: str | None) -> argparse.Namespace:
    """Read the options, which are the same for most benchmarks of speed."""
    return option_parser(description).parse_args()


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks of speed have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", metavar="DIR", help="where cifar10, banking77 and sst2.parquet are"
    )
    parser.add_argument("--device", default="cpu", help="where networks run, such as cuda")
    return parser


def medians(ways: Mapping[str, Callable[[], Any]], *, rounds: int = 7) -> dict[str, float]:
    """Return the median seconds of each way; they take turns, so that all meet the same noise."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # what happens once only
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch on one core, as the estimators run small networks."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def report(name: str, rows: list[dict[str, Any]], device: str = "cpu") -> None:
    """Print one line a figure and keep them, with machine, versions and date."""
    for row in rows:
        show(row)
    keep(name, rows, device)


def show(row: dict[str, Any]) -> None:
    """Print a figure."""
    floor = f"floor {row['floor']}, " if "floor" in row else ""
    target = f" (target: {row['target']})" if "target" in row else ""
    print(f"{row['what']}: {floor}ours {row['ours']}{target}", flush=True)


def keep(name: str, rows: list[dict[str, Any]], device: str = "cpu") -> None:
    """Write figures, with machine, versions and date."""
    RESULTS.mkdir(exist_ok=True)
    kept = {"date": date.today().isoformat(), "machine": machine(device), "figures": rows}
    name = name if device == "cpu" else f"{name}_{torch.device(device).type}"
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def ratio(
    what: str, seconds: Mapping[str, float], floor: str, target: str = "", *, unit: str = "s"
) -> dict[str, Any]:
    """Return a figure: the seconds of "ours" compared with those of a floor."""
    own, least = seconds["ours"], seconds[floor]
    factor, digits = {"s": (1, 2), "ms": (1e3, 3)}[unit]
    return {
        "what": what,
        "floor": f"{factor * least:.{digits}f} {unit} ({floor})",
        "ours": f"{factor * own:.{digits}f} {unit} = {own / least:.2f}x",
        **({"target": target} if target else {}),
    }


def machine(device: str) -> dict[str, Any]:
    """Return the processor, and the versions that speed depends on."""
    versions = {m.__name__: m.__version__ for m in (numpy, torch, sklearn, skorch)}
    processor = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0].partition(": ")[2] if names else processor
    gpu = {} if device == "cpu" else {"device": torch.cuda.get_device_name(device)}
    return {
        **gpu,
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
    }
