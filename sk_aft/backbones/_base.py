"""The protocol of a foundation model, which is loaded only when rows have to be embedded."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch

from sk_aft._data._rows import Rows
from sk_aft.backbones._tunable import TunableModel
from sk_aft.store._process import inherit, process_state


class Backbone(ABC):
    """A frozen model that maps rows (samples) to feature vectors.

    An instance is a cheap description. The model is loaded at the first `embed` and freed by
    `unload`. A pickle holds the description without the loaded model, and a scikit-learn clone
    is the same instance.

    Attributes
    ----------
    name : str
        Short name, used in feature names and messages.
    kind : {"text", "image", "numeric"} or None
        Kind of rows that it reads; None reads any.
    batch_size : int
        Default number of rows in a batch.
    reads_pairs : bool
        Whether a model of texts reads two texts together, too: rows of kind "pair".
    runs_in_torch : bool
        Whether the ``precision`` of an extractor applies to it; a model that does not run in
        PyTorch computes in a precision of its own.
    """

    name: str
    kind: str | None = None
    reads_pairs: bool = False
    runs_in_torch: bool = True
    batch_size: int = 64
    # Where the middle layer is, as a fraction of the layers.
    _middle: float = 2 / 3

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return everything that determines the features, as JSON-serialisable values.

        These are the weights (their digest or resolved revision), the pooling and the
        preprocessing. The batch size and the device are excluded.
        """

    @property
    def is_persistent(self) -> bool:
        """Whether the fingerprint identifies the model in other processes and later runs."""
        return True

    def of_kind(self, kind: str) -> Backbone:
        """Return the part of the model that reads rows of a kind, if each kind has its own."""
        del kind
        return self

    def check_rows(self, rows: Rows, names: Any) -> None:  # noqa: B027 - most models read any
        """Raise if the model cannot read such rows.

        Parameters
        ----------
        rows : Rows
            Rows of the kind the model reads.
        names : sequence of str or None
            The names of a table's columns, if it has names.
        """

    @property
    def licence(self) -> str | None:
        """Licence of the weights, by its SPDX identifier if it has one; None if it is unknown."""
        return None

    @property
    def n_features_out(self) -> int | None:
        """Width of the features if it is known without running the model, else None."""
        return None

    @abstractmethod
    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Return the features of some rows.

        Parameters
        ----------
        rows : Rows
            Rows of the kind the model reads.
        batch_size : int
            Number of rows in a batch.
        device : torch.device
            Device that the model runs on.

        Returns
        -------
        features : ndarray of shape (n_rows, n_features), float32
            One vector for each row.
        """

    @property
    def n_layers(self) -> int | None:
        """Number of the last layer, whose features `embed` returns; None without other layers.

        It is known without loading the model.
        """
        return None

    @property
    def middle_layer(self) -> int | None:
        """Number of the layer that ``layers="auto"`` adds to the last; None without layers."""
        n_layers = self.n_layers
        return min(round(self._middle * n_layers), n_layers - 1) if n_layers else None

    def layer_width(self, layer: int) -> int:
        """Return the width of the features of a layer before the last."""
        raise NotImplementedError

    def embed_layers(
        self, rows: Rows, layers: Sequence[int], *, batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Return the features of several layers side by side, computed in one pass.

        Parameters
        ----------
        rows : Rows
            As for `embed`.
        layers : sequence of int
            Numbers from 0, the input of the first layer, to ``n_layers``, the model's own output.
        batch_size, device
            As for `embed`.

        Returns
        -------
        features : ndarray of shape (n_rows, n_features), float32
            One vector for each row.
        """
        raise NotImplementedError

    def prepare(self, device: torch.device) -> None:  # noqa: B027 - not all models are loaded
        """Load the model, so that an error in loading is not mistaken for a row's fault."""

    def note(self, rows: Rows) -> str | None:
        """Return what a user should know of rows that the model has run, None for nothing."""
        return None

    def unload(self) -> None:  # noqa: B027 - models without weights free nothing
        """Free the model's memory; the next `embed` loads it again."""

    @property
    def original(self) -> Backbone:
        """The model before it was fine-tuned; the same if it was not."""
        return self

    def check_tunable(self) -> None:
        """Raise if the model cannot be fine-tuned, as far as is known before it is loaded.

        Raises
        ------
        ValueError
            If the model cannot be fine-tuned.
        """
        if type(self).tunable is not Backbone.tunable:
            return
        raise ValueError(
            f"Model {self.name!r} ({type(self).__name__}) cannot be fine-tuned: expected a text "
            "model with a transformer, such as 'minilm', 'st:NAME' or 'hf:NAME', or an image model "
            "such as 'effnet-lite0'. FoundationFeatureExtractor takes it as it is."
        )

    def tunable_copy(self) -> Backbone:
        """Return a copy whose weights may change, for `tunable`."""
        raise NotImplementedError

    def tunable(self, device: torch.device) -> TunableModel:
        """Return the loaded network of a `tunable_copy`, which `embed` runs, too.

        Parameters
        ----------
        device : torch.device
            Where it is trained.

        Returns
        -------
        model : TunableModel
            Its network, layers and how rows become tensors.

        Raises
        ------
        ValueError
            If the model cannot be fine-tuned.
        """
        raise NotImplementedError

    def __sklearn_clone__(self) -> Backbone:
        # The model is frozen, so clones share it.
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class ModelFaultError(ValueError):
    """A fault of the model, which is not looked for in single rows."""


