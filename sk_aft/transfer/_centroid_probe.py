"""A probe for very many classes: the similarity to the mean features of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import softmax
from sklearn.preprocessing import StandardScaler

from sk_aft.transfer._pool import SMALLEST_PROBABILITY, drawn

_SCALES = (3.0, 10.0, 30.0, 100.0)
_ROWS_PER_BLOCK = 1024  # bounds the memory, because there are very many classes


class CentroidProbe:
    """Softmax of the scaled cosine similarity to the mean of each class.

    It has one parameter, the scale, so a class needs only one row, and it costs one product of two
    matrices, where a logistic regression costs hundreds.

    Parameters
    ----------
    n_classes : int
        Number of classes; labels are class indices below it.
    standardises : bool, default=True
        Whether features are standardised; otherwise they are only centred.
    """

    def __init__(self, n_classes: int, *, standardises: bool = True) -> None:
        self.n_classes = n_classes
        self.standardises = standardises
        self._scale = _SCALES[1]

    def out_of_fold(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        folds: Sequence[tuple[np.ndarray, np.ndarray]],
        sample_weight: np.ndarray | None = None,
    ) -> np.ndarray:
        """Choose the scale by cross-entropy and return out-of-fold probabilities.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features.
        labels : ndarray of shape (n,)
            Class indices.
        folds : sequence of (train, test)
            Indices of training and held-out rows.
        sample_weight : ndarray of shape (n,), optional
            Weights of the rows.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes), float32
            NaN for rows that no fold holds out, and for rows of a fold whose training rows lack the
            row's class.
        """
        weights = np.ones(len(labels)) if sample_weight is None else sample_weight
        similarities: np.ndarray = np.full((len(labels), self.n_classes), np.nan, np.float32)
        for train, test in folds:
            test = test[np.isin(labels[test], labels[train])]
            self.fit(features[train], labels[train], weights[train])
            similarities[test] = self._similarities(features[test])
        known = np.flatnonzero(~np.isnan(similarities[:, 0]))
        if len(known):
            some = drawn(known, self.n_classes)
            judged = similarities[some], labels[some], weights[some]
            losses = [self._surprise(scale, *judged) for scale in _SCALES]
            self._scale = _SCALES[int(np.argmin(losses))]
        similarities *= self._scale
        for start in range(0, len(known), _ROWS_PER_BLOCK):
            rows = known[start : start + _ROWS_PER_BLOCK]
            similarities[rows] = softmax(similarities[rows], axis=1)
        return similarities

    def fit(
        self, features: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> CentroidProbe:
        """Compute the mean of each class, with the scale that `out_of_fold` chose."""
        weights = np.ones(len(labels)) if sample_weight is None else sample_weight
        # An array, whatever output of transformers the user has configured.
        scaler: Any = StandardScaler(with_std=self.standardises).set_output(transform="default")
        self._scaler = scaler.fit(features, sample_weight=weights)
        # Row k of this matrix times the features is the weighted sum over the rows of class k.
        shape = self.n_classes, len(labels)
        membership = csr_array((weights, (labels, np.arange(len(labels)))), shape=shape)
        self._directions: np.ndarray = _unit(membership @ scaler.transform(features))
        self._absent = np.bincount(labels, weights=weights, minlength=self.n_classes) == 0
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return class probabilities of new rows, (n, n_classes)."""
        return softmax(self._scale * self._similarities(features), axis=1)

    def _similarities(self, features: np.ndarray) -> np.ndarray:
        similarities = _unit(self._scaler.transform(features)) @ self._directions.T
        similarities[:, self._absent] = -np.inf
        return similarities

    @staticmethod
    def _surprise(
        scale: float, similarities: np.ndarray, labels: np.ndarray, weights: np.ndarray
    ) -> float:
        of_label = softmax(scale * similarities, axis=1)[np.arange(len(labels)), labels]
        return -float(weights @ np.log(np.clip(of_label, SMALLEST_PROBABILITY, 1)))


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(norms, 1e-8)).astype(np.float32)
