"""The two classifiers of a cascade: checked, fitted, and asked about held-out rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from sk_aft._data._missing import is_missing


class Targets(NamedTuple):
    """Labels of all rows.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Labels, sorted.
    codes : ndarray of shape (n_rows,), int
        Positions among the classes; -1 for rows without a label.
    marked : array-like of shape (n_rows,)
        Labels and marks of unknown labels, as they were given.
    """

    classes: np.ndarray
    codes: np.ndarray
    marked: Any

    @classmethod
    def of(cls, classes: np.ndarray, known: np.ndarray, labeled: np.ndarray, y: Any) -> Targets:
        """Return the targets; ``known`` are the labels of rows that are ``labeled``."""
        codes = np.full(len(labeled), -1)
        codes[labeled] = np.searchsorted(classes, known)
        return cls(classes, codes, y)


class HeldOut(NamedTuple):
    """What the two classifiers say of rows that they were not trained on.

    Parameters
    ----------
    probabilities : ndarray of shape (n_rows, n_classes)
        The student's, for all classes of the cascade.
    known : ndarray of shape (n_rows, n_classes), bool
        Which classes the student of the row's split was trained on.
    codes : ndarray of shape (n_rows,), int
        The right classes.
    teacher_right : ndarray of shape (n_rows,), bool
        Whether the teacher predicts the right class.
    """

    probabilities: np.ndarray
    known: np.ndarray
    codes: np.ndarray
    teacher_right: np.ndarray


def check_member(name: str, member: Any, cv: Any, missing_label: Any) -> None:
    """Raise ValueError if a classifier cannot be a member of a cascade.

    Parameters
    ----------
    name : {"student", "teacher_pipeline"}
        What it is in the cascade.
    member : object
        The classifier.
    cv, missing_label : object
        Parameters of the cascade.
    """
    kind = type(member).__name__
    # Students of sk_aft.serving.load have no tags.
    if hasattr(member, "__sklearn_tags__") and is_regressor(member):
        raise ValueError(f"{name} is a regressor, {kind}: a cascade needs classifiers.")
    if name == "student" and not hasattr(member, "predict_proba"):
        raise ValueError(
            f"student has no predict_proba ({kind}), which says how sure it is of each row. Wrap "
            "it in sklearn.calibration.CalibratedClassifierCV, or choose another classifier."
        )
    if isinstance(cv, str):
        return  # is fitted already
    if not hasattr(member, "fit"):
        raise ValueError(
            f'{name} has no fit ({kind}). If it is fitted already, set cv="prefit" and call fit '
            "with rows that it was not trained on."
        )
    mark = mark_read_by(member)
    if mark is not None and not _are_same(mark, missing_label):
        raise ValueError(
            f"{name} has missing_label={mark!r}, and the cascade missing_label={missing_label!r}: "
            "set the same for both, or None for the one that is to get labelled rows only."
            if missing_label is not None
            else f"{name} has missing_label={mark!r}, so the cascade has to know it: set "
            f"CascadeClassifier(..., missing_label={mark!r}), too."
        )


def check_fitted(name: str, member: Any) -> None:
    """Raise NotFittedError if a classifier of ``cv="prefit"`` is not fitted."""
    is_fitted = hasattr(member, "classes_")
    if hasattr(member, "fit"):
        try:
            check_is_fitted(member)
        except NotFittedError:
            is_fitted = False
    if not is_fitted:
        raise NotFittedError(
            f'cv="prefit" uses {name} as it is, and this {type(member).__name__} is not a fitted '
            "classifier: fit it first, or leave cv out to have both fitted."
        )


def check_teacher_knows_no_more(classes: np.ndarray, of_teacher: Any) -> None:
    """Raise ValueError if a fitted teacher has classes that the fitted student lacks."""
    others = [label for label in np.asarray(of_teacher).tolist() if label not in classes.tolist()]
    if others:
        raise ValueError(
            f"The fitted teacher predicts {first(others)}, which the fitted student does not "
            f"know. The student's classes are {first(classes)}: train both on the same labels."
        )


def mark_read_by(member: Any) -> Any:
    """Return what marks rows without a label for a classifier, or None if it needs labels."""
    while isinstance(member, (Pipeline, BaseSearchCV)):
        member = member.steps[-1][1] if isinstance(member, Pipeline) else member.estimator
    return getattr(member, "missing_label", None)


def aligned(probabilities: Any, own: Any, classes: np.ndarray) -> np.ndarray:
    """Return probabilities of all classes, (n_rows, n_classes), from those of a classifier's own.

    Parameters
    ----------
    probabilities : array-like of shape (n_rows, n_own)
        Probabilities.
    own : array-like of shape (n_own,)
        Their classes, in any order, all among ``classes``.
    classes : ndarray of shape (n_classes,)
        Labels, sorted. Those that are not among ``own`` get 0.
    """
    result = np.zeros((len(probabilities), len(classes)))
    result[:, np.searchsorted(classes, own)] = probabilities
    return result


def fit_member(member: Any, X: Any, targets: Targets, rows: np.ndarray) -> Any:
    """Fit a classifier to some rows, of which it gets the labelled ones unless it reads marks."""
    if mark_read_by(member) is not None:
        return member.fit(_safe_indexing(X, rows), _safe_indexing(targets.marked, rows))
    labeled = rows[targets.codes[rows] >= 0]
    return member.fit(_safe_indexing(X, labeled), targets.classes[targets.codes[labeled]])


def held_out(student: Any, teacher: Any, X: Any, targets: Targets, rows: np.ndarray) -> HeldOut:
    """Return what two fitted classifiers say of labelled rows."""
    X, codes = _safe_indexing(X, rows), targets.codes[rows]
    probabilities = aligned(student.predict_proba(X), student.classes_, targets.classes)
    known = np.tile(np.isin(targets.classes, student.classes_), (len(codes), 1))
    teacher_right = np.asarray(teacher.predict(X)) == targets.classes[codes]
    return HeldOut(probabilities, known, codes, teacher_right)


def fit_and_predict(
    student: Any, teacher: Any, X: Any, targets: Targets, train: np.ndarray, test: np.ndarray
) -> HeldOut:
    """Fit two classifiers to some rows, and return what they say of others."""
    student = fit_member(student, X, targets, train)
    teacher = fit_member(teacher, X, targets, train)
    return held_out(student, teacher, X, targets, test)


def first(labels: Any) -> str:
    """Return the first few labels as text."""
    shown = np.asarray(labels).tolist()
    return str(shown) if len(shown) <= 5 else f"[{', '.join(map(repr, shown[:5]))}, ...]"


def _are_same(mark: Any, other: Any) -> bool:
    return (is_missing(mark) and is_missing(other) and other is not None) or bool(mark == other)