class FeatureShapeError(ModelFaultError):
    """A model returned something else than a matrix with as many rows as it was given."""


def as_matrix(features: Any, n_rows: int, name: str) -> np.ndarray:
    """Return what a model returned for ``n_rows`` rows as an array.

    Parameters
    ----------
    features : array-like, sparse matrix or Tensor
        What it returned.
    n_rows : int
        Number of rows that it was given.
    name : str
        Name of the model, for the error message.

    Returns
    -------
    matrix : ndarray of shape (n_rows, n_features), float32
        The features.

    Raises
    ------
    FeatureShapeError
        If the shape is another one.
    """
    if isinstance(features, torch.Tensor):
        features = features.detach().cpu().float()
    if scipy.sparse.issparse(features):
        features = features.toarray()
    try:
        matrix = np.asarray(features, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise FeatureShapeError(
            f"{name} did not return a matrix of numbers for {n_rows} rows ({error}): expected "
            f"({n_rows}, n_features) numbers."
        ) from error
    if matrix.ndim != 2 or len(matrix) != n_rows:
        hint = ""
        if matrix.shape == (n_rows,):
            hint = (
                " One number per row has to be a column: `.reshape(-1, 1)`, as in "
                "`lambda rows: model.predict(rows).reshape(-1, 1)`."
            )
        raise FeatureShapeError(
            f"{name} returned an array of shape {matrix.shape} for {n_rows} rows: expected "
            f"({n_rows}, n_features).{hint}"
        )
    return matrix


class LoadedOnDemand(Backbone):
    """A backbone whose model is loaded from files."""

    _loaded: Any = None

    @abstractmethod
    def load(self, device: torch.device) -> Any:
        """Return the model on ``device``, ready to run."""

    def loaded(self, device: torch.device) -> Any:
        """Return the model on ``device``; loads it at the first call."""
        if self._loaded is None or self._loaded[0] != device:
            self._loaded = (device, self.load(device))
        return self._loaded[1]

    def prepare(self, device: torch.device) -> None:
        """Load the model if it is not loaded yet."""
        self.loaded(device)

    def unload(self) -> None:
        """Free the model's memory; the next `embed` loads it again."""
        self._loaded = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_loaded"}

    def _unloaded_copy(self) -> Backbone:
        """Return a copy that loads a model of its own."""
        other = copy.copy(self)  # by __getstate__, so without the loaded model
        other._loaded = None
        return other


class LayeredModel(Backbone):
    """A backbone with layers, which runs the model in one place."""

    @abstractmethod
    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Return layers side by side; the model's own output if there are none."""

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Return the model's own output."""
        return self.run(rows, (), batch_size, device)

    def embed_layers(
        self, rows: Rows, layers: Sequence[int], *, batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Return several layers side by side, computed in one pass."""
        return self.run(rows, layers, batch_size, device)


class HoldsObjects(Backbone):
    """A backbone that holds objects of the user, which its pickles hold, too."""

    @abstractmethod
    def _held(self) -> list:
        """Return objects that a worker process has to recognise by their identity."""

    def __getstate__(self) -> dict[str, Any]:
        held = [] if self.is_persistent else self._held()
        return {**vars(self), "_session": process_state(held)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        inherited = state.pop("_session")
        vars(self).update(state)
        inherit(self._held(), inherited)
