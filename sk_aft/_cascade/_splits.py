"""Which rows of a cascade have a label, and which of them are held out."""

from __future__ import annotations

from math import ceil
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit, check_cv
from sklearn.utils.multiclass import check_classification_targets

from sk_aft._cascade._members import first
from sk_aft._data._labels import (
    check_labels_are_alike,
    check_no_target_missing,
    known_targets,
    labeled_mask,
)
from sk_aft.model_selection._labeled_fold import LabeledFold

_N_FOLDS = 5


def known_labels(y: Any, missing_label: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows have a label, (n_rows,), and those labels, (n_labeled,).

    Parameters
    ----------
    y : array-like of shape (n_rows,)
        Labels.
    missing_label : object
        Marks unknown ones, see `labeled_mask`.

    Raises
    ------
    ValueError
        If they are no labels of classes, or there are none.
    """
    labeled = labeled_mask(y, missing_label)
    check_no_target_missing(y, labeled, missing_label)
    check_labels_are_alike(y, labeled)
    if not labeled.any():
        raise ValueError(f"None of the {len(labeled)} rows has a label: found 0 sample(s).")
    known = known_targets(y, labeled)
    if known.ndim != 1:
        raise ValueError(
            f"y has one label a row in a cascade, and this one has the shape {known.shape}."
        )
    check_classification_targets(known)
    return labeled, known


def held_out_splits(
    cv: Any, X: Any, y: Any, known: np.ndarray, *, missing_label: Any, random_state: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return rows to train on and labelled rows to hold out, of each split.

    Parameters
    ----------
    cv : int, float, splitter, iterable or None
        As for `sk_aft.CascadeClassifier`.
    X, y : array-like of n_rows rows
        Rows, and labels with marks of unknown ones.
    known : ndarray of shape (n_labeled,)
        Labels that are known.
    missing_label : object
        Mark of unknown labels.
    random_state : int, RandomState or None
        Determines the split if ``cv`` is a float.

    Raises
    ------
    ValueError
        If no class has as many rows as there are folds, or a class is too rare for a share of the
        rows to be held out.
    """
    splitter = cv
    if isinstance(cv, Real) and not isinstance(cv, Integral):
        _check_share(float(cv), known)
        splitter = StratifiedShuffleSplit(1, test_size=cv, random_state=random_state)
    splitter = check_cv(_N_FOLDS if cv is None else splitter, known, classifier=True)
    if cv is None or isinstance(cv, Integral):
        n_folds = splitter.get_n_splits()
        most = max(np.unique(known, return_counts=True)[1])
        if most < n_folds:
            raise ValueError(
                f"cv={cv} makes {n_folds} folds, and no class has more than {most} labelled rows "
                f"(n_samples={len(known)}). Set a lower cv, hold out a share such as cv=0.3, or "
                'use fitted classifiers with cv="prefit".'
            )
    if missing_label is None:
        return list(splitter.split(X, known))
    return list(LabeledFold(splitter, missing_label=missing_label).split(X, y))


def _check_share(share: float, known: np.ndarray) -> None:
    """Raise ValueError if not every class can be on both sides of a stratified split."""
    classes, counts = np.unique(known, return_counts=True)
    rare = classes[counts < 2].tolist()
    if rare:
        each, them = ("", "it") if len(rare) == 1 else (" each", "them")
        raise ValueError(
            f"cv={share} holds out a share of each class, and there is a single labelled row of "
            f"{first(rare)}{each}: label more rows of {them}, leave {them} out, or set cv to a "
            "number of folds, such as cv=5, which may lack a class."
        )
    n_test = ceil(share * len(known))
    n_fewer = min(n_test, len(known) - n_test)
    if n_fewer < len(classes):
        raise ValueError(
            f"cv={share} holds out {n_test} of {len(known)} labelled rows, and each of the "
            f"{len(classes)} classes needs a row on both sides: label more rows, set a share "
            f"nearer to 0.5, or set cv to a number of folds, such as cv=5."
        )
