"""Image networks of torchvision that a user holds, with the transforms of their weights."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Sequence
from functools import cached_property, partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import nn

from sk_aft._data._rows import Rows
from sk_aft._runtime._threads import one_at_a_time
from sk_aft.backbones._base import HoldsObjects
from sk_aft.backbones._fingerprint import is_digestible, module_digest
from sk_aft.backbones._image import ImageBackbone, as_pil
from sk_aft.backbones._network import Network
from sk_aft.backbones._parts import (
    AUXILIARY,
    drop_auxiliary,
    last_linear,
    parts_of,
    replace_layer,
)
from sk_aft.backbones._torch import TorchBackbone
from sk_aft.backbones._without_weights import without_weights

_IMAGES_WORTH_EXPORT = 300  # the export of a larger network takes a few seconds


class TorchvisionBackbone(HoldsObjects, ImageBackbone):
    """An image network of torchvision; features are the vector that its classifier reads.

    Images are prepared by the transforms of its weights. The network runs as a copy without its
    classifier; the user's object is not changed.

    Parameters
    ----------
    module : torch.nn.Module
        An instance of a classifier of ``torchvision.models``.
    weights : torchvision.models.WeightsEnum, str or None, default=None
        The weights that it was built with, or their name, such as "IMAGENET1K_V1". Only their
        transforms are used. None means the default weights of this architecture and image size,
        because an instance does not remember its own.

    Raises
    ------
    TypeError
        If ``module`` is not from ``torchvision.models``.
    ValueError
        If it is none of torchvision's architectures, so that it has no transforms, or if there are
        no such weights.

    Notes
    -----
    Layers are the blocks of the network, numbered from 0; the last one is the model's own output.
    Features of another layer are the mean over its map, in a vision transformer over the tokens of
    patches. AlexNet and VGG have no blocks, and a single output.

    The weights and the transforms identify it. With the extra ``onnx``, many images run in ONNX
    Runtime on a CPU. The features agree to 1e-3.

    Examples
    --------
    >>> from torchvision.models import ResNet18_Weights, resnet18  # doctest: +SKIP
    >>> from sk_aft.backbones import TorchvisionBackbone
    >>> weights = ResNet18_Weights.DEFAULT  # doctest: +SKIP
    >>> TorchvisionBackbone(resnet18(weights=weights), weights)  # doctest: +SKIP
    <TorchvisionBackbone 'resnet18'>
    """

    def __init__(self, module: nn.Module, weights: Any = None) -> None:
        if not is_of_torchvision(module):
            raise TypeError(
                f"TorchvisionBackbone got {type(module).__name__}, expected an instance of a "
                "classifier of torchvision.models. TorchBackbone(module, preprocess=...) takes "
                "any module."
            )
        self.module = module
        architecture = _architecture_of(module)
        self._transforms = _weights_of(architecture, weights, module).transforms()
        self.name = architecture or type(module).__name__.lower()

    def fingerprint(self) -> dict[str, Any]:
        """Return the digest of the weights, the architecture, and the transforms."""
        # repr() of a transform lists its parameters, on several lines.
        transforms = " ".join(repr(self._transforms).split())
        return {
            **TorchBackbone(self.module, fingerprint=transforms).fingerprint(),
            "type": "torchvision",
            "torchvision": import_module("torchvision").__version__,
            "dtype": "float32",
        }

    @property
    def is_persistent(self) -> bool:
        """Whether the module can be digested."""
        return is_digestible(self.module)

    @property
    def n_features_out(self) -> int:
        """Width of what the classifier reads."""
        return self._sizes.n_features

    @property
    def n_layers(self) -> int | None:
        """Number of the last block, None for a network without blocks."""
        return len(self._sizes.widths) or None

    def layer_width(self, layer: int) -> int:
        """Return the number of channels of a block."""
        return self._sizes.widths[layer]

    def loaded(self, device: torch.device) -> Network:
        """Return the copy on a device, a new one if the user's weights have changed."""
        digest = module_digest(self.module)
        if self._loaded is not None and self._loaded[2] != digest:
            self.unload()
        if self._loaded is None or self._loaded[0] != device:
            self._loaded = (device, self.load(device), digest)
        return self._loaded[1]

    def load(self, device: torch.device) -> Network:
        """Copy the network without its classifier."""
        network = _headless(copy.deepcopy(self.module)).float().to(device)
        for weights in network.parameters():
            weights.requires_grad_(False)
        return Network(
            network,
            device,
            n_rows_worth_export=_IMAGES_WORTH_EXPORT,
            select=partial(_PooledBlocks, network),
            n_layers=self.n_layers,
        )

    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> torch.Tensor:
        """Make each image by the transforms; grey images become RGB."""
        images = []
        for row in indices:
            pixels, position = rows.image(row), rows.position(row)
            self.check_bands(pixels.shape, position)
            images.append(self._transforms(as_pil(pixels, position).convert("RGB")))
        return torch.stack(images)

    @cached_property
    def _sizes(self) -> _Sizes:
        """Widths of the features, which need no numbers."""
        network = _headless(on_meta(self.module)).float().eval()
        images = torch.zeros(
            1, 3, *_image_size(self._transforms), device="meta", dtype=torch.float32
        )
        n_blocks = len(_blocks(network))
        with torch.inference_mode():
            if n_blocks < 2:
                return _Sizes(_n_columns(network(images)), ())
            *before, last = map(_n_columns, _PooledBlocks(network, range(n_blocks))(images))
        return _Sizes(last, tuple(before))

    def _held(self) -> list:
        return [self.module]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_loaded"}


