"""Linear probes of features, with predictions for rows that they were not fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_MAX_FOLDS = 5
_INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of the logistic regression
_PENALTIES = np.logspace(-2, 5, 8)  # alpha of the ridge regression
_SMALLEST_PROBABILITY = 1e-6
_MIN_HELD_OUT = 500  # held-out rows used to choose C: more folds would only cost time

Folds = Iterable[tuple[np.ndarray, np.ndarray]]


class ClassProbe:
    """Logistic regression on standardised features, with C chosen by cross-validation.

    Parameters
    ----------
    n_classes : int
        Number of classes; labels are class indices below it.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def out_of_fold(
        self, features: np.ndarray | Sequence[np.ndarray], labels: np.ndarray, folds: Folds
    ) -> np.ndarray:
        """Choose C by cross-entropy and return out-of-fold probabilities.

        C is chosen on the first folds that together hold out at least 500 rows, or on all.

        Parameters
        ----------
        features : ndarray of shape (n, d), or sequence of these
            Features; a sequence holds those of each fold, whose models differ.
        labels : ndarray of shape (n,)
            Class indices.
        folds : iterable of (train, test)
            Indices of training and held-out rows.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            One-hot labels for rows that no fold holds out, and for rows of a fold whose training
            rows lack the row's class or have a single class.
        """
        folds = list(folds)
        of_fold = [features] * len(folds) if isinstance(features, np.ndarray) else features
        before = np.cumsum([0, *(len(test) for _, test in folds)])[:-1]
        n_searched = int((before < _MIN_HELD_OUT).sum())
        pairs = list(zip(of_fold, folds, strict=True))
        fits = [_FoldFit(own, labels, *fold) for own, fold in pairs[:n_searched]]
        best, lowest = np.eye(self.n_classes)[labels], np.inf
        self._C = _INVERSE_PENALTIES[0]
        for C in _INVERSE_PENALTIES:
            probabilities = np.eye(self.n_classes)[labels]
            for fit in fits:
                fit.write(probabilities, C)
            # Rows that are not held out here keep their one-hot label, whose entropy is the same
            # for every C.
            of_label = probabilities[np.arange(len(labels)), labels]
            entropy = -np.log(np.clip(of_label, _SMALLEST_PROBABILITY, 1)).mean()
            if entropy >= lowest:
                break  # weaker penalties take longer to fit
            best, lowest, self._C = probabilities, entropy, C
        for own, fold in pairs[n_searched:]:
            _FoldFit(own, labels, *fold).write(best, self._C)
        return best

    def fit(self, features: np.ndarray, labels: np.ndarray) -> ClassProbe:
        """Fit one probe to all rows, with the C that `out_of_fold` chose."""
        self._probe = make_pipeline(StandardScaler(), _logistic_regression(C=self._C))
        _fit_quietly(self._probe, features, labels)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return class probabilities of new rows, (n, n_classes)."""
        probabilities = np.zeros((len(features), self.n_classes))
        probabilities[:, self._probe.classes_] = self._probe.predict_proba(features)
        return probabilities


class _FoldFit:
    """The probe of one fold, warm-started as the penalty decreases."""

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray
    ) -> None:
        self._labels = labels[train]
        seen = np.unique(self._labels)
        self._test = test[np.isin(labels[test], seen)]
        self._is_skipped = len(seen) < 2 or not len(self._test)
        scaler = StandardScaler().fit(features[train])
        self._train_features = scaler.transform(features[train])
        self._test_features = scaler.transform(features[self._test]) if len(self._test) else None
        self._probe = _logistic_regression(warm_start=True)

    def write(self, probabilities: np.ndarray, C: float) -> None:
        if self._is_skipped:
            return
        _fit_quietly(self._probe.set_params(C=C), self._train_features, self._labels)
        probabilities[self._test] = 0
        classes = self._probe.classes_
        probabilities[np.ix_(self._test, classes)] = self._probe.predict_proba(self._test_features)


class RidgeProbe:
    """Ridge regression on standardised features, with the penalty chosen by leave-one-out."""

    def out_of_fold(self, features: np.ndarray, targets: np.ndarray, folds: Folds) -> np.ndarray:
        """Return out-of-fold predictions.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features.
        targets : ndarray of shape (n, n_targets)
            Targets.
        folds : iterable of (train, test)
            Indices of training and held-out rows.

        Returns
        -------
        predictions : ndarray of shape (n, n_targets)
            The targets themselves for rows that no fold holds out.
        """
        predictions = np.array(targets)
        for train, test in folds:
            predictions[test] = (
                RidgeProbe().fit(features[train], targets[train]).predict(features[test])
            )
        return predictions

    def fit(self, features: np.ndarray, targets: np.ndarray) -> RidgeProbe:
        """Fit one probe to all rows."""
        from sklearn.linear_model import RidgeCV

        self._n_targets = targets.shape[1]
        self._probe = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES))
        self._probe.fit(features, targets)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return predictions of new rows, (n, n_targets)."""
        return self._probe.predict(features).reshape(len(features), self._n_targets)


def default_folds(targets: np.ndarray, *, stratify: bool, seed: int) -> Folds:
    """Return five folds, or as many as the largest class has members; none if rows are too few.

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, n_targets)
        Class indices or regression targets.
    stratify : bool
        Whether targets are class indices.
    seed : int
        Seed of the folds.

    Returns
    -------
    folds : list of (train, test)
        Indices of training and held-out rows.
    """
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


def _logistic_regression(**parameters: Any) -> Any:
    from sklearn.linear_model import LogisticRegression  # late: a tenth of sk_aft's import time

    return LogisticRegression(**parameters)


def _fit_quietly(probe: Any, features: np.ndarray, labels: np.ndarray) -> None:
    with warnings.catch_warnings():
        # A probe that has not converged after 100 iterations is a good enough teacher.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(features, labels)
