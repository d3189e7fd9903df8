"""Running models in 16-bit numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}

_is_on: ContextVar[bool] = ContextVar("is_on", default=False)


@contextmanager
def half_precision(device: torch.device, precision: str) -> Iterator[None]:
    """Run the torch modules of this thread in 16-bit numbers where these are precise enough.

    Weights are converted when they are used, so a user's model is not changed. Sums, norms and
    softmax stay in float32, as torch's autocast has it.

    Parameters
    ----------
    device : torch.device
        Where they run.
    precision : {"bfloat16", "float16"}
        Which numbers.
    """
    token = _is_on.set(True)
    try:
        with torch.autocast(device.type, dtype=HALF[precision]):
            yield
    finally:
        _is_on.reset(token)


def is_half_precision() -> bool:
    """Return whether this thread is within `half_precision`."""
    return _is_on.get()


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16, as far as torch can tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # since torch 2.11
    if device.type != "cpu" or capabilities is None:
        return True
    return any(has for name, has in capabilities().items() if "bf16" in name)
