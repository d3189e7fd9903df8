"""A small residual network for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_aft.modules._augmentation import RandomCropAndFlip
from sk_aft.modules._training_defaults import TrainingDefaults


class ResNet(nn.Module):
    """A residual network (He et al. 2016, arXiv 1512.03385) with one block per stage by default.

    With the default sizes it has about 78 thousand parameters. A batch normalisation of the
    inputs standardises the images, so their scale does not matter.

    In training, images are shifted at random by up to an eighth of their size; ``max_shift=0``
    turns that off. Images are not mirrored unless ``flip=True``, since mirroring changes the
    meaning of digits, letters, signs and sides. Where it does not, it helps with few rows.

    Parameters
    ----------
    n_channels : int
        Number of bands: 1 for greyscale, 3 for RGB images, any for others.
    n_outputs : int
        Number of classes or targets.
    widths : sequence of int, default=(16, 32, 64)
        Channels of each stage; every stage after the first halves height and width. The last
        entry is the width of the features.
    blocks_per_stage : int, default=1
        Residual blocks per stage.
    max_shift : float, default=0.125
        Largest random shift of images in training, as a fraction of their height and width; see
        `RandomCropAndFlip`.
    flip : bool, default=False
        Whether to mirror half of the images horizontally in training; of a student
        ``module__flip=True``.

    Attributes
    ----------
    standardise : BatchNorm2d
        Standardises each channel.
    augment : RandomCropAndFlip
        Shifts and flips in training.
    stem : Sequential
        The first convolution.
    blocks : Sequential
        The residual blocks.
    head : Linear
        From the features to the outputs.
    training_defaults : TrainingDefaults
        How it is trained unless parameters of the student change it.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import ResNet
    >>> logits, features = ResNet(3, 10)(torch.zeros(2, 3, 32, 32))
    >>> logits.shape, features.shape
    (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    training_defaults = TrainingDefaults()

    def __init__(
        self,
        n_channels: int,
        n_outputs: int,
        widths: Sequence[int] = (16, 32, 64),
        blocks_per_stage: int = 1,
        max_shift: float = 0.125,
        flip: bool = False,
    ) -> None:
        super().__init__()
        self.standardise = nn.BatchNorm2d(n_channels, affine=False)
        self._has_statistics = False
        self.augment = RandomCropAndFlip(max_shift, flip)
        self.stem = nn.Sequential(
            nn.Conv2d(n_channels, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        blocks = []
        width = widths[0]
        for stage, out in enumerate(widths):
            for block in range(blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(_ResidualBlock(width, out, stride))
                width = out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, n_outputs) and features (B, widths[-1]) of (B, C, H, W) images."""
        images = self.augment(self._standardised(inputs))
        images = images.contiguous(memory_format=torch.channels_last)
        features = self.blocks(self.stem(images)).mean(dim=(2, 3))
        return self.head(features), features

    def _standardised(self, images: Tensor) -> Tensor:
        # Running statistics start as 0 and 1, and dark images would need hundreds of batches to be
        # standardised in evaluation as they are in training: take all of the first batch's.
        if self.training and not self._has_statistics:
            # They may have been loaded. On a GPU asking waits, so it is asked until they are there.
            self._has_statistics = bool(self.standardise.num_batches_tracked)
        if not self.training or self._has_statistics:
            return self.standardise(images)
        momentum, self.standardise.momentum = self.standardise.momentum, 1.0
        try:
            return self.standardise(images)
        finally:
            self.standardise.momentum = momentum


class _ResidualBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, maps: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(maps)), inplace=True)))
        return F.relu(residual + self.shortcut(maps), inplace=True)
