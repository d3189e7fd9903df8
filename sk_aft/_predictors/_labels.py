"""The labelled rows and folds that predictors learn from, checked before any of them is fitted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, StratifiedKFold, check_cv
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
from sk_aft._predictors._content import groups_of
from sk_aft._predictors._predictor import CLASSES, what_is_learned
from sk_aft._predictors._teacher_predictions import TeacherPredictions
from sk_aft.transfer._probe import Folds, stratified_group_folds

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
        name = name_of(teacher)
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
        if what_is_learned(teacher.estimator) == CLASSES:
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

    def take(self, rows: np.ndarray) -> Labels:
        """Return some of the labelled rows."""
        groups = None if self.groups is None else self.groups[rows]
        return Labels(self.indices[rows], self.targets[rows], groups)


def folds_of(teacher: TeacherPredictions, labels: Labels, keys: Sequence[bytes]) -> Folds:
    """Return folds of the labelled rows; none if they are too few.

    Parameters
    ----------
    teacher : TeacherPredictions
        The estimator and its ``cv``.
    labels : Labels
        The labelled rows.
    keys : sequence of bytes
        Their content; equal rows share a fold.

    Returns
    -------
    folds : list of (train, test)
        Indices of rows to learn from and rows to predict.

    Raises
    ------
    ValueError
        If a splitter does not put each row into one test set.
    """
    targets = labels.targets
    stratifies = what_is_learned(teacher.estimator) == CLASSES
    if not isinstance(teacher.cv, Integral):
        splitter = check_cv(teacher.cv, targets, classifier=stratifies)
        return _checked(list(splitter.split(list(keys), targets, labels.groups)), len(targets))
    groups = groups_of(keys, labels.groups)
    n_groups = int(groups.max()) + 1
    if not stratifies:
        n_folds = min(int(teacher.cv), n_groups)
        if n_folds < 2:
            return []
        splitter = GroupKFold(n_folds, shuffle=True, random_state=0)
        return list(splitter.split(groups, groups=groups))
    classes = np.unique(targets, return_inverse=True)[1]
    n_folds = min(int(teacher.cv), n_groups, int(np.bincount(classes).max()))
    if n_folds < 2:
        return []
    if n_groups < len(targets):
        folds = stratified_group_folds(classes, groups, n_folds, 0)
    else:
        with warnings.catch_warnings():
            # A class with fewer rows than folds is absent from some of them.
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            splitter = StratifiedKFold(n_folds, shuffle=True, random_state=0)
            folds = list(splitter.split(groups, classes))
    return [(train, test) for train, test in folds if len(test) and len(set(classes[train])) > 1]


def check_teachers(teachers: Sequence[TeacherPredictions]) -> None:
    """Raise unless estimators can teach, and all predict the same kind of targets.

    Raises
    ------
    TypeError
        If an estimator is a class, or has no ``fit`` and ``predict``.
    ValueError
        If it is neither a classifier nor a regressor, if a classifier has no ``predict_proba``, or
        if some predict classes and others numbers.
    sklearn.exceptions.NotFittedError
        If an estimator that should be fitted is not.
    """
    for teacher in teachers:
        _check_estimator(teacher.estimator, name_of(teacher))
        _check_cv(teacher)
    if len({what_is_learned(teacher.estimator) for teacher in teachers}) > 1:
        raise ValueError(
            "Some teachers predict classes and others numbers: give teachers of one kind, "
            f"got {[type(teacher.estimator).__name__ for teacher in teachers]}."
        )


def name_of(teacher: TeacherPredictions) -> str:
    """Return how messages name a teacher."""
    return f"TeacherPredictions({type(teacher.estimator).__name__})"


def _check_estimator(estimator: Any, name: str) -> None:
    if isinstance(estimator, type):
        raise TypeError(f"The estimator of {name} is a class: give an instance of it.")
    if not hasattr(estimator, "predict"):
        raise TypeError(
            f"The estimator of {name} has no predict: give a classifier or a regressor."
        )
    learned = what_is_learned(estimator)
    if learned is None or getattr(estimator, "_estimator_type", None) == "outlier_detector":
        raise ValueError(
            f"{type(estimator).__name__} is neither a classifier nor a regressor, so it cannot "
            "teach what y holds."
        )
    if learned == CLASSES and not hasattr(estimator, "predict_proba"):
        raise ValueError(
            f"{type(estimator).__name__} has no predict_proba, and a student learns from class "
            "probabilities: give "
            f"CalibratedClassifierCV({type(estimator).__name__}(...)) of sklearn.calibration."
        )


def _check_cv(teacher: TeacherPredictions) -> None:
    cv, estimator = teacher.cv, teacher.estimator
    if isinstance(cv, str) and cv == PREFIT:
        _check_fitted(estimator)
        return
    is_number = isinstance(cv, (int, float, np.number))
    is_whole = isinstance(cv, Integral) and not isinstance(cv, bool)
    if isinstance(cv, str) or cv is None or (is_number and not (is_whole and cv >= 2)):
        raise ValueError(f"cv={cv!r}: expected at least 2 folds, a splitter or 'prefit'.")
    if not hasattr(estimator, "fit"):
        raise TypeError(f"The estimator of {name_of(teacher)} has no fit: give cv='prefit'.")


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


def _checked(folds: Folds, n_rows: int) -> Folds:
    """Raise ValueError unless each labelled row is in one test set, and not trained on there."""
    if not folds:
        raise ValueError("cv of TeacherPredictions yields no folds: give a list, or a splitter.")
    tests = np.concatenate([np.asarray(test, dtype=np.int64) for _, test in folds])
    every = np.concatenate([np.asarray(train, dtype=np.int64) for train, _ in folds])
    outside = np.flatnonzero((np.append(tests, every) < 0) | (np.append(tests, every) >= n_rows))
    if len(outside):
        raise ValueError(
            f"cv of TeacherPredictions has row {np.append(tests, every)[outside[0]]}, and there "
            f"are {n_rows} labelled rows: indices count the labelled rows only."
        )
    counts = np.bincount(tests, minlength=n_rows)
    if (counts != 1).any():
        row = int(np.flatnonzero(counts != 1)[0])
        raise ValueError(
            f"cv of TeacherPredictions has labelled row {row} in {counts[row]} test sets, expected "
            "each of the labelled rows in one: use a number of folds, or a splitter such as KFold."
        )
    for train, test in folds:
        both = np.intersect1d(train, test)
        if len(both):
            raise ValueError(
                f"cv of TeacherPredictions trains on labelled row {both[0]}, which it predicts in "
                "the same fold."
            )
    return folds
