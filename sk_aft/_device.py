"""Where computations run."""

from __future__ import annotations

import torch


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
    """
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
