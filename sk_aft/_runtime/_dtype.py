"""The type of numbers that torch makes unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Let new tensors be float32, whatever ``torch.set_default_dtype`` was told before.

    Networks are built and run in float32; one built in float64 could not read their inputs.
    """
    former = torch.get_default_dtype()
    if former == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(former)
