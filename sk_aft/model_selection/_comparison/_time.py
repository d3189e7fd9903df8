"""How long a comparison takes, estimated before it starts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from sk_aft._data._batches import batches_per_epoch
from sk_aft._extractor import FoundationFeatureExtractor
from sk_aft._fine_tuned_extractor import FineTunedFeatureExtractor
from sk_aft._fine_tuning._objectives import BATCH_SIZE
from sk_aft._fine_tuning._teacher import default_steps
from sk_aft._student._estimator import StudentEstimator
from sk_aft._student._schedule import resolve_epochs, training_defaults_of
from sk_aft.model_selection._comparison._candidate import ADDED, Candidate
from sk_aft.model_selection._comparison._data import ComparisonData
from sk_aft.model_selection._model_speed import rows_per_second
from sk_aft.store import FeatureStore
from sk_aft.transfer._teacher_memory import forget_teachers

_SAMPLE = 100
_EPOCHS = 3
# Training a foundation model on some rows takes about as long as embedding them so often.
_EMBEDDINGS_PER_STEP = 3
# It is trained on all labelled rows, and on two thirds of them for each of three folds.
_TRAININGS = 4


class TimeEstimate(NamedTuple):
    """Expected seconds.

    Parameters
    ----------
    features : float
        To compute the features that are not in the store.
    fits : dict of str to float
        Of one fit of each candidate, by name, without fine-tuning; NaN if it is not known.
    tuning : float
        To fine-tune the foundation model for one fold. All candidates that need it share it.
    tuned : frozenset of str
        The names of these.
    """

    features: float
    fits: dict[str, float]
    tuning: float
    tuned: frozenset[str]


def estimate_time(
    data: ComparisonData, candidates: Sequence[Candidate], extractor: Any
) -> TimeEstimate:
    """Time the parts of a comparison on a few rows.

    Parameters
    ----------
    data : ComparisonData
        The rows.
    candidates : sequence of Candidate
        What is fitted. Estimators that the user added are not timed.
    extractor : FoundationFeatureExtractor or None
        Its models are those of the candidates; None if there are no features to compute.

    Returns
    -------
    estimate : TimeEstimate
        A rough one: it assumes that fits take time in proportion to their rows or steps.
    """
    train, _ = data.folds[0]
    sample = data.part_of(train, min(1.0, _SAMPLE / len(train)), seed=0)
    features = per_row = 0.0
    if extractor is not None and candidates:
        # The sample's features are computed here, and are not part of the time of a fit.
        rows = np.concatenate([data.labeled[sample], data.unlabeled[: len(sample)]])
        features, per_row = _seconds_of_features(data, extractor, rows)
    fits = {
        candidate.name: _seconds_of_fit(candidate, data, train, sample) for candidate in candidates
    }
    tuned = frozenset(one.name for one in candidates if _fine_tunes(one.estimator))
    n_tuned = default_steps(len(train)) * BATCH_SIZE * _EMBEDDINGS_PER_STEP * _TRAININGS
    n_embedded = len(train) + len(data.unlabeled)
    return TimeEstimate(features, fits, (n_tuned + n_embedded) * per_row, tuned)


def _seconds_of_features(
    data: ComparisonData, extractor: FoundationFeatureExtractor, sample: np.ndarray
) -> tuple[float, float]:
    """Compute features of a sample; return the seconds for all others, and those for one row."""
    fitted = clone(extractor).precompute(data.take(sample)).fit(data.X)
    per_row = 1 / rows_per_second(fitted, data.X)
    missing = [len(FeatureStore().missing(keys)) for keys in fitted.store_keys(data.X).values()]
    for backbone in fitted.backbones_:
        backbone.unload()
    return per_row * max(missing, default=0), per_row


def _seconds_of_fit(
    candidate: Candidate, data: ComparisonData, train: np.ndarray, sample: np.ndarray
) -> float:
    """Fit to a sample; return the seconds that a fit to all rows would take, NaN if unknown."""
    if candidate.role == ADDED:
        return np.nan
    unlabeled = data.unlabeled[: len(sample)] if candidate.reads_unlabeled else None
    n_unlabeled = 0 if unlabeled is None else len(data.unlabeled)
    X, y = data.training_rows(sample, unlabeled=unlabeled)
    n_rows, n_sample = len(train) + n_unlabeled, len(y)
    estimator = clone(candidate.estimator)
    student = estimator[-1] if isinstance(estimator, Pipeline) else None
    is_student = isinstance(student, StudentEstimator)
    if isinstance(student, StudentEstimator):
        student.set_params(max_epochs=_EPOCHS)
        if data.rows.kind == "text":
            # Its own start embeds the vocabulary.
            student.set_params(module__start="random")
    if _fine_tunes(estimator):
        frozen = FoundationFeatureExtractor(estimator[0].model)
        estimator = Pipeline([("frozen", frozen), *estimator.steps[1:]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forget_teachers()
        start = time.perf_counter()
        try:
            estimator.fit(X, y)
        except (ValueError, RuntimeError):
            # A sample may be too small where all rows are not. If they are, the fit says so.
            return np.nan
        seconds = time.perf_counter() - start
    if not is_student:
        return seconds * n_rows / n_sample
    # The first steps of a process are slow.
    epochs = estimator[-1].history_[:, "dur"]
    per_step = min(epochs) / _batches(len(sample), n_sample - len(sample), estimator[-1])
    steps = _steps(estimator[-1], data, len(train), n_unlabeled)
    return (seconds - sum(epochs)) * n_rows / n_sample + steps * per_step


def _batches(n_labeled: int, n_unlabeled: int, student: Any) -> int:
    return batches_per_epoch(
        n_labeled,
        n_unlabeled,
        batch_size=student.batch_size,
        unlabeled_fraction=student.unlabeled_fraction,
    )


def _steps(student: Any, data: ComparisonData, n_labeled: int, n_unlabeled: int) -> int:
    """Return how many steps a student takes by default."""
    defaults = training_defaults_of(student.module_, data.rows.kind)
    n_batches = _batches(n_labeled, n_unlabeled, student)
    n_labeled_batches = _batches(n_labeled, min(n_unlabeled, 1), student)
    return n_batches * resolve_epochs("auto", n_batches, n_labeled_batches, defaults)


def _fine_tunes(estimator: Any) -> bool:
    is_pipeline = isinstance(estimator, Pipeline)
    return is_pipeline and isinstance(estimator[0], FineTunedFeatureExtractor)
