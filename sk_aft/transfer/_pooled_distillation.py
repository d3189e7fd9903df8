"""Distillation of the pooled predictions of every teacher: what the default transfers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from sk_aft.transfer._base import TransferRows
from sk_aft.transfer._pool import OF_NUMBERS, OF_PROBABILITIES, drawn
from sk_aft.transfer._probe import Folds, default_folds, equal_rows, trained_probe
from sk_aft.transfer._probe_distillation import ProbeDistillation

SOFT_TARGETS = "soft targets"
STUDENT_ROWS = "student's rows"
STUDENT_START = "student's start"
_ROWS_PER_READ = 4096


class PooledDistillation(ProbeDistillation):
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

    with f(x) the student's logits and q_ij the probabilities of teacher j. The linear models
    predict labelled rows out of fold, all on the same folds, and other rows by a model of all
    labelled rows; soft targets are used as X holds them. The weights w are those with which the
    predictions of labelled rows are best. If labels are few, they stay near 1/J or, if there are
    soft targets, near 1 for these and 0 for the others. :math:`\lambda` is 1 if a model of the
    student is among the teachers. Otherwise nothing says what the student would learn alone, and
    :math:`\lambda` is the square root of ``teacher_score``: useless teachers have hardly any
    effect.

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
    There are five folds, or as many as the largest class has rows, stratified by class; rows of
    equal features are in one fold. A row that is the only one of its class has no target. If all
    are, there are no folds, and the weights are 1/J, or 1 for soft targets and 0 for
    the others. ``teacher_score`` is slightly optimistic, because the few weights are found on the
    same rows.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import PooledDistillation
    >>> probabilities = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    >>> features = torch.zeros(2, 3)
    >>> abs(PooledDistillation()(features, probabilities, probabilities.log()).item()) < 1e-6
    True
    """

    learns_from_all_layers = True

    def __init__(self) -> None:
        super().__init__()
        self.teacher_weights: dict[str, float] = {}
        self.teacher_score = np.nan
        self._strength = 1.0

    def forward(self, student: Tensor, foundation: Tensor, logits: Tensor) -> Tensor:
        """Return the difference times lambda; parameters as in `ProbeDistillation.forward`."""
        return self._strength * super().forward(student, foundation, logits)

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
        others = np.flatnonzero(~rows.labeled_mask)
        own_targets = rows.targets[labeled]
        known = _Labeled(labeled, own_targets, *_weights_and_folds(rows, labeled))
        teachers, out_of_fold = {}, {}
        for name, teacher in _teachers(rows, with_student=len(others) > 0).items():
            predictions = teacher.fit(known, is_last=not len(others))
            if predictions is not None:
                teachers[name], out_of_fold[name] = teacher, predictions
        shape = len(rows.labeled_mask), rows.n_classes or own_targets.shape[1]
        targets: np.ndarray = np.full(shape, np.nan, dtype=np.float32)
        if not teachers:
            self.teacher_weights, self.teacher_score, self._strength = {}, np.nan, 0.0
            return targets
        pooling = OF_NUMBERS if self._is_regression else OF_PROBABILITIES
        every = list(out_of_fold.values())
        some = drawn(np.arange(len(labeled)), shape[1])
        judged = [one[some] for one in every]
        expected = _expected_weights(list(teachers))
        weights = pooling.find_weights(judged, own_targets[some], known.weights[some], expected)
        targets[labeled] = pooling.pool(every, weights)
        for start in range(0, len(others), _ROWS_PER_READ):
            block = others[start : start + _ROWS_PER_READ]
            further = [teacher.predict(block) for teacher in teachers.values()]
            targets[block] = pooling.pool(further, weights)
        self.teacher_weights = dict(zip(teachers, map(float, weights), strict=True))
        self.teacher_score = pooling.score(targets[labeled], own_targets, known.weights)
        has_student = not {STUDENT_ROWS, STUDENT_START}.isdisjoint(teachers)
        self._strength = 1.0 if has_student else float(np.sqrt(np.nan_to_num(self.teacher_score)))
        return targets

    def summary(self) -> str:
        """Return in one line what teaches, and how good it is."""
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in self.teacher_weights.items())
        if np.isnan(self.teacher_score):
            judged = "not judged, because no class has two labelled rows"
        elif self._is_regression:
            judged = f"R2 out of fold: {self.teacher_score:.2f}"
        else:
            judged = f"share of the labels' entropy explained out of fold: {self.teacher_score:.2f}"
        if self._strength == 0:
            return f"Not taught by {weights or 'any teacher'} ({judged})"
        return f"Taught by {weights} ({judged})"


def pool_of(transfer: nn.Module | None) -> PooledDistillation | None:
    """Return the pooled distillation that a transfer objective is, or that is part of it."""
    parts = () if transfer is None else transfer.modules()
    return next((part for part in parts if isinstance(part, PooledDistillation)), None)


class _Labeled(NamedTuple):
    """Labelled rows: their indices, targets, weights of 1 on average, and folds."""

    indices: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    folds: Folds


