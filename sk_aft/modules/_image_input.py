"""Images as a pretrained network reads them: their size, bands and scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ImageInput(nn.Module):
    """Resize and standardise images as the pretrained network's were.

    Parameters
    ----------
    size : tuple of (height, width)
        Size that the network reads.
    mean, std : sequence of three float
        Of each band of images between 0 and 1.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How images are resized.

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
    ) -> None:
        super().__init__()
        self.size = size
        self.interpolation = interpolation
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, 3, *size) of images (B, 1 or 3, height, width) between 0 and 1."""
        height, width = images.shape[2:]
        if (height, width) != self.size:
            shrinks = height > self.size[0] or width > self.size[1]
            images = F.interpolate(
                images, self.size, mode=self.interpolation, antialias=shrinks, align_corners=False
            )
        images = (images - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last)


def check_bands(n_bands: int) -> None:
    """Raise if images are neither grey nor RGB."""
    if n_bands not in (1, 3):
        raise ValueError(
            f"The network reads grey and RGB images, and these have {n_bands} bands: use "
            "module=ResNet, or give it three of the bands."
        )
