"""The labelled rows that predictors learn from, checked before any of them is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from sk_aft._data._labels import (
    check_labels_are_alike,
    check_no_target_missing,
    known_targets,
    labeled_mask,
    warn_of_mark,
)
from sk_aft._predictors._predictor import learns_classes
from sk_aft._predictors._teacher_predictions import TeacherPredictions

# The value of cv for an estimator that is used as it is.
PREFIT = "prefit"


class Labels(NamedTuple):
    """Targets of the labelled rows.

    Parameters
    ----------
    indices : ndarray of shape (n_labeled,)
        Which rows have one.
    targets : ndarray of shape (n_labeled,) or (n_labeled, n_outputs)
        Labels or numbers.
    groups : ndarray of shape (n_labeled,), or None
        Groups that folds do not part.
    """

    indices: np.ndarray
    targets: np.ndarray
    groups: np.ndarray | None

    @classmethod
    def of(cls, y: Any, groups: Any, n_rows: int, teacher: TeacherPredictions) -> Labels:
        """Check the targets of all rows, and return those of labelled ones.

        Raises
        ------
        ValueError
            If y is None, has another length, no label or fewer than two classes, or is not what
            the teacher learns.
        """
        name = _name(teacher)
        if y is None:
            raise ValueError(f"{name} requires y to be passed, but the target y is None.")
        missing_label = teacher.missing_label
        labeled = labeled_mask(y, missing_label)
        if len(labeled) != n_rows:
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"X has {n_rows} rows and y has {len(labeled)}."
            )
        if groups is not None:
            check_consistent_length(labeled, groups)
            groups = np.asarray(groups)[labeled]
        if not labeled.any():
            raise ValueError(
                f"All {n_rows} rows of y are missing_label={missing_label!r}: {name} learns from "
                "rows with a label."
            )
        check_no_target_missing(y, labeled, missing_label)
        targets = known_targets(y, labeled)
        if targets.ndim == 2 and targets.shape[1] == 1:
            targets = targets[:, 0]
        if learns_classes(teacher.estimator):
            check_labels_are_alike(y, labeled)
            _check_classes(targets, name)
            if labeled.all():
                warn_of_mark(np.unique(targets), name)
        elif targets.dtype.kind not in "biuf":
            raise ValueError(
                f"{name} is a regressor, and y holds {targets.tolist()[0]!r}, which is no number: "
                "give a classifier."
            )
        return cls(np.flatnonzero(labeled), targets, groups)


def check_teachers(teachers: Sequence[TeacherPredictions]) -> None:
    """Raise unless estimators can teach, and all predict the same kind of targets.

    Raises
    ------
    TypeError
        If an estimator is a class, or has no ``fit`` and ``predict``.
    ValueError
        If a classifier has no ``predict_proba``, or if some predict classes and others numbers.
    sklearn.exceptions.NotFittedError
        If an estimator that should be fitted is not.
    """
    for teacher in teachers:
        estimator, name = teacher.estimator, _name(teacher)
        if isinstance(estimator, type):
            raise TypeError(f"The estimator of {name} is a class: give an instance of it.")
        if not hasattr(estimator, "predict"):
            raise TypeError(
                f"The estimator of {name} has no predict: give a classifier or a regressor."
            )
        if isinstance(teacher.cv, str):
            if teacher.cv != PREFIT:
                raise ValueError(
                    f"cv={teacher.cv!r}: expected a number of folds, a splitter or 'prefit'."
                )
            _check_fitted(estimator)
        elif isinstance(teacher.cv, bool) or (isinstance(teacher.cv, int) and teacher.cv < 2):
            raise ValueError(
                f"cv={teacher.cv!r}: expected at least 2 folds, a splitter or 'prefit'."
            )
        elif not hasattr(estimator, "fit"):
            raise TypeError(f"The estimator of {name} has no fit: give cv='prefit'.")
        if learns_classes(estimator) and not hasattr(estimator, "predict_proba"):
            raise ValueError(
                f"{type(estimator).__name__} has no predict_proba, and a student learns from class "
                "probabilities: give "
                f"CalibratedClassifierCV({type(estimator).__name__}(...)) of sklearn.calibration."
            )
    if len({learns_classes(teacher.estimator) for teacher in teachers}) > 1:
        raise ValueError(
            "Some teachers predict classes and others numbers: give teachers of one kind, "
            f"got {[type(teacher.estimator).__name__ for teacher in teachers]}."
        )


def _check_fitted(estimator: Any) -> None:
    if not hasattr(estimator, "fit"):
        return  # not scikit-learn's: it cannot be asked
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        name = type(estimator).__name__
        raise NotFittedError(
            f"{name} is not fitted: give TeacherPredictions({name}(...)), which fits it on the "
            "labelled rows and predicts them out of fold, or fit it on other rows first."
        ) from error


def _check_classes(targets: np.ndarray, name: str) -> None:
    if targets.ndim != 1:
        raise ValueError(f"y has shape {targets.shape}: expected one label for each row.")
    if type_of_target(targets).startswith("continuous"):
        raise ValueError(
            "y holds numbers that are not classes (Unknown label type: continuous), and "
            f"{name} is a classifier: give a regressor."
        )
    if len(np.unique(targets)) < 2:
        raise ValueError(
            f"The labelled rows have only one class, {targets.tolist()[0]!r}: {name} needs at "
            "least two."
        )


def _name(teacher: TeacherPredictions) -> str:
    return f"TeacherPredictions({type(teacher.estimator).__name__})"
