"""A torch module as a foundation model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sk_aft._data._pixels import n_bands, to_floats
from sk_aft._data._rows import Rows
from sk_aft.backbones._base import Backbone
from sk_aft.backbones._fingerprint import describe_classes, is_digestible, module_digest
from sk_aft.store._process import inherit, process_state, process_token


class TorchBackbone(Backbone):
    """A torch module, with an optional function that turns each row into a tensor.

    Parameters
    ----------
    module : torch.nn.Module
        Returns an (n, d) tensor. Run in evaluation mode, without gradients.
    preprocess : callable, optional
        Called with one row (a str, a 1-D array of numbers, or a PIL image; a tensor (height,
        width[, channels]) for images of floats or of other bands than grey and RGB), returns a
        tensor, for example a transform of torchvision. By default numbers become float32, and
        images float32 in [0, 1], channels first.
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
        self.declared_fingerprint = fingerprint
        self.name = type(module).__name__.lower()

    def fingerprint(self) -> dict[str, Any]:
        """Return the digest of the weights, the architecture and the preprocessing's name."""
        preprocessing = self.declared_fingerprint
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
        is_named = self.preprocess is None or self.declared_fingerprint is not None
        return is_named and not self.holds_unknown

    @property
    def holds_unknown(self) -> bool:
        """Whether layers hold an object that cannot be digested, such as a user's function."""
        return not is_digestible(self.module)

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Run the module on each batch, in evaluation mode and without gradients."""
        modes = [(layer, layer.training) for layer in self.module.modules()]
        home = next(self.module.parameters(), torch.empty(0)).device
        module = self.module.to(device).eval()
        matrices = []
        try:
            with torch.inference_mode():
                for start in range(0, len(rows.values), batch_size):
                    batch = self._to_tensor(rows, range(start, min(start + batch_size, len(rows))))
                    features = module(batch.to(device))
                    if not isinstance(features, torch.Tensor) or features.ndim != 2:
                        shape = getattr(features, "shape", type(features).__name__)
                        raise ValueError(
                            f"{self.name} returned {shape}, expected a tensor of shape "
                            "(n_rows, n_features). Wrap the module so that it pools its output."
                        )
                    matrices.append(features.float().cpu().numpy())
        finally:
            module.to(home)
            for layer, was_training in modes:
                layer.training = was_training
        return np.concatenate(matrices)

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

    def __getstate__(self) -> dict[str, Any]:
        functions = [] if self.is_persistent else [self.preprocess, self.module]
        return {**vars(self), "_session": process_state(functions)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        inherited = state.pop("_session")
        vars(self).update(state)
        inherit([self.preprocess, self.module], inherited)


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
