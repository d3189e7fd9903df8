"""The pipeline that is trained: teachers, and the student that learns from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft import (
    AFTClassifier,
    AFTRegressor,
    FineTunedFeatureExtractor,
    FoundationFeatureExtractor,
    TeacherPredictions,
)
from sk_aft._command._labels import CLASSIFICATION
from sk_aft._command._messages import CommandError, listed
from sk_aft._command._tables import IMAGE, NUMBER, TEXT, TrainingData
from sk_aft.backbones import resolve_backbone

NO_TEACHER = "none"
MISSING = np.nan  # marks rows without a label in y; there also matches None
_TEACHERS = {TEXT: "minilm", IMAGE: "effnet-lite2"}


def teacher_models(names: Sequence[str] | None, data: TrainingData, seed: int) -> Any:
    """Return the models of a `FoundationFeatureExtractor`.

    Parameters
    ----------
    names : sequence of str or None
        Names of foundation models; ["none"] is no teacher. None is MiniLM for texts,
        EfficientNet-Lite2 for images, and gradient boosting if there are neither.
    data : TrainingData
        What they read.
    seed : int
        Random state of the gradient boosting.

    Returns
    -------
    models : str, list of str, dict of str to list of str, TeacherPredictions or None
        Of several columns, a dict; None without a teacher.

    Raises
    ------
    CommandError
        If no column is of the kind that a model reads.
    ValueError, ImportError
        If a name is unknown, or its package is missing.
    """
    if names is not None and NO_TEACHER in names:
        if len(names) > 1:
            raise CommandError(f"--teacher {NO_TEACHER} excludes other teachers.")
        return None
    readable = {name: kind for name, kind in data.kinds.items() if kind in _TEACHERS}
    if names is None:
        models = {name: [_TEACHERS[kind]] for name, kind in readable.items()}
    else:
        models = _models_of_columns(names, readable)
    if not models:
        return _boosting(data, seed)
    if isinstance(data.rows, list):
        (own,) = models.values()
        return own[0] if len(own) == 1 else own
    return {name: own[0] if len(own) == 1 else own for name, own in models.items()}


def build_pipeline(
    data: TrainingData,
    *,
    models: Any,
    module: str = "auto",
    fine_tune: bool = False,
    max_epochs: int | None = None,
    seed: int = 0,
    verbose: int = 0,
) -> Pipeline:
    """Return the unfitted pipeline of an extractor and a student, or of a student alone.

    Parameters
    ----------
    data : TrainingData
        Decides between classes and numbers, and whether missing numbers are filled.
    models : object
        As `teacher_models` returns them.
    module : str, default="auto"
        The student's network.
    fine_tune : bool, default=False
        Whether the teacher is fine-tuned on the labels.
    max_epochs : int, optional
        Passes over the rows; default: the network's own number.
    seed : int, default=0
        Random state.
    verbose : int, default=0
        1 shows progress bars while a foundation model runs.
    """
    parameters: dict[str, Any] = {
        "missing_label": MISSING,
        "random_state": seed,
        "beta": "auto" if models is not None else 0,
        "max_epochs": "auto" if max_epochs is None else max_epochs,
    }
    if set(data.kinds.values()) == {NUMBER} and data.rows.isna().to_numpy().any():
        parameters["preprocessor"] = make_pipeline(SimpleImputer(), StandardScaler())
    student_class = AFTClassifier if data.labels.task == CLASSIFICATION else AFTRegressor
    student = student_class(module, **parameters)
    if models is None:
        return make_pipeline(student)
    if not fine_tune:
        return make_pipeline(FoundationFeatureExtractor(models, verbose=verbose), student)
    _check_fine_tunes(models, data)
    extractor = FineTunedFeatureExtractor(
        models, missing_label=MISSING, random_state=seed, verbose=verbose
    )
    return make_pipeline(extractor, student)


def targets_of_all_rows(data: TrainingData) -> np.ndarray:
    """Return the targets of labelled rows and then `MISSING` for each of the others."""
    if data.labels.task != CLASSIFICATION:
        return np.append(data.labels.targets, np.full(data.n_unlabeled, MISSING))
    # Objects, because int and NaN would make floats, and str and NaN texts.
    targets = data.labels.targets.tolist() + [None] * data.n_unlabeled
    return np.fromiter(targets, dtype=object, count=len(targets))


def _models_of_columns(names: Sequence[str], readable: dict[str, str]) -> dict[str, list[str]]:
    """Return the models that read each column of texts or images."""
    models: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kind = resolve_backbone(name).kind
        columns = [column for column, its in readable.items() if kind in (None, its)]
        if not columns:
            found = f"only {listed(sorted(set(readable.values())))}" if readable else "neither"
            raise CommandError(
                f"The teacher {name!r} reads {'texts or images' if kind is None else kind + 's'}, "
                f"and the columns hold {found}. Name its column with --text or --image, or choose "
                "another teacher."
            )
        for column in columns:
            models[column].append(name)
    return dict(models)


def _boosting(data: TrainingData, seed: int) -> TeacherPredictions:
    is_classification = data.labels.task == CLASSIFICATION
    kind = HistGradientBoostingClassifier if is_classification else HistGradientBoostingRegressor
    return TeacherPredictions(kind(random_state=seed), missing_label=MISSING)


def _check_fine_tunes(models: Any, data: TrainingData) -> None:
    if data.labels.task != CLASSIFICATION:
        raise CommandError("--fine-tune learns classes, and the labels are numbers.")
    own = list(models.values()) if isinstance(models, dict) else [models]
    if len(own) != 1 or not isinstance(own[0], str):
        raise CommandError(
            "--fine-tune takes one foundation model of one column: name one --teacher, and one "
            "--text or --image."
        )
