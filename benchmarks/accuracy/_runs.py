"""Runs, stored as lines of JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

import sk_aft

_LONGEST = 65536  # bytes of a line, at most
RESULTS = Path(__file__).parents[1] / "results" / "accuracy"


def code_version() -> str:
    """Return the release and, in a clone, the commit, with "+" where files were changed since."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        folder = Path(sk_aft.__file__).parents[1]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    if shutil.which("git") is None:
        return sk_aft.__version__
    changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return f"{sk_aft.__version__} {git('describe', '--always')}".strip() + "+" * bool(changed)


class Runs:
    """The runs of a suite, of any number of processes.

    Parameters
    ----------
    name : str
        Name of the file.
    directory : Path
        Where it is.
    version : str, default=""
        Of the code that makes further runs.
    """

    def __init__(self, name: str, directory: Path = RESULTS, version: str = "") -> None:
        self._version = version
        self._path = directory / f"{name}.jsonl"
        text = self._path.read_text() if self._path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a killed process may leave a part of a line
        lines = [json.loads(line) for line in whole.splitlines()]
        self._lines = {_as_key(line["key"]): line for line in lines}

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def file(self) -> tuple[str, Path]:
        """Name and folder of the file, to open it in another process."""
        return self._path.stem, self._path.parent

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines."""
        return list(self._lines.values())

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Return the line of a run, or None if it was not done."""
        return self._lines.get(_as_key(key))

    def run(self, what: Callable[[], Mapping[str, Any]], **key: Any) -> dict[str, Any]:
        """Return the line of a run; do it unless that was done before."""
        line = self.find(**key)
        if line is None:
            line = {"key": key, **what(), "version": self._version}
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
