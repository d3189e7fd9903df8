"""The penultimate features of a network that returns only logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class PenultimateFeatures:
    """Record the input of the last linear layer that a network runs.

    Parameters
    ----------
    module : torch.nn.Module
        A network with at least one ``torch.nn.Linear``.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sk_aft.modules import PenultimateFeatures
    >>> network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    >>> features = PenultimateFeatures(network)
    >>> logits = network(torch.zeros(3, 4))
    >>> features.take().shape
    torch.Size([3, 5])
    >>> features.remove()
    """

    def __init__(self, module: nn.Module) -> None:
        self._input: Tensor | None = None
        self._hooks = [
            layer.register_forward_pre_hook(self._record, with_kwargs=True)
            for layer in module.modules()
            if isinstance(layer, nn.Linear)
        ]

    def take(self) -> Tensor:
        """Return the input of the last linear layer that ran, (B, n_features), and drop it.

        Raises
        ------
        ValueError
            If no linear layer ran since the last call.
        """
        if self._input is None:
            raise ValueError(
                "The module returned only logits and runs no torch.nn.Linear whose input could "
                "be taken as its features: return (logits, features) from forward."
            )
        features, self._input = self._input, None
        return features.flatten(1)

    def remove(self) -> None:
        """Remove the hooks from the network."""
        while self._hooks:
            self._hooks.pop().remove()

    def __getstate__(self) -> dict[str, Any]:
        # A network may be copied while its hooks are registered. The recorded input is left out:
        # it belongs to the current batch.
        return {**vars(self), "_input": None}

    def _record(self, layer: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._input = positional[0] if positional else named["input"]
