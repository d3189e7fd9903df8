"""What a fitted estimator costs where it predicts: its size, its time and its packages."""

from __future__ import annotations

import copy
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples
from threadpoolctl import threadpool_limits
from torch import nn

from sk_aft._classifier import AFTClassifier
from sk_aft._extractor import FoundationFeatureExtractor
from sk_aft._fine_tuning._backbone import FineTunedBackbone
from sk_aft._regressor import AFTRegressor
from sk_aft._runtime._device import resolve_device
from sk_aft.backbones import Backbone
from sk_aft.backbones._base import HoldsObjects, LoadedOnDemand
from sk_aft.backbones._network import Network
from sk_aft.model_selection._comparison._hog_features import HogFeatures
from sk_aft.model_selection._comparison._pseudo_labels import PseudoLabels
from sk_aft.serving import load
from sk_aft.serving._folder import WEIGHTS, StudentFolder

FOLDER, PICKLE = "folder", "pickle"
_STUDENTS = (AFTClassifier, AFTRegressor)
_BYTES_PER_WEIGHT = 4
_TIMED_ROWS, _TIMED_ROUNDS = 50, 5
_BATCH, _BATCH_ROUNDS = 256, 3
_SECONDS = 1.0  # for single rows, and again for batches
_ROWS_TO_CHECK_GRAPH = 32


@dataclass(frozen=True)
class DeploymentCost:
    """What a fitted estimator costs where it predicts.

    Parameters
    ----------
    megabytes : float
        Size of the files, in 10^6 bytes, with the weights of foundation models that it runs. NaN
        if it cannot be pickled.
    ms_per_row : float
        Milliseconds of a prediction of a single row, on one core.
    ms_per_row_of_256 : float
        Milliseconds a row if 256 rows are predicted together, on one core.
    packages : str
        What has to be installed, besides sk-aft and what these packages need.
    served : {"folder", "pickle"}
        Whether it was measured as the folder of a student in `sk_aft.serving`, or as a pickle.
    """

    megabytes: float
    ms_per_row: float
    ms_per_row_of_256: float
    packages: str
    served: str


def deployment_cost(estimator: Any, rows: Any) -> DeploymentCost:
    """Measure what a fitted estimator costs where it predicts; takes a few seconds.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator, pipeline or search; it has to have ``predict``.
    rows : array-like, list, Series or DataFrame of n_rows rows
        Rows to predict, different ones.

    Returns
    -------
    cost : DeploymentCost
        Of what `deployed` returns. A student is measured as the folder that `save_pretrained`
        writes, in ONNX Runtime unless it is a static one of texts, and without the weights that
        serving does not read. If there can be no such folder, it is measured as any other
        estimator: as a pickle that is predicted with.
    """
    served = deployed(estimator)
    if isinstance(served, _STUDENTS):
        rows = _inputs_of_student(estimator, rows)
        with tempfile.TemporaryDirectory() as directory:
            found = _of_folder(served, rows, Path(directory) / "student")
        if found is not None:
            return found
    extractors = [part for part in _nested(served) if _is_fitted_extractor(part)]
    # A foundation model runs once for rows of the same content.
    single, batch = _milliseconds(served.predict, rows, may_repeat=not extractors)
    backbones = {
        id(backbone): (backbone, extractor.device)
        for extractor in extractors
        for backbone in extractor.backbones_
    }
    n_bytes = _pickled_bytes(served) + sum(_weight_bytes(*one) for one in backbones.values())
    return DeploymentCost(n_bytes / 1e6, single, batch, ", ".join(_packages(served)), PICKLE)


def deployed(estimator: Any) -> Any:
    """Return the part of a fitted estimator that a server would run.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator, pipeline or search.

    Returns
    -------
    served : estimator
        A student is complete by itself, and so is the model of pseudo-labels. Of a search, it is
        the best estimator. Anything else is served whole, including foundation models, which have
        no store, because new rows are not in one.
    """
    if hasattr(estimator, "best_estimator_"):
        return deployed(estimator.best_estimator_)
    if isinstance(estimator, PseudoLabels):
        return deployed(estimator.model_)
    if not isinstance(estimator, Pipeline):
        return _without_store(estimator)
    *before, (name, last) = estimator.steps
    last = deployed(last)
    if isinstance(last, _STUDENTS):
        before = [
            (key, step)
            for key, step in before
            if not isinstance(step, FoundationFeatureExtractor) or _selects_inputs(step, before)
        ]
    if not before:
        return last
    return Pipeline([*((key, _without_store(step)) for key, step in before), (name, last)])


