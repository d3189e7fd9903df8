"""Image models of timm that the user has built, with timm's preprocessing."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from sk_aft._data._resize import height_and_width
from sk_aft._data._rows import Rows
from sk_aft.backbones._fingerprint import module_digest
from sk_aft.backbones._image import ImageBackbone, run_on_images
from sk_aft.backbones._loaded_models import LoadedModel
from sk_aft.backbones._network import Network
from sk_aft.backbones._timm import (
    NEEDS_NUMBERS,
    KnownNetwork,
    Pooled,
    PooledMaps,
    as_json,
    prepared,
    run_once,
)
from sk_aft.backbones._torch import borrowed
from sk_aft.backbones._torchvision import on_meta


class TimmObject(LoadedModel, ImageBackbone):
    """An image model of timm that the user has built; its features are those of `TimmBackbone`.

    Parameters
    ----------
    model : torch.nn.Module
        With or without a classifier, which is not used. Its weights are used as they are.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        config = getattr(model, "pretrained_cfg", None) or {}
        self.name = config.get("architecture") or self.name

    def settings(self) -> dict[str, Any]:
        """Return the preprocessing, and the attributes of layers, such as the pooling."""
        return {
            "images": {key: as_json(value) for key, value in self._known.images.items()},
            "attributes": module_digest(self.model),
        }

    @property
    def n_features_out(self) -> int:
        """Width of the pooled vector."""
        return self._known.n_features

    @property
    def n_layers(self) -> int | None:
        """Number of the last of timm's ``feature_info``, None if timm cannot return the others."""
        return len(self._known.widths) or None

    def layer_width(self, layer: int) -> int:
        """Return the number of channels of a layer's map, or of a patch's token."""
        return self._known.widths[layer]

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if images cannot be read, or the model returns no vector."""
        super().check_rows(rows, names)
        _ = self._known

    def load(self, device: torch.device) -> Any:
        """Return the model, which is loaded."""
        return self.model

    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> torch.Tensor:
        """Make each image as timm does for evaluation."""
        return prepared(self, self._known, rows, indices)

    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Run the model on the images, batch by batch."""
        dtype = next(self.model.parameters()).dtype
        with borrowed(self.model, device):
            network = Network(
                Pooled(self.model),
                device,
                n_rows_worth_export=sys.maxsize,  # the weights may change
                select=partial(PooledMaps, self.model, len(self._known.widths)),
                n_layers=self.n_layers,
            ).of_layers(layers)
            return run_on_images(
                network, lambda some: self.to_tensor(rows, some).to(dtype), len(rows), batch_size
            )

    @cached_property
    def _known(self) -> KnownNetwork:
        """Sizes and preprocessing, which need no numbers."""
        built_for = getattr(getattr(self.model, "patch_embed", None), "img_size", None)
        size = None if built_for is None else height_and_width(built_for)
        try:
            return run_once(self.name, on_meta(self.model), size)
        except NEEDS_NUMBERS:  # a few networks compute with their buffers
            return run_once(self.name, copy.deepcopy(self.model).cpu(), size)


def is_model_of_timm(module: Any) -> bool:
    """Return whether this is an image model of timm; a user's subclass is not.

    timm is not imported.
    """
    if re.fullmatch(r"timm\.models\.\w+", type(module).__module__) is None:
        return False
    return all(hasattr(module, part) for part in ("forward_features", "forward_head"))
