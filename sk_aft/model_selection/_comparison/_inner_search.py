"""A grid search inside an estimator, which small or uneven data do not break."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import BaseCrossValidator, GridSearchCV, KFold, StratifiedKFold
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

_N_FOLDS = 3


def _best_has(method: str) -> Any:
    def check(search: InnerSearch) -> bool:
        getattr(getattr(search, "best_estimator_", search.estimator), method)
        return True

    return check


class InnerSearch(MetaEstimatorMixin, BaseEstimator):
    """Choose the values of parameters by cross-validation, and refit with the best.

    It is scikit-learn's grid search, for comparisons in which every candidate chooses its main
    hyper-parameter from the rows that it is given. As the last step of a pipeline, it does not
    repeat the steps before it: held-out rows count in a scale or an inverse document frequency,
    but not with their targets.

    Parameters
    ----------
    estimator : estimator
        A classifier or a regressor.
    grid : mapping of str to sequence
        The values of its parameters. The middle ones are used if there are too few rows to search.
    random_state : int, RandomState instance or None, default=None
        Shuffles the rows before they are split.

    Attributes
    ----------
    best_estimator_ : estimator
        Fitted to all rows.
    best_params_ : dict
        The values that were chosen.

    Notes
    -----
    Linear models and perceptrons that stop at ``max_iter`` do not warn: what they have learned
    until then is scored as it is.
    """

    def __init__(
        self, estimator: Any, grid: Mapping[str, Sequence[Any]], random_state: Any = None
    ) -> None:
        self.estimator = estimator
        self.grid = grid
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> InnerSearch:
        """Search and refit.

        Parameters
        ----------
        X : array-like of n_rows rows
            Rows.
        y : array-like of shape (n_rows,)
            Targets.

        Returns
        -------
        self : InnerSearch
            The fitted search.
        """
        folds = inner_folds(y, is_classifier(self.estimator), self.random_state)
        with Quiet():
            if folds is None:
                self.best_params_ = middle_of(self.grid)
                best = clone(self.estimator).set_params(**self.best_params_)
                self.best_estimator_ = best.fit(X, y)
                return self
            search = GridSearchCV(self.estimator, self.grid, cv=folds).fit(X, y)
        self.best_params_ = search.best_params_
        self.best_estimator_ = search.best_estimator_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the targets, (n_rows,), that the best estimator predicts."""
        return self.best_estimator_.predict(X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes, (n_rows, n_classes)."""
        return self.best_estimator_.predict_proba(X)

    @available_if(_best_has("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """Return the decision function of the best estimator."""
        return self.best_estimator_.decision_function(X)

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy, or the coefficient of determination of a regressor."""
        return self.best_estimator_.score(X, y)

    @property
    def classes_(self) -> np.ndarray:
        """Labels of a classifier."""
        return self.best_estimator_.classes_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        of_estimator = get_tags(self.estimator)
        tags.estimator_type = of_estimator.estimator_type
        tags.classifier_tags = of_estimator.classifier_tags
        tags.regressor_tags = of_estimator.regressor_tags
        tags.target_tags = of_estimator.target_tags
        tags.input_tags = of_estimator.input_tags
        return tags


def inner_folds(y: Any, are_classes: bool, random_state: Any = None) -> BaseCrossValidator | None:
    """Return three folds, two if some targets are rare, or None if rows are too few to search.

    Parameters
    ----------
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Targets.
    are_classes : bool
        Whether the folds are stratified by class.
    random_state : int, RandomState instance or None, default=None
        Shuffles the rows.

    Returns
    -------
    folds : splitter or None
        A class of a single row does not count: it is never both learned and scored.
    """
    if not are_classes:
        n_folds = min(_N_FOLDS, len(y) // 2)  # a score needs two rows
        return KFold(n_folds, shuffle=True, random_state=random_state) if n_folds > 1 else None
    sizes = np.unique(np.asarray(y), return_counts=True)[1]
    if (sizes > 1).sum() < 2:
        return None
    n_folds = _N_FOLDS if sizes.min() >= _N_FOLDS else 2
    return StratifiedKFold(n_folds, shuffle=True, random_state=random_state)


def middle_of(grid: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return the middle value of each parameter."""
    return {name: values[len(values) // 2] for name, values in grid.items()}


class Quiet(warnings.catch_warnings):
    """Silence what small data cause: models that have not converged, and classes of few rows."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        # Of a class that no training row of a fold has.
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
