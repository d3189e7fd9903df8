"""The specs of foundation models and the backbones they stand for."""

from __future__ import annotations

import os
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from sklearn.base import is_regressor

from sk_aft.backbones._base import Backbone
from sk_aft.backbones._callable import CallableBackbone
from sk_aft.backbones._efficientnet import EfficientNetLiteBackbone
from sk_aft.backbones._hugging_face_families import hugging_face_backbone, hugging_face_object
from sk_aft.backbones._onnx_model import OnnxBackbone
from sk_aft.backbones._open_clip import OpenClipBackbone
from sk_aft.backbones._sentence_transformers import SentenceTransformerBackbone
from sk_aft.backbones._sklearn import SklearnBackbone
from sk_aft.backbones._text_objects import (
    SentenceTransformerObject,
    from_pipeline,
    is_model_of_transformers,
    is_pipeline_of_transformers,
    is_sentence_transformer,
    refuse_tokenizer,
)
from sk_aft.backbones._timm import TimmBackbone
from sk_aft.backbones._timm_objects import TimmObject, is_model_of_timm
from sk_aft.backbones._torch import TorchBackbone
from sk_aft.backbones._torchvision import TorchvisionBackbone, is_of_torchvision

NAMES: dict[str, Callable[[], Backbone]] = {
    "minilm": SentenceTransformerBackbone.minilm,
    "effnet-lite0": lambda: EfficientNetLiteBackbone(0),
    "effnet-lite1": lambda: EfficientNetLiteBackbone(1),
    "effnet-lite2": lambda: EfficientNetLiteBackbone(2),
}
PREFIXES: dict[str, Callable[[str], Backbone]] = {
    "st": SentenceTransformerBackbone,
    "hf": hugging_face_backbone,
    "timm": TimmBackbone,
    "open_clip": OpenClipBackbone,
    "onnx": OnnxBackbone,
}


def resolve_backbone(model: Any) -> Backbone:
    """Return the backbone for a user's model.

    Parameters
    ----------
    model : str, Backbone, torch.nn.Module, estimator or callable
        A spec (a name such as "minilm", "st:NAME", "hf:NAME", "timm:NAME",
        "open_clip:NAME/PRETRAINED" or "onnx:PATH", or a directory of a model of the first two), a
        backbone, a module, a loaded SentenceTransformer or model of transformers, a network of timm
        or torchvision, a fitted scikit-learn transformer, or a function from a batch of rows to an
        (n, d) array.

    Returns
    -------
    backbone : Backbone
        The model is not loaded yet.

    Raises
    ------
    ValueError
        If a spec is unknown; the message lists the known ones.
    TypeError
        If the object cannot serve as a model.
    """
    if isinstance(model, Backbone):
        return model
    if isinstance(model, str):
        return _from_spec(model)
    if isinstance(model, type):
        fitted = ", fitted" if hasattr(model, "fit") else ""
        raise TypeError(f"model is the class {model.__name__}: give an instance of it{fitted}.")
    refuse_tokenizer(model)
    if is_sentence_transformer(model):
        return SentenceTransformerObject(model)
    if is_model_of_transformers(model):
        return hugging_face_object(model)
    if is_pipeline_of_transformers(model):
        return from_pipeline(model)
    if is_model_of_timm(model):
        return TimmObject(model)
    if is_of_torchvision(model):
        return TorchvisionBackbone(model)
    if isinstance(model, torch.nn.Module):
        return TorchBackbone(model)
    if hasattr(model, "transform"):
        return SklearnBackbone(model)
    if callable(model):
        return CallableBackbone(model)
    if hasattr(model, "predict"):
        raise TypeError(
            f"model is a predictor ({type(model).__name__}), which has no features. A "
            "FoundationFeatureExtractor takes it as a teacher, see sk_aft.TeacherPredictions. To "
            "use its predictions as features, fit it on rows that no score is computed on, and "
            f"give the function `lambda rows: {_predictions(model)}`."
        )
    raise TypeError(
        f"Cannot use an object of type {type(model).__name__} as a foundation model: give a spec "
        f"among {_known()}, a torch module, a fitted transformer or a function."
    )


def _predictions(predictor: Any) -> str:
    """Return an expression for a predictor's most informative output, as a matrix."""
    if hasattr(predictor, "__sklearn_tags__") and is_regressor(predictor):
        return "model.predict(rows).reshape(-1, 1)"
    if hasattr(predictor, "predict_proba"):
        return "model.predict_proba(rows)"
    if hasattr(predictor, "decision_function"):
        return "model.decision_function(rows).reshape(len(rows), -1)"
    return "model.predict(rows).reshape(-1, 1)"


def _from_spec(spec: str) -> Backbone:
    if spec in NAMES:
        return NAMES[spec]()
    prefix, colon, name = spec.partition(":")
    if colon and name and prefix in PREFIXES:
        return PREFIXES[prefix](name)
    if os.path.isdir(spec):  # False for "", which Path takes for "."
        is_sentence_transformer = os.path.exists(os.path.join(spec, "modules.json"))
        return PREFIXES["st" if is_sentence_transformer else "hf"](spec)
    raise ValueError(f"Unknown foundation model {spec!r}.{_meant(spec)} Known: {_known()}.")


def _meant(spec: str) -> str:
    """Return a sentence that says what a misspelled spec may stand for, empty if unknown."""
    prefix, colon, name = spec.partition(":")
    if spec.lower().endswith(".onnx") and prefix.lower() != "onnx":
        return f" Did you mean 'onnx:{spec}'?"
    if colon and name and prefix.lower() == "torchvision":
        return (
            f" A network of torchvision is given as it is, torchvision.models.{name}"
            f"(weights='DEFAULT'); 'timm:{name}' may be the same architecture."
        )
    if colon and name:
        close = get_close_matches(prefix.lower(), PREFIXES, n=1)
        return f" Did you mean '{close[0]}:{name}'?" if close else ""
    close = get_close_matches(spec.lower(), NAMES)
    if close:
        return f" Did you mean {' or '.join(map(repr, close))}?"
    if "/" not in spec:
        return ""
    return (
        f" For a model of the Hugging Face hub write 'st:{spec}' (sentence-transformers) or "
        f"'hf:{spec}' (transformers)."
    )


def _known() -> str:
    specs = ", ".join([*map(repr, NAMES), *(f"'{prefix}:NAME'" for prefix in PREFIXES)])
    return (
        f"{specs}, or a directory. NAME is on the Hugging Face hub or a directory (st, hf), a "
        "model of timm, MODEL/PRETRAINED of open_clip, or the path of an ONNX file"
    )
