"""Which weights of a network are trained, and at which rates.

A network that is fine-tuned has ``training_defaults``, ``head``, ``layers`` (its body, from the
input to the output) and the arguments ``head_lr_factor``, ``layer_decay`` and ``n_frozen_layers``.
All weights of any other network, such as a user's own, have the same rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

from torch import nn

from sk_aft.modules._training_defaults import TrainingDefaults


def freeze_layers(module: nn.Module) -> None:
    """Freeze the first ``n_frozen_layers`` of a network's layers.

    Parameters
    ----------
    module : nn.Module
        The network.

    Raises
    ------
    ValueError
        If it does not have so many layers.
    """
    n_frozen, n_layers = n_frozen_layers(module), len(_layers(module))
    if not isinstance(n_frozen, Integral) or not 0 <= int(n_frozen) <= n_layers:
        raise ValueError(
            f"n_frozen_layers={n_frozen!r}, but {type(module).__name__} has {n_layers} layers: set "
            f"module__n_frozen_layers to an integer between 0 and {n_layers}."
        )
    for layer in _frozen_layers(module):
        layer.requires_grad_(False)
    keep_frozen_statistics(module)


def keep_frozen_statistics(module: nn.Module) -> None:
    """Put normalisation in frozen layers into evaluation mode.

    Otherwise its running statistics would change in training.

    Parameters
    ----------
    module : nn.Module
        The network, in training mode.
    """
    for layer in _frozen_layers(module):
        for part in layer.modules():
            if getattr(part, "track_running_stats", False):
                part.eval()


def trained_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return names and weights that the optimizer gets: all except those that are frozen.

    Parameters
    ----------
    module : nn.Module
        The network.

    Returns
    -------
    named : list of (str, Parameter)
        In the order of ``named_parameters``.
    """
    # Callbacks may unfreeze weights of a user's own network, so the optimizer gets all of them.
    has_layers = bool(_layers(module))
    return [
        (name, parameter)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad or not has_layers
    ]


def parameter_groups(
    module: nn.Module, lr: float, weight_decay: float | None
) -> list[dict[str, Any]]:
    """Return the groups of weights that an optimizer gets.

    Layer i of n has the rate ``lr * layer_decay ** (n - 1 - i)``, and everything outside the layers
    ``lr * head_lr_factor``. Weights with fewer than two dimensions, such as biases and those of
    normalisation, do not decay.

    Parameters
    ----------
    module : nn.Module
        The network.
    lr : float
        Learning rate of the last layer.
    weight_decay : float or None
        Weight decay; None is the optimizer's default.

    Returns
    -------
    groups : list of dict
        A single one, with neither a rate nor a weight decay, if the network has no layers.
    """
    parameters = [parameter for _, parameter in trained_parameters(module)]
    if not _layers(module):
        return [{"params": parameters}]
    rates = dict(_rates_of_layers(module, lr))
    rate_of_rest = lr * _setting(module, "head_lr_factor")
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in parameters:
        key = (rates.get(parameter, rate_of_rest), parameter.ndim >= 2)
        members.setdefault(key, []).append(parameter)
    return [
        {"params": group, "lr": rate, **(decay if decays else {"weight_decay": 0.0})}
        for (rate, decays), group in members.items()
    ]


def _rates_of_layers(module: nn.Module, lr: float) -> Iterator[tuple[nn.Parameter, float]]:
    """Yield the weights of the layers and their rates; a shared weight has the lowest one."""
    layer_decay = _setting(module, "layer_decay")
    for n_above, layer in enumerate(reversed(_layers(module))):
        for parameter in layer.parameters():
            yield parameter, lr * layer_decay**n_above


def _setting(module: nn.Module, name: str) -> float:
    """Return an argument of the network, by default that of its training defaults."""
    value: Any = getattr(module, name, None)
    return getattr(module.training_defaults, name) if value is None else value


def _layers(module: nn.Module) -> list[nn.Module]:
    # Many networks have an attribute of this name; those without defaults mean something else.
    is_fine_tuned = isinstance(getattr(module, "training_defaults", None), TrainingDefaults)
    return list(getattr(module, "layers", ())) if is_fine_tuned else []


def n_frozen_layers(module: nn.Module) -> Any:
    """Return the argument of this name; 0 if the network has no layers."""
    return getattr(module, "n_frozen_layers", 0) if _layers(module) else 0


def _frozen_layers(module: nn.Module) -> list[nn.Module]:
    return _layers(module)[: n_frozen_layers(module)]
