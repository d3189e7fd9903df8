"""Full precision for transfer terms, even under mixed precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def in_full_precision(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Convert the inputs of a method's ``forward`` to float32, or to float64 if one of them is.

    Centred features of one batch differ in digits that 16-bit floats drop, and their norms may
    underflow, so autocast is disabled inside.

    Parameters
    ----------
    forward : callable
        Maps student features (a tensor or a tuple of tensors), foundation features and, for
        some methods, logits to a scalar.

    Returns
    -------
    forward : callable
        The same function, with its inputs converted.
    """

    @wraps(forward)
    def in_full(self: nn.Module, student: Any, foundation: Tensor, *logits: Tensor) -> Tensor:
        parts = student if isinstance(student, tuple) else (student,)
        is_double = any(part.dtype == torch.float64 for part in (*parts, foundation, *logits))
        dtype = torch.float64 if is_double else torch.float32
        with torch.autocast(foundation.device.type, enabled=False):
            parts = tuple(part.to(dtype) for part in parts)
            rest = [part.to(dtype) for part in (foundation, *logits)]
            return forward(self, parts if isinstance(student, tuple) else parts[0], *rest)

    return in_full


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a parameter in float32; float64 stays float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class Linear(nn.Linear):
    """A linear layer that computes in the precision of its input."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mapped rows."""
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        return F.linear(inputs, self.weight.to(inputs.dtype), bias)
