"""Students with their default settings, and the teachers themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.accuracy._columns import Rows
from benchmarks.accuracy._rivals import folds, tuned_boosting
from sk_aft import (
    AFTClassifier,
    AFTRegressor,
    FineTunedFeatureExtractor,
    FoundationFeatureExtractor,
    TeacherPredictions,
)

MODELS: dict[str, Any] = {"text": "minilm", "image": ["effnet-lite0", "effnet-lite2"]}
# One model can be fine-tuned.
_TUNED_MODELS = {"text": "minilm", "image": "effnet-lite2"}
_TWO_LAYERS = {"module": "minilm", "module__n_layers": 2}
_SMALL = {"module__n_vectors": 4096, "module__width": 64}
_PROBE_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)


def student(rows: Rows, **parameters: Any) -> AFTClassifier | AFTRegressor:
    """Return a student that is not fitted yet."""
    kind = AFTRegressor if rows.is_regression else AFTClassifier
    return kind(missing_label=rows.missing_label, random_state=rows.seed, **parameters)


def teacher(rows: Rows, **parameters: Any) -> FoundationFeatureExtractor:
    """Return what the student learns from: foundation models, or boosting for tables."""
    if rows.column.kind == "table":
        kind = (
            HistGradientBoostingRegressor if rows.is_regression else HistGradientBoostingClassifier
        )
        return _of_predictor(rows, kind(random_state=rows.seed))
    return FoundationFeatureExtractor(MODELS[rows.column.kind], **parameters)


def _of_predictor(rows: Rows, predictor: Any) -> FoundationFeatureExtractor:
    return FoundationFeatureExtractor(
        TeacherPredictions(predictor, missing_label=rows.missing_label)
    )


def tuned_teacher(rows: Rows) -> FoundationFeatureExtractor:
    """Return a teacher that learns the task first; the folds of a search for boosting."""
    if rows.column.kind == "table":
        return _of_predictor(rows, tuned_boosting(rows))
    return FineTunedFeatureExtractor(
        _TUNED_MODELS[rows.column.kind],
        missing_label=rows.missing_label,
        random_state=rows.seed,
    )


def alone(rows: Rows, **parameters: Any) -> Pipeline:
    """Fit the student to the labels; texts start from the foundation model."""
    return make_pipeline(teacher(rows), student(rows, beta=0, **parameters)).fit(
        rows.rows, rows.labels
    )


def taught(rows: Rows, **parameters: Any) -> Pipeline:
    """Fit the default."""
    return make_pipeline(teacher(rows), student(rows, **parameters)).fit(rows.rows, rows.labels)


def taught_by_tuned(rows: Rows, **parameters: Any) -> Pipeline:
    """Fit the default after a teacher that has learned the task."""
    return make_pipeline(tuned_teacher(rows), student(rows, **parameters)).fit(
        rows.rows, rows.labels
    )


def small_alone(rows: Rows) -> Pipeline:
    """Fit a student with a fiftieth or less of MiniLM's weights to the labels."""
    return alone(rows, **_SMALL)


def small(rows: Rows) -> Pipeline:
    """Fit a student with a fiftieth or less of MiniLM's weights, taught by MiniLM."""
    return taught(rows, **_SMALL)


def two_layers_alone(rows: Rows, **parameters: Any) -> Pipeline:
    """Fit the first two layers of MiniLM to the labels."""
    return alone(rows, **_TWO_LAYERS, **parameters)


def two_layers(rows: Rows) -> Pipeline:
    """Fit the first two layers of MiniLM, taught by all six."""
    return taught(rows, **_TWO_LAYERS)


def two_layers_of_tuned(rows: Rows) -> Pipeline:
    """Fit the first two layers of MiniLM, taught by all six after they were fine-tuned."""
    return taught_by_tuned(rows, **_TWO_LAYERS)


def probe(rows: Rows, **parameters: Any) -> Pipeline:
    """Fit a logistic regression on foundation features, its penalty chosen in the labelled rows."""
    return make_pipeline(teacher(rows, **parameters), *linear(rows)).fit(*rows.labelled)


def linear(rows: Rows) -> tuple[StandardScaler, GridSearchCV]:
    """Return the steps of a probe after the features; they are not fitted yet."""
    regression = LogisticRegression(max_iter=1000, tol=1e-3)
    return StandardScaler(), GridSearchCV(regression, {"C": _PROBE_STRENGTHS}, cv=folds(rows))


def probe_of_two_layers(rows: Rows) -> Pipeline:
    """Fit a probe on the layers that the default's teachers read."""
    return probe(rows, layers="auto")


def better_probe(rows: Rows) -> Pipeline:
    """Fit the probe, of the last or of two layers, that predicts labelled rows out of fold best."""
    return max(probe(rows), probe_of_two_layers(rows), key=lambda model: model[-1].best_score_)


class TunedTeacher(BaseEstimator):
    """What a fine-tuned foundation model predicts by itself.

    Parameters
    ----------
    extractor : FineTunedFeatureExtractor
        The teacher. Its soft targets of new rows are its predictions.
    """

    def __init__(self, extractor: FineTunedFeatureExtractor) -> None:
        self.extractor = extractor

    def fit(self, rows: Any, labels: np.ndarray) -> TunedTeacher:
        """Fine-tune the model."""
        self.extractor.fit(rows, labels)
        return self

    def predict(self, rows: Any) -> np.ndarray:
        """Return the most likely label of each row."""
        probabilities = self.extractor.transform(rows).soft_targets
        return self.extractor.classes_[np.argmax(probabilities, axis=1)]


def tuned(rows: Rows) -> TunedTeacher:
    """Fine-tune the teacher."""
    return TunedTeacher(tuned_teacher(rows)).fit(rows.rows, rows.labels)