def _n_columns(matrix: torch.Tensor) -> int:
    _, n_columns = matrix.shape
    return n_columns


class _Sizes(NamedTuple):
    """Width of the features, and of the blocks before the last."""

    n_features: int
    widths: tuple[int, ...]


def is_of_torchvision(module: Any) -> bool:
    """Return whether this is an image classifier of torchvision; a user's subclass is not.

    torchvision is imported only if the object is from there.
    """
    origin = re.fullmatch(r"torchvision\.models\.\w+", type(module).__module__)
    return origin is not None and bool(_architectures_of(type(module)))


# ---------------------------------------------------------------- architecture and weights


def _architectures_of(kind: type) -> list[str]:
    """Return torchvision's names of the classifiers of a class."""
    models = _import_models()
    return [
        name
        for name in models.list_models(module=models)
        if models.get_model_builder(name).__annotations__.get("return") is kind
    ]


def _architecture_of(module: nn.Module) -> str | None:
    """Return torchvision's name of an architecture, by the shapes of its weights."""
    names = _architectures_of(type(module))
    return next((name for name in names if _shapes_of(name) == _shapes(module)), None)


@functools.lru_cache(maxsize=256)
def _shapes_of(architecture: str) -> dict[str, tuple[int, ...]]:
    # Weights are not drawn, and GoogLeNet and Inception would warn that it is slow.
    is_slow = architecture in ("googlenet", "inception_v3")
    arguments = {"init_weights": False} if is_slow else {}
    with without_weights():
        return _shapes(_import_models().get_model(architecture, weights=None, **arguments))


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights, except those of classifiers."""
    others = (_head_of(network), *AUXILIARY)
    return {
        name: tuple(weights.shape)
        for name, weights in network.named_parameters()
        # Positions depend on the size of the images, which differs between weights.
        if name.partition(".")[0] not in others and not name.endswith("pos_embedding")
    }


def _weights_of(architecture: str | None, weights: Any, module: nn.Module) -> Any:
    """Return an entry of torchvision's weights, for its transforms."""
    models = _import_models()
    if isinstance(weights, models.WeightsEnum):
        return weights
    if architecture is None:
        raise ValueError(
            f"This {type(module).__name__} is none of torchvision's architectures, so it is not "
            "known how its images are prepared: give the weights whose transforms it needs, such "
            "as TorchvisionBackbone(module, weights=ResNet18_Weights.DEFAULT), or a function that "
            "prepares images, TorchBackbone(module, preprocess=...)."
        )
    known = models.get_model_weights(architecture)
    if weights is None:
        return _of_image_size([known.DEFAULT, *known], architecture, module)
    if weights in known.__members__:
        return known[weights]
    raise ValueError(
        f"weights={weights!r}: expected one of {list(known.__members__)}, the weights of "
        f"{architecture}, an entry of torchvision's weights, or None for the default ones."
    )


