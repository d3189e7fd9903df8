"""Linear probes of features, with predictions for rows that they have not seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sk_aft.transfer._centroid_probe import CentroidProbe
from sk_aft.transfer._pool import SMALLEST_PROBABILITY
from sk_aft.transfer._teacher_memory import remembered

_MAX_FOLDS = 5
_INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of the logistic regression
_PENALTIES = np.logspace(-2, 5, 8)  # alpha of the ridge regression
_MIN_HELD_OUT = 500  # held-out rows used to choose C: more folds would only cost time
# What C is without labels to choose it by, as a decimal logarithm, and how firmly: with 20 labels,
# cross-validation alone often chooses probabilities that are equal, or certain.
_PRIOR_LOG_C = -1.5
_PRIOR_STRENGTH = 2.0
# C without any held-out row: with one row a class, 0.01 makes all classes nearly equally probable,
# which taught digits worse than no teacher.
_UNTESTED_C = 1.0
# Looser than scikit-learn's: on 77 classes it takes a third of the time, with equal predictions.
_TOLERANCE = 1e-3
# A logistic regression's time is proportional to the number of classes.
_MOST_CLASSES = 1000

Folds = Sequence[tuple[np.ndarray, np.ndarray]]


class ClassProbe:
    """Logistic regression on standardised features, with C chosen by cross-validation.

    Parameters
    ----------
    n_classes : int
        Number of classes; labels are class indices below it.
    standardises : bool, default=True
        Whether features are standardised; otherwise they should have a scale of about 1.
    """

    def __init__(self, n_classes: int, *, standardises: bool = True) -> None:
        self.n_classes = n_classes
        self.standardises = standardises
        self._C = _UNTESTED_C

    def out_of_fold(
        self,
        features: np.ndarray | Sequence[np.ndarray],
        labels: np.ndarray,
        folds: Folds,
        sample_weight: np.ndarray | None = None,
    ) -> np.ndarray:
        """Choose C by cross-entropy and return out-of-fold probabilities.

        C is chosen on the first folds that together hold out at least 500 rows, or on all. The
        fewer these are, the closer it stays to 0.03.

        Parameters
        ----------
        features : ndarray of shape (n, d), or sequence of these
            Features; a sequence holds those of each fold, whose models differ.
        labels : ndarray of shape (n,)
            Class indices.
        folds : sequence of (train, test)
            Indices of training and held-out rows.
        sample_weight : ndarray of shape (n,), optional
            Weights of the rows, 1 on average.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            NaN for rows that no fold holds out, and for rows of a fold whose training rows lack the
            row's class or have a single class.
        """
        weights = np.ones(len(labels)) if sample_weight is None else sample_weight
        of_fold = [features] * len(folds) if isinstance(features, np.ndarray) else features
        before = np.cumsum([0, *(len(test) for _, test in folds)])[:-1]
        n_searched = int((before < _MIN_HELD_OUT).sum())
        pairs = list(zip(of_fold, folds, strict=True))
        if not folds:
            return np.full((len(labels), self.n_classes), np.nan)
        fits = [self._of_fold(own, labels, *fold, weights) for own, fold in pairs[:n_searched]]
        best: np.ndarray = np.empty(0)
        lowest = np.inf
        for C in _INVERSE_PENALTIES:
            probabilities = np.full((len(labels), self.n_classes), np.nan)
            for fit in fits:
                fit.write(probabilities, C)
            of_label = probabilities[np.arange(len(labels)), labels]
            known = ~np.isnan(of_label)
            logs = np.log(np.clip(of_label[known], SMALLEST_PROBABILITY, 1))
            surprise = _PRIOR_STRENGTH * (np.log10(C) - _PRIOR_LOG_C) ** 2 - weights[known] @ logs
            if surprise >= lowest:
                break  # weaker penalties take longer to fit
            best, lowest, self._C = probabilities, surprise, C
        for own, fold in pairs[n_searched:]:
            self._of_fold(own, labels, *fold, weights).write(best, self._C)
        return best

    def fit(
        self, features: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> ClassProbe:
        """Fit one probe to all rows, with the C that `out_of_fold` chose."""
        self._scaler = _scaler(self.standardises).fit(features)
        self._probe = _logistic_regression(C=self._C)
        _fit_quietly(self._probe, self._scaler.transform(features), labels, sample_weight)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return class probabilities of new rows, (n, n_classes)."""
        probabilities = np.zeros((len(features), self.n_classes))
        scaled = self._scaler.transform(features)
        probabilities[:, self._probe.classes_] = self._probe.predict_proba(scaled)
        return probabilities

    def _of_fold(self, features: np.ndarray, labels: np.ndarray, *fold: np.ndarray) -> _FoldFit:
        return _FoldFit(_scaler(self.standardises), features, labels, *fold)


