"""The files that a path means: one, those of a directory, or those of a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection
from pathlib import Path

PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".csv.gz")
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")


def table_files(path: str | os.PathLike, suffixes: Collection[str]) -> list[Path]:
    """Return the files of tables that a path means, in the order of their names.

    The order is that of pandas, polars, pyarrow and datasets, so that rows and features of the
    same files match: letter by letter, "part.10" before "part.2". Directories are searched with
    their folders; names that begin with "." or "_" are skipped.

    Parameters
    ----------
    path : path-like
        A file, a directory, or a glob.
    suffixes : collection of str
        Suffixes of files that count in a directory.

    Returns
    -------
    files : list of Path
        At least one, with suffixes of one kind of file. That of a single file is not checked.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the files have different suffixes.
    """
    given = Path(path).expanduser()
    files = [given]
    if given.is_dir():
        files = [
            file
            for file in given.rglob("*")
            if suffix_of(file) in suffixes and not _is_hidden(file.relative_to(given))
        ]
    elif not given.exists() and glob.has_magic(str(given)):
        files = [Path(file) for file in glob.glob(str(given), recursive=True)]
    elif not given.exists():
        raise FileNotFoundError(f"There is no file at {str(path)!r}.")
    if not files:
        expected = ", ".join(f"*{suffix}" for suffix in suffixes)
        raise FileNotFoundError(f"There are no files of {expected} at {str(path)!r}.")
    found = sorted({suffix_of(file) for file in files})
    if len(found) > 1:
        raise ValueError(
            f"{str(path)!r} means {len(files)} files with the suffixes {found}: expected files of "
            f"one suffix, such as those of the pattern '*{found[0]}'."
        )
    return sorted(files, key=str)


def suffix_of(path: Path) -> str:
    """Return the suffix of a file; of a compressed one both, such as ".csv.gz"."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)
