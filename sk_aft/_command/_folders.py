"""Folders that a command writes: they are new, or hold what the same command wrote before."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sk_aft._command._messages import CommandError, listed


def check_is_free(folder: Path, own: Iterable[str]) -> None:
    """Raise CommandError if a folder cannot be written, or holds other files than ``own``.

    Parameters
    ----------
    folder : Path
        May be missing.
    own : iterable of str
        Names of the files that are replaced.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CommandError(f"--out {folder} is a file: give the name of a folder.")
    others = sorted({path.name for path in folder.iterdir()} - set(own))
    if others:
        raise CommandError(
            f"--out {folder} holds other files, {listed(others)}: give a new or empty folder."
        )


def megabytes(folder: Path) -> float:
    """Return the size of all files in a folder in megabytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
