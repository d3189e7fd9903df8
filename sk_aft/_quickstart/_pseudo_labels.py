"""A rival of the transfer: a probe labels the rows that have no label."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import _safe_indexing


class PseudoLabels(ClassifierMixin, BaseEstimator):
    """Fit a model to known labels and, for the other rows, to those that a probe predicts.

    Parameters
    ----------
    probe : estimator
        Learns from the labelled rows, and predicts the missing labels.
    model : estimator
        Learns from all rows, and predicts alone.

    Attributes
    ----------
    model_ : estimator
        The fitted model.
    classes_ : ndarray of shape (n_classes,)
        The classes.
    """

    def __init__(self, probe: Any, model: Any) -> None:
        self.probe = probe
        self.model = model

    def fit(self, X: Any, y: np.ndarray) -> PseudoLabels:
        """Fit the probe, then the model.

        Parameters
        ----------
        X : list or array of n_rows rows
            Raw rows.
        y : ndarray of shape (n_rows,), int
            Labels; -1 where there is none.

        Returns
        -------
        self : PseudoLabels
            The fitted model.
        """
        labeled = y != -1
        probe = clone(self.probe).fit(_safe_indexing(X, labeled), y[labeled])
        labels = y.copy()
        if not labeled.all():
            labels[~labeled] = probe.predict(_safe_indexing(X, ~labeled))
        self.model_ = clone(self.model).fit(X, labels)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the model's labels, (n_rows,), of n_rows raw rows."""
        return self.model_.predict(X)
