"""A torch module as a foundation model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from sk_aft._data._pixels import n_bands, to_floats
from sk_aft._data._rows import Rows
from sk_aft._runtime._threads import one_at_a_time
from sk_aft.backbones._base import FeatureShapeError, HoldsObjects, as_matrix
from sk_aft.backbones._batches import index_batches, run_batches
from sk_aft.backbones._fingerprint import describe_classes, is_digestible, module_digest
from sk_aft.backbones._image_batches import image_batches
from sk_aft.store._process import process_token


class TorchBackbone(HoldsObjects):
    """A torch module, with an optional function that turns each row into a tensor.

    Parameters
    ----------
    module : torch.nn.Module
        Returns an (n, d) tensor. Run in evaluation mode, without gradients.
    preprocess : callable, optional
        Maps one row to a tensor, for example a transform of torchvision. The row is a str, a 1-D
        array of numbers, or a PIL image; images of floats, or neither grey nor RGB, are tensors
        (height, width[, channels]). By default numbers become float32, and images float32 in
        [0, 1], channels first.
    fingerprint : str, optional
        Identifies the preprocessing; change it whenever the preprocessing changes. By default
        features made with ``preprocess`` are kept only while this process lives. The module's
        weights are always digested.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sk_aft import FoundationFeatureExtractor
    >>> module = torch.nn.Linear(3, 2)
    >>> X = np.eye(3, dtype=np.float32)
    >>> FoundationFeatureExtractor(module).fit_transform(X).features.shape
    (3, 2)
    """

    def __init__(
        self,
        module: torch.nn.Module,
        preprocess: Callable[[Any], torch.Tensor] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self.module = module
        self.preprocess = preprocess
        self._declared = fingerprint
        self.name = type(module).__name__.lower()

    def fingerprint(self) -> dict[str, Any]:
        """Return the digest of the weights, the architecture and the preprocessing's name."""
        preprocessing = self._declared
        if preprocessing is None and self.preprocess is not None:
            preprocessing = f"session {process_token(self.preprocess)}"
        return {
            "type": "torch",
            "class": f"{type(self.module).__module__}.{type(self.module).__qualname__}",
            "architecture": repr(self.module),
            "code": describe_classes(type(layer) for layer in self.module.modules()),
            "weights": module_digest(self.module),
            "preprocessing": preprocessing,
            "session": process_token(self.module) if self.holds_unknown else None,
        }

    @property
    def is_persistent(self) -> bool:
        """Whether the module can be digested and the preprocessing has a declared fingerprint."""
        is_named = self.preprocess is None or self._declared is not None
        return is_named and not self.holds_unknown

    @property
    def holds_unknown(self) -> bool:
        """Whether layers hold an object that cannot be digested, such as a user's function."""
        return not is_digestible(self.module)

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Run the module on each batch, in evaluation mode and without gradients."""
        floating = [p.dtype for p in self.module.parameters() if p.is_floating_point()]

        @torch.no_grad()  # the preprocessing may be a module
        def prepare(indices: range) -> tuple[torch.Tensor]:
            batch = self._to_tensor(rows, indices)
            return (batch.to(floating[0]) if floating and batch.is_floating_point() else batch,)

        batches = index_batches(len(rows), batch_size)
        are_images = rows.kind == "image"
        making = image_batches(prepare, batches, device) if are_images else nullcontext()
        with borrowed(self.module, device), making as made:
            inputs = map(prepare, batches) if made is None else made
            return np.concatenate(list(run_batches(self._features, inputs, device)))

    def _features(self, batch: torch.Tensor) -> torch.Tensor:
        """Return (n_rows, n_features); raise FeatureShapeError for another shape."""
        features = self.module(batch)
        shape = getattr(features, "shape", type(features).__name__)
        is_tensor = isinstance(features, torch.Tensor)
        if not is_tensor or (features.ndim != 2 and shape != (len(batch),)):
            raise FeatureShapeError(
                f"{self.name} returned {shape}, expected a tensor of shape "
                "(n_rows, n_features). Wrap the module so that it pools its output."
            )
        if len(shape) != 2 or len(features) != len(batch):
            as_matrix(features, len(batch), self.name)  # raises
        return features

    def _to_tensor(self, rows: Rows, indices: range) -> torch.Tensor:
        if self.preprocess is not None:
            batch = torch.stack([self.preprocess(_single_row(rows, row)) for row in indices])
            return batch.float() if batch.dtype == torch.float64 else batch
        if rows.kind == "text":
            raise ValueError(
                f"{self.name} was given texts but no preprocessing: use "
                "TorchBackbone(module, preprocess=...) with a function from a text to a tensor."
            )
        if rows.kind == "numeric":
            return torch.from_numpy(np.array(rows.values[indices.start : indices.stop], np.float32))
        return torch.stack([_image_tensor(rows.image(row)) for row in indices])

    def _held(self) -> list:
        return [self.preprocess, self.module]


@contextmanager
def borrowed(module: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Put a user's module on a device in evaluation mode; restore device and mode afterwards.

    Other threads wait until it is restored.
    """
    with one_at_a_time(module):
        modes = [(layer, layer.training) for layer in module.modules()]
        home = next(module.parameters(), torch.empty(0)).device
        module.to(device).eval()
        try:
            yield
        finally:
            module.to(home)
            for layer, was_training in modes:
                layer.training = was_training


def _single_row(rows: Rows, row: int) -> Any:
    if rows.kind != "image":
        return rows.values[row]
    from PIL import Image

    image = rows.image(row)
    if image.dtype != np.uint8 or n_bands(image.shape, None) not in (1, 3):
        return torch.from_numpy(np.array(image))
    return Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)


def _image_tensor(image: np.ndarray) -> torch.Tensor:
    image = image[..., None] if image.ndim == 2 else image
    return torch.from_numpy(np.array(to_floats(image))).permute(2, 0, 1)
