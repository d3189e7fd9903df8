"""Runs that are kept as lines of JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

import sk_aft

_LONGEST = 65536  # bytes of a line, at most
RESULTS = Path(__file__).parents[1] / "results" / "accuracy"


@lru_cache
def code_version() -> str:
    """Return the release, and the commit where there is one."""
    if shutil.which("git") is None:
        return sk_aft.__version__
    described = subprocess.run(
        ["git", "describe", "--always"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{sk_aft.__version__} {described.stdout}".strip()


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
        text = self._path.read_text() if self._path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a killed process may leave a part of a line
        lines = [json.loads(line) for line in whole.splitlines()]
        self._lines = {_as_key(line["key"]): line for line in lines}

    def __len__(self) -> int:
        return len(self._lines)

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Return the line of a run, or None if it was not done."""
        return self._lines.get(_as_key(key))

    def run(self, what: Callable[[], Mapping[str, Any]], **key: Any) -> dict[str, Any]:
        """Return the line of a run; do it unless that was done before."""
        line = self.find(**key)
        if line is None:
            line = {"key": key, **what()}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock"):
                self._append(json.dumps(line))
            self._lines[_as_key(key)] = line
        return line

    def _append(self, line: str) -> None:
        with self._path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _LONGEST, 0))
            end = file.read()
            file.truncate(size - len(end) + end.rfind(b"\n") + 1)
            file.write(line.encode() + b"\n")


def _as_key(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
