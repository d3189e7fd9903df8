"""What training teachers found, kept in the process for the next fit on the same rows.

In a search over strengths or learning rates, all fits to a fold have the same teachers. Training
them takes half of the time of a small student. Results are those of pure functions, and the key is
the content of all arguments, so that a result from memory is the one that training would find.
"""

from __future__ import annotations

import pickle
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import xxhash

from sk_aft._runtime._threads import call_after_fork

# Enough for four teachers in each of ten folds.
_MOST_RESULTS = 64
_MOST_BYTES = 64 << 20
_MOST_BYTES_OF_ONE = _MOST_BYTES // 4  # one large result does not displace all others
_ROWS_PER_UPDATE = 4096

Result = TypeVar("Result")


class _Pickled(NamedTuple):
    """A result that nobody can change."""

    head: bytes
    arrays: list[bytes]

    @property
    def n_bytes(self) -> int:
        return len(self.head) + sum(map(len, self.arrays))


_lock = threading.Lock()
_results: OrderedDict[bytes, _Pickled] = OrderedDict()  # the latest used last
_of_thread = threading.local()
_former_show: Callable[..., Any] = warnings.showwarning
_n_noticing = 0


def remembered(train: Callable[..., Result], *arguments: Any) -> Result:
    """Return what a function returns, or returned for arguments of equal content.

    Only the latest results are kept, up to 64 MB. Those of calls that warned are not kept, so that
    the next call warns again.

    Parameters
    ----------
    train : callable
        A function of a module. Its result depends on its arguments only, and can be pickled.
    *arguments : ndarray, str, number, None, or sequence of these
        Its arguments, which it does not change.

    Returns
    -------
    result : object
        A new object; arrays from memory are read-only.
    """
    digest = xxhash.xxh3_128()
    _add(digest, (train.__module__, train.__qualname__, arguments))
    key = digest.digest()
    with _lock:
        known = _results.get(key)
        if known is not None:
            _results.move_to_end(key)
    if known is not None:
        return pickle.loads(known.head, buffers=known.arrays)
    with _noticing_warnings():
        result = train(*arguments)
        has_warned = _of_thread.has_warned
    if not has_warned:
        _keep(key, result)
    return result


def forget_teachers() -> None:
    """Remove everything, for example before measuring the time of a fit."""
    with _lock:
        _results.clear()


def _keep(key: bytes, result: Any) -> None:
    arrays: list[pickle.PickleBuffer] = []
    head = pickle.dumps(result, protocol=5, buffer_callback=arrays.append)
    if len(head) + sum(array.raw().nbytes for array in arrays) > _MOST_BYTES_OF_ONE:
        return
    pickled = _Pickled(head, [array.raw().tobytes() for array in arrays])
    with _lock:
        _results[key] = pickled
        total = sum(one.n_bytes for one in _results.values())
        while len(_results) > _MOST_RESULTS or total > _MOST_BYTES:
            total -= _results.popitem(last=False)[1].n_bytes


def _add(digest: Any, content: Any) -> None:
    """Add content to a digest, such that different contents differ."""
    if isinstance(content, np.ndarray) and not content.dtype.hasobject:
        # Sums may round differently in another layout.
        digest.update(repr((content.dtype.str, content.shape, content.strides)).encode())
        for start in range(0, len(content), _ROWS_PER_UPDATE):
            digest.update(np.ascontiguousarray(content[start : start + _ROWS_PER_UPDATE]))
    elif isinstance(content, str):
        text = content.encode("utf-8", "surrogatepass")
        digest.update(b"str %d " % len(text))
        digest.update(text)
    elif isinstance(content, (list, tuple)):
        digest.update(b"sequence %d " % len(content))
        for part in content:
            _add(digest, part)
    elif content is None or isinstance(content, (bool, int, float, np.number)):
        digest.update(f"{type(content).__name__} {content!r} ".encode())
    else:
        raise TypeError(f"A {type(content).__name__} cannot be part of a key.")


@contextmanager
def _noticing_warnings() -> Iterator[None]:
    """Set ``has_warned`` if this thread gives a warning that is not filtered out.

    ``warnings.catch_warnings(record=True)`` would swallow those of other threads.
    """
    global _former_show, _n_noticing
    _of_thread.has_warned = False
    with _lock:
        _n_noticing += 1
        if warnings.showwarning is not _show:
            _former_show, warnings.showwarning = warnings.showwarning, _show
    try:
        yield
    finally:
        with _lock:
            _n_noticing -= 1
            if _n_noticing == 0 and warnings.showwarning is _show:
                warnings.showwarning = _former_show


def _show(*arguments: Any, **named: Any) -> None:
    _of_thread.has_warned = True
    _former_show(*arguments, **named)


def _reset_after_fork() -> None:
    global _lock, _n_noticing
    _lock, _n_noticing = threading.Lock(), 0
    _results.clear()


call_after_fork(_reset_after_fork)
