"""What is known of the models that a student learned from, and of the one that it started from.

Models are described by dicts of JSON values:

- ``name``: name on the hub, "minilm" and such, or the last part of a directory; None of features
  given as an array;
- ``type``: class of the backbone, "array", "soft targets" given as an array, or
  "TeacherPredictions" of an estimator, whose class is the ``name``;
- ``column``: the column of a frame that a teacher read, None for whole rows;
- ``revision``: commit on the hub, None of other models;
- ``fingerprint``: digest of all that determines the model's features, as in the store's keys;
- ``licence``: an SPDX identifier where its card or package holds one.

What cannot be found out without a request to the hub is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sk_aft._extraction._reader import Reader, model_fingerprint
from sk_aft._features import FoundationFeatures
from sk_aft.backbones import Backbone, resolve_backbone
from sk_aft.backbones._efficientnet import EfficientNetLiteBackbone
from sk_aft.backbones._licences import cached_file, spdx
from sk_aft.modules import EfficientNetLite, PretrainedImage, TransformerText
from sk_aft.store._keys import model_digest
from sk_aft.transfer._methods import which_have

Description = dict[str, Any]


def with_teachers(
    known: Sequence[Description],
    X: Any,
    features: Any,
    soft_targets: Any,
    transfer: Any,
    beta: float,
) -> list[Description]:
    """Return what a student learned from, after one more training.

    Parameters
    ----------
    known : sequence of dict
        What it learned from before.
    X : FoundationFeatures or rows
        As for ``fit``; features are computed if ``beta`` is not 0.
    features : array-like or None
        As for ``fit``.
    soft_targets : array-like or None
        As for ``fit``.
    transfer : str, nn.Module, list or None
        The transfer method.
    beta : float
        Strength of the transfer; with 0 nothing is learned from features or soft targets.

    Returns
    -------
    teachers : list of dict
        A new list, without duplicates.
    """
    found: list[Description] = []
    if beta > 0:
        takes = which_have("takes_soft_targets", transfer) if soft_targets is not None else [False]
        if not all(takes):
            found += _of_features(X, features)
        if any(takes):
            found.append(_description("soft targets given as an array", "soft targets"))
        elif soft_targets is None and any(which_have("takes_soft_targets", transfer)):
            found += _of_predictors(X)
    teachers = list(known)
    for teacher in found:
        if teacher not in teachers:
            teachers.append(teacher)
    return teachers


def started_from(
    module: Any,
    parameters: Mapping[str, Any],
    network: nn.Module,
    text_models: Sequence[Backbone],
) -> Description | None:
    """Return the model whose weights or vectors a new network started from.

    Parameters
    ----------
    module : str, type, callable or torch.nn.Module
        The parameter of the student.
    parameters : mapping
        Its ``module__x``.
    network : torch.nn.Module
        What was built.
    text_models : sequence of Backbone
        Models of the vectors of static embeddings; of several columns the first counts.

    Returns
    -------
    model : dict or None
        None if it started from random numbers, or is the user's own network.
    """
    if text_models:
        return _of_backbone(text_models[0])
    if isinstance(network, EfficientNetLite):
        return _of_backbone(EfficientNetLiteBackbone(network.variant))
    if isinstance(network, TransformerText):
        name = module if isinstance(module, str) else parameters.get("encoder")
        backbone = _or_none(lambda: resolve_backbone(name)) if name else None
        return _description(None, "TransformerText") if backbone is None else _of_backbone(backbone)
    if isinstance(network, PretrainedImage):
        return _of_image_network(module, network.network)
    return None


def _of_features(X: Any, features: Any) -> list[Description]:
    """Return the descriptions of what made the foundation features."""
    if isinstance(X, FoundationFeatures):
        return [_of_reader(X, number) for number in range(len(X._source.readers))]
    return [] if features is None else [_description(None, "array")]


def _of_predictors(X: Any) -> list[Description]:
    """Return the descriptions of the estimators whose predictions X holds."""
    source = X._soft_target_source if isinstance(X, FoundationFeatures) else None
    return [
        _description(
            type(predictor.estimator).__name__,
            "TeacherPredictions",
            column=json_value(predictor.part.column),
        )
        for predictor in getattr(source, "predictors", ())
    ]


def _of_reader(X: FoundationFeatures, number: int) -> Description:
    """Return the description of a teacher."""
    reader = X._source.readers[number]
    digest = X._parts[number].model if X._parts else b""
    return _of_backbone(
        reader.backbone,
        column=json_value(reader.column),
        fingerprint=digest.hex() or _or_none(lambda: _digest(reader, X)),
    )


def _digest(reader: Reader, X: FoundationFeatures) -> str | None:
    """Return the digest of a teacher whose features are in no store."""
    if _name_on_hub(reader.backbone):
        return None
    return model_digest(model_fingerprint(reader.model, reader.rows(X._read[:1]))).hex()


def _of_backbone(
    backbone: Backbone, *, column: Any = None, fingerprint: str | None = None
) -> Description:
    original = backbone.original
    hub_name = _name_on_hub(original)
    is_tuned = original is not backbone
    if fingerprint is None and (hub_name is None or is_tuned):
        fingerprint = _or_none(lambda: model_digest(backbone.fingerprint()).hex())
    return _description(
        (hub_name or str(original.name)) + (", fine-tuned" if is_tuned else ""),
        type(original).__name__,
        column=column,
        revision=_cached_revision(hub_name) if hub_name else None,
        fingerprint=fingerprint,
        licence=_or_none(lambda: original.licence),
    )


def _of_image_network(module: Any, network: nn.Module) -> Description:
    """Return the description of a network of timm or torchvision."""
    config = getattr(network, "pretrained_cfg", None)
    config = config if isinstance(config, Mapping) else {}
    hub_name = config.get("hf_hub_id")
    name = Path(module).name if isinstance(module, str) else type(network).__name__
    return _description(
        hub_name or name,
        "PretrainedImage",
        revision=_cached_revision(hub_name) if hub_name else None,
        licence=spdx(config.get("license")),
    )


def _description(
    name: str | None,
    kind: str,
    *,
    column: Any = None,
    revision: str | None = None,
    fingerprint: str | None = None,
    licence: str | None = None,
) -> Description:
    return {
        "name": name,
        "type": kind,
        "column": column,
        "revision": revision,
        "fingerprint": fingerprint,
        "licence": licence,
    }


def _name_on_hub(backbone: Backbone) -> str | None:
    """Return the name of a model that is not in a directory."""
    name = getattr(backbone, "full_name", getattr(backbone, "name_or_path", None))
    return None if name is None or Path(name).exists() else str(name)


def _cached_revision(hub_name: str) -> str | None:
    """Return the commit of a model in the hub's cache."""
    paths = [cached_file(hub_name, file) for file in ("config.json", "model.safetensors")]
    # .../snapshots/COMMIT/config.json
    return next((path.parent.name for path in paths if path is not None), None)


def json_value(column: Any) -> Any:
    """Return a label or the name of a column as JSON can hold it."""
    if isinstance(column, (list, tuple)):
        return [json_value(name) for name in column]
    return column if column is None or type(column) in (str, int, float, bool) else str(column)


def _or_none(find: Callable[[], Any]) -> Any:
    """Return what is found, None after any error: a description must not stop a training."""
    try:
        return find()
    except Exception:
        return None
