"""Where computations run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

# Layers that do little work for each of their weights.
_LIGHT_LAYERS = (nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.BatchNorm1d)
_LARGEST_LIGHT = 1_000_000
# Reading the disk anew for each epoch is for what memory may lack; every process may keep as much.
_KEPT_ON_A_CPU = 128 << 20

_changing = threading.Lock()
_n_changed = 0
_n_threads = 1


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn ``"auto"`` into the fastest device there is.

    Parameters
    ----------
    device : str or torch.device
        "auto" takes a CUDA GPU, else an Apple GPU, else the CPU.

    Returns
    -------
    device : torch.device
        The device to use.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device={str(device)!r} cannot be used here: {str(error).splitlines()[0]}. "
                "device='auto' takes the fastest there is."
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor where the network is; a GPU fetches it while other work goes on."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def has_room(device: torch.device, n_bytes: int) -> bool:
    """Whether so many bytes may stay on a device, and leave it as much for other things."""
    if device.type == "cuda":
        return 2 * n_bytes <= torch.cuda.mem_get_info(device)[0]
    if device.type == "mps" and hasattr(torch.mps, "recommended_max_memory"):
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return 2 * n_bytes <= free
    return device.type == "cpu" and n_bytes <= _KEPT_ON_A_CPU


@contextmanager
def fitting_threads(module: nn.Module) -> Iterator[None]:
    """Run a small network on one core, others on as many as torch would use.

    A step of a small perceptron or bag of words takes less time than waking up threads, and
    waiting for each other on cores that something else uses made it 10 times slower (measured
    on two cores). Convolutions, attention and large matrices are worth sharing.
    """
    layers = [
        layer for layer in module.modules() if next(layer.parameters(False), None) is not None
    ]
    n_dense = sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))
    is_light = all(isinstance(layer, _LIGHT_LAYERS) for layer in layers)
    with one_thread() if is_light and n_dense <= _LARGEST_LIGHT else nullcontext():
        yield


@contextmanager
def one_thread() -> Iterator[int]:
    """Run PyTorch on one core and say how many it would have used.

    The number is one for all threads of this process. So it is known from the first of those that
    changed it, and whoever ends puts it back.
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
def flushed_denormals() -> Iterator[None]:
    """Take numbers too small for full precision for zero on the CPU, where they may be slow.

    Trained weights and moments decay into them, and they matter to nothing. Holds for this thread
    and those that start meanwhile; threads of torch that run already stay as they are.
    """
    smallest = torch.tensor(torch.finfo(torch.float32).tiny)
    was_flushing = (smallest / 2).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)
