"""Several devices: one process for each computes rows that are missing in the store.

The processes are joblib's. Each takes one piece of the rows after the other, and writes features
to the store, where the process that started them finds all rows in their order.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend.reduction import dumps
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

from sk_aft._data._rows import Rows
from sk_aft._embedding import Embedding
from sk_aft._runtime._device import resolve_device
from sk_aft._runtime._memory import release_memory
from sk_aft._runtime._placement import placed_device
from sk_aft.backbones import Backbone
from sk_aft.store import FeatureStore

# Few enough that no device waits long for another at the end.
_PIECES_PER_DEVICE = 16
# Enough that handing out pieces takes no time, and few enough that they need little memory.
_MOST_COMMITS_IN_A_PIECE = 8

# The process that started workers and the directory of their places.
_started: tuple[int, Path] | None = None
# In a worker: the models that it has loaded, by the digest of their pickles, oldest first.
_loaded: dict[str, _LoadedModel] = {}


class _LoadedModel:
    """A model in a worker process.

    Parameters
    ----------
    backbone : Backbone
        The model.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.batch_size: int | None = None  # the largest that fits, once it is known


class _Model(NamedTuple):
    """What a worker needs to load a model.

    Parameters
    ----------
    content : ndarray of uint8
        The pickle of the model; joblib writes a large one to a file once for all workers.
    digest : str
        Identifies the content.
    n_kept : int
        How many models a worker keeps loaded.
    """

    content: np.ndarray
    digest: str
    n_kept: int

    @classmethod
    def of(cls, whole: Embedding) -> _Model:
        """Return the model of some rows."""
        content = dumps(whole._backbone)  # by value what workers cannot import
        n_kept = max(1, len(whole._source.readers))
        digest = xxhash.xxh3_128_hexdigest(content)
        return cls(np.frombuffer(content, dtype=np.uint8), digest, n_kept)

    def loaded(self, device: torch.device) -> _LoadedModel:
        """Return the model, which stays in memory until others take its place."""
        model = _loaded.pop(self.digest, None)
        if model is None:
            while len(_loaded) >= self.n_kept:
                del _loaded[next(iter(_loaded))]
                release_memory(device)
            model = _LoadedModel(pickle.loads(self.content.data))
        _loaded[self.digest] = model
        return model


