"""Random crops and flips of images in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LOG_RATIO = math.log(4 / 3)


class RandomCropAndFlip(nn.Module):
    """Shift every image by a few pixels and flip half of them, in training mode only.

    Parameters
    ----------
    max_shift : float, default=0.125
        Largest shift, as a fraction of the height and the width. New pixels at the border are
        0, which is the mean of standardised images.
    flip : bool, default=True
        Whether to flip images horizontally. Use False if that changes their meaning, as it does
        for digits and letters.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import RandomCropAndFlip
    >>> images = torch.ones(2, 3, 32, 32)
    >>> RandomCropAndFlip()(images).shape
    torch.Size([2, 3, 32, 32])
    >>> RandomCropAndFlip().eval()(images) is images
    True
    """

    def __init__(self, max_shift: float = 0.125, flip: bool = True) -> None:
        super().__init__()
        if not 0 <= max_shift < 1:
            raise ValueError(f"max_shift is {max_shift}, expected a share of at least 0, below 1.")
        self.max_shift = max_shift
        self.flip = flip

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) of the same shape."""
        if not self.training or (not self.flip and self.max_shift == 0):
            return images
        n_images, _, height, width = images.shape
        down, right = int(self.max_shift * height), int(self.max_shift * width)

        def draw(n: int) -> Tensor:
            return torch.randint(n, (n_images, 1, 1), device=images.device)

        rows = torch.arange(height, device=images.device)[:, None] + draw(2 * down + 1)
        columns = torch.arange(width, device=images.device)
        if self.flip:
            columns = torch.where(draw(2) == 1, width - 1 - columns, columns)
        columns = columns + draw(2 * right + 1)
        padded = F.pad(images, (right, right, down, down)).permute(0, 2, 3, 1)
        numbers = torch.arange(n_images, device=images.device)[:, None, None]
        return padded[numbers, rows, columns].permute(0, 3, 1, 2)


class RandomResizedCrop(nn.Module):
    """Crop a random part of every image and resize it to the whole, in training mode only.

    Parameters
    ----------
    min_crop : float, default=0.7
        Smallest part, as a fraction of the area; 1 does not crop.
    flip : bool, default=False
        Whether to mirror half of the images horizontally, which changes the meaning of digits and
        letters.

    Notes
    -----
    The ratio of width to height changes by up to a third (Szegedy et al. 2015, arXiv 1409.4842).
    Each new pixel is the nearest one, because interpolation would blur images in training only.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import RandomResizedCrop
    >>> images = torch.ones(2, 3, 32, 32)
    >>> RandomResizedCrop()(images).shape
    torch.Size([2, 3, 32, 32])
    >>> RandomResizedCrop().eval()(images) is images
    True
    """

    def __init__(self, min_crop: float = 0.7, flip: bool = False) -> None:
        super().__init__()
        if not 0 < min_crop <= 1:
            raise ValueError(f"min_crop is {min_crop}, expected a share above 0, at most 1.")
        self.min_crop = min_crop
        self.flip = flip

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) of the same shape."""
        if not self.training or (not self.flip and self.min_crop == 1):
            return images
        n_images, device = len(images), images.device

        def draw(low: float, high: float) -> Tensor:
            return torch.empty(n_images, device=device).uniform_(low, high)

        area = draw(self.min_crop, 1.0)
        # No side is longer than that of the image.
        ratio = torch.clamp(draw(-_LOG_RATIO, _LOG_RATIO).exp(), area, 1 / area)
        width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
        # Coordinates are from -1 to 1, so a crop's centre is at most one minus its size away.
        x, y = ((1 - side) * draw(-1.0, 1.0) for side in (width, height))
        if self.flip:
            width = torch.where(draw(0.0, 1.0) < 0.5, -width, width)
        transform = torch.zeros(n_images, 2, 3, device=device)
        transform[:, 0, 0], transform[:, 0, 2] = width, x
        transform[:, 1, 1], transform[:, 1, 2] = height, y
        grid = F.affine_grid(transform, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, "nearest", align_corners=False)
