"""Pools the predictions of several models, with weights found on rows that none of them has seen.

A row of NaN is a row for which a model has no prediction. The weights of the others are then scaled
to the same sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

SMALLEST_PROBABILITY = 1e-6
_LARGEST_WEIGHT = 8.0
# How firmly weights stay near the expected ones: with 20 labels a smaller number often discards all
# teachers, and with 100 labels it changes little.
_PRIOR_STRENGTH = 30.0
# Numbers of one model's predictions from which weights are found; more would only cost time.
_MOST_NUMBERS = 4_000_000
_ROWS_PER_POOL = 1024


def pool_probabilities(predictions: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    r"""Return the weighted geometric mean of class probabilities, normalised.

    .. math:: q \propto \exp \sum_j w_j \log q_j

    Parameters
    ----------
    predictions : sequence of ndarray of shape (n, n_classes)
        Probabilities of each model.
    weights : ndarray of shape (n_models,)
        Weight of each model.

    Returns
    -------
    pooled : ndarray of shape (n, n_classes)
        NaN in rows for which no model of positive weight has a prediction.
    """
    pooled: np.ndarray = np.empty(predictions[0].shape, np.float32)
    for start in range(0, len(pooled), _ROWS_PER_POOL):  # those of many classes are large
        rows = slice(start, start + _ROWS_PER_POOL)
        logs = [_log(one[rows]) for one in predictions]
        pooled[rows] = softmax(_weighted_sum(logs, weights), axis=1)
    return pooled


def pool_numbers(predictions: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the weighted sum of predictions of standardised targets.

    Parameters
    ----------
    predictions : sequence of ndarray of shape (n, n_targets)
        Predictions of each model.
    weights : ndarray of shape (n_models,)
        Weight of each model.

    Returns
    -------
    pooled : ndarray of shape (n, n_targets)
        NaN in rows for which no model of positive weight has a prediction.
    """
    return _weighted_sum(predictions, weights)


def weights_of_probabilities(
    predictions: Sequence[np.ndarray],
    labels: np.ndarray,
    sample_weight: np.ndarray,
    expected: np.ndarray | None = None,
) -> np.ndarray:
    r"""Find the weights with which the pooled probabilities of known labels are largest.

    Minimises, with n rows of weight s_i and J models, over 0 <= w_j <= 8

    .. math:: -\sum_i s_i \log q_{i y_i} + 15 \sum_j (w_j - e_j)^2

    The second term keeps the weights near the expected ones, e, where few labels say little. Only
    rows that all models predict count.

    Parameters
    ----------
    predictions : sequence of ndarray of shape (n, n_classes)
        Probabilities of each model for rows that it has not seen.
    labels : ndarray of shape (n,)
        Class indices.
    sample_weight : ndarray of shape (n,)
        Weights of the rows, 1 on average.
    expected : ndarray of shape (n_models,), default=None
        The weights if nothing is known; equal ones by default.

    Returns
    -------
    weights : ndarray of shape (n_models,)
        Weight of each model.
    """
    indices = _complete(predictions)
    logs = [_log(one[indices]) for one in predictions]
    own, labels, sample_weight = np.arange(len(indices)), labels[indices], sample_weight[indices]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        pooled = log_softmax(_weighted_sum(logs, weights), axis=1)
        probabilities = np.exp(pooled)
        gradient = [
            sample_weight @ ((probabilities * log).sum(axis=1) - log[own, labels]) for log in logs
        ]
        return -float(sample_weight @ pooled[own, labels]), np.array(gradient, dtype=np.float64)

    return _regularised_minimum(loss, len(predictions), expected)


def weights_of_numbers(
    predictions: Sequence[np.ndarray],
    targets: np.ndarray,
    sample_weight: np.ndarray,
    expected: np.ndarray | None = None,
) -> np.ndarray:
    """Find the weights with which pooled predictions are closest to known targets.

    As `weights_of_probabilities`, with the logarithm of a normal density, whose variance is the
    squared error of the best model.

    Parameters
    ----------
    predictions : sequence of ndarray of shape (n, n_targets)
        Predictions of each model for rows that it has not seen.
    targets : ndarray of shape (n, n_targets)
        Standardised targets.
    sample_weight : ndarray of shape (n,)
        Weights of the rows, 1 on average.
    expected : ndarray of shape (n_models,), default=None
        The weights if nothing is known; equal ones by default.

    Returns
    -------
    weights : ndarray of shape (n_models,)
        Weight of each model.
    """
    indices = _complete(predictions)
    models = [one[indices] for one in predictions]
    targets, sample_weight = targets[indices], sample_weight[indices]
    errors = [float(sample_weight @ ((one - targets) ** 2).mean(axis=1)) for one in models]
    variance = max(min(errors) / len(indices), 1e-6) if len(indices) else 1.0

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        residuals = _weighted_sum(models, weights) - targets
        gradient = [sample_weight @ (residuals * one).mean(axis=1) / variance for one in models]
        squares = sample_weight @ (residuals**2).mean(axis=1) / (2 * variance)
        return float(squares), np.array(gradient, dtype=np.float64)

    return _regularised_minimum(loss, len(predictions), expected)


