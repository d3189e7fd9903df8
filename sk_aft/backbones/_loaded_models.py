"""Models of texts or images that the user has loaded, identified by their weights."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch

from sk_aft.backbones._base import HoldsObjects
from sk_aft.backbones._fingerprint import describe_classes, is_library, tensors_digest
from sk_aft.store._process import process_token


class LoadedModel(HoldsObjects):
    """A model that the user has loaded, identified by its weights.

    Its weights may change between two calls, so nothing derived from them is kept. It runs in
    PyTorch, and is returned to its previous device and mode afterwards.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.name = type(model).__name__.lower()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what else determines the features, as JSON-serialisable values."""

    def fingerprint(self) -> dict[str, Any]:
        """Return digests of the weights and of what prepares the rows, and the settings."""
        layers = list(self.model.modules())
        configs = [layer.config for layer in layers if hasattr(layer, "config")]
        return {
            "type": self.name,
            "architecture": repr(self.model),
            "code": describe_classes(map(type, layers)),
            "weights": tensors_digest(self.model),
            "configurations": sorted({str(config) for config in configs}),
            "session": None if self.is_persistent else process_token(self.model),
            **self.settings(),
        }

    @property
    def is_persistent(self) -> bool:
        """Whether all layers are of a versioned package."""
        return all(is_library(type(layer).__module__) for layer in self.model.modules())

    def _held(self) -> list:
        return [self.model]
