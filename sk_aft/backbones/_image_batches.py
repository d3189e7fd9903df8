"""Images as tensors, which several processes make if a GPU waits for them."""

from __future__ import annotations

import multiprocessing
import shutil
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import torch
from torch.utils.data import DataLoader, Dataset

from sk_aft.backbones._onnx import Inputs

_MOST_WORKERS = 8
# Of each worker; the next ones are begun when these are taken.
_BATCHES_AHEAD = 2
_SHARED_MEMORY = Path("/dev/shm")
# Starting processes takes longer than making fewer batches. Where a row cannot be read, ever
# fewer rows are tried.
_LEAST_BATCHES = 3

Prepare = Callable[[range], Inputs]


@contextmanager
def image_batches(
    prepare: Prepare, batches: Sequence[range], device: torch.device
) -> Iterator[Iterator[Inputs]]:
    """Make the tensors of each batch, in this process or in several that live as long as the block.

    Parameters
    ----------
    prepare : callable
        Maps the indices of some images to their tensors.
    batches : sequence of range
        The indices of each batch.
    device : torch.device
        Where the tensors will be used. Only a GPU is faster than one process.

    Yields
    ------
    tensors : iterator of tuple of Tensor
        In the order of the batches. Errors of ``prepare`` are raised as they are. If a worker
        ends, torch raises an error that `is_lost_worker` recognises.
    """
    n_workers = 0
    if len(batches) >= _LEAST_BATCHES and n_decoding_workers(device, len(batches), 0) > 0:
        one = prepare(batches[0][:1])
        n_bytes = len(batches[0]) * sum(tensor.nbytes for tensor in one)
        n_workers = n_decoding_workers(device, len(batches), n_bytes)
    if n_workers == 0:
        yield map(prepare, batches)
        return
    made = _made_by_workers(prepare, batches, _started(_Batches(prepare, batches), n_workers))
    next(made)
    try:
        yield made
    finally:
        made.close()


def _made_by_workers(
    prepare: Prepare, batches: Sequence[range], loader: Iterator[Inputs | None]
) -> Generator[Any, None, None]:
    """Yield None once, then the batches. Holds the only reference to the loader, whose end it is.

    The processes of a loader end with it.
    """
    yield None
    for batch in batches:
        lost = ""
        try:
            tensors = next(loader)
        except RuntimeError as error:
            if not is_lost_worker(error):
                raise
            lost = str(error)
        if lost:  # the frames of the other error would keep the loader
            raise RuntimeError(lost)
        # An error is raised where it keeps its type, its message and its traceback: here.
        yield prepare(batch) if tensors is None else tensors


def _started(dataset: Dataset, n_workers: int) -> Any:
    """Start processes that make the items of a data set.

    They are forked, so they share the images and what prepares them, and neither has to be pickled.
    """
    loader = DataLoader(
        dataset,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=n_workers,
        prefetch_factor=_BATCHES_AHEAD,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # else it draws from the user's
    )
    with warnings.catch_warnings():
        # Python 3.12 warns of every fork beside threads. These processes take no lock of theirs.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        return iter(loader)


def n_decoding_workers(device: torch.device, n_batches: int, n_bytes: int) -> int:
    """Return how many processes make the batches of a model; 0 for this process alone.

    Parameters
    ----------
    device : torch.device
        Where the model runs. On a CPU it needs the cores itself.
    n_batches : int
        Number of batches.
    n_bytes : int
        Bytes of the tensors of a batch, which pass through shared memory. Containers may have
        little of it, and a process that finds none left is killed.
    """
    can_fork = "fork" in multiprocessing.get_all_start_methods() and _SHARED_MEMORY.is_dir()
    if not _runs_on_gpu(device) or not can_fork or multiprocessing.current_process().daemon:
        return 0
    n_room = shutil.disk_usage(_SHARED_MEMORY).free // 2 // max(n_bytes, 1)
    n_workers = min(joblib.cpu_count(), _MOST_WORKERS, n_batches, n_room // _BATCHES_AHEAD - 1)
    return n_workers if n_workers > 1 else 0


def _runs_on_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def is_lost_worker(error: BaseException) -> bool:
    """Return whether an error says that a process of `image_batches` ended."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader ")


class _Batches(Dataset):
    """Tensors of batches by number; None where an error was raised."""

    def __init__(self, prepare: Prepare, batches: Sequence[range]) -> None:
        self.prepare = prepare
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Inputs | None:
        try:
            tensors = self.prepare(self.batches[number])
            # A subclass of a tensor, or one with a gradient, could not be sent.
            return tuple(tensor.detach().as_subclass(torch.Tensor) for tensor in tensors)
        except Exception:
            return None


def _unchanged(batch: Any) -> Any:
    return batch
