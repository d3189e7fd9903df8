"""A temporary store for models that can be identified only within one process.

The content of a function does not tell whether its results changed since an earlier run. The
features of a bare function are therefore kept only while the process that first used it lives.
Its worker processes inherit the store and the tokens by which functions are identified.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import uuid
import weakref
from pathlib import Path
from typing import Any

from sk_aft._runtime._threads import call_after_fork
from sk_aft.store._store import FeatureStore

_lock = threading.RLock()
_directory: Path | None = None
# id -> (token, the object itself if it cannot be weakly referenced)
_tokens: dict[int, tuple[str, Any]] = {}


def process_store() -> FeatureStore:
    """Return the temporary store of this process, or the one that it inherited."""
    global _directory
    with _lock:
        if _directory is None or not _directory.exists():
            _directory = Path(tempfile.mkdtemp(prefix="sk_aft_"))
            atexit.register(_remove, _directory, os.getpid())
        return FeatureStore(_directory)


def process_token(function: Any) -> str:
    """Return the token that identifies this object in this process and its workers."""
    with _lock:
        if id(function) not in _tokens:
            _remember(function, uuid.uuid4().hex)
        return _tokens[id(function)][0]


def process_state(functions: list) -> dict[str, Any]:
    """Return what a worker process needs to `inherit` these functions; can be pickled."""
    if not functions:
        return {}
    tokens = [process_token(function) for function in functions]
    return {"tokens": tokens, "directory": str(process_store().path), "process": os.getpid()}


def inherit(functions: list, state: dict[str, Any]) -> None:
    """Give unpickled functions the tokens of the process that pickled them.

    Does nothing if the store of that process no longer exists. A function that already has a
    token keeps it. A process that already has a store keeps that, too, except a worker whose
    parent pickled the functions: its siblings share the work in the store of the parent.
    """
    global _directory
    if not state or not Path(state["directory"]).exists():
        return
    with _lock:
        is_from_parent = state["process"] == os.getppid()
        if is_from_parent or _directory is None or not _directory.exists():
            _directory = Path(state["directory"])
        for function, token in zip(functions, state["tokens"], strict=True):
            if id(function) not in _tokens:
                _remember(function, token)


def _remember(function: Any, token: str) -> None:
    try:
        weakref.finalize(function, _tokens.pop, id(function), None)
        _tokens[id(function)] = (token, None)
    except TypeError:
        _tokens[id(function)] = (token, function)


def _remove(directory: Path, creator: int) -> None:
    # A forked child inherits the exit handler, but only the creator may remove the directory.
    if os.getpid() == creator:
        shutil.rmtree(directory, ignore_errors=True)


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.RLock()


call_after_fork(_reset_after_fork)
