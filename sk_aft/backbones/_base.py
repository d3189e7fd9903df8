"""The protocol of a foundation model: described first, loaded when rows have to be embedded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from sk_aft._rows import Rows


class Backbone(ABC):
    """A frozen model that turns rows into feature vectors.

    An instance is a description and cheap; the model is loaded at the first `embed` and dropped
    by `unload`. Pickles and scikit-learn clones hold or share the description, never the loaded
    model.

    Attributes
    ----------
    name : str
        Short name, used in feature names and messages.
    kind : {"text", "image", "numeric"} or None
        Rows it reads; None takes any.
    batch_size : int
        Rows a batch unless the user says otherwise.
    """

    name: str
    kind: str | None = None
    batch_size: int = 64

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return everything that determines the features, as JSON-serialisable values.

        Weights (their digest or their resolved revision), pooling, preprocessing. Never the
        batch size or the device.
        """

    @property
    def is_persistent(self) -> bool:
        """Whether the fingerprint is worth as much in another run as in this one."""
        return True

    def check_columns(self, rows: Rows, names: Any) -> None:  # noqa: B027 - most know none
        """Raise if a table's columns and their names, None without, are not the model's."""

    @property
    def n_features_out(self) -> int | None:
        """Width of the features where it is known without running the model."""
        return None

    @abstractmethod
    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Return the features of some rows.

        Parameters
        ----------
        rows : Rows
            Rows of the kind the model reads.
        batch_size : int
            Rows to run through the model at a time.
        device : torch.device
            Where to run it.

        Returns
        -------
        features : ndarray of shape (n_rows, n_features), float32
            One vector a row.
        """

    def unload(self) -> None:  # noqa: B027 - models without weights have nothing to drop
        """Free the model's memory; the next `embed` loads it again."""

    def __sklearn_clone__(self) -> Backbone:
        # Frozen: every clone may share it.
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class LoadedOnDemand(Backbone):
    """A backbone whose model is loaded from files."""

    _loaded: Any = None

    @abstractmethod
    def load(self, device: torch.device) -> Any:
        """Return the model, ready to run on ``device``."""

    def loaded(self, device: torch.device) -> Any:
        """Return the model, loading it if this is the first call for ``device``."""
        if self._loaded is None or self._loaded[0] != device:
            self._loaded = (device, self.load(device))
        return self._loaded[1]

    def unload(self) -> None:
        """Free the model's memory; the next `embed` loads it again."""
        self._loaded = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_loaded"}
