"""Models of timm by their names, and how the images of pretrained models are made."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from sk_aft._data._resize import ImageGeometry, height_and_width
from sk_aft.backbones._timm_names import (
    HUB,
    explained,
    find_timm_model,
    import_timm,
    name_in_timm,
)

_ARGUMENT = "module"  # which holds the names here
_import_timm = partial(import_timm, _ARGUMENT)
_find = partial(find_timm_model, argument=_ARGUMENT)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class InputConfig(NamedTuple):
    """How a model's images are made.

    Parameters
    ----------
    geometry : ImageGeometry
        Size, resizing and crop.
    mean, std : sequence of float
        Of each band of images between 0 and 1.
    """

    geometry: ImageGeometry
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD


def check_timm_name(spec: str) -> None:
    """Raise if "timm:NAME" is unknown; models of the hub are not looked up.

    Raises
    ------
    ImportError
        If timm is not installed.
    ValueError
        If it is unknown.
    """
    if not name_in_timm(spec, _ARGUMENT).startswith(HUB):
        _find(spec)


def input_config(network: str | nn.Module, image_size: Any = None) -> InputConfig:
    """Return how the images of a model are made.

    Parameters
    ----------
    network : str or torch.nn.Module
        As in `PretrainedImage`; the weights are not loaded.
    image_size : int, tuple of (height, width) or None
        Size, if it is not that of the model.

    Returns
    -------
    config : InputConfig
        The model's own configuration.
    """
    if isinstance(network, str):
        model = _find(network)
        config = _import_timm().data.resolve_data_config(pretrained_cfg=model.config)
        own_size = model.img_size
    elif is_timm(network):
        config = _import_timm().data.resolve_model_data_config(network)
        own_size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    else:
        size = 224 if image_size is None else image_size
        geometry = ImageGeometry(height_and_width(size), "bilinear", 224 / 256, "center")
        return InputConfig(geometry)
    if image_size is None:
        image_size = own_size or config["input_size"][1:]
    geometry = ImageGeometry(
        size=height_and_width(image_size),
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        crop_fraction=config["crop_pct"],
        crop_mode="center" if config["crop_mode"] == "center" else "squash",
    )
    return InputConfig(geometry, tuple(config["mean"]), tuple(config["std"]))


def is_timm(network: nn.Module) -> bool:
    """Return whether a model of timm or torchvision is one of timm."""
    return hasattr(network, "forward_head")


def create_timm_model(spec: str, image_size: Any) -> nn.Module:
    """Return the model that "timm:NAME" stands for, with its pretrained weights if it has some."""
    model = _find(spec)
    arguments = {}
    if image_size is not None and model.takes_img_size:
        arguments["img_size"] = height_and_width(image_size)
    if not model.has_weights:
        warnings.warn(
            f"{spec!r} has no pretrained weights: training starts from random ones. Models with "
            "weights are listed by timm.list_models(pretrained=True).",
            stacklevel=2,
        )
    with explained(spec, _ARGUMENT):
        return _import_timm().create_model(model.name, pretrained=model.has_weights, **arguments)


def create_architecture(name: str, **arguments: Any) -> nn.Module:
    """Return a model of timm with random weights; raises ValueError if there is no such model."""
    timm = _import_timm()
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}.")
    return timm.create_model(name, pretrained=False, **arguments)
