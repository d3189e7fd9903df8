"""The default dtype of torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sk_aft._runtime._threads import call_after_fork

_lock = threading.Lock()
_depth = 0
_users = torch.float32


@contextmanager
def float32_by_default() -> Iterator[torch.dtype]:
    """Make float32 the default dtype; yield the default that the user has set.

    Networks are built and run in float32; one built in float64 could not read their inputs. All
    threads share the setting: the first to enter changes it, and the last to leave restores it.
    """
    global _depth, _users
    with _lock:
        if _depth == 0:
            _users = torch.get_default_dtype()
            if _users != torch.float32:
                torch.set_default_dtype(torch.float32)
        _depth += 1
        users = _users
    try:
        yield users
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and users != torch.float32:
                torch.set_default_dtype(users)


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.Lock()


call_after_fork(_reset_after_fork)