def _selects_inputs(step: FoundationFeatureExtractor, before: list) -> bool:
    """Return whether an extractor among other steps chooses the columns that a student reads."""
    are_alone = all(isinstance(other, FoundationFeatureExtractor) for _, other in before)
    return step.inputs is not None and not are_alone


def _inputs_of_student(estimator: Any, rows: Any) -> Any:
    """Return what the student of a pipeline gets of raw rows; no model runs."""
    while hasattr(estimator, "best_estimator_"):
        estimator = estimator.best_estimator_
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps[:-1]:
            rows = step.transform(rows).inputs
    return rows


def _of_folder(student: Any, rows: Any, directory: Path) -> DeploymentCost | None:
    """Measure a student as a served folder; None if it cannot be one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of exporters, and of preprocessors outside the graph
            student.save_pretrained(directory)
            is_static = StudentFolder.open(directory).is_static_text
            if not is_static:
                n_rows = min(_num_samples(rows), _ROWS_TO_CHECK_GRAPH)
                student.export_onnx(directory, _safe_indexing(rows, np.arange(n_rows)))
                (directory / WEIGHTS).unlink()  # the graph has its own
            served = load(directory)
    except (ImportError, ValueError, TypeError, RuntimeError):
        return None
    config = StudentFolder.open(directory).config
    single, batch = _milliseconds(served.predict, rows, may_repeat=True)
    n_bytes = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    kinds = _kinds(config)
    packages = ["numpy"]
    packages += [] if is_static else ["onnxruntime"]
    packages += ["pillow"] if "image" in kinds else []
    packages += ["tokenizers"] if "text" in kinds else []
    return DeploymentCost(n_bytes / 1e6, single, batch, ", ".join(packages), FOLDER)


def _kinds(config: dict[str, Any]) -> set[str]:
    """Return the kinds of the rows, or of a frame's columns."""
    state = (config["preprocessor"] or {}).get("state", {})
    is_frame = config["rows"]["kind"] == "frame"
    return set(dict(state["kinds_"]).values()) if is_frame else {config["rows"]["kind"]}


def _milliseconds(
    predict: Callable[[Any], Any], rows: Any, *, may_repeat: bool
) -> tuple[float, float]:
    """Return the time of a single row, and that of a row in a batch.

    The first is the median over the rows of the best of several rounds, the second the best of
    several batches. A slow model has fewer rows, rounds, and rows in a batch.
    """
    n_rows = _num_samples(rows)
    singles = [_safe_indexing(rows, [row]) for row in range(min(n_rows, _TIMED_ROWS))]
    predict(singles[0])  # some parts are loaded at the first use
    # One row is too little work for several threads: they would mostly wait for each other.
    with threadpool_limits(1):
        best = np.full(len(singles), np.inf)
        end = time.perf_counter() + _SECONDS
        for row in np.tile(np.arange(len(singles)), _TIMED_ROUNDS):
            best[row] = min(best[row], _seconds(predict, singles[row]))
            if time.perf_counter() > end:
                break
        single = float(np.median(best[np.isfinite(best)]))
        n_batch = min(_BATCH if may_repeat else min(_BATCH, n_rows), max(1, int(_SECONDS / single)))
        batch = _safe_indexing(rows, np.arange(n_batch) % n_rows)
        end = time.perf_counter() + _SECONDS
        # The first may be the one that exports a foundation model.
        durations = [_seconds(predict, batch), _seconds(predict, batch)]
        while len(durations) < _BATCH_ROUNDS and time.perf_counter() < end:
            durations.append(_seconds(predict, batch))
    return 1e3 * single, 1e3 * min(durations) / n_batch


