"""Resizes and crops images as the evaluation transform of a pretrained model does."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F


class ImageGeometry(NamedTuple):
    """The size of the images that a model reads, and how others become it.

    Parameters
    ----------
    size : tuple of (height, width)
        Size that the model reads.
    interpolation : {"bilinear", "bicubic"}
        How images are resized.
    crop_fraction : float
        Part of the height and the width that the crop keeps after the resizing, at most 1.
    crop_mode : {"squash", "center"}
        - "squash": height and width are resized independently of each other.
        - "center": their ratio is kept, and what exceeds the size is cut off at both ends.
    """

    size: tuple[int, int]
    interpolation: str = "bilinear"
    crop_fraction: float = 1.0
    crop_mode: str = "squash"


def resize_and_crop(
    images: Tensor, geometry: ImageGeometry, limits: tuple[float, float] | None = None
) -> Tensor:
    """Resize images, and crop them in the middle.

    Parameters
    ----------
    images : Tensor of shape (B, C, height, width)
        Floats.
    geometry : ImageGeometry
        What is wanted.
    limits : tuple of (float, float), optional
        Range of the images, which bicubic interpolation would exceed.

    Returns
    -------
    images : Tensor of shape (B, C, *size)
        Floats.
    """
    height, width = geometry.size
    before = (images.shape[2], images.shape[3])
    after = _resized(before, geometry)
    # Bicubic weights are others than Pillow's without antialiasing, also where images grow.
    is_blurred = geometry.interpolation == "bicubic" or after[0] < before[0] or after[1] < before[1]
    # First the width, then the height: Pillow, too, clamps the numbers in between.
    for size in ((before[0], after[1]), after):
        if size != (images.shape[2], images.shape[3]):
            images = F.interpolate(images, size, mode=geometry.interpolation, antialias=is_blurred)
        if limits is not None and geometry.interpolation == "bicubic":
            images = images.clamp(*limits)
    top, left = round((after[0] - height) / 2), round((after[1] - width) / 2)
    return images[:, :, top : top + height, left : left + width]


def _resized(size: tuple[int, int], geometry: ImageGeometry) -> tuple[int, int]:
    """Return the size before the crop; roundings are those of torchvision and timm."""
    height, width = (math.floor(side / geometry.crop_fraction) for side in geometry.size)
    if geometry.crop_mode == "squash":
        return height, width
    if height == width:
        return int(height * size[0] / min(size)), int(width * size[1] / min(size))
    ratio = min(size[0] / height, size[1] / width)
    return round(size[0] / ratio), round(size[1] / ratio)


def height_and_width(size: Any) -> tuple[int, int]:
    """Return a size as two numbers; a single one is that of a square."""
    sides = (size, size) if isinstance(size, Integral) and not isinstance(size, bool) else size
    if (
        not isinstance(sides, (tuple, list))
        or len(sides) != 2
        or not all(isinstance(side, Integral) and int(side) > 0 for side in sides)
    ):
        raise ValueError(
            f"The size of images is {size!r}: expected a positive integer, or (height, width)."
        )
    return int(sides[0]), int(sides[1])
