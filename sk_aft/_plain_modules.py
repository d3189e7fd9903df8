"""Networks without tensors, as they are saved: NumPy arrays need no pickle and no device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_BITS = {1: torch.uint8, 2: torch.int16}


class SavedTensor:
    """Stands for a tensor of a network.

    Parameters
    ----------
    values : ndarray
        Its numbers; bits where NumPy has no such type.
    dtype : str
        Its type, such as "float32".
    is_parameter : bool
        Whether it is a parameter, or a buffer.
    requires_grad : bool
        Whether it is learned.
    """

    def __init__(
        self, values: np.ndarray, dtype: str, is_parameter: bool, requires_grad: bool
    ) -> None:
        self.values = values
        self.dtype = dtype
        self.is_parameter = is_parameter
        self.requires_grad = requires_grad

    @classmethod
    def of(cls, tensor: Tensor) -> SavedTensor:
        """Return what stands for a tensor."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        plain = tensor.detach().cpu().contiguous()
        try:
            values = plain.numpy().copy()
        except TypeError:  # bfloat16 and the like
            values = plain.view(_BITS[tensor.element_size()]).numpy().copy()
        return cls(values, dtype, isinstance(tensor, nn.Parameter), tensor.requires_grad)

    def tensor(self) -> Tensor:
        """Return the tensor, on the CPU."""
        tensor = torch.from_numpy(np.array(self.values)).view(getattr(torch, self.dtype))
        return nn.Parameter(tensor, self.requires_grad) if self.is_parameter else tensor


def without_tensors(module: nn.Module) -> nn.Module:
    """Return a copy of a network that holds a `SavedTensor` for each tensor of its layers."""
    saved = {
        id(value): SavedTensor.of(value)
        for value in _held(module)
        if isinstance(value, Tensor) and not is_lazy(value)
    }
    # Copying takes what memo has for a thing: tensors that are shared stay so.
    return copy.deepcopy(module, memo=dict(saved))


def with_tensors(module: nn.Module) -> nn.Module:
    """Undo `without_tensors`."""
    saved = {id(value): value.tensor() for value in _held(module) if isinstance(value, SavedTensor)}
    return copy.deepcopy(module, memo=dict(saved)) if saved else module


def _held(module: nn.Module) -> Iterator[Any]:
    """Yield parameters, buffers and other attributes of all layers."""
    for layer in module.modules():
        for values in (layer._parameters, layer._buffers, vars(layer)):
            yield from values.values()
