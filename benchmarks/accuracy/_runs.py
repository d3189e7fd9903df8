"""Runs that are kept as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "results" / "accuracy"


class Runs:
    """The runs of one suite.

    Parameters
    ----------
    suite : str
        Name of the suite and of its file.
    """

    def __init__(self, suite: str) -> None:
        self._path = RESULTS / f"{suite}.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._lines = [json.loads(line) for line in lines]

    def run(self, what: Callable[[], dict[str, Any]], **key: Any) -> dict[str, Any]:
        """Return the result of a run; do it unless that was done before."""
        for line in self._lines:
            if all(line.get(name) == value for name, value in key.items()):
                return line
        line = {**key, **what()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._lines.append(line)
        print(line, flush=True)
        return line


def mean_and_error(values: list[float]) -> str:
    """Return "mean +- standard error" of percentages."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):5.1f} +- {error:3.1f}"
