"""What is compared: rivals that fit the rows, students, teachers, and estimators of the user."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.base import clone, is_classifier, is_regressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sk_aft._classifier import AFTClassifier
from sk_aft._data._marks import reads_unlabeled
from sk_aft._data._rows import Rows
from sk_aft._extractor import FoundationFeatureExtractor
from sk_aft._fine_tuned_extractor import FineTunedFeatureExtractor
from sk_aft._predictors._teacher_predictions import TeacherPredictions
from sk_aft._regressor import AFTRegressor
from sk_aft.backbones import resolve_backbone
from sk_aft.model_selection._comparison._candidate import (
    ADDED,
    STUDENT,
    TEACHER,
    Candidate,
    Lineup,
)
from sk_aft.model_selection._comparison._data import ComparisonData
from sk_aft.model_selection._comparison._rivals import left_out, rivals, with_features

ALONE, TAUGHT, OF_TUNED, TUNED_TEACHER = (
    "student-alone",
    "student",
    "student-of-tuned",
    "tuned-teacher",
)
BOOSTING = "boosting"
READ_FEATURES = ("probe", "pseudo-labels", TAUGHT, OF_TUNED, TUNED_TEACHER)
RESERVED = (
    *("tf-idf", "probe", "pseudo-labels", "static-embeddings"),
    *("hog-svm", BOOSTING, "linear", "mlp"),
    *(ALONE, TAUGHT, OF_TUNED, TUNED_TEACHER),
)
_TEACHERS = {"text": "minilm", "image": "effnet-lite2"}


def choose_models(models: Any, data: ComparisonData, random_state: int) -> Any:
    """Return the models of a `FoundationFeatureExtractor` that teach.

    Parameters
    ----------
    models : object
        As for `compare_transfer`. "auto" is MiniLM for texts and EfficientNet-Lite2 for images, by
        column in a DataFrame. Of rows that have neither, gradient boosting is the teacher.
    data : ComparisonData
        The rows.
    random_state : int
        Of the gradient boosting.

    Returns
    -------
    models : object
        What the extractor takes; predictors know the mark of rows without a label.
    """
    if models is not None and not isinstance(models, str):
        return _marking(models, data.missing_label)
    if models != "auto":
        return models
    if data.rows.kind in _TEACHERS:
        return _TEACHERS[data.rows.kind]
    if data.rows.kind == "frame":
        kinds = kinds_of_columns(data.rows)
        of_columns = {name: _TEACHERS[kind] for name, kind in kinds.items() if kind in _TEACHERS}
        if of_columns:
            return of_columns
    regressor = HistGradientBoostingRegressor(random_state=random_state)
    classifier = HistGradientBoostingClassifier(random_state=random_state)
    boosting = classifier if data.is_classification else regressor
    return TeacherPredictions(boosting, missing_label=data.missing_label)


def kinds_of_columns(rows: Rows) -> dict[Any, str]:
    """Return the kind of each column of a DataFrame."""
    return {name: rows.column(name, missing=True).kind for name in rows.values.columns}


def choose_candidates(
    candidates: Any, data: ComparisonData, models: Any, random_state: int
) -> Lineup:
    """Return the candidates that a user asked for.

    Parameters
    ----------
    candidates : "auto", list or mapping
        As for `compare_transfer`.
    data : ComparisonData
        The rows.
    models : object
        As returned by `choose_models`.
    random_state : int
        Of the automatic candidates.

    Returns
    -------
    lineup : Lineup
        The candidates.

    Raises
    ------
    ValueError
        If a name is unknown or occurs twice, or an automatic candidate cannot take part.
    """
    automatic, reasons = _automatic(data, models, random_state)
    if isinstance(candidates, str) and candidates == "auto":
        return Lineup(list(automatic.values()), reasons)
    if isinstance(candidates, Mapping):
        candidates = ["auto", *candidates.items()]
    if isinstance(candidates, str) or not isinstance(candidates, Sequence) or not candidates:
        raise ValueError(
            f"candidates is {candidates!r}, expected 'auto', a list of names and "
            "(name, estimator) pairs, or a mapping of names to estimators."
        )
    chosen: list[Candidate] = []
    for item in candidates:
        if item == "auto" if isinstance(item, str) else False:
            chosen += automatic.values()
        elif isinstance(item, str):
            chosen.append(_named(item, automatic, reasons))
        else:
            chosen.append(_added(item, data))
    names = [candidate.name for candidate in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"Two candidates are named {twice!r}: give one of them another name.")
    has_auto = "auto" in [item for item in candidates if isinstance(item, str)]
    return Lineup(chosen, reasons if has_auto else {})


def _automatic(
    data: ComparisonData, models: Any, random_state: int
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Return all automatic candidates by name, and why others cannot take part."""
    own = rivals(
        data.rows,
        data.task,
        models,
        missing_label=data.missing_label,
        has_unlabeled=bool(len(data.unlabeled)),
        n_labeled=min(len(train) for train, _ in data.folds),
        n_smallest_class=data.n_smallest_class,
        random_state=random_state,
    )
    has_unlabeled = bool(len(data.unlabeled))
    reasons = left_out(data.rows, data.task, models, has_unlabeled=has_unlabeled)
    if with_features(models) is None and data.rows.kind not in ("text", "image"):
        reasons.pop("probe", None)  # a table has none, which needs no reason
    estimator = AFTClassifier if data.is_classification else AFTRegressor
    student = estimator(missing_label=data.missing_label, random_state=random_state)
    students = []
    if models is not None:
        extractor = FoundationFeatureExtractor(models)
        alone = clone(student).set_params(beta=0)
        # A student of texts starts from the model of its pipeline; others need none to start.
        starts_from = [extractor] if _reads_texts(data.rows) and with_features(models) else []
        students = [
            Candidate(ALONE, "Student alone", make_pipeline(*starts_from, alone), STUDENT, True),
            Candidate(TAUGHT, "Student, taught", make_pipeline(extractor, student), STUDENT, True),
        ]
        boosting = next((rival for rival in own if rival.name == BOOSTING), None)
        students += _tuned(data, models, student, boosting, reasons, random_state)
    return {candidate.name: candidate for candidate in [*own, *students]}, reasons


