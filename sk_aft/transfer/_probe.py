"""Linear probes of features: what each says of rows that it was not fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_MAX_FOLDS = 5
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of the logistic regression
_PENALTIES = np.logspace(-2, 5, 8)  # alpha of the ridge regression
_SMALLEST_PROBABILITY = 1e-6
_ENOUGH_JUDGES = 500  # rows out of fold that choose C: each fold more takes its time

Folds = Iterable[tuple[np.ndarray, np.ndarray]]


class ClassProbe:
    """Logistic regression on standardised features, its C chosen across folds.

    Parameters
    ----------
    n_classes : int
        Number of classes; labels are below.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def out_of_fold(self, features: np.ndarray, labels: np.ndarray, folds: Folds) -> np.ndarray:
        """Choose C by cross-entropy and say what the other folds' probes think of each row.

        C is chosen on the first folds that hold 500 rows together.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features.
        labels : ndarray of shape (n,)
            Class numbers.
        folds : iterable of (train, test)
            Row numbers.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            Of a row in no fold, or of a class that the other folds lack, its label.
        """
        folds = list(folds)
        before = np.cumsum([0, *(len(test) for _, test in folds)])[:-1]
        n_judges = int((before < _ENOUGH_JUDGES).sum())
        fits = [_FoldFit(features, labels, *fold) for fold in folds[:n_judges]]
        best, lowest = np.eye(self.n_classes)[labels], np.inf
        self._C = _STRENGTHS[0]
        for C in _STRENGTHS:
            probabilities = np.eye(self.n_classes)[labels]
            for fit in fits:
                fit.write(probabilities, C)
            # Rows of no fold, or of a later one, are as sure as they are with any C.
            of_label = probabilities[np.arange(len(labels)), labels]
            entropy = -np.log(np.clip(of_label, _SMALLEST_PROBABILITY, 1)).mean()
            if entropy >= lowest:
                break  # weaker penalties take longest to fit
            best, lowest, self._C = probabilities, entropy, C
        for fold in folds[n_judges:]:
            _FoldFit(features, labels, *fold).write(best, self._C)
        return best

    def fit(self, features: np.ndarray, labels: np.ndarray) -> ClassProbe:
        """Fit one probe to all rows, with the C that was chosen out of fold."""
        self._probe = make_pipeline(StandardScaler(), _logistic_regression(C=self._C))
        _fit_quietly(self._probe, features, labels)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the probabilities of other rows, (n, n_classes)."""
        probabilities = np.zeros((len(features), self.n_classes))
        probabilities[:, self._probe.classes_] = self._probe.predict_proba(features)
        return probabilities


class _FoldFit:
    """A fold's probe, which goes on from where it was as the penalty falls."""

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray
    ) -> None:
        self._labels = labels[train]
        seen = np.unique(self._labels)
        self._test = test[np.isin(labels[test], seen)]
        self._says_nothing = len(seen) < 2 or not len(self._test)
        scaler = StandardScaler().fit(features[train])
        self._train_features = scaler.transform(features[train])
        self._test_features = scaler.transform(features[self._test]) if len(self._test) else None
        self._probe = _logistic_regression(warm_start=True)

    def write(self, probabilities: np.ndarray, C: float) -> None:
        if self._says_nothing:
            return
        _fit_quietly(self._probe.set_params(C=C), self._train_features, self._labels)
        probabilities[self._test] = 0
        classes = self._probe.classes_
        probabilities[np.ix_(self._test, classes)] = self._probe.predict_proba(self._test_features)


class RidgeProbe:
    """Ridge regression on standardised features, its penalty chosen by leaving out each row."""

    def out_of_fold(self, features: np.ndarray, targets: np.ndarray, folds: Folds) -> np.ndarray:
        """Say what the other folds' probes predict of each row.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features.
        targets : ndarray of shape (n, n_targets)
            Targets.
        folds : iterable of (train, test)
            Row numbers.

        Returns
        -------
        predictions : ndarray of shape (n, n_targets)
            Of a row in no fold, its targets.
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
        """Return predictions of other rows, (n, n_targets)."""
        return self._probe.predict(features).reshape(len(features), self._n_targets)


def default_folds(targets: np.ndarray, *, stratify: bool, seed: int) -> Folds:
    """Return five folds, or as many as the largest class has members; none for too few rows.

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, n_targets)
        Class numbers or regression targets.
    stratify : bool
        Whether targets are class numbers.
    seed : int
        Determines the folds.

    Returns
    -------
    folds : list of (train, test)
        Row numbers.
    """
    largest = np.bincount(targets).max() if stratify else len(targets)
    n_folds = min(_MAX_FOLDS, int(largest))
    if n_folds < (2 if stratify else 3):
        return []  # one row tells nothing about another
    splitter: Any = StratifiedKFold if stratify else KFold
    with warnings.catch_warnings():
        # Classes with fewer members than folds are provided for.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        folds = splitter(n_folds, shuffle=True, random_state=seed)
        return list(folds.split(np.zeros(len(targets)), targets))


def _logistic_regression(**parameters: Any) -> Any:
    from sklearn.linear_model import LogisticRegression  # a tenth of the time to import sk_aft

    return LogisticRegression(**parameters)


def _fit_quietly(probe: Any, features: np.ndarray, labels: np.ndarray) -> None:
    with warnings.catch_warnings():
        # A probe that stops after 100 iterations is good enough a teacher.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(features, labels)