def score_of_probabilities(
    pooled: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray
) -> float:
    """Return the share of the labels' entropy that predictions explain.

    It is 1 - log loss / entropy, but at least 0: 1 for certain and right predictions, 0 for those
    that say no more than the frequencies of the classes.

    Parameters
    ----------
    pooled : ndarray of shape (n, n_classes)
        Probabilities for rows that the models have not seen.
    labels : ndarray of shape (n,)
        Class indices.
    sample_weight : ndarray of shape (n,)
        Weights of the rows.

    Returns
    -------
    score : float
        Between 0 and 1; NaN if no row has a prediction.
    """
    known = _complete([pooled])
    labels, sample_weight = labels[known], sample_weight[known]
    if not sample_weight.any():
        return np.nan
    of_label = np.clip(pooled[known, labels], SMALLEST_PROBABILITY, 1)
    counts = np.bincount(labels, weights=sample_weight)
    shares = counts[counts > 0] / counts.sum()
    entropy = -float(shares @ np.log(shares))
    log_loss = -float(np.average(np.log(of_label), weights=sample_weight))
    return max(1 - log_loss / entropy, 0.0) if entropy > 0 else 0.0


def score_of_numbers(pooled: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray) -> float:
    """Return R², averaged over the targets, but at least 0.

    Parameters
    ----------
    pooled : ndarray of shape (n, n_targets)
        Predictions for rows that the models have not seen.
    targets : ndarray of shape (n, n_targets)
        Targets.
    sample_weight : ndarray of shape (n,)
        Weights of the rows.

    Returns
    -------
    score : float
        Between 0 and 1; NaN if fewer than two rows have a prediction.
    """
    from sklearn.metrics import r2_score  # late: scikit-learn's metrics take long to import

    known = _complete([pooled])
    if np.count_nonzero(sample_weight[known]) < 2:
        return np.nan
    r2 = r2_score(targets[known], pooled[known], sample_weight=sample_weight[known])
    return max(float(r2), 0.0)


def drawn(rows: np.ndarray, width: int) -> np.ndarray:
    """Return all rows, or some in their order if their predictions are very many numbers.

    They are drawn at random, because rows that are sorted or alternate may be evenly spaced.
    """
    n_drawn = max(_MOST_NUMBERS // width, 1)
    return rows[np.sort(np.random.RandomState(0).permutation(len(rows))[:n_drawn])]


class Pooling(NamedTuple):
    """How predictions of one kind are pooled.

    Parameters
    ----------
    pool : callable
        From predictions and weights to pooled predictions.
    find_weights : callable
        From out-of-fold predictions, targets, sample weights and expected weights to weights.
    score : callable
        From pooled predictions, targets and sample weights to a score from 0 to 1.
    """

    pool: Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]
    find_weights: Callable[..., np.ndarray]
    score: Callable[[np.ndarray, np.ndarray, np.ndarray], float]


OF_PROBABILITIES = Pooling(pool_probabilities, weights_of_probabilities, score_of_probabilities)
OF_NUMBERS = Pooling(pool_numbers, weights_of_numbers, score_of_numbers)


def _regularised_minimum(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]],
    n_models: int,
    expected: np.ndarray | None,
) -> np.ndarray:
    near = np.full(n_models, 1 / n_models) if expected is None else expected

    def regularised(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss(weights)
        penalty = _PRIOR_STRENGTH / 2 * ((weights - near) ** 2).sum()
        return value + penalty, gradient + _PRIOR_STRENGTH * (weights - near)

    bounds = [(0, _LARGEST_WEIGHT)] * n_models
    return minimize(regularised, near, jac=True, bounds=bounds, method="L-BFGS-B").x


def _weighted_sum(arrays: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the weighted sum over the arrays that have a row; NaN if none of these counts."""
    present = np.array([~np.isnan(array[:, 0]) for array in arrays])
    total: Any = 0.0
    for array, own, weight in zip(arrays, present, weights, strict=True):
        part = array if own.all() else np.nan_to_num(array, nan=0.0)
        total = total + np.float32(weight) * part
    if present.all():
        return total
    of_present = weights @ present
    with np.errstate(divide="ignore"):
        scale = np.where(of_present > 0, weights.sum() / of_present, np.nan)
    return total * scale[:, None].astype(np.float32)


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(probabilities, SMALLEST_PROBABILITY, None))


def _complete(predictions: Sequence[np.ndarray]) -> np.ndarray:
    """Return the indices of rows for which every model has a prediction."""
    return np.flatnonzero(~np.any([np.isnan(one[:, 0]) for one in predictions], axis=0))