def _reads_texts(rows: Rows) -> bool:
    kinds = kinds_of_columns(rows).values() if rows.kind == "frame" else [rows.kind]
    return "text" in kinds


def _tuned(
    data: ComparisonData,
    models: Any,
    student: Any,
    boosting: Candidate | None,
    reasons: dict[str, str],
    random_state: int,
) -> list[Candidate]:
    """Return the tuned teacher and its student; says in ``reasons`` why there are none."""
    if isinstance(models, TeacherPredictions) and boosting is not None:
        tuned = TeacherPredictions(boosting.estimator, missing_label=data.missing_label)
        taught = make_pipeline(FoundationFeatureExtractor(tuned), student)
        title = "Student, taught by tuned boosting"
        return [Candidate(OF_TUNED, title, taught, STUDENT, reads_unlabeled=True)]
    reason = _why_not_tunable(data, models)
    if reason is not None:
        reasons[OF_TUNED] = reasons[TUNED_TEACHER] = reason
        return []
    extractor = FineTunedFeatureExtractor(
        models, missing_label=data.missing_label, random_state=random_state
    )
    head = LogisticRegression(max_iter=1000)
    return [
        Candidate(
            OF_TUNED,
            "Student, taught by the tuned teacher",
            make_pipeline(extractor, student),
            STUDENT,
            reads_unlabeled=True,
        ),
        Candidate(TUNED_TEACHER, "Tuned teacher", make_pipeline(extractor, head), TEACHER),
    ]


def _why_not_tunable(data: ComparisonData, models: Any) -> str | None:
    """Return why a model cannot be fine-tuned for the rows; None if it can."""
    if not data.is_classification:
        return "only classes are learned by fine-tuning"
    model = models
    if isinstance(models, Mapping):
        if len(models) != 1:
            return "one model of one column can be fine-tuned"
        (model,) = models.values()
    if isinstance(model, list) and len(model) == 1:
        (model,) = model
    if isinstance(model, list | Mapping | TeacherPredictions):
        return "one foundation model can be fine-tuned"
    try:
        resolve_backbone(model).check_tunable()
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def fingerprints(models: Any) -> list[dict[str, Any]]:
    """Return what determines the features of some models."""
    if isinstance(models, list):
        return [one for model in models for one in fingerprints(model)]
    if isinstance(models, Mapping):
        return [one for model in models.values() for one in fingerprints(model)]
    return [] if models is None else [resolve_backbone(models).fingerprint()]


def names_of_models(models: Any) -> str:
    """Return the names of the models that teach."""
    if models is None:
        return ""
    if isinstance(models, Mapping):
        return ", ".join(dict.fromkeys(map(names_of_models, models.values())))
    if isinstance(models, list):
        return ", ".join(dict.fromkeys(map(names_of_models, models)))
    if isinstance(models, str):
        return models
    model = models.estimator if isinstance(models, TeacherPredictions) else models
    return str(getattr(model, "name", type(model).__name__))


def _marking(models: Any, missing_label: Any) -> Any:
    """Return models whose predictors know how rows without a label are marked."""
    if isinstance(models, list):
        return [_marking(model, missing_label) for model in models]
    if isinstance(models, Mapping):
        return {column: _marking(model, missing_label) for column, model in models.items()}
    if not isinstance(models, TeacherPredictions):
        return models
    return clone(models).set_params(missing_label=missing_label)


def _named(name: str, automatic: Mapping[str, Candidate], reasons: Mapping[str, str]) -> Candidate:
    """Return the automatic candidate of a name."""
    if name in automatic:
        return automatic[name]
    if name in reasons:
        raise ValueError(f"The candidate {name!r} cannot take part: {reasons[name]}.")
    close = difflib.get_close_matches(name, automatic, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"There is no candidate {name!r} for these rows, only {sorted(automatic)}.{hint}"
    )


def _added(item: Any, data: ComparisonData) -> Candidate:
    """Return a candidate of the user's, (name, estimator)."""
    is_pair = isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], str)
    if not is_pair:
        raise ValueError(
            f"A candidate is {item!r}, expected the name of one, or a pair (name, estimator)."
        )
    name, estimator = item
    if name in RESERVED:
        raise ValueError(
            f"{name!r} is the name of an automatic candidate: give yours another name."
        )
    if isinstance(estimator, type) or not (
        hasattr(estimator, "fit") and hasattr(estimator, "get_params")
    ):
        raise ValueError(
            f"The candidate {name!r} is {estimator!r}, expected an estimator with fit, predict and "
            "get_params."
        )
    other = is_regressor if data.is_classification else is_classifier
    if other(estimator):
        kind = "classes" if data.is_classification else "numbers"
        raise ValueError(
            f"y holds {kind}, and the candidate {name!r} ({type(estimator).__name__}) does not "
            f"predict {kind}."
        )
    reads = reads_unlabeled(estimator, data.missing_label, name)
    return Candidate(name, name, estimator, ADDED, reads)
