"""What a saved estimator holds, and how it becomes one again."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from sklearn.base import BaseEstimator
from skorch.history import History
from torch import nn

from sk_aft._net._training import OF_TRAINING
from sk_aft._plain_modules import with_tensors, without_tensors
from sk_aft._runtime._device import resolve_device

if TYPE_CHECKING:
    from sk_aft._net._student_net import StudentNet

# Attributes that exist while a network is trained, or are made anew.
_NOT_SAVED = (
    *("optimizer_", "callbacks_", "device_", "_mixed_precision", "_compiled"),
    *("_example", "_feature_slices", "_column_slices", "_began_with"),
    *OF_TRAINING,
)


def saved_state(net: StudentNet) -> dict[str, Any]:
    """Return what is needed to predict and to go on, in types that need no pickle to be read.

    The optimizer's state would be as big as two more networks.
    """
    state = dict(BaseEstimator.__getstate__(net))
    if net._is_training:  # saved by a callback, between two epochs
        state["n_iter_"] = len(net.history)
    for name in _NOT_SAVED:
        state.pop(name, None)
    if net.callbacks:
        state["callbacks"] = [_without_scheduler(callback) for callback in net.callbacks]
    if "history_" in state:
        state["history_"] = list(state["history_"])
    return {name: _saved(value) for name, value in state.items()}


def restore(net: StudentNet, state: dict[str, Any]) -> None:
    """Undo `saved_state`, on the device that there is."""
    restored = {name: _restored(value) for name, value in state.items()}
    BaseEstimator.__setstate__(net, restored)
    if hasattr(net, "module_"):
        net.history_ = History(net.history_ or [])
        net.device_ = _available(net.device)
        for name in ("module_", "criterion_", "transfer_"):
            if isinstance(vars(net).get(name), nn.Module):
                vars(net)[name].to(net.device_)


def _without_scheduler(callback: Any) -> Any:
    """Return a callback without the optimizer that a scheduler of torch holds."""
    if isinstance(callback, tuple):
        return (callback[0], _without_scheduler(callback[1]))
    if getattr(callback, "lr_scheduler_", None) is None or isinstance(callback, type):
        return callback
    callback = copy.copy(callback)
    callback.lr_scheduler_ = None
    return callback


def _saved(value: Any) -> Any:
    return without_tensors(value) if isinstance(value, nn.Module) else value


def _restored(value: Any) -> Any:
    return with_tensors(value) if isinstance(value, nn.Module) else value


def _available(device: Any) -> torch.device:
    """Return the device to use in this process, which may lack the one that was trained on."""
    try:
        return resolve_device(device)
    except ValueError:
        return torch.device("cpu")
