"""Random numbers of torch: seeded for one fit, restored afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from sklearn.utils import check_random_state

from sk_aft._runtime._dtype import float32_by_default
from sk_aft._runtime._threads import call_after_fork

_fitting = threading.RLock()


def draw_seed(random_state: Any) -> int:
    """Return a seed determined by ``random_state``, or a new one each time if it is None."""
    return check_random_state(random_state).randint(2**31 - 1)


@contextmanager
def seeded_torch(seed: int, device: torch.device) -> Iterator[torch.dtype]:
    """Seed torch, make float32 its default, and restore its global state afterwards.

    Yields the default dtype that the user has set. All threads share the state, so only one of them
    fits at a time.
    """
    devices = [device] if device.type == "cuda" else []
    with _fitting, torch.random.fork_rng(devices=devices), float32_by_default() as users_dtype:
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":  # this one only: the states of others are not restored
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield users_dtype


def _reset_after_fork() -> None:
    global _fitting
    _fitting = threading.RLock()


call_after_fork(_reset_after_fork)