class _Workers(NamedTuple):
    """The processes, which are the same for all calls.

    Parameters
    ----------
    devices : tuple of str
        Where they run.
    places : Path
        Directory of their places.
    n_threads : int
        Number of threads that each of them may use on a CPU.
    """

    devices: tuple[str, ...]
    places: Path
    n_threads: int

    @classmethod
    def of(cls, whole: Embedding) -> _Workers:
        """Return the processes that compute some rows."""
        devices = whole._source.device
        assert isinstance(devices, tuple)
        n_on_cpu = sum(name.startswith("cpu") for name in devices)
        return cls(devices, _places(), max(1, torch.get_num_threads() // max(1, n_on_cpu)))

    @contextmanager
    def device(self) -> Iterator[torch.device]:
        """Yield the device of this worker."""
        device = resolve_device(placed_device(self.devices, self.places))
        with _threads(self.n_threads) if device.type == "cpu" else nullcontext():
            yield device


class _Done(NamedTuple):
    """What a worker did of a piece.

    Parameters
    ----------
    rows : ndarray of int
        Numbers of the rows that it computed, in the whole.
    failed : ndarray of int
        Numbers of the rows for which the model failed, or which it did not try for this reason.
    n_rows : int
        Number of rows in the piece; those missing here are computed by other programs.
    has_note : bool
        Whether the model has something to say of the rows.
    """

    rows: np.ndarray
    failed: np.ndarray
    n_rows: int
    has_note: bool


class _RowFailedError(Exception):
    """The model failed for a row of a piece."""


class _Piece(Embedding):
    """Some rows of an `Embedding`, which a worker computes.

    Parameters
    ----------
    whole : Embedding
        All rows.
    rows : ndarray of int
        Numbers of the rows.
    """

    def __init__(self, whole: Embedding, rows: np.ndarray) -> None:
        vars(self).update(vars(whole))
        self._numbers = rows
        self._rows = whole._rows.take(rows)
        self.digests = whole.digests[rows]
        self._source = whole._source._replace(readers=(), cache=None, verbose=0)
        self._backbone: Any = None
        self._rows_run = []
        self._failures = {}
        self._failed: list[int] = []

    def computed(self, model: _LoadedModel, device: torch.device) -> _Done:
        """Compute the rows, except those that other programs are computing."""
        self._backbone = model.backbone
        self._source = self._source._replace(device=str(device))
        self._batch_size = model.batch_size or self._batch_size
        assert self._store is not None
        n_rows = len(self._numbers)
        try:
            with self._store.claims(self._model) as claims:
                for start in range(0, n_rows, self._rows_per_commit):
                    self._compute(np.arange(n_rows)[start : start + self._rows_per_commit], claims)
            failed = np.array(self._failed, dtype=np.int64)
        except _RowFailedError:
            failed = np.setdiff1d(np.arange(n_rows), self._done)
        model.batch_size = self._batch_size
        done = self._done
        note = self._backbone.note(self._rows.take(done)) if len(done) else None
        return _Done(self._numbers[done], self._numbers[failed], n_rows, note is not None)

    def _compute(self, chunk: np.ndarray, claims: Any) -> None:
        assert self._store is not None
        store, model = self._store, self._model
        names = [self._digest(row) for row in chunk]
        keys = [model + name for name in names]
        mine, _ = claims.claim(names, lambda: store.missing(keys))
        for done, features in self._embed(chunk[mine]):
            store.put_many([model + self._digest(row) for row in done], features)

    @property
    def _done(self) -> np.ndarray:
        return _joined(self._rows_run)

    def _fail(self, row: int, error: Exception) -> None:
        # The process that started this one tries the row again, and says what is wrong with it.
        if self._source.on_error == "raise":
            raise _RowFailedError from error
        self._failed.append(row)


def can_start_workers() -> bool:
    """Return whether this process is not itself a worker of a search or a cluster."""
    if multiprocessing.current_process().daemon or get_active_backend()[0].nesting_level:
        return False
    distributed, ray = sys.modules.get("distributed"), sys.modules.get("ray")
    if distributed is not None:
        try:
            distributed.get_worker()
            return False
        except ValueError:
            pass
    if ray is None or not ray.is_initialized():
        return True
    return ray.get_runtime_context().worker.mode != ray.WORKER_MODE


def computed_by_workers(
    whole: Embedding, store: FeatureStore, todo: np.ndarray, advance: Callable[[int], Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Compute rows in one process for each device.

    Parameters
    ----------
    whole : Embedding
        All rows, and how the model is run.
    store : FeatureStore
        Where the features are written.
    todo : ndarray of int
        Numbers of the rows.
    advance : callable
        Called with the number of rows after each piece.

    Returns
    -------
    done : ndarray of int
        Rows whose features were written.
    failed : ndarray of int
        Rows for which the model failed. If such rows raise errors, or if the model has failed for
        all rows so far, no other pieces are begun.

    Raises
    ------
    RuntimeError
        If a process died.
    """
    model, workers = _Model.of(whole), _Workers.of(whole)
    n_devices = len(workers.devices)
    n_commits = len(todo) // (whole._rows_per_commit * n_devices * _PIECES_PER_DEVICE)
    size = whole._rows_per_commit * min(max(1, n_commits), _MOST_COMMITS_IN_A_PIECE)
    done: list[np.ndarray] = []
    failed: list[np.ndarray] = []

    def pieces() -> Iterator[Any]:
        for start in range(0, len(todo), size):
            is_hopeless = whole._source.on_error == "raise" or not (whole._has_succeeded or done)
            if failed and is_hopeless:
                return
            yield delayed(_compute)(_Piece(whole, todo[start : start + size]), model, workers)

    with _dead_worker_explained(whole, store):
        for piece in _parallel(n_devices)(pieces()):
            if len(piece.rows):
                done.append(piece.rows)
            if len(piece.failed):
                failed.append(piece.failed)
            whole._workers_note |= piece.has_note
            advance(len(piece.rows))
    return _joined(done), np.sort(_joined(failed))


def note_of_worker(whole: Embedding, rows: Rows) -> str | None:
    """Return what a user should know of rows, from a worker, which has loaded the model."""
    assert whole._store is not None
    model, workers = _Model.of(whole), _Workers.of(whole)
    with _dead_worker_explained(whole, whole._store):
        (note,) = _parallel(len(workers.devices))([delayed(_note)(rows, model, workers)])
    return note


def end_workers() -> None:
    """End the processes, if there are any, which frees the memory of their models."""
    global _started
    if _started is None or _started[0] != os.getpid():
        return
    get_reusable_executor(reuse=True).shutdown(wait=True)
    _remove(*_started)
    _started = None


def _compute(piece: _Piece, model: _Model, workers: _Workers) -> _Done:
    with workers.device() as device:
        return piece.computed(model.loaded(device), device)


def _note(rows: Rows, model: _Model, workers: _Workers) -> str | None:
    with workers.device() as device:
        backbone = model.loaded(device).backbone
        backbone.prepare(device)
        return backbone.note(rows)


def _joined(numbers: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *numbers])


def _parallel(n_devices: int) -> Parallel:
    # Models may write to their rows, as they may in one process; hence the mode.
    return Parallel(
        n_devices,
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        mmap_mode="c",
    )


@contextmanager
def _dead_worker_explained(whole: Embedding, store: FeatureStore) -> Iterator[None]:
    try:
        yield
    except TerminatedWorkerError as error:
        codes = str(error).partition("exit codes of the workers are ")[2].partition("\n")[0]
        raise RuntimeError(
            f"A process that ran model {whole._backbone.name!r} on one of the devices "
            f"{list(whole._source.device)} died (exit codes {codes or 'unknown'}). SIGKILL often "
            "means that the computer's memory ran out: a smaller batch_size or fewer devices need "
            f"less. The features computed so far are in {store}; run again to resume."
        ) from error


@contextmanager
def _threads(n_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _places() -> Path:
    """Return the directory of the places of this process's workers."""
    global _started
    if _started is None or _started[0] != os.getpid():
        _started = os.getpid(), Path(tempfile.mkdtemp(prefix="sk_aft-places-"))
        atexit.register(_remove, *_started)
    return _started[1]


def _remove(creator: int, directory: Path) -> None:
    # A forked child inherits the exit handler, but only the creator may remove the directory.
    if os.getpid() == creator:
        shutil.rmtree(directory, ignore_errors=True)
