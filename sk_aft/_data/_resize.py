"""Resizes and crops images as the evaluation transform of a pretrained model does."""

from __future__ import annotations

import math
from typing import NamedTuple

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


def resize_and_crop(images: Tensor, geometry: ImageGeometry) -> Tensor:
    """Return images (B, C, height, width) as floats (B, C, *size).

    Bicubic interpolation may exceed the range of the images a little.

    Parameters
    ----------
    images : Tensor of shape (B, C, height, width)
        Floats.
    geometry : ImageGeometry
        What is wanted.

    Returns
    -------
    images : Tensor of shape (B, C, *size)
        Floats.
    """
    height, width = geometry.size
    before = (images.shape[2], images.shape[3])
    after = _resized(before, geometry)
    if after != before:
        # Where images grow, antialiasing changes nothing in bilinear interpolation. In bicubic
        # interpolation it has another kernel in torch, which is the one of Pillow.
        antialias = geometry.interpolation == "bicubic" or after[0] < before[0]
        antialias |= after[1] < before[1]
        images = F.interpolate(
            images, after, mode=geometry.interpolation, antialias=antialias, align_corners=False
        )
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
