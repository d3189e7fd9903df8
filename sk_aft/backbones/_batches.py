"""Running a network batch by batch; a GPU computes while the next batch is prepared."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sk_aft.backbones._onnx import Inputs

Item = TypeVar("Item")

_END: Any = object()


def run_batches(
    compute: Callable[..., Tensor | tuple[Tensor, ...]],
    batches: Iterable[Inputs],
    device: torch.device,
) -> Iterator[np.ndarray]:
    """Yield the features of each batch, in order.

    On a CUDA GPU a thread makes the next batch and copies it to pinned memory while the GPU
    computes, and the features of all batches come back in one copy.

    Parameters
    ----------
    compute : callable
        Maps the tensors of a batch to an (n, d) tensor, or to several, which are put side by side.
    batches : iterable of tuple of Tensor
        The tensors of each batch, on the CPU.
    device : torch.device
        Where they are computed.

    Yields
    ------
    features : ndarray of shape (n, n_features), float32
        Of one batch.
    """
    if device.type != "cuda":
        for batch in batches:
            yield _computed(compute, batch, device).cpu().numpy()
        return
    with closing(made_ahead(_pinned(batches), device)) as prepared:
        # Nothing waits for the GPU before the last batch was sent to it.
        features = [_computed(compute, batch, device) for batch in prepared]
    yield from _in_one_copy(features)


def made_ahead(items: Iterable[Item], device: torch.device) -> Generator[Item, None, None]:
    """Yield items, of which a thread makes the next one meanwhile.

    Parameters
    ----------
    items : iterable
        Made one by one in the thread.
    device : torch.device
        If this is a CUDA GPU, the thread uses it, too.

    Yields
    ------
    item : object
        The items in their order; errors in making one are raised in its place.
    """
    iterator = iter(items)
    use = {"initializer": torch.cuda.set_device, "initargs": (device,)}
    with ThreadPoolExecutor(1, **(use if device.type == "cuda" else {})) as pool:
        future = pool.submit(next, iterator, _END)
        while (item := future.result()) is not _END:
            future = pool.submit(next, iterator, _END)
            yield item


def index_batches(n_rows: int, batch_size: int) -> list[range]:
    """Return the indices of each batch of rows."""
    starts = range(0, n_rows, batch_size)
    return [range(start, min(start + batch_size, n_rows)) for start in starts]


def _pinned(batches: Iterable[Inputs]) -> Iterator[Inputs]:
    for batch in batches:
        yield tuple(_pinned_tensor(tensor) for tensor in batch)


def _pinned_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor in pinned memory; one that a user's preprocessing put on a GPU stays there.

    Expanded tensors share elements and cannot be pinned as they are.
    """
    return tensor.contiguous().pin_memory() if tensor.device.type == "cpu" else tensor


@torch.inference_mode()
def _computed(compute: Callable, batch: Inputs, device: torch.device) -> Tensor:
    is_pinned = device.type == "cuda"
    outputs = compute(*(tensor.to(device, non_blocking=is_pinned) for tensor in batch))
    tensors = (outputs,) if isinstance(outputs, Tensor) else outputs
    parts = [tensor.float() for tensor in tensors]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


@torch.inference_mode()
def _in_one_copy(features: list[Tensor]) -> list[np.ndarray]:
    """Return matrices of a device as arrays, which are copied together."""
    if not features:
        return []
    sizes = [len(matrix) for matrix in features]
    return [matrix.numpy() for matrix in torch.cat(features).cpu().split(sizes)]
