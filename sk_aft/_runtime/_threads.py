"""How many threads computations use, and locks that survive a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch.nn.parameter import is_lazy

# Layers that do little work for each of their weights.
_LIGHT_LAYERS = (nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.BatchNorm1d)
_LARGEST_LIGHT = 1_000_000

_changing = threading.Lock()
_n_changed = 0
_n_threads = 1
# Of the objects that threads run at the moment, by their id.
_locks: WeakValueDictionary[int, Any] = WeakValueDictionary()


@contextmanager
def fitting_threads(module: nn.Module) -> Iterator[None]:
    """Run a small network on one core, others on as many as torch would use.

    A step of a small perceptron or bag of words takes less time than starting threads. If other
    programs use the cores, threads wait for each other, which made steps 10 times slower (measured
    on two cores). Convolutions, attention and large matrices gain from several cores.
    """
    layers = [
        layer for layer in module.modules() if next(layer.parameters(False), None) is not None
    ]
    # The sizes of lazy layers are not known before the first batch.
    n_dense = sum(
        layer.weight.numel()
        for layer in layers
        if isinstance(layer, nn.Linear) and not is_lazy(layer.weight)
    )
    is_light = all(
        isinstance(layer, _LIGHT_LAYERS) or getattr(layer, "is_light", False) for layer in layers
    )
    with one_thread() if is_light and n_dense <= _LARGEST_LIGHT else nullcontext():
        yield


@contextmanager
def one_thread() -> Iterator[int]:
    """Run PyTorch on one core; yield the number of threads that it would have used.

    The setting is global to the process. If blocks overlap, the first one records the original
    number, and each restores it when it ends.
    """
    global _n_changed, _n_threads
    with _changing:
        if _n_changed == 0:
            _n_threads = torch.get_num_threads()
        _n_changed += 1
        n_threads = _n_threads
        torch.set_num_threads(1)
    try:
        yield n_threads
    finally:
        with _changing:
            _n_changed -= 1
            torch.set_num_threads(n_threads)


@contextmanager
def one_at_a_time(shared: object) -> Iterator[None]:
    """Let one thread at a time change and run an object; blocks of a thread may be nested."""
    with _changing:
        lock = _locks.setdefault(id(shared), threading.RLock())
    with lock:
        yield


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero on the CPU, where they may be slow.

    Trained weights and moments decay into denormals, which have no effect on results. Applies to
    this thread and to threads started within the block, but not to running threads of torch.
    """
    smallest = torch.tensor(torch.finfo(torch.float32).tiny)
    was_flushing = (smallest / 2).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)


def call_after_fork(reset: Callable[[], object]) -> None:
    """Call ``reset`` in every child process that is forked from this one.

    A lock that another thread held at the moment of the fork would never be released in the
    child, so each module that has one replaces it.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)


def _reset_after_fork() -> None:
    global _changing, _locks
    _changing, _locks = threading.Lock(), WeakValueDictionary()


call_after_fork(_reset_after_fork)
