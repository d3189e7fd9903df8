"""Image models, which read pictures and whose layers are computed in one pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sk_aft._data._images import image_shape
from sk_aft._data._pixels import RANGES, UNSCALED, Ranges
from sk_aft._data._rows import Rows
from sk_aft._optional import import_optional
from sk_aft.backbones._base import LayeredModel, LoadedOnDemand
from sk_aft.backbones._batches import index_batches
from sk_aft.backbones._image_batches import image_batches
from sk_aft.backbones._network import Network

if TYPE_CHECKING:
    from PIL import Image

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
        self.check_array(rows, 0)

    def check_array(self, rows: Rows, index: int) -> None:
        """Raise if an image that is an array is neither grey nor RGB; decoded files always are."""
        value = rows.values[index]
        if isinstance(value, np.ndarray):
            row = rows.position(index)
            self.check_bands(image_shape(value, row, rows.float_range or Ranges()), row)

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
        return run_on_images(network, lambda some: self.to_tensor(rows, some), n_rows, batch_size)


def run_on_images(
    network: Network,
    to_tensor: Callable[[range], torch.Tensor],
    n_images: int,
    batch_size: int,
) -> np.ndarray:
    """Return the features of images, of which ``to_tensor`` makes those of some indices."""
    batches = index_batches(n_images, batch_size)
    with image_batches(lambda some: (to_tensor(some),), batches, network.device) as inputs:
        return np.concatenate(list(network.run(inputs)))


def pil_image(rows: Rows, row: int) -> Image.Image:
    """Return an image as PIL's, for a model that brings its own preprocessing.

    Parameters
    ----------
    rows : Rows
        Images.
    row : int
        Index of one that is grey or RGB.

    Returns
    -------
    image : PIL.Image.Image
        Grey ("L") or "RGB", of uint8; floats between 0 and 1 become 0 to 255.

    Raises
    ------
    ValueError
        If it cannot be read, or its floats are not between 0 and 1.
    """
    return as_pil(rows.image(row), rows.position(row))


def as_pil(pixels: np.ndarray, position: int) -> Image.Image:
    """Return decoded pixels as an image of PIL, see `pil_image`."""
    image_module = import_optional("PIL.Image", extra="vision", purpose="reading images")
    if pixels.dtype != np.uint8:
        low, high = pixels.min(), pixels.max()
        if low < -0.001 or high > 1.001:
            raise ValueError(
                f"Row {position}: float images have to be between 0 and 1, got {low:g} to "
                f"{high:g}: divide them by 255, or give uint8."
            )
        pixels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    return image_module.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
