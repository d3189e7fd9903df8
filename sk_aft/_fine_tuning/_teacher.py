"""A foundation model and the labelled rows that it learns from, with predictions for these."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sk_aft._extraction._reader import Reader
from sk_aft._extraction._source import FeatureSource
from sk_aft._fine_tuning._backbone import FineTunedBackbone, LabeledRows
from sk_aft._fine_tuning._objectives import BATCH_SIZE, MOST_CLASSES_IN_PAIRS, OBJECTIVES
from sk_aft._fine_tuning._soft_targets import (
    OutOfFold,
    TunedSoftTargets,
    features_of,
    frozen_folds,
    out_of_fold,
    tuned_out_of_fold,
    tuning_folds,
)
from sk_aft._fine_tuning._training import TuningSettings

FROZEN = "frozen"
# With fewer labelled rows, whether the frozen model is as good out of fold is left to chance.
_FEWEST_ROWS_TO_COMPARE = 50
_PASSES = 4
_FEWEST_STEPS, _MOST_STEPS = 100, 1000


class TeacherSettings(NamedTuple):
    """Parameters of `FineTunedFeatureExtractor`, with "auto" where it has to be resolved."""

    objective: str
    n_steps: int | str
    lr: float | str
    cv: int | str
    seed: int
    is_reproducible: bool
    verbose: int


def default_objective(labeled: LabeledRows) -> str:
    """Return "pairs" for texts if a batch holds two rows of each class, else "linear"."""
    are_few = labeled.n_classes <= MOST_CLASSES_IN_PAIRS
    return "pairs" if labeled.rows.kind == "text" and are_few else "linear"


def default_steps(n_labeled: int) -> int:
    """Return how many batches the model is trained on by default."""
    passes = round(_PASSES * n_labeled / BATCH_SIZE)
    return min(max(passes, _FEWEST_STEPS), _MOST_STEPS)


class Teacher:
    """A model that is fine-tuned, or stays frozen if that is as good.

    Nothing is trained before features or soft targets are needed, unless ``objective="auto"`` has
    to choose.

    Parameters
    ----------
    reader : Reader
        The model before it is fine-tuned, and the column that it reads.
    labeled : LabeledRows
        What it learns from.
    settings : TeacherSettings
        How it learns.
    source : FeatureSource
        How models are run, and where features are kept.

    Attributes
    ----------
    objective : {"linear", "pairs", "frozen"}
        What the model is trained for.
    reader : Reader
        The fine-tuned model, or the original if it stays frozen, and what it reads.
    scores : dict of str to dict
        Out-of-fold "accuracy" and "log_loss", by objective.
    """

    def __init__(
        self, reader: Reader, labeled: LabeledRows, settings: TeacherSettings, source: FeatureSource
    ) -> None:
        self._original, self._labeled, self._source = reader, labeled, source
        self._settings = settings
        self._folds = tuning_folds(labeled, settings.cv, settings.seed)
        self.scores: dict[str, dict[str, float]] = {}
        is_automatic = settings.objective == "auto"
        self.objective = default_objective(labeled) if is_automatic else settings.objective
        self._predictions: OutOfFold | None = None
        if is_automatic and self._folds and len(labeled.labels) >= _FEWEST_ROWS_TO_COMPARE:
            # In this order, because a model that cannot be fine-tuned fails at once.
            tuned, frozen = self._of_tuned(), self._of_frozen()
            is_frozen = frozen.scores["log_loss"] <= tuned.scores["log_loss"]
            self.objective = FROZEN if is_frozen else self.objective
            self._predictions = frozen if is_frozen else tuned
        self.reader = reader
        if self.objective != FROZEN:
            self.reader = Reader(self._tuned(labeled), reader.column, reader.kind)
            reader.backbone.unload()  # `teacher_features` loads the original again

    def soft_targets(self, classes: np.ndarray) -> TunedSoftTargets:
        """Return what predicts the classes of rows."""
        return TunedSoftTargets(
            classes,
            self._original,
            self._labeled,
            self._predict_labeled,
            self._features,
        )

    def _features(self) -> np.ndarray:
        return features_of(self.reader, self._labeled, self._source)

    def _predict_labeled(self) -> OutOfFold:
        if self._predictions is None:
            self._predictions = self._of_tuned() if self._folds else self._of_frozen()
        return self._predictions

    def _of_frozen(self) -> OutOfFold:
        features = features_of(self._original, self._labeled, self._source)
        folds = self._folds or frozen_folds(self._labeled, self._settings.seed)
        return self._scored(FROZEN, out_of_fold(self._labeled, folds, features))

    def _of_tuned(self) -> OutOfFold:
        predictions = tuned_out_of_fold(self._labeled, self._folds, self._source, self._tuned)
        return self._scored(self.objective, predictions)

    def _scored(self, name: str, predictions: OutOfFold) -> OutOfFold:
        if predictions.scores:
            self.scores[name] = predictions.scores
        return predictions

    def _tuned(self, labeled: LabeledRows, fold: str = "") -> FineTunedBackbone:
        _, n_steps, lr, _, seed, is_reproducible, verbose = self._settings
        if n_steps == "auto":
            n_steps = default_steps(len(self._labeled.labels))
        if lr == "auto":
            lr = OBJECTIVES[self.objective].lr
        settings = TuningSettings(self.objective, int(n_steps), float(lr), seed, is_reproducible)
        return FineTunedBackbone(
            self._original.backbone, labeled, settings, self._source, fold=fold, verbose=verbose
        )
