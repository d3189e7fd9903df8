"""Train a small network with features of large foundation models; deploy only the small one.

``make_pipeline(FoundationFeatureExtractor(...), AFTClassifier(...))`` is a scikit-learn pipeline
that is trained with foundation features and predicts without them.

Names are loaded when they are first used, so ``import sk_aft.serving`` needs neither PyTorch nor
scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sk_aft._cascade._cascade_classifier import CascadeClassifier
    from sk_aft._classifier import AFTClassifier
    from sk_aft._extractor import FoundationFeatureExtractor
    from sk_aft._features import FoundationFeatures
    from sk_aft._fine_tuned_extractor import FineTunedFeatureExtractor
    from sk_aft._predictors._teacher_predictions import TeacherPredictions
    from sk_aft._regressor import AFTRegressor
    from sk_aft._runtime._processes import fit_together

__version__ = "0.2.dev0"
__all__ = [
    "AFTClassifier",
    "AFTRegressor",
    "CascadeClassifier",
    "FineTunedFeatureExtractor",
    "FoundationFeatureExtractor",
    "FoundationFeatures",
    "TeacherPredictions",
    "fit_together",
]

_MODULES = {
    "AFTClassifier": "sk_aft._classifier",
    "AFTRegressor": "sk_aft._regressor",
    "CascadeClassifier": "sk_aft._cascade._cascade_classifier",
    "FineTunedFeatureExtractor": "sk_aft._fine_tuned_extractor",
    "FoundationFeatureExtractor": "sk_aft._extractor",
    "FoundationFeatures": "sk_aft._features",
    "TeacherPredictions": "sk_aft._predictors._teacher_predictions",
    "fit_together": "sk_aft._runtime._processes",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "sklearn", "skorch", "scipy"):
            raise
        raise ImportError(
            f"{name} needs {error.name}, which is not installed. If this is the serving part of "
            "sk-aft, use sk_aft.serving.load; otherwise run: pip install sk-aft"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
