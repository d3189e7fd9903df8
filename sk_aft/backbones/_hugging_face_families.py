"""Which backbone a model of transformers is, decided by its configuration alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sk_aft.backbones._base import Backbone
from sk_aft.backbones._hugging_face import HuggingFaceBackbone, load_config
from sk_aft.backbones._hugging_face_clip import HuggingFaceClipBackbone
from sk_aft.backbones._hugging_face_images import HuggingFaceImageBackbone
from sk_aft.backbones._hugging_face_rows import family_of, model_class
from sk_aft.backbones._image_objects import TransformersClipObject, TransformersImageObject
from sk_aft.backbones._text_objects import TransformersObject

_BACKBONES = {
    "text": HuggingFaceBackbone,
    "image": HuggingFaceImageBackbone,
    "clip": HuggingFaceClipBackbone,
}
_OBJECTS = {
    "text": TransformersObject,
    "image": TransformersImageObject,
    "clip": TransformersClipObject,
}
NEEDS_CODE = (
    "it needs code of its repository (trust_remote_code), which is never run. If you trust it, "
    "load it yourself and give a function from a batch of rows to an (n, d) array as the model."
)


def hugging_face_backbone(name_or_path: str) -> Backbone:
    """Return the backbone of a model of transformers, which is not loaded.

    Parameters
    ----------
    name_or_path : str
        Name on the hub, or a directory.

    Returns
    -------
    backbone : HuggingFaceBackbone, HuggingFaceImageBackbone or HuggingFaceClipBackbone
        The one that reads what the model reads.

    Raises
    ------
    OSError
        If there is no such model, or its licence has to be accepted first.
    ValueError
        If the model reads something else, or needs code of the hub.
    """
    _refuse_timm(name_or_path)
    try:
        config = load_config(name_or_path)
        family = family_of(model_class(config), config)
    except ValueError as error:
        reason = NEEDS_CODE if "trust_remote_code" in str(error) else str(error)
        raise ValueError(f"Cannot use the foundation model {name_or_path!r}: {reason}") from error
    return _BACKBONES[family](name_or_path)


def _refuse_timm(name_or_path: str) -> None:
    """Raise ValueError if a directory holds a model of timm."""
    try:
        config = json.loads(Path(name_or_path, "config.json").read_text("utf-8"))
    except (OSError, ValueError):  # transformers says what is wrong
        return
    if "architecture" in config and "model_type" not in config:
        raise ValueError(
            f"The directory {name_or_path!r} holds a model of timm, not of transformers: write "
            f"'timm:{name_or_path}'."
        )


def hugging_face_object(model: Any) -> Backbone:
    """Return the backbone of a model of transformers that the user has loaded.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        With or without a head, which is not used.

    Returns
    -------
    backbone : TransformersObject, TransformersImageObject or TransformersClipObject
        The one that reads what the model reads.

    Raises
    ------
    ValueError
        If the model reads something else, or what prepares its rows cannot be found.
    """
    try:
        family = family_of(model.base_model, model.config)
    except ValueError as error:
        raise ValueError(f"Cannot use this {type(model).__name__}: {error}") from None
    return _OBJECTS[family](model)