class _FoldFit:
    """The probe of one fold, warm-started as the penalty decreases."""

    def __init__(
        self,
        scaler: Any,
        features: np.ndarray,
        labels: np.ndarray,
        train: np.ndarray,
        test: np.ndarray,
        sample_weight: np.ndarray,
    ) -> None:
        self._labels, self._weights = labels[train], sample_weight[train]
        seen = np.unique(self._labels)
        self._test = test[np.isin(labels[test], seen)]
        self._is_skipped = len(seen) < 2 or not len(self._test)
        scaler.fit(features[train])
        self._train_features = scaler.transform(features[train])
        self._test_features = scaler.transform(features[self._test]) if len(self._test) else None
        self._probe = _logistic_regression(warm_start=True)

    def write(self, probabilities: np.ndarray, C: float) -> None:
        if self._is_skipped:
            return
        probe = self._probe.set_params(C=C)
        _fit_quietly(probe, self._train_features, self._labels, self._weights)
        probabilities[self._test] = 0
        classes = self._probe.classes_
        probabilities[np.ix_(self._test, classes)] = self._probe.predict_proba(self._test_features)


class RidgeProbe:
    """Ridge regression on standardised features, with the penalty chosen by leave-one-out.

    Parameters
    ----------
    standardises : bool, default=True
        Whether features are standardised; otherwise they should have a scale of about 1.
    """

    def __init__(self, *, standardises: bool = True) -> None:
        self.standardises = standardises

    def out_of_fold(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        folds: Folds,
        sample_weight: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return out-of-fold predictions.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features.
        targets : ndarray of shape (n, n_targets)
            Targets.
        folds : sequence of (train, test)
            Indices of training and held-out rows.
        sample_weight : ndarray of shape (n,), optional
            Weights of the rows, 1 on average.

        Returns
        -------
        predictions : ndarray of shape (n, n_targets)
            NaN for rows that no fold holds out.
        """
        predictions = np.full(np.shape(targets), np.nan)
        for train, test in folds:
            own = None if sample_weight is None else sample_weight[train]
            probe = RidgeProbe(standardises=self.standardises)
            probe.fit(features[train], targets[train], own)
            predictions[test] = probe.predict(features[test])
        return predictions

    def fit(
        self, features: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> RidgeProbe:
        """Fit one probe to all rows."""
        from sklearn.linear_model import RidgeCV

        self._n_targets = targets.shape[1]
        self._scaler = _scaler(self.standardises).fit(features)
        self._probe = RidgeCV(_PENALTIES)
        self._probe.fit(self._scaler.transform(features), targets, sample_weight=sample_weight)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return predictions of new rows, (n, n_targets)."""
        predictions: np.ndarray = self._probe.predict(self._scaler.transform(features))
        return predictions.reshape(len(features), self._n_targets)


Probe = ClassProbe | CentroidProbe | RidgeProbe


def make_probe(n_classes: int | None, *, standardises: bool = True) -> Probe:
    """Return a probe that is not fitted yet.

    Parameters
    ----------
    n_classes : int or None
        Number of classes; None for numbers. With more than 1,000 classes it is a `CentroidProbe`.
    standardises : bool, default=True
        Whether features are standardised; otherwise they should have a scale of about 1.

    Returns
    -------
    probe : ClassProbe, CentroidProbe or RidgeProbe
        The probe.
    """
    if n_classes is None:
        return RidgeProbe(standardises=standardises)
    if n_classes > _MOST_CLASSES:
        return CentroidProbe(n_classes, standardises=standardises)
    return ClassProbe(n_classes, standardises=standardises)


def trained_probe(
    columns: np.ndarray,
    targets: np.ndarray,
    folds: Folds,
    sample_weight: np.ndarray | None = None,
    *,
    n_classes: int | None,
    standardises: bool = True,
    predicts: bool,
) -> tuple[np.ndarray, Probe]:
    """Return out-of-fold predictions, and a probe of all rows; both are remembered.

    Parameters
    ----------
    columns : ndarray of shape (n, d)
        Features.
    targets : ndarray of shape (n,) or (n, n_targets)
        Class indices, or numbers.
    folds : sequence of (train, test)
        Indices of training and held-out rows.
    sample_weight : ndarray of shape (n,), optional
        Weights of the rows, 1 on average.
    n_classes, standardises
        See `make_probe`.
    predicts : bool
        Whether the probe will predict other rows; otherwise it is not fitted to all rows.

    Returns
    -------
    predictions : ndarray of shape (n, n_classes) or (n, n_targets), float32
        NaN for rows that no fold holds out, and for those whose class their fold lacks.
    probe : ClassProbe, CentroidProbe or RidgeProbe
        The probe.
    """
    settings = (n_classes, standardises, predicts)
    return remembered(_train, columns, targets, folds, sample_weight, *settings)


def _train(
    columns: np.ndarray,
    targets: np.ndarray,
    folds: Folds,
    sample_weight: np.ndarray | None,
    n_classes: int | None,
    standardises: bool,
    predicts: bool,
) -> tuple[np.ndarray, Probe]:
    probe = make_probe(n_classes, standardises=standardises)
    predictions = probe.out_of_fold(columns, targets, folds, sample_weight)
    if predicts:
        probe.fit(columns, targets, sample_weight)
    return predictions.astype(np.float32), probe


def equal_rows(matrix: np.ndarray) -> np.ndarray:
    """Return a number for each row, the same for rows of equal content, (n,)."""
    contents = [row.tobytes() for row in np.ascontiguousarray(matrix)]
    return np.unique(contents, return_inverse=True)[1]


def default_folds(
    targets: np.ndarray, *, stratify: bool, seed: int, groups: np.ndarray | None = None
) -> Folds:
    """Return five folds, or as many as the largest class has members; none if rows are too few.

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, n_targets)
        Class indices or regression targets.
    stratify : bool
        Whether targets are class indices.
    seed : int
        Seed of the folds.
    groups : ndarray of shape (n,), optional
        Rows of equal numbers are in one fold: a probe would repeat the label of a copy.

    Returns
    -------
    folds : list of (train, test)
        Indices of training and held-out rows.
    """
    if groups is not None and len(np.unique(groups)) < len(groups):
        return _group_folds(targets, groups, stratify=stratify, seed=seed)
    largest = np.bincount(targets).max() if stratify else len(targets)
    n_folds = min(_MAX_FOLDS, int(largest))
    if n_folds < (2 if stratify else 3):
        return []  # too few rows to fit on some and predict others
    splitter: Any = StratifiedKFold if stratify else KFold
    with warnings.catch_warnings():
        # `out_of_fold` handles classes with fewer members than folds.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        folds = splitter(n_folds, shuffle=True, random_state=seed)
        return list(folds.split(np.zeros(len(targets)), targets))


def _group_folds(targets: np.ndarray, groups: np.ndarray, *, stratify: bool, seed: int) -> Folds:
    pairs = np.unique(np.column_stack([groups, targets]), axis=0) if stratify else None
    distinct = len(np.unique(groups)) if pairs is None else np.bincount(pairs[:, 1]).max()
    n_folds = min(_MAX_FOLDS, int(distinct), len(np.unique(groups)))
    if n_folds < (2 if stratify else 3):
        return []
    if stratify:
        return stratified_group_folds(targets, groups, n_folds, seed)
    return list(GroupKFold(n_folds).split(np.zeros(len(targets)), targets, groups))


def stratified_group_folds(
    labels: np.ndarray, groups: np.ndarray, n_folds: int, seed: int
) -> Folds:
    """Return folds that do not part a group, with about equal shares of the classes.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Class indices.
    groups : ndarray of shape (n,)
        Number of each row's group.
    n_folds : int
        At most as many as there are groups.
    seed : int
        Seed of the folds.

    Returns
    -------
    folds : list of (train, test)
        Indices of training and held-out rows.
    """
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return list(splitter.split(np.zeros(len(labels)), labels, groups))


def _scaler(standardises: bool) -> Any:
    """Return a scaler of arrays, whatever output of transformers the user has configured."""
    scaler: Any = StandardScaler() if standardises else FunctionTransformer()
    return scaler.set_output(transform="default")


def _logistic_regression(**parameters: Any) -> Any:
    from sklearn.linear_model import LogisticRegression  # late: a tenth of sk_aft's import time

    return LogisticRegression(tol=_TOLERANCE, **parameters)


def _fit_quietly(
    probe: Any, features: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None
) -> None:
    with warnings.catch_warnings():
        # A probe that has not converged after 100 iterations is a good enough teacher.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(features, labels, sample_weight=sample_weight)
