"""Models of timm by their names, and how the images of pretrained models are made."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from sk_aft._data._resize import ImageGeometry, height_and_width
from sk_aft._optional import import_optional

PREFIX = "timm:"
_HUB, _DIRECTORY = "hf-hub:", "local-dir:"  # of timm itself
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


class _TimmModel(NamedTuple):
    """A model of timm by its name; nothing is built yet.

    Parameters
    ----------
    name : str
        As `timm.create_model` expects it.
    config : dict
        Its ``pretrained_cfg``.
    img_size : int, sequence of int or None
        Size that it was saved with.
    takes_img_size : bool
        Whether it is built for a size.
    has_weights : bool
        Whether there are pretrained weights.
    """

    name: str
    config: dict[str, Any]
    img_size: Any
    takes_img_size: bool
    has_weights: bool


def check_timm_name(spec: str) -> None:
    """Raise if "timm:NAME" is unknown; models of the hub are not looked up.

    Raises
    ------
    ImportError
        If timm is not installed.
    ValueError
        If it is unknown.
    """
    name = _name_in_timm(spec)
    if not name.startswith(_HUB):
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


def _import_timm() -> Any:
    return import_optional("timm", extra="timm", purpose="module='timm:NAME'")


def is_timm(network: nn.Module) -> bool:
    """Return whether a model of timm or torchvision is one of timm."""
    return hasattr(network, "forward_head")


def _name_in_timm(spec: str) -> str:
    """Return the name of a model as `timm.create_model` expects it."""
    timm, name = _import_timm(), spec.removeprefix(PREFIX)
    if name.startswith((_HUB, _DIRECTORY)) or timm.is_model(name.partition(".")[0]):
        return name
    if Path(name).is_dir():
        return _DIRECTORY + name
    close = get_close_matches(name, timm.list_models(), n=3)
    hint = f" Did you mean one of {close}?" if close else ""
    raise ValueError(
        f"module={spec!r} is unknown: expected the name of a model of timm (listed by "
        "timm.list_models()), a directory written by timm.models.save_for_hf, or "
        f"'timm:hf-hub:OWNER/NAME'.{hint}"
    )


def _find(spec: str) -> _TimmModel:
    timm, name = _import_timm(), _name_in_timm(spec)
    if not name.startswith((_HUB, _DIRECTORY)):
        config = _registered(name, spec)
        is_fixed = config.get("fixed_input_size", False)
        return _TimmModel(name, config, None, is_fixed, timm.is_model_pretrained(name))
    if name.startswith(_HUB):
        with _explained(spec):
            found = timm.models.load_model_config_from_hf(name.removeprefix(_HUB))
        config, architecture, arguments = found
    else:
        config, architecture, arguments = _saved(name.removeprefix(_DIRECTORY), spec)
    size = (arguments or {}).get("img_size")
    is_fixed = _registered(architecture, spec).get("fixed_input_size", False)
    return _TimmModel(name, config, size, is_fixed or size is not None, True)


def _registered(name: str, spec: str) -> dict[str, Any]:
    """Return the configuration of a model of timm; empty if it has none."""
    timm = _import_timm()
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = timm.list_pretrained(name.partition(".")[0] + ".*")
        raise ValueError(f"module={spec!r}: {error} Expected one of {known}.") from error
    return {} if config is None else config.to_dict()


def _saved(directory: str, spec: str) -> tuple[dict[str, Any], str, dict[str, Any] | None]:
    """Return configuration, architecture and arguments of a model that timm saved."""
    try:
        saved = json.loads((Path(directory) / "config.json").read_text())
        return saved.get("pretrained_cfg", saved), saved["architecture"], saved.get("model_args")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"module={spec!r}: {directory} holds no model of timm ({error!r}). Expected a "
            "directory written by timm.models.save_for_hf(model, directory)."
        ) from error


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
    with _explained(spec):
        return _import_timm().create_model(model.name, pretrained=model.has_weights, **arguments)


def create_architecture(name: str, **arguments: Any) -> nn.Module:
    """Return a model of timm with random weights; raises ValueError if there is no such model."""
    timm = _import_timm()
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}.")
    return timm.create_model(name, pretrained=False, **arguments)


@contextmanager
def _explained(spec: str) -> Iterator[None]:
    """Say what to do if files of a model cannot be loaded."""
    try:
        yield
    except OSError as error:
        name = spec.removeprefix(PREFIX)
        raise OSError(
            f"The weights of {spec!r} cannot be loaded, and training does not start from random "
            f"ones instead ({error}). Check the connection to the Hugging Face hub (with "
            "HF_HUB_OFFLINE=1 only its cache is read). For a machine "
            f"without one, run timm.create_model({name!r}, pretrained=True) on another and copy "
            "its cache (the directory HF_HOME); or save the model with timm.models.save_for_hf and "
            "use module='timm:DIRECTORY'; or use an instance as module."
        ) from error
