"""How the accuracy of two classifiers depends on the share of rows that the second one answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

# A few rows that are all right would make every probability 0 or 1 without a lower bound.
_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 0.1, 100.0


class DeferralPoint(NamedTuple):
    """What one threshold gives.

    Parameters
    ----------
    threshold : float
        Rows with a lower confidence are deferred.
    deferred : float
        Share of the rows that are deferred.
    accuracy : float
        Share of the rows that are right.
    """

    threshold: float
    deferred: float
    accuracy: float


class DeferralCurve(NamedTuple):
    """What every possible threshold gives, from none deferred to all; see `deferral_curve`.

    Parameters
    ----------
    thresholds : ndarray of shape (n_points,)
        Rows with a lower confidence are deferred; 0 defers none, infinity all.
    deferred : ndarray of shape (n_points,)
        Shares of the rows that are deferred, ascending from 0 to 1.
    accuracies : ndarray of shape (n_points,)
        Shares of the rows that are right.
    """

    thresholds: np.ndarray
    deferred: np.ndarray
    accuracies: np.ndarray

    def best(self, max_deferred: float) -> DeferralPoint:
        """Return the most accurate point; of several, the one that defers least.

        Parameters
        ----------
        max_deferred : float
            Highest share of deferred rows, from 0 to 1.
        """
        allowed = self.accuracies[self.deferred <= max_deferred]
        return DeferralPoint(*(float(values[allowed.argmax()]) for values in self))


def deferral_curve(
    confidence: np.ndarray, student_right: np.ndarray, teacher_right: np.ndarray
) -> DeferralCurve:
    """Return what every threshold of the student's confidence gives.

    Parameters
    ----------
    confidence : ndarray of shape (n_rows,)
        The student's confidence in its own answer, above 0.
    student_right, teacher_right : ndarray of shape (n_rows,), bool
        Whether the answers of the two are right.

    Returns
    -------
    curve : DeferralCurve
        Rows of equal confidence are deferred together, so there is a point for each distinct
        confidence and one more. Thresholds lie midway between confidences.
    """
    order = np.argsort(confidence, kind="stable")
    ascending = confidence[order]
    gains = teacher_right[order].astype(int) - student_right[order]
    n_right = student_right.sum() + np.append(0, gains.cumsum())
    cuts: np.ndarray = np.flatnonzero(ascending[1:] > ascending[:-1]) + 1
    below, above = ascending[cuts - 1], ascending[cuts]
    between = below + (above - below) / 2
    between = np.where(between > below, between, above)  # neighbours have no number in between
    cuts = np.concatenate([[0], cuts, [len(ascending)]])
    thresholds = np.concatenate([[0.0], between, [np.inf]])
    return DeferralCurve(thresholds, cuts / len(ascending), n_right[cuts] / len(ascending))


def scaled(
    probabilities: np.ndarray, temperature: float, known: np.ndarray | None = None
) -> np.ndarray:
    """Return probabilities whose logarithms were divided by a temperature.

    Parameters
    ----------
    probabilities : ndarray of shape (n_rows, n_classes)
        Probabilities.
    temperature : float
        Above 1, probabilities become less extreme; those that were rounded to 0, too.
    known : ndarray of shape (n_rows, n_classes), bool, optional
        Which classes the classifier knows; the others keep a probability of 0. None: all.
    """
    if temperature == 1:
        return probabilities
    return softmax(_log(probabilities, known) / temperature, axis=1)


def fit_temperature(
    probabilities: np.ndarray, codes: np.ndarray, known: np.ndarray | None = None
) -> float:
    """Return the temperature with the lowest log loss, from 0.1 to 100.

    Parameters
    ----------
    probabilities : ndarray of shape (n_rows, n_classes)
        Predictions for rows that were not trained on.
    codes : ndarray of shape (n_rows,), int
        Columns of the right classes.
    known : ndarray of shape (n_rows, n_classes), bool, optional
        Which classes the classifier knows. Rows of another class say nothing about the
        temperature, so they do not count; it is 1 if none is left. None: all.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv 1706.04599, section
    4.2.
    """
    logarithms = _log(probabilities, known)
    right = logarithms[np.arange(len(codes)), codes]
    counts = np.isfinite(right)
    if not counts.any():
        return 1.0
    logarithms, right = logarithms[counts], right[counts]

    def log_loss(log_temperature: float) -> float:
        beta = np.exp(-log_temperature)
        return float(np.mean(logsumexp(beta * logarithms, axis=1) - beta * right))

    bounds = np.log([_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE])
    return float(np.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x))


def _log(probabilities: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float64).eps))
    return logarithms if known is None else np.where(known, logarithms, -np.inf)
