"""A rival of the transfer: a probe labels the rows that have no label."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from sk_aft._data._labels import known_targets, labeled_mask
from sk_aft.model_selection._comparison._inner_search import (
    InnerSearch,
    Quiet,
    inner_folds,
    middle_of,
)


def _model_has(method: str) -> Any:
    def check(estimator: PseudoLabels) -> bool:
        getattr(getattr(estimator, "model_", estimator.model), method)
        return True

    return check


class PseudoLabels(MetaEstimatorMixin, BaseEstimator):
    """Fit a model to the known targets and, for the other rows, to those that a probe predicts.

    The parameters of both are chosen by their scores on labelled rows. While the model's are
    chosen, the probe has not seen the targets of the held-out rows either. What comes before the
    last steps is fitted once, to all rows, without targets.

    Parameters
    ----------
    probe : Pipeline
        Learns from the labelled rows, and predicts the missing targets. Ends in an `InnerSearch`.
    model : Pipeline
        Learns from all rows, and predicts alone. Ends in an `InnerSearch`.
    missing_label : object, default=None
        Marks rows without a target, as in `AFTClassifier`.

    Attributes
    ----------
    model_ : Pipeline
        The fitted model.
    best_params_ : dict
        The chosen parameters of its last step.
    """

    def __init__(self, probe: Pipeline, model: Pipeline, missing_label: Any = None) -> None:
        self.probe = probe
        self.model = model
        self.missing_label = missing_label

    def fit(self, X: Any, y: Any) -> PseudoLabels:
        """Fit the probe, then the model.

        Parameters
        ----------
        X : array-like of n_rows rows
            Raw rows.
        y : array-like of shape (n_rows,)
            Targets; ``missing_label`` where there is none.

        Returns
        -------
        self : PseudoLabels
            The fitted estimator.
        """
        labeled = labeled_mask(y, self.missing_label)
        known, unknown = np.flatnonzero(labeled), np.flatnonzero(~labeled)
        targets = known_targets(y, labeled)
        probe, model = clone(self.probe), clone(self.model)
        features = np.asarray(probe[:-1].fit_transform(X))
        inputs = model[:-1].fit_transform(X)
        labeler = probe[-1].fit(features[known], targets).best_estimator_
        name, search = model.steps[-1]
        with Quiet():
            self.best_params_ = _chosen(search, labeler, features, inputs, known, targets, unknown)
            learner = clone(search.estimator).set_params(**self.best_params_)
            rows, labels = _completed(labeler, features, known, targets, unknown)
            learner.fit(inputs[rows], labels)
        self.model_ = Pipeline([*model.steps[:-1], (name, learner)])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the model's targets, (n_rows,), of raw rows."""
        return self.model_.predict(X)

    @available_if(_model_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the model's probabilities of the classes, (n_rows, n_classes)."""
        return self.model_.predict_proba(X)

    @available_if(_model_has("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """Return the model's decision function."""
        return self.model_.decision_function(X)

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy, or the coefficient of determination of a regressor."""
        return self.model_.score(X, y)

    @property
    def classes_(self) -> np.ndarray:
        """Labels of a classifier."""
        return self.model_.classes_

    def __sklearn_tags__(self) -> Any:
        return get_tags(self.model)


def _chosen(
    search: InnerSearch,
    labeler: Any,
    features: np.ndarray,
    inputs: Any,
    known: np.ndarray,
    targets: np.ndarray,
    unknown: np.ndarray,
) -> dict[str, Any]:
    """Return the best values of a grid on held-out labelled rows."""
    folds = inner_folds(targets, is_classifier(search.estimator), search.random_state)
    if folds is None:
        return middle_of(search.grid)
    candidates = list(ParameterGrid(dict(search.grid)))
    scores = np.zeros(len(candidates))
    for train, test in folds.split(targets, targets):
        rows, labels = _completed(clone(labeler), features, known[train], targets[train], unknown)
        for place, values in enumerate(candidates):
            learner = clone(search.estimator).set_params(**values).fit(inputs[rows], labels)
            scores[place] += learner.score(inputs[known[test]], targets[test])
    return candidates[int(scores.argmax())]


def _completed(
    labeler: Any,
    features: np.ndarray,
    known: np.ndarray,
    targets: np.ndarray,
    unknown: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a labeler to known targets; return all rows, and their known or predicted targets."""
    if not len(unknown):
        return known, targets
    predicted = labeler.fit(features[known], targets).predict(features[unknown])
    return np.append(known, unknown), np.concatenate([targets, predicted])
