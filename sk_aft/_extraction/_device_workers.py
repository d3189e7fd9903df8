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
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from joblib import Parallel, delayed
from joblib.externals.loky import reusable_executor
from joblib.externals.loky.backend.reduction import dumps
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

from sk_aft._data._rows import Rows
from sk_aft._extraction._destination import Destination
from sk_aft._extraction._model_run import ModelRun
from sk_aft._runtime._device import resolve_device
from sk_aft._runtime._memory import release_memory
from sk_aft._runtime._placement import placed_device
from sk_aft.backbones import Backbone
from sk_aft.store import FeatureStore

# The process that started workers and the directory of their places.
_started: tuple[int, Path] | None = None
# The executor of joblib, if it was started for these workers and not for others of this process.
_own_executor: Any = None
# How long workers wait for each other, to tell that each of them has unloaded its models.
_SECONDS_FOR_OTHERS = 5.0
# In a worker: the models that it has loaded, by the digest of their pickles, oldest first.
_loaded: dict[str, LoadedModel] = {}


class LoadedModel:
    """A model in a worker process.

    Parameters
    ----------
    backbone : Backbone
        The model.
    device : torch.device
        Where it runs.
    """

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self.backbone = backbone
        self.device = device
        # The largest that fits, once it is known; an explicit one holds for its call only.
        self.batch_size: int | None = None


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
    def of(cls, backbone: Backbone, n_kept: int) -> _Model:
        """Return a model."""
        content = dumps(backbone)  # by value what workers cannot import
        digest = xxhash.xxh3_128_hexdigest(content)
        return cls(np.frombuffer(content, dtype=np.uint8), digest, n_kept)

    def loaded(self, device: torch.device) -> LoadedModel:
        """Return the model, which stays in memory until others take its place."""
        model = _loaded.pop(self.digest, None)
        if model is None:
            while _loaded and len(_loaded) >= self.n_kept:
                del _loaded[next(iter(_loaded))]
                release_memory(device)
            model = LoadedModel(pickle.loads(self.content.data), device)
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
    def of(cls, devices: tuple[str, ...]) -> _Workers:
        """Return the processes of some devices."""
        n_on_cpu = sum(name.startswith("cpu") for name in devices)
        return cls(devices, _places(), max(1, torch.get_num_threads() // max(1, n_on_cpu)))

    @contextmanager
    def device(self) -> Iterator[torch.device]:
        """Yield the device of this worker."""
        device = resolve_device(placed_device(self.devices, self.places))
        with _threads(self.n_threads) if device.type == "cpu" else nullcontext():
            yield device


class Computed(NamedTuple):
    """What a worker process did of a piece.

    Parameters
    ----------
    rows : ndarray of int
        Numbers of the rows that it computed, among all rows.
    failed : ndarray of int
        Numbers of the rows for which the model failed, or which it did not try for this reason.
    has_note : bool
        Whether the model has something to say of the rows.
    """

    rows: np.ndarray
    failed: np.ndarray
    has_note: bool


class Piece(NamedTuple):
    """Some rows, to be computed in a worker process.

    Parameters
    ----------
    numbers : ndarray of int
        Numbers of the rows, among all rows.
    run : ModelRun
        The rows, without the model, which the worker has.
    destination : Destination
        Where their features are written.
    rows_per_commit : int
        How many rows are computed before they are written.
    stops : bool
        Whether to try no other row after one that the model fails for.
    """

    numbers: np.ndarray
    run: ModelRun
    destination: Destination
    rows_per_commit: int
    stops: bool

    def computed(self, model: LoadedModel, device: torch.device) -> Computed:
        """Compute the rows, except those that other programs are computing."""
        run, store = self.run, self.destination.store
        run.place(model.backbone, device, model.batch_size)
        rows = np.arange(len(self.numbers))
        failures: list[int] = []

        def fail(row: int, error: Exception) -> None:
            # The process that started this one tries the row again, and says what is wrong with it.
            if self.stops:
                raise _RowFailedError from error
            failures.append(row)

        try:
            with store.claims(self.destination.model) as claims:
                for start in range(0, len(rows), self.rows_per_commit):
                    chunk = rows[start : start + self.rows_per_commit]
                    self.destination.commit(run, chunk, claims.claim, fail)
            failed = np.array(failures, dtype=np.int64)
        except _RowFailedError:
            failed = np.setdiff1d(rows, _joined(run.done))
        if run.is_automatic:
            model.batch_size = run.batch_size
        done = _joined(run.done)
        note = run.backbone.note(run.rows.take(done)) if len(done) else None
        return Computed(self.numbers[done], self.numbers[failed], note is not None)


class _RowFailedError(Exception):
    """The model failed for a row of a piece."""


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
    pieces: Iterable[Piece],
    backbone: Backbone,
    devices: tuple[str, ...],
    *,
    n_kept: int,
    store: FeatureStore,
) -> Iterator[Computed]:
    """Compute pieces in one process for each device, each of which takes one after the other.

    Parameters
    ----------
    pieces : iterable of Piece
        Read a few pieces ahead.
    backbone : Backbone
        The model, loaded by each process when it is first needed, and kept between calls.
    devices : tuple of str
        Where the processes run.
    n_kept : int
        How many models a process keeps loaded.
    store : FeatureStore
        Where the features are written; for messages.

    Yields
    ------
    done : Computed
        What was done of a piece; in the order in which pieces are ready.

    Raises
    ------
    RuntimeError
        If a process died.
    """
    model, workers = _Model.of(backbone, n_kept), _Workers.of(devices)
    with _dead_worker_explained(backbone, devices, store):
        yield from _results(
            len(devices), (delayed(_compute)(piece, model, workers) for piece in pieces)
        )


def note_of_worker(
    rows: Rows, backbone: Backbone, devices: tuple[str, ...], *, n_kept: int, store: FeatureStore
) -> str | None:
    """Return what a user should know of rows, from a worker, which has loaded the model."""
    model, workers = _Model.of(backbone, n_kept), _Workers.of(devices)
    with _dead_worker_explained(backbone, devices, store):
        (note,) = _results(len(devices), [delayed(_note)(rows, model, workers)])
    return note


def end_workers() -> None:
    """End the processes, if there are any, which frees the memory of their models.

    Processes of joblib that others of this process have started, or are using, only unload them.
    """
    global _started, _own_executor
    if _started is None or _started[0] != os.getpid():
        return
    executor = _executor()
    is_own = executor is _own_executor
    if executor is not None and not (is_own and not executor._pending_work_items):
        _unload_in_workers(executor, _started[1])
        return
    if executor is not None:
        executor.shutdown(wait=True)
    _remove(*_started)
    _started = _own_executor = None


def _compute(piece: Piece, model: _Model, workers: _Workers) -> Computed:
    with workers.device() as device:
        return piece.computed(model.loaded(device), device)


def _note(rows: Rows, model: _Model, workers: _Workers) -> str | None:
    with workers.device() as device:
        backbone = model.loaded(device).backbone
        backbone.prepare(device)
        return backbone.note(rows)


def _results(n_devices: int, tasks: Iterable[Any]) -> Iterator[Any]:
    """Yield the results of tasks, in the order in which they are ready."""
    global _own_executor
    before = _executor()
    # Other options than joblib's own would end workers that the user has started.
    parallel = Parallel(n_devices, backend="loky", return_as="generator_unordered", batch_size=1)
    try:
        yield from parallel(tasks)
    finally:
        if _executor() is not before:
            _own_executor = _executor()


def _executor() -> Any:
    """Return joblib's executor of this process, or None."""
    executor = reusable_executor._executor
    is_over = executor is None or executor._flags.shutdown or executor._flags.broken
    return None if is_over else executor


def _unload_in_workers(executor: Any, directory: Path) -> None:
    """Unload the models in all workers, without ending them or what others run in them."""
    here = directory / f"unload-{uuid.uuid4().hex}"
    here.mkdir()
    n_workers = executor._max_workers
    with suppress(RuntimeError):  # the workers have died, or another thread has ended them
        tasks = [executor.submit(_unload, here, n_workers) for _ in range(n_workers)]
        wait(tasks, timeout=2 * _SECONDS_FOR_OTHERS)


def _unload(directory: Path, n_workers: int) -> None:
    """Unload the models of this process; wait for the others, so that each does so."""
    devices = {model.device for model in _loaded.values()}
    _loaded.clear()
    for device in devices:
        release_memory(device)
    (directory / str(os.getpid())).touch()
    end = time.monotonic() + _SECONDS_FOR_OTHERS
    while len(os.listdir(directory)) < n_workers and time.monotonic() < end:
        time.sleep(0.01)


@contextmanager
def _dead_worker_explained(
    backbone: Backbone, devices: tuple[str, ...], store: FeatureStore
) -> Iterator[None]:
    try:
        yield
    except TerminatedWorkerError as error:
        codes = str(error).partition("exit codes of the workers are ")[2].partition("\n")[0]
        raise RuntimeError(
            f"A process that ran model {backbone.name!r} on one of the devices "
            f"{list(devices)} died (exit codes {codes or 'unknown'}). SIGKILL often "
            "means that the computer's memory ran out: a smaller batch_size or fewer devices need "
            f"less. The features computed so far are in {store}; run again to resume."
        ) from error


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


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
