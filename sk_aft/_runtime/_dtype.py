"""The default dtype of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Make float32 the default dtype, whatever the user has set with ``torch.set_default_dtype``.

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
