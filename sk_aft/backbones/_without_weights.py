"""Networks without their weights, to learn the widths of their layers."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# Layers create their weights and buffers with these. Some networks compute with the numbers of
# torch.arange and others while they are built.
_OF_LAYERS = (torch.empty, torch.ones, torch.zeros)


class without_weights(TorchFunctionMode):
    """Build networks on the device "meta", on which tensors have a shape but take no memory.

    Move the network to that device afterwards: a few of its buffers may be elsewhere.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.backbones._without_weights import without_weights
    >>> with without_weights():
    ...     layer = torch.nn.Linear(1_000_000, 1_000_000)
    >>> layer.weight.device
    device(type='meta')
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch."""
        kwargs = dict(kwargs or {})
        if function in _OF_LAYERS and kwargs.get("device") is None:
            kwargs["device"] = torch.device("meta")
        return function(*args, **kwargs)
