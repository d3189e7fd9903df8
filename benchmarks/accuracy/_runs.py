"""Runs that are kept as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

RESULTS = Path(__file__).parents[1] / "results" / "accuracy"


class Runs:
    """The runs on one data set, of any number of processes.

    Parameters
    ----------
    name : str
        Name of the file.
    directory : Path
        Where it is.
    """

    def __init__(self, name: str, directory: Path = RESULTS) -> None:
        self._path = directory / f"{name}.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._lines = {_key_of(line): line for line in map(json.loads, lines)}

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Return the line of a run, or None if it was not done."""
        return self._lines.get(_as_key(key))

    def run(self, what: Callable[[], Mapping[str, Any]], **key: Any) -> dict[str, Any]:
        """Return the line of a run; do it unless that was done before."""
        line = self.find(**key)
        if line is None:
            line = {"key": key, **what()}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock"), self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self._lines[_as_key(key)] = line
        return line


def _key_of(line: Mapping[str, Any]) -> str:
    return _as_key(line["key"])


def _as_key(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
