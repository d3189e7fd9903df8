"""Where computations run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sk_aft._runtime._placement import placed_device

# Bytes of features that each process may keep in memory; more is read from disk in every epoch.
_KEPT_ON_A_CPU = 128 << 20


def resolve_device(device: str | torch.device | Sequence[str | torch.device]) -> torch.device:
    """Return the device that this process uses.

    Parameters
    ----------
    device : str, torch.device, or list or tuple of these
        "auto" is a CUDA GPU, else an Apple GPU, else the CPU. Processes take the devices of a
        list in turn; see `placed_device`.

    Returns
    -------
    device : torch.device
        The device to use.

    Raises
    ------
    ValueError
        If a device is not available, or the list is empty or contains "auto".
    """
    if isinstance(device, (list, tuple)):
        check_device(device)
        return _available(placed_device(device_names(device)))
    if device != "auto":
        return _available(device)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def check_device(device: Any) -> None:
    """Raise ValueError unless a device, or each device of a list, is available.

    Of a list, no device is chosen.
    """
    if not isinstance(device, (list, tuple)):
        resolve_device(device)
        return
    if not len(device):
        raise ValueError(f"device={device!r} names no device: give at least one, such as ['cpu'].")
    for one in device:
        if not isinstance(one, (str, torch.device)) or one == "auto":
            raise ValueError(
                f"device={device!r}: expected names of devices, such as ['cuda:0', 'cuda:1'], got "
                f"{one!r} among them. device='auto' alone uses the fastest available device."
            )
        if not _is_visible_gpu(one):
            _available(one)


def device_names(device: Any) -> str | tuple[str, ...]:
    """Return the name of a device, or the names of the devices of a list."""
    return tuple(map(str, device)) if isinstance(device, (list, tuple)) else str(device)


def _is_visible_gpu(device: str | torch.device) -> bool:
    """Whether this is a CUDA GPU that exists; it is not touched, which would take memory of it."""
    try:
        parsed = torch.device(device)
    except RuntimeError:
        return False
    return (
        parsed.type == "cuda"
        and torch.cuda.is_available()
        and (parsed.index or 0) < torch.cuda.device_count()
    )


def _available(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={str(device)!r} cannot be used here: {_first_sentence(error)}. "
            "device='auto' uses the fastest available device."
        ) from error


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].partition(". ")[0].rstrip(".")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the network's device; copies to a GPU are asynchronous."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def has_room(device: torch.device, n_bytes: int, on_a_cpu: int = _KEPT_ON_A_CPU) -> bool:
    """Whether ``n_bytes`` may be kept on a device.

    At least as much has to stay free on a GPU; on a CPU, ``on_a_cpu`` bytes is the limit.
    """
    if device.type == "cuda":
        return 2 * n_bytes <= torch.cuda.mem_get_info(device)[0]
    if device.type == "mps" and hasattr(torch.mps, "recommended_max_memory"):
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return 2 * n_bytes <= free
    return device.type == "cpu" and n_bytes <= on_a_cpu
