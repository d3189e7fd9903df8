"""Random crops and flips of images in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
