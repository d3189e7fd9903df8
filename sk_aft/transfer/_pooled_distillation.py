"""Distillation of the pooled predictions of every teacher: what the default transfers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from sk_aft.transfer._base import TransferMethod, TransferRows
from sk_aft.transfer._pool import OF_NUMBERS, OF_PROBABILITIES, drawn
from sk_aft.transfer._precision import in_full_precision
from sk_aft.transfer._probe import Folds, default_folds, make_probe
from sk_aft.transfer._probe_distillation import divergence

SOFT_TARGETS = "soft targets"
STUDENT_ROWS = "student's rows"
STUDENT_START = "student's start"
_ROWS_PER_READ = 4096


class PooledDistillation(TransferMethod):
    r"""Difference between the student's predictions and the pooled predictions of its teachers.

    Teachers are

    - a probe of each layer of each foundation model;
    - the soft targets that X holds, such as those of a `FineTunedFeatureExtractor`;
    - if some rows have no label, a linear model of the student's own rows, and one of the features
      that the student starts from. They know what the student would learn alone, so useless
      teachers do little harm.

    .. math::
        R = \tfrac{\lambda}{B} \sum_i \mathrm{KL}\bigl(q_i \,\Vert\, \mathrm{softmax} f(x_i)\bigr),
        \qquad q_i \propto \exp \sum_j w_j \log q_{ij}

    with f(x) the student's logits and q_ij the probabilities of teacher j. The teachers predict
    labelled rows out of fold, all on the same folds, and other rows by a model of all labelled
    rows. The weights w are those with which the out-of-fold predictions are best; they stay near
    1/J if labels are few. :math:`\lambda` is 1 if some rows have no label. Otherwise the teachers
    only say how sure they are of known labels, and :math:`\lambda` is the square root of
    ``teacher_score``.

    For regression, teachers are ridge regressions, q is the weighted sum of their predictions, and
    R is the mean squared difference times :math:`\lambda`.

    Attributes
    ----------
    teacher_weights : dict of str to float
        w: the weight of each layer, of "soft targets", "student's rows" and "student's start"; set
        by `fit`.
    teacher_score : float
        How good q is out of fold, from 0 to 1: the share of the labels' entropy that it explains,
        1 - log loss / entropy, or R². NaN if each class has a single labelled row.
    default_beta : float
        beta used unless it is tuned: 1.

    Notes
    -----
    There are five folds, or as many as the largest class has rows, stratified by class. A row that
    is the only one of its class has no target. If all are, there are no folds, and all weights are
    equal.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import PooledDistillation
    >>> probabilities = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    >>> features = torch.zeros(2, 3)
    >>> abs(PooledDistillation()(features, probabilities, probabilities.log()).item()) < 1e-6
    True
    """

    uses_logits = True
    has_soft_targets = True
    takes_soft_targets = True
    learns_from_all_layers = True

    def __init__(self) -> None:
        super().__init__()
        self.teacher_weights: dict[str, float] = {}
        self.teacher_score = np.nan
        self._strength = 1.0
        self._is_regression = False

    @in_full_precision
    def forward(self, student: Tensor, foundation: Tensor, logits: Tensor) -> Tensor:
        """Return the mean divergence or, for regression, the mean squared difference.

        Parameters
        ----------
        student : Tensor of shape (B, p)
            Not used.
        foundation : Tensor of shape (B, n_outputs)
            What `fit` returned for the same rows.
        logits : Tensor of shape (B, n_outputs)
            The student's logits, or predictions of a regressor.

        Returns
        -------
        difference : Tensor, scalar
            At least 0.
        """
        if self._is_regression:
            return self._strength * F.mse_loss(logits, foundation)
        return self._strength * divergence(logits, foundation)

    def fit(self, rows: TransferRows) -> np.ndarray:
        """Fit the teachers, find their weights and return the pooled predictions.

        Parameters
        ----------
        rows : TransferRows
            The training rows.

        Returns
        -------
        targets : ndarray of shape (n, n_outputs), float32
            Class probabilities, or predictions of the regression; NaN in rows that no teacher can
            predict.
        """
        self._is_regression = rows.n_classes is None
        labeled = np.flatnonzero(rows.labeled_mask)
        targets = rows.targets[labeled]
        sample_weight = np.ones(len(labeled))
        if rows.weights is not None:
            sample_weight = rows.weights[labeled] / rows.weights[labeled].mean()
        has_unlabeled = len(labeled) < len(rows.labeled_mask)
        folds = default_folds(targets, stratify=not self._is_regression, seed=rows.seed)
        predictions = {
            name: teacher.predictions(labeled, targets, sample_weight, folds)
            for name, teacher in _teachers(rows, with_student=has_unlabeled).items()
        }
        if rows.soft_targets is not None:
            predictions[SOFT_TARGETS] = rows.soft_targets
        predictions = _of_any_row(predictions) or predictions
        every = list(predictions.values())
        pooling = OF_NUMBERS if self._is_regression else OF_PROBABILITIES
        some = drawn(np.arange(len(labeled)), every[0].shape[1])
        judged = [one[labeled[some]] for one in every]
        weights = pooling.find_weights(judged, targets[some], sample_weight[some])
        pooled: np.ndarray = pooling.pool(every, weights).astype(np.float32, copy=False)
        self.teacher_weights = dict(zip(predictions, map(float, weights), strict=True))
        self.teacher_score = pooling.score(pooled[labeled], targets, sample_weight)
        self._strength = 1.0 if has_unlabeled else float(np.sqrt(np.nan_to_num(self.teacher_score)))
        return pooled

    def summary(self) -> str:
        """Return in one line what teaches, and how good it is."""
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in self.teacher_weights.items())
        measure = "R2" if self._is_regression else "share of the labels' entropy explained"
        return f"Taught by {weights} ({measure} out of fold: {self.teacher_score:.2f})"


def pool_of(transfer: nn.Module | None) -> PooledDistillation | None:
    """Return the pooled distillation that a transfer objective is, or that is part of it."""
    parts = () if transfer is None else transfer.modules()
    return next((part for part in parts if isinstance(part, PooledDistillation)), None)


@dataclass(frozen=True)
class _Teacher:
    """A linear model of some columns.

    Parameters
    ----------
    take : callable
        Returns the columns of rows, given their indices.
    known_mask : ndarray of shape (n,), bool
        Which rows have them.
    rows : TransferRows
        The training rows.
    standardises : bool, default=True
        Whether the columns are standardised.
    """

    take: Callable[[np.ndarray], np.ndarray]
    known_mask: np.ndarray
    rows: TransferRows
    standardises: bool = True

    def predictions(
        self, labeled: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray, folds: Folds
    ) -> np.ndarray:
        """Return predictions for all rows, out of fold where they are labelled; NaN for none."""
        n_classes = self.rows.n_classes
        width = n_classes or targets.shape[1]
        predictions: np.ndarray = np.full((len(self.known_mask), width), np.nan, np.float32)
        known = self.known_mask[labeled]
        indices, targets, sample_weight = labeled[known], targets[known], sample_weight[known]
        if not _have_distinct(targets):
            return predictions
        columns = self.take(indices)
        probe = make_probe(n_classes, standardises=self.standardises)
        own_folds = _restricted(folds, known)
        predictions[indices] = probe.out_of_fold(columns, targets, own_folds, sample_weight)
        others = np.flatnonzero(self.known_mask & ~self.rows.labeled_mask)
        if len(others):
            probe.fit(columns, targets, sample_weight)
        for start in range(0, len(others), _ROWS_PER_READ):
            some = others[start : start + _ROWS_PER_READ]
            predictions[some] = probe.predict(self.take(some))
        return predictions


def _teachers(rows: TransferRows, *, with_student: bool) -> dict[str, _Teacher]:
    """Return a teacher for each layer of each model, and one of the student's own columns."""
    teachers = {}
    for name, columns in rows.feature_slices.items() if rows.features is not None else ():
        take = _columns_of(rows.features, columns)
        teachers[name] = _Teacher(take, rows.known_mask, rows)
    own = rows.student_columns() if with_student and rows.student_columns is not None else {}
    for name, matrix in own.items():
        every: np.ndarray = np.ones(len(matrix), dtype=bool)
        teachers[name] = _Teacher(matrix.__getitem__, every, rows, standardises=False)
    return teachers


def _columns_of(features: Any, columns: slice) -> Callable[[np.ndarray], np.ndarray]:
    return lambda indices: features.take(indices)[:, columns]


def _of_any_row(predictions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leave out teachers that predict no row; a share of the weight would be lost on them."""
    return {name: one for name, one in predictions.items() if not np.isnan(one[:, 0]).all()}


def _have_distinct(targets: np.ndarray) -> bool:
    return len(targets) > 0 and bool((targets != targets[0]).any())


def _restricted(folds: Folds, mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the folds of those rows that a mask keeps."""
    place = np.cumsum(mask) - 1
    kept = [(place[train[mask[train]]], place[test[mask[test]]]) for train, test in folds]
    return [(train, test) for train, test in kept if len(train) and len(test)]
