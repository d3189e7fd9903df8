"""Writes predictions, batch by batch, to a file that appears when it is complete."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from sk_aft._command._messages import CommandError

STANDARD_OUTPUT = "-"
_JSON_SUFFIXES = (".jsonl", ".ndjson")
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": ","}


class RowWriter:
    """Writes rows as CSV or as JSON lines.

    Parameters
    ----------
    file : text file
        Where to write.
    suffix : str
        ".csv", ".tsv", ".txt", ".jsonl" or ".ndjson".
    columns : sequence of str
        Columns to write, in this order.
    """

    def __init__(self, file: TextIO, suffix: str, columns: Sequence[str]) -> None:
        self._file, self._columns = file, list(columns)
        self._csv: Any = None
        if suffix not in _JSON_SUFFIXES:
            self._csv = csv.writer(file, delimiter=_DELIMITERS[suffix], lineterminator="\n")
            self._csv.writerow(self._columns)

    def write(self, batch: Mapping[str, Sequence[Any]]) -> None:
        """Write the rows of a batch."""
        rows = zip(*(batch[name] for name in self._columns), strict=True)
        if self._csv is not None:
            self._csv.writerows(rows)
            return
        for row in rows:
            record = dict(zip(self._columns, row, strict=True))
            self._file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")


def suffix_of(out: str) -> str:
    """Return the format to write; raises CommandError if it is unknown."""
    suffix = ".csv" if out == STANDARD_OUTPUT else Path(out).suffix.lower()
    if suffix not in (*_DELIMITERS, *_JSON_SUFFIXES):
        raise CommandError(
            f"--out {out} is of an unknown format: expected a file .csv, .tsv, .jsonl or .ndjson, "
            "or - for CSV on the standard output."
        )
    return suffix


@contextmanager
def complete_file(out: str) -> Iterator[TextIO]:
    """Open a temporary file that gets its name when everything is written.

    An existing file is replaced then; after an error or an interruption it is unchanged.

    Parameters
    ----------
    out : str
        A path, or "-" for the standard output, which is written at once.
    """
    if out == STANDARD_OUTPUT:
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(out).expanduser()
    if path.is_dir():
        raise CommandError(f"--out {out} is a folder: give the name of a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
