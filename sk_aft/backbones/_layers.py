"""Which layers of a model give features, and a backbone that computes several in one pass."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch

from sk_aft._data._rows import Rows
from sk_aft.backbones._base import Backbone


def check_layers(layers: Any) -> None:
    """Raise ValueError unless ``layers`` is "last", "auto" or a list of numbers."""
    if isinstance(layers, str) and layers in ("last", "auto"):
        return
    is_list = isinstance(layers, (list, tuple, np.ndarray))
    if is_list and len(layers) and all(map(_is_whole, layers)):
        return
    raise ValueError(
        f"layers={layers!r}: expected 'last', 'auto' or a list of layer numbers, such as [4, -1]."
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def layers_to_store(backbone: Backbone, layers: Any) -> tuple[int, ...]:
    """Return the numbers of the layers that are computed and stored side by side.

    With "last" they include the middle layer, so that a later "auto" needs no other pass.

    Parameters
    ----------
    backbone : Backbone
        The model.
    layers : {"last", "auto"} or list of int
        As checked by `check_layers`.

    Returns
    -------
    numbers : tuple of int
        Empty for the model's own output alone.

    Raises
    ------
    ValueError
        If the model has no such layers, or one is given twice.
    """
    n_layers, middle = backbone.n_layers, backbone.middle_layer
    if isinstance(layers, str):
        return () if n_layers is None or middle is None else (middle, n_layers)
    given = [int(number) for number in layers]
    if n_layers is None:
        raise ValueError(
            f"layers={given} names layers, but model {backbone.name!r} "
            f"({type(backbone).__name__}) has a single output: use layers='auto' or 'last', or an "
            "extractor of its own for this model."
        )
    numbers = tuple(number % (n_layers + 1) for number in given)
    is_known = all(-n_layers - 1 <= number <= n_layers for number in given)
    if not is_known or len(set(numbers)) < len(numbers):
        fault = "names a layer twice" if is_known else "names a layer that does not exist"
        raise ValueError(
            f"layers={given} {fault}: model {backbone.name!r} has {n_layers} layers. "
            f"Expected different numbers from 0 to {n_layers}, or from -1, the last, to "
            f"{-n_layers - 1}."
        )
    return () if numbers == (n_layers,) else numbers


class LayersOfModel(Backbone):
    """Several layers of a model side by side, computed in one pass.

    Parameters
    ----------
    backbone : Backbone
        The model, which is loaded once for all of its layers.
    layers : tuple of int
        Numbers of layers, as `layers_to_store` returns them.
    """

    def __init__(self, backbone: Backbone, layers: tuple[int, ...]) -> None:
        self.backbone = backbone
        self.layers = layers
        self.name = backbone.name
        self.kind = backbone.kind
        self.batch_size = backbone.batch_size

    def fingerprint(self) -> dict[str, Any]:
        """Return the model's fingerprint and the layers."""
        return {**self.backbone.fingerprint(), "layers": list(self.layers)}

    @property
    def is_persistent(self) -> bool:
        """Whether the model's fingerprint identifies it in other processes and later runs."""
        return self.backbone.is_persistent

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Return the layers side by side."""
        return self.backbone.embed_layers(rows, self.layers, batch_size=batch_size, device=device)

    def prepare(self, device: torch.device) -> None:
        """Load the model."""
        self.backbone.prepare(device)

    def note(self, rows: Rows) -> str | None:
        """Return what a user should know of rows that the model has run."""
        return self.backbone.note(rows)