class _Probe:
    """A linear model of some columns.

    Parameters
    ----------
    take : callable
        Returns the columns of rows, given their indices.
    known_mask : ndarray of shape (n,), bool
        Which rows have them.
    n_classes : int or None
        Number of classes; None for regression.
    standardises : bool, default=True
        Whether the columns are standardised.
    """

    def __init__(
        self,
        take: Callable[[np.ndarray], np.ndarray],
        known_mask: np.ndarray,
        n_classes: int | None,
        *,
        standardises: bool = True,
    ) -> None:
        self._take, self._known_mask = take, known_mask
        self._n_classes = n_classes
        self._standardises = standardises

    def fit(self, labeled: _Labeled, *, is_last: bool) -> np.ndarray | None:
        """Return out-of-fold predictions of the labelled rows, NaN for none.

        None if fewer than two distinct targets are known. If ``is_last``, no other rows follow.
        """
        known = self._known_mask[labeled.indices]
        targets, weights = labeled.targets[known], labeled.weights[known]
        if not len(targets) or not (targets != targets[0]).any():
            return None
        self._width = self._n_classes or targets.shape[1]
        columns = self._take(labeled.indices[known])
        predictions = np.full((len(known), self._width), np.nan, np.float32)
        predictions[known], self._probe = trained_probe(
            columns,
            targets,
            _restricted(labeled.folds, known),
            weights,
            n_classes=self._n_classes,
            standardises=self._standardises,
            predicts=not is_last,
        )
        return predictions

    def predict(self, indices: np.ndarray) -> np.ndarray:
        """Return predictions of other rows, NaN for none."""
        known = self._known_mask[indices]
        predictions = np.full((len(indices), self._width), np.nan, np.float32)
        if known.any():
            predictions[known] = self._probe.predict(self._take(indices[known]))
        return predictions


class _SoftTargets:
    """Predictions that X holds, with the methods of a `_Probe`."""

    def __init__(self, soft_targets: np.ndarray) -> None:
        self._soft_targets = soft_targets

    def fit(self, labeled: _Labeled, *, is_last: bool) -> np.ndarray | None:
        """Return those of the labelled rows; None if no row has any."""
        del is_last
        if np.isnan(self._soft_targets[:, 0]).all():
            return None
        return self._soft_targets[labeled.indices]

    def predict(self, indices: np.ndarray) -> np.ndarray:
        """Return those of other rows."""
        return self._soft_targets[indices]


def _teachers(rows: TransferRows, *, with_student: bool) -> dict[str, _Probe | _SoftTargets]:
    """Return a teacher for each layer, for the soft targets and for what the student has."""
    teachers: dict[str, _Probe | _SoftTargets] = {}
    if rows.features is not None:
        for name, columns in rows.feature_slices.items():
            take = _columns_of(rows.features, columns)
            teachers[name] = _Probe(take, rows.known_mask, rows.n_classes)
    if with_student and rows.student_columns is not None:
        for name, matrix in rows.student_columns().items():
            every: np.ndarray = np.ones(len(matrix), dtype=bool)
            take = matrix.__getitem__
            teachers[name] = _Probe(take, every, rows.n_classes, standardises=False)
    if rows.soft_targets is not None:
        teachers[SOFT_TARGETS] = _SoftTargets(rows.soft_targets)
    return teachers


def _expected_weights(teachers: list[str]) -> np.ndarray | None:
    """Return the weights of teachers if labels are few: soft targets alone, or None for all alike.

    Soft targets come from a model that has learned the task. Probes beside it know less.
    """
    if SOFT_TARGETS not in teachers:
        return None
    return np.array([float(name == SOFT_TARGETS) for name in teachers])


def _columns_of(features: Any, columns: slice) -> Callable[[np.ndarray], np.ndarray]:
    return lambda indices: features.take(indices)[:, columns]


def _weights_and_folds(rows: TransferRows, labeled: np.ndarray) -> tuple[np.ndarray, Folds]:
    """Return the weights of labelled rows, 1 on average, and folds that all teachers share."""
    weights = np.ones(len(labeled))
    if rows.weights is not None:
        weights = rows.weights[labeled] / rows.weights[labeled].mean()
    groups = np.arange(len(labeled))
    known = rows.known_mask[labeled]
    if rows.features is not None and known.any():
        groups[known] = equal_rows(rows.features.take(labeled[known]))
        groups[~known] = len(labeled) + np.flatnonzero(~known)
    stratify = rows.n_classes is not None
    folds = default_folds(rows.targets[labeled], stratify=stratify, seed=rows.seed, groups=groups)
    return weights, folds


def _restricted(folds: Folds, mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the folds of those rows that a mask keeps."""
    place = np.cumsum(mask) - 1
    kept = [(place[train[mask[train]]], place[test[mask[test]]]) for train, test in folds]
    return [(train, test) for train, test in kept if len(train) and len(test)]
