"""Saves students as NumPy arrays, which need no pickle of torch and no device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from skorch.history import History
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sk_aft._runtime._device import check_device, resolve_device
from sk_aft._student._state import StudentState

_BITS = {1: torch.uint8, 2: torch.int16}


class SavedTensor:
    """Stands for a tensor of a network.

    Parameters
    ----------
    values : ndarray
        Its numbers; their bits if NumPy has no such type.
    dtype : str
        Its type, such as "float32".
    is_parameter : bool
        Whether it is a parameter rather than a buffer.
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
        """Return the saved form of a tensor."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        plain = tensor.detach().cpu().contiguous()
        try:
            values = plain.numpy().copy()
        except TypeError:  # for example bfloat16
            values = plain.view(_BITS[tensor.element_size()]).numpy().copy()
        return cls(values, dtype, isinstance(tensor, nn.Parameter), tensor.requires_grad)

    def tensor(self) -> Tensor:
        """Return the tensor, on the CPU."""
        tensor = torch.from_numpy(np.array(self.values)).view(getattr(torch, self.dtype))
        return nn.Parameter(tensor, self.requires_grad) if self.is_parameter else tensor


def saved_student(student: StudentState) -> StudentState:
    """Return a student without tensors, device and skorch types."""
    return replace(
        student,
        module=_saved(student.module),
        criterion=_saved(student.criterion),
        transfer=_saved(student.transfer),
        transfer_method=saved_value(student.transfer_method),
        history=list(student.history),
        device=None,
    )


def restored_student(student: StudentState, device: Any) -> StudentState:
    """Undo `saved_student`, on a device that is available."""
    available = available_device(device)
    return replace(
        student,
        module=_restored(student.module, available),
        criterion=_restored(student.criterion, available),
        transfer=_restored(student.transfer, available),
        transfer_method=restored_value(student.transfer_method),
        history=History(student.history),
        device=available,
    )


def saved_value(value: Any) -> Any:
    """Return a parameter in its saved form: networks without tensors, others unchanged."""
    return without_tensors(value) if isinstance(value, nn.Module) else value


def restored_value(value: Any) -> Any:
    """Undo `saved_value`."""
    return with_tensors(value) if isinstance(value, nn.Module) else value


def without_optimizers(callbacks: list) -> list:
    """Return callbacks without the optimizer that a torch scheduler holds.

    Its state would be as large as two more networks.
    """
    return [_without_optimizer(callback) for callback in callbacks]


def without_tensors(module: nn.Module) -> nn.Module:
    """Return a copy of a network that holds a `SavedTensor` for each tensor of its layers."""
    saved = {
        id(value): SavedTensor.of(value)
        for value in _held(module)
        if isinstance(value, Tensor) and not is_lazy(value)
    }
    # deepcopy replaces each object by its entry in memo, so shared tensors stay shared.
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


def _saved(module: nn.Module | None) -> Any:
    return None if module is None else without_tensors(module)


def _restored(module: nn.Module | None, device: torch.device) -> nn.Module | None:
    return None if module is None else with_tensors(module).to(device)


def _without_optimizer(callback: Any) -> Any:
    if isinstance(callback, tuple):
        return (callback[0], _without_optimizer(callback[1]))
    if getattr(callback, "lr_scheduler_", None) is None or isinstance(callback, type):
        return callback
    callback = copy.copy(callback)
    callback.lr_scheduler_ = None
    return callback


def available_device(device: Any) -> torch.device:
    """Return the device to use in this process, which may lack the training device."""
    if isinstance(device, (list, tuple)):
        device = [one for one in device if _is_available(one)] or "cpu"
    return resolve_device(device) if _is_available(device) else torch.device("cpu")


def _is_available(device: Any) -> bool:
    try:
        check_device(device)
    except ValueError:
        return False
    return True
