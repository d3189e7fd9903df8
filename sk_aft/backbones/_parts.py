"""The parts of an image network: its classifier, and what runs before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

# Classifiers in the middle of Inception and GoogLeNet, whose outputs they return in training.
AUXILIARY = ("AuxLogits", "aux1", "aux2")
# Not their subclasses, which are blocks.
_STAGES = (nn.Sequential, nn.ModuleList)


def last_linear(network: nn.Module) -> str | None:
    """Return the name of the last linear layer, None if there is none."""
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    return names[-1] if names else None


def replace_layer(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of the one of this name."""
    parent, _, own_name = name.rpartition(".")
    setattr(network.get_submodule(parent), own_name, layer)


def drop_auxiliary(network: Any) -> None:
    """Remove the classifiers in the middle of Inception and GoogLeNet."""
    for name in AUXILIARY:
        if hasattr(network, name):
            setattr(network, name, None)
            network.aux_logits = False


def parts_of(network: nn.Module) -> list[nn.Module]:
    """Return the children of a network that have weights, in the order in which they run.

    The children of a sequential one take its place. So do those of a child that is most of the
    network, such as the encoder of a vision transformer.
    """
    n_weights = sum(weights.numel() for weights in network.parameters())
    return list(_parts(network, n_weights))


def _parts(network: nn.Module, n_weights: int) -> Iterator[nn.Module]:
    """Yield the children with weights, those of sequential ones in their place.

    So does a child that is most of the network, such as the encoder of a vision transformer.
    """
    for child in network.children():
        n_own = sum(weights.numel() for weights in child.parameters())
        if type(child) in _STAGES:
            yield from _blocks(child)
        elif 2 * n_own > n_weights:
            yield from list(_parts(child, n_weights)) or [child]
        elif n_own:
            yield child


def _blocks(stage: nn.Module) -> Iterator[nn.Module]:
    for child in stage.children():
        if type(child) in _STAGES:
            yield from _blocks(child)
        elif any(True for _ in child.parameters()):
            yield child
