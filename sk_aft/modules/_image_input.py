"""Images as a pretrained network reads them: their size, bands and scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sk_aft._data._pixels import GREY_WEIGHTS
from sk_aft._data._resize import ImageGeometry, resize_and_crop


class ImageInput(nn.Module):
    """Resize and standardise images as the pretrained network's were.

    Images of the network's size are not cropped: an `ImageResizer` has done it.

    Parameters
    ----------
    size : tuple of (height, width)
        Size that the network reads.
    mean, std : sequence of float
        Of each band that the network reads, of images between 0 and 1.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How images are resized.
    crop_fraction : float, default=1.0
        Part of the height and the width that a crop of the middle keeps.
    crop_mode : {"squash", "center"}, default="squash"
        Whether the ratio of height and width is changed, or images are cropped.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules._image_input import ImageInput
    >>> grey = torch.zeros(2, 1, 28, 28)
    >>> ImageInput((64, 64), mean=[0.5] * 3, std=[0.5] * 3)(grey).shape
    torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str = "bilinear",
        crop_fraction: float = 1.0,
        crop_mode: str = "squash",
    ) -> None:
        super().__init__()
        self.geometry = ImageGeometry(size, interpolation, crop_fraction, crop_mode)
        for name, values in (("mean", mean), ("std", std), ("grey", GREY_WEIGHTS)):
            tensor = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, n_read, *size) of images (B, n_bands, height, width) from 0 to 1.

        Grey images are repeated for a network that reads three bands; RGB images become grey for
        one that reads a single band.
        """
        if images.shape[1] == 3 and len(self.mean) == 1:
            images = (images * self.grey).sum(dim=1, keepdim=True)
        if images.shape[2:] != self.geometry.size:
            images = resize_and_crop(images, self.geometry, limits=(0.0, 1.0))
        images = (images - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last)


def check_bands(n_bands: int, n_read: int = 3) -> None:
    """Raise if a network that reads ``n_read`` bands cannot read images of ``n_bands``."""
    if n_bands == n_read or {n_bands, n_read} == {1, 3}:
        return
    what = "grey and RGB images" if n_read in (1, 3) else f"images with {n_read} bands"
    raise ValueError(
        f"The network reads {what}, and these have {n_bands} bands: use module=ResNet, or choose "
        f"{n_read} of the bands."
    )
