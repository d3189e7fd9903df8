"""The directory of a store, as its user gives it or by default."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def default_store_path() -> Path:
    """Return the default directory of the store.

    It is the environment variable ``SK_AFT_CACHE`` if it is set and not empty, else the
    platform's user cache directory. "~" stands for the home directory.

    Raises
    ------
    RuntimeError
        If it is below the home directory, and there is none.
    """
    with _home_needed():
        return _expanded(os.environ.get("SK_AFT_CACHE") or platformdirs.user_cache_dir("sk_aft"))


def store_path(path: str | os.PathLike | None) -> Path:
    """Return the directory that a user means; None is the default."""
    if path is None:
        return default_store_path()
    with _home_needed():
        return _expanded(path)


@contextmanager
def _home_needed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"There is no home directory to keep features in ({error}): give cache= (or the "
            "variable SK_AFT_CACHE) an absolute path, or cache=None to keep features in memory."
        ) from error


def _expanded(path: str | os.PathLike) -> Path:
    """Return a path in which "~" is replaced by the home directory."""
    if not os.fspath(path):
        raise ValueError("The directory of the feature store is an empty string: give a path.")
    return Path(path).expanduser()
