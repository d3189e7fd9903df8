"""A temporary store for models that cannot be recognised in another run.

Nobody can tell whether a function changed since yesterday, so features of a bare function are
kept for as long as the process that first used it lives, and shared with its workers.
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


def session_store() -> FeatureStore:
    """Return the store that lives as long as this process, or the one it was given."""
    global _directory
    with _lock:
        if _directory is None or not _directory.exists():
            _directory = Path(tempfile.mkdtemp(prefix="sk_aft_"))
            atexit.register(_remove, _directory, os.getpid())
        return FeatureStore(_directory)


def session_token(function: Any) -> str:
    """Return the name by which this object is known in this session."""
    with _lock:
        if id(function) not in _tokens:
            _remember(function, uuid.uuid4().hex)
        return _tokens[id(function)][0]


def session_state(functions: list) -> dict[str, Any]:
    """Return what a worker process needs to recognise ``functions``."""
    if not functions:
        return {}
    tokens = [session_token(function) for function in functions]
    return {"tokens": tokens, "directory": str(session_store().path)}


def adopt_session(functions: list, state: dict[str, Any]) -> None:
    """Recognise unpickled ``functions`` if the session they come from is alive.

    A process that has a session of its own keeps to it.
    """
    global _directory
    if not state or not Path(state["directory"]).exists():
        return
    with _lock:
        if _directory is None or not _directory.exists():
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
    # A forked child inherits the exit handler but not the ownership.
    if os.getpid() == creator:
        shutil.rmtree(directory, ignore_errors=True)


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.RLock()


call_after_fork(_reset_after_fork)
