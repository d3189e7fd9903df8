"""Image models, which read pictures and whose layers are computed in one pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sk_aft._data._images import image_shape
from sk_aft._data._pixels import RANGES, UNSCALED, Ranges
from sk_aft._data._rows import Rows
from sk_aft._optional import import_optional
from sk_aft.backbones._base import LayeredModel, LoadedOnDemand
from sk_aft.backbones._network import Network

if TYPE_CHECKING:
    import PIL.Image

# In ONNX Runtime each core runs its own batch. Larger batches do not fit the caches, and the other
# cores wait longer for the last batch.
_IMAGES_PER_CORE = 8
_IMAGES_OF_EXAMPLE = 4


class ImageBackbone(LayeredModel, LoadedOnDemand):
    """A model of pictures: uint8, or floats between 0 and 1 or 0 and 255, grey or RGB."""

    kind = "image"
    batch_size = 32

    @abstractmethod
    def load(self, device: torch.device) -> Network:
        """Return the network on a device; `to_tensor` makes its input."""

    @abstractmethod
    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> torch.Tensor:
        """Return some images as the network reads them, (n, channels, height, width)."""

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if the first image is neither grey nor RGB, or if its floats are not pixels."""
        del names
        ranges = rows.float_range or Ranges()
        if ranges.floats in UNSCALED:
            raise ValueError(
                f"{self.name} reads pictures: uint8, or floats between 0 and 1 or 0 and 255. The "
                f"images are floats {RANGES[ranges.floats]}: scale them back to one of "
                "these, or give a function that reads them as model."
            )
        value = rows.values[0]
        if isinstance(value, np.ndarray):
            row = rows.position(0)
            self.check_bands(image_shape(value, row, ranges), row)

    def check_bands(self, shape: tuple[int, ...], row: int) -> None:
        """Raise if an image is neither grey nor RGB."""
        if (*shape, 1)[2] not in (1, 3):
            raise ValueError(
                f"{self.name} reads grey or RGB images, but row {row} has {shape[2]} bands "
                f"(height, width, bands: {shape}): choose three of them for it, for example with a "
                "DataFrame with one column of all bands and one of three, and "
                f"model={{'three': {self.name!r}}}, inputs='all'; or use a function as the model."
            )

    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Run the network on the images, batch by batch."""
        network = self.loaded(device).of_layers(layers)
        n_rows = len(rows.values)
        n_shown = min(n_rows, _IMAGES_OF_EXAMPLE)
        network.export(n_rows, lambda: (self.to_tensor(rows, range(n_shown)),))
        if network.session is not None:
            batch_size = min(batch_size, _IMAGES_PER_CORE)
        starts = range(0, n_rows, batch_size)
        batches = (
            (self.to_tensor(rows, range(start, min(start + batch_size, n_rows))),)
            for start in starts
        )
        return np.concatenate(list(network.run(batches)))


def pil_image(rows: Rows, row: int) -> PIL.Image.Image:
    """Return an image as an RGB or grey ("L") PIL image; floats from 0 to 1 become 0 to 255."""
    image_module = import_optional("PIL.Image", extra="vision", purpose="reading images")
    pixels = rows.image(row)
    if pixels.dtype != np.uint8:
        pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    is_grey = pixels.ndim == 3 and pixels.shape[2] == 1
    return image_module.fromarray(pixels[..., 0] if is_grey else pixels)
