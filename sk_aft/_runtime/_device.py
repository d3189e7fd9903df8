"""Where computations run."""

from __future__ import annotations

import torch
from torch import Tensor

# Bytes of features that each process may keep in memory; more is read from disk in every epoch.
_KEPT_ON_A_CPU = 128 << 20


def resolve_device(device: str | torch.device) -> torch.device:
    """Resolve ``"auto"`` to the fastest available device.

    Parameters
    ----------
    device : str or torch.device
        "auto" is a CUDA GPU, else an Apple GPU, else the CPU.

    Returns
    -------
    device : torch.device
        The device to use.

    Raises
    ------
    ValueError
        If the device is not available.
    """
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device={str(device)!r} cannot be used here: {_first_sentence(error)}. "
                "device='auto' uses the fastest available device."
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


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