def _of_image_size(known: Sequence[Any], architecture: str, module: nn.Module) -> Any:
    """Return the first weights for the size of the images that a network is built for."""
    size = getattr(module, "image_size", None)
    sizes = [_image_size(weights.transforms()) for weights in known]
    for weights, (height, width) in zip(known, sizes, strict=True):
        if size in (None, height) and size in (None, width):
            return weights
    raise ValueError(
        f"This {architecture} reads images of {size} x {size} pixels, and the transforms of "
        f"torchvision's weights make images of other sizes ({sorted(set(sizes))}): use "
        "TorchBackbone(module, preprocess=...) with a function that prepares images."
    )


def _image_size(transforms: Any) -> tuple[int, int]:
    """Return (height, width) of the images that transforms make."""
    from PIL import Image

    _, height, width = transforms(Image.new("RGB", (64, 64))).shape
    return height, width


def _import_models() -> Any:
    return import_module("torchvision.models")


# ---------------------------------------------------------------- what runs


def _head_of(network: nn.Module) -> str:
    """Return the name of the child that holds the classifier, which is the last."""
    *_, (name, _) = network.named_children()
    return name


def _headless(network: Any) -> Any:
    """Return a network that returns what its classifier read; it is changed.

    A user may have replaced the classifier, for example by the identity.
    """
    name = _head_of(network)
    head = getattr(network, name)
    linear = last_linear(head)
    if linear is not None:
        replace_layer(network, f"{name}.{linear}".rstrip("."), nn.Identity())
    elif any(isinstance(layer, nn.Conv2d) for layer in head.modules()):  # of SqueezeNet
        setattr(network, name, nn.AdaptiveAvgPool2d(1))
    drop_auxiliary(network)
    return network


def on_meta(module: nn.Module) -> nn.Module:
    """Return a copy without numbers."""
    tensors = [*module.parameters(), *module.buffers()]
    memo: dict[int, Any] = {id(tensor): tensor.detach().to("meta") for tensor in tensors}
    for weights in module.parameters():
        memo[id(weights)] = nn.Parameter(memo[id(weights)], requires_grad=False)
    return copy.deepcopy(module, memo)


def _blocks(network: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network without its classifier, in the order in which they run."""
    parts = parts_of(network)
    return [part for part in parts if any(True for _ in part.children())]


class _PooledBlocks(nn.Module):
    """The means of the outputs of several blocks; the last is the network's own output."""

    def __init__(self, network: Any, layers: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        blocks = _blocks(network)
        self.n_layers = len(blocks) - 1
        self.blocks = {layer: blocks[layer] for layer in layers if layer < self.n_layers}
        self.layers = layers
        # Of a map (n, channels, height, width), and of the tokens of a transformer.
        self.spatial = (1, 2) if "Swin" in type(network).__name__ else (2, 3)
        self.n_class_tokens = int(hasattr(network, "class_token"))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        means: dict[int, torch.Tensor] = {}

        def keep(layer: int, _: nn.Module, __: Any, output: torch.Tensor) -> None:
            is_map = output.ndim == 4
            means[layer] = (
                output.mean(dim=self.spatial)
                if is_map
                else output[:, self.n_class_tokens :].mean(dim=1)
            )

        with one_at_a_time(self.network):  # another thread would see these hooks
            hooks = [
                block.register_forward_hook(partial(keep, layer))
                for layer, block in self.blocks.items()
            ]
            try:
                means[self.n_layers] = self.network(images)
            finally:
                for hook in hooks:
                    hook.remove()
        return tuple(means[layer] for layer in self.layers)