def _seconds(predict: Callable[[Any], Any], rows: Any) -> float:
    start = time.perf_counter()
    predict(rows)
    return time.perf_counter() - start


def _pickled_bytes(estimator: Any) -> float:
    buffer = io.BytesIO()
    try:
        joblib.dump(estimator, buffer)
    except Exception:  # objects fail in many ways
        return float("nan")
    return buffer.tell()


def _weight_bytes(backbone: Any, device: Any) -> int:
    """Return the size of a model's weights, without those that its pickle holds."""
    if isinstance(backbone, HoldsObjects):
        return 0
    weights = {
        id(weight): weight.numel()
        for network in _networks(backbone, device)
        for weight in network.parameters()
    }
    pickled = getattr(backbone, "_weights", None) if isinstance(backbone, FineTunedBackbone) else {}
    n_pickled = sum(weight.numel() for weight in (pickled or {}).values())
    return _BYTES_PER_WEIGHT * (sum(weights.values()) - n_pickled)


def _networks(backbone: Any, device: Any) -> list[nn.Module]:
    """Return the networks of a model, which it loads possibly together with a tokenizer."""
    if isinstance(backbone, FineTunedBackbone):
        backbone.prepare(resolve_device(device))
        assert backbone._running is not None
        backbone = backbone._running[1]
    held = list(vars(backbone).values())
    if isinstance(backbone, LoadedOnDemand):
        loaded = backbone.loaded(resolve_device(device))
        held += loaded if isinstance(loaded, tuple) else [loaded]
    held = [part.module if isinstance(part, Network) else part for part in held]
    return [part for part in held if isinstance(part, nn.Module)]


def _packages(estimator: Any) -> list[str]:
    """Return the distributions whose classes an estimator consists of, sorted."""
    roots, packages = set(), set()
    for part in _nested(estimator):
        if isinstance(part, _STUDENTS):
            packages |= {"scikit-learn", "skorch", "torch"}
        if isinstance(part, HogFeatures):
            packages.add("scikit-image")
        parts = [part]
        if _is_fitted_extractor(part):
            for backbone in part.backbones_:
                parts += _parts_of(backbone, part.device)
        roots |= {base.__module__.split(".")[0] for one in parts for base in type(one).__mro__}
    for root in roots - {"sk_aft"}:
        packages |= set(_distributions().get(root, ()))
    return sorted(packages)


def _parts_of(backbone: Any, device: Any) -> list[Any]:
    """Return the layers of a foundation model, or the estimators that it holds."""
    layers = [layer for network in _networks(backbone, device) for layer in network.modules()]
    return [*layers, *(part for part in vars(backbone).values() if isinstance(part, BaseEstimator))]


def _is_fitted_extractor(part: Any) -> bool:
    """Return whether this is an extractor that predictions use, not a parameter to clone."""
    return isinstance(part, FoundationFeatureExtractor) and hasattr(part, "backbones_")


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _nested(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield an estimator, and the estimators and networks in it."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _nested(item, seen)
    elif isinstance(value, dict):
        yield from _nested(list(value.values()), seen)
    elif isinstance(value, BaseEstimator):
        yield value
        if not isinstance(value, (*_STUDENTS, FoundationFeatureExtractor)):
            yield from _nested(list(vars(value).values()), seen)
    elif isinstance(value, (nn.Module, Backbone)) or hasattr(value, "predict"):
        yield value


def _without_store(value: Any) -> Any:
    """Return an estimator whose foundation models have no store and show no progress.

    Parts that hold one are copied, others are shared.
    """
    if isinstance(value, FoundationFeatureExtractor):
        return copy.copy(value).set_params(cache=None, verbose=0)
    if not any(isinstance(part, FoundationFeatureExtractor) for part in _nested(value)):
        return value
    if isinstance(value, dict):
        other = copy.copy(value)  # it may be a Bunch
        other.update({key: _without_store(item) for key, item in value.items()})
        return other
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_store, value))
    other = copy.copy(value)
    vars(other).update({key: _without_store(item) for key, item in vars(value).items()})
    return other
