"""What a model of transformers reads, decided by its configuration alone."""

from __future__ import annotations

from typing import Any

from sk_aft.backbones._encoder_files import import_transformers

# Names of models, and of the configurations of their parts, that read something else than texts.
_SENSES = ("vision", "image", "video", "audio", "speech", "codec", "vq", "protein")
_EXPECTED = (
    "expected a text model, a vision model or one of the CLIP family (images and texts). A "
    "function from a batch of rows to an (n, d) array can be a model, too."
)


def model_class(config: Any) -> Any:
    """Return the class of `transformers.AutoModel` for a configuration.

    Raises
    ------
    ValueError
        If there is none.
    """
    mapping = import_transformers().MODEL_MAPPING
    if type(config) not in mapping:
        raise ValueError(
            f"transformers has no model without a head for the type {config.model_type!r}; "
            f"{_EXPECTED}"
        )
    classes = mapping[type(config)]
    if not isinstance(classes, (list, tuple)):
        return classes
    names = getattr(config, "architectures", None) or []
    return next((found for found in classes if found.__name__ in names), classes[0])


def family_of(model: Any, config: Any) -> str:
    """Return what a model reads.

    Parameters
    ----------
    model : type or transformers.PreTrainedModel
        A class of `transformers.AutoModel`, or a model of it.
    config : transformers.PretrainedConfig
        Its configuration.

    Returns
    -------
    family : {"text", "image", "clip"}
        "clip" reads both, each by its own part of the model.

    Raises
    ------
    ValueError
        If it reads something else, or texts together with something else.
    """
    if all(hasattr(model, f"get_{part}_features") for part in ("image", "text")):
        return "clip"
    parts = list(getattr(config, "sub_configs", {}))
    names = [config.model_type, *parts]
    others = [name for name in names if any(sense in name for sense in _SENSES)]
    reads = model.main_input_name
    if reads == "input_ids" and not others:
        return "text"
    is_video = hasattr(config, "num_frames")
    is_whole = not is_video and not getattr(config, "is_encoder_decoder", False)
    if reads == "pixel_values" and is_whole and not {"text_config", "vision_config"} & set(parts):
        return "image"
    parts_read = f" ({', '.join(parts)})" if parts else ""
    raise ValueError(
        f"a model of the type {config.model_type!r} reads {reads}{parts_read}, which have no rule "
        f"for one vector per row; {_EXPECTED}"
    )
