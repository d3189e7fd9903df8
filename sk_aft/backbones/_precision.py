"""A foundation model in half precision, whose features are compared with those of float32."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from sk_aft._data._rows import Rows
from sk_aft._runtime._half_precision import half_precision, has_bfloat16
from sk_aft.backbones._base import Backbone, ModelFaultError

# As many rows of each model are compared, once in a process.
_ROWS_COMPARED = 32
# Smallest cosine of a row's features with those of float32, as measured: MiniLM has 0.99998 in
# bfloat16, and EfficientNet-Lite 0.9996 in float16, but between 0.90 and 0.99 in bfloat16.
SMALLEST_COSINE = 0.99

# How many rows of a backbone agreed, by precision and layers.
_n_compared: WeakKeyDictionary[Backbone, dict[tuple, int]] = WeakKeyDictionary()


class PrecisionError(ModelFaultError):
    """A model's features in half precision differ too much from those in float32."""


class InHalfPrecision(Backbone):
    """A model that runs in 16-bit numbers; its features are float32.

    The first 32 rows, and all whose features are not finite, also run in float32.

    Parameters
    ----------
    model : Backbone
        The model, or several of its layers.
    precision : {"bfloat16", "float16"}
        Numbers that it computes with.
    backbone : Backbone
        The model whose layers these are, or the model itself. What agreed is remembered for it.
    """

    def __init__(self, model: Backbone, precision: str, backbone: Backbone) -> None:
        self.model = model
        self.precision = precision
        self.backbone = backbone
        self.name = model.name
        self.kind = model.kind
        self.batch_size = model.batch_size

    def fingerprint(self) -> dict[str, Any]:
        """Return the model's fingerprint and the precision."""
        return {**self.model.fingerprint(), "precision": self.precision}

    @property
    def is_persistent(self) -> bool:
        """Whether the model's fingerprint identifies it in other processes and later runs."""
        return self.model.is_persistent

    def prepare(self, device: torch.device) -> None:
        """Load the model; raise if the device has no such precision."""
        if self.precision == "bfloat16" and not has_bfloat16(device):
            warnings.warn(
                "This CPU has no instructions for bfloat16: precision='bfloat16' takes many times "
                "as long as 'float32' here.",
                stacklevel=2,
            )
        with half_precision(device, self.precision):
            pass
        self.model.prepare(device)

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Return the features of some rows.

        Raises
        ------
        PrecisionError
            If they differ from those in float32, or if only those in float32 are finite.
        """
        with half_precision(device, self.precision):
            features = self.model.embed(rows, batch_size=batch_size, device=device)
        if features.ndim != 2 or len(features) != len(rows):
            return features  # the caller says so
        counts = _n_compared.setdefault(self.backbone, {})
        key = (self.precision, *getattr(self.model, "layers", ()))
        is_compared = ~np.isfinite(features).all(axis=1)
        is_compared[: max(_ROWS_COMPARED - counts.get(key, 0), 0)] = True
        if is_compared.any():
            some = np.flatnonzero(is_compared)
            exact = self.model.embed(rows.take(some), batch_size=batch_size, device=device)
            self._check_agreement(features[some], exact)
            counts[key] = counts.get(key, 0) + len(some)
        return features

    def note(self, rows: Rows) -> str | None:
        """Return what a user should know of rows that the model has run."""
        return self.model.note(rows)

    def _check_agreement(self, features: np.ndarray, exact: np.ndarray) -> None:
        """Raise unless rows of features are close to those of float32, where these are finite."""
        known = np.isfinite(exact).all(axis=1)
        features, exact = features[known], exact[known]
        finite = np.isfinite(features).all(axis=1)
        if not finite.all():
            self._raise(
                f"are infinite or NaN for {(~finite).sum()} of {len(exact)} rows",
                instead="bfloat16",
            )
        # Each layer by itself: a middle layer that agrees would hide one that does not.
        cosines = smallest_cosines(features, exact, self._widths(exact.shape[1]))
        if len(cosines) and cosines.min() < SMALLEST_COSINE:
            self._raise(
                f"differ from those in float32: of {len(cosines)} rows that ran in both, the "
                f"smallest cosine is {cosines.min():.3f}, expected at least {SMALLEST_COSINE}",
                instead="float16",  # its mantissa has three more bits
            )

    def _widths(self, n_features: int) -> list[int]:
        """Return the number of features of each layer."""
        layers = getattr(self.model, "layers", ())
        if not layers:
            return [n_features]
        before_last = {
            layer: self.backbone.layer_width(layer)
            for layer in layers
            if layer != self.backbone.n_layers
        }
        rest = n_features - sum(before_last.values())
        return [before_last.get(layer, rest) for layer in layers]

    def _raise(self, fault: str, instead: str) -> None:
        others = "'float32'" if instead == self.precision else f"{instead!r} or 'float32'"
        raise PrecisionError(
            f"Features of model {self.name!r} with precision={self.precision!r} {fault}. Use "
            f"precision={others} for this model."
        )


def smallest_cosines(some: np.ndarray, others: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """Return the smallest cosine of each row over blocks of columns; see `cosines_of`."""
    ends = np.cumsum(widths)[:-1]
    blocks = zip(np.split(some, ends, axis=1), np.split(others, ends, axis=1), strict=True)
    return np.min([cosines_of(mine, theirs) for mine, theirs in blocks], axis=0)


def cosines_of(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of a matrix with that of another; 1 for two rows of zeros."""
    some, others = some.astype(np.float64), others.astype(np.float64)
    products = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
    are_equal = (some == others).all(axis=1)
    sums = (some * others).sum(axis=1)
    return np.where(are_equal, 1.0, sums / np.where(products > 0, products, 1.0))
