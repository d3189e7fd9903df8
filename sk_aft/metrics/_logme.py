"""LogME: the evidence of targets under a Bayesian linear model of features."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import type_of_target

_ROWS_PER_BLOCK = 4096
_MAX_ITERATIONS = 500
_TOLERANCE = 1e-6
_WIDEST_RATIO = 1e12
TASKS = ("auto", "classification", "regression")


def logme_score(F: Any, y: Any, *, task: str = "auto") -> float:
    r"""Return the logarithm of the maximum evidence of targets given features, per row (sample).

    A target y (n,) is modelled as :math:`y = F w + \epsilon` with :math:`w \sim N(0, \alpha^{-1})`
    and :math:`\epsilon \sim N(0, \beta^{-1})`. The evidence, with w integrated out, is

    .. math::
        \mathcal{L}(\alpha, \beta) = \tfrac{n}{2} \log \tfrac{\beta}{2 \pi}
            + \tfrac{d}{2} \log \alpha - \tfrac{1}{2} \log |A|
            - \tfrac{\beta}{2} \lVert F m - y \rVert^2 - \tfrac{\alpha}{2} \lVert m \rVert^2,
        \quad A = \alpha I + \beta F^\top F, \quad m = \beta A^{-1} F^\top y

    and the score is :math:`\max_{\alpha, \beta} \mathcal{L} / n`. Classes are scored one against
    the rest, and several targets separately; the mean is returned. It ranks foundation models by
    the usefulness of their features in seconds, without training and without held-out rows.

    Parameters
    ----------
    F : array-like of shape (n_rows, n_features)
        Features.
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Classes or numbers.
    task : {"auto", "classification", "regression"}, default="auto"
        Type of y. "auto" decides as scikit-learn does, which treats integers as classes.

    Returns
    -------
    score : float
        Higher is better. Scores are comparable only for the same y.

    Raises
    ------
    ValueError
        If y has fewer than two classes, or a constant target.

    Notes
    -----
    The evidence is maximised by the fixed-point iteration of the second reference. The score is
    invariant to scaling and rotation of F and to added columns of zeros. As published, there is
    no intercept.

    References
    ----------
    You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML
    2021, arXiv 2102.11005; "Ranking and Tuning Pre-trained Models", JMLR 2022, arXiv 2110.10545.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_aft.metrics import logme_score
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 3
    >>> informative = np.eye(3)[y] + rng.normal(size=(60, 3))
    >>> logme_score(informative, y) > logme_score(rng.normal(size=(60, 3)), y)
    True
    """
    F = check_array(F, dtype=[np.float64, np.float32], ensure_min_samples=2, input_name="F")
    targets = target_matrix(y, task)
    check_consistent_length(F, targets)
    if (targets == targets[0]).all(axis=0).any():
        raise ValueError("A target is the same in every row, so there is no variation to explain.")
    return float(fit_logme(F, targets).evidence.mean())


def target_matrix(y: Any, task: str) -> np.ndarray:
    """Return targets in the form that LogME models.

    Parameters
    ----------
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Classes or numbers.
    task : {"auto", "classification", "regression"}
        Type of y.

    Returns
    -------
    targets : ndarray of shape (n_rows, n_targets), float64
        The numbers, or one-hot encoded classes.
    """
    if not is_classification(y, task):
        targets = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
        return targets.reshape(len(targets), -1)
    classes, indices = np.unique(column_or_1d(y), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y has one class only, {classes[0]!r}, expected at least two.")
    return np.eye(len(classes))[indices]


def is_classification(y: Any, task: str) -> bool:
    """Return whether targets are classes.

    Parameters
    ----------
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Targets.
    task : {"auto", "classification", "regression"}
        Type of y; "auto" infers it.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}, expected one of {list(TASKS)}.")
    if task != "auto":
        return task == "classification"
    y = check_array(y, dtype=None, ensure_2d=False, input_name="y")
    kind = type_of_target(y, input_name="y")
    if kind.startswith("continuous"):
        return False
    if kind in ("binary", "multiclass"):
        return True
    raise ValueError(
        f"y is of type {kind!r}, expected a class or a number for each row, or several numbers "
        "with task='regression'."
    )


class LogME(NamedTuple):
    """Result of `fit_logme`.

    Parameters
    ----------
    evidence : ndarray of shape (n_targets,)
        Logarithm of the maximum evidence of each target, divided by the number of rows.
    weights : ndarray of shape (n_features, n_targets)
        Posterior mean of the linear model's weights.
    """

    evidence: np.ndarray
    weights: np.ndarray


def fit_logme(F: np.ndarray, Y: np.ndarray) -> LogME:
    """Maximise the evidence of each target separately.

    Parameters
    ----------
    F : ndarray of shape (n, d)
        Features.
    Y : ndarray of shape (n, n_targets)
        Targets, none of them zero in all rows.

    Returns
    -------
    found : LogME
        Evidence and posterior mean weights.
    """
    n, d = F.shape
    Y = np.asarray(Y, dtype=np.float64)
    scale = float(np.abs(F).max()) or 1.0
    in_features = d <= n
    # Squared singular values of F, from the smaller of its two Gram matrices.
    eigenvalues, vectors = np.linalg.eigh(_gram(F, scale, in_features))
    kept = eigenvalues > max(eigenvalues[-1], 0.0) * max(n, d) * np.finfo(np.float64).eps
    sigma, vectors = eigenvalues[kept], vectors[:, kept]
    if in_features:
        right = vectors
        z = (right.T @ _transposed_product(F, scale, Y)) / np.sqrt(sigma)[:, None]
    else:
        right = _transposed_product(F, scale, vectors) / np.sqrt(sigma)
        z = vectors.T @ Y
    squares = z**2
    unexplained = np.clip((Y**2).sum(axis=0) - squares.sum(axis=0), 0.0, None)
    ratio = _best_ratio(sigma, squares, unexplained, n)
    shrunk = sigma[:, None] + ratio
    # For a given ratio alpha / beta, the optimal beta is n divided by this sum.
    error = unexplained + (squares * ratio / shrunk).sum(axis=0)
    evidence = 0.5 * (
        len(sigma) * np.log(ratio)
        - np.log(shrunk).sum(axis=0)
        + n * (np.log(n / (2 * np.pi)) - np.log(error) - 1.0)
    )
    weights = right @ (np.sqrt(sigma)[:, None] * z / shrunk) / scale
    return LogME(evidence / n, weights)


def _best_ratio(
    sigma: np.ndarray, squares: np.ndarray, unexplained: np.ndarray, n: int
) -> np.ndarray:
    """Return alpha / beta of each target at the maximum of the evidence, by fixed-point iteration.

    If features explain none or all of a target, there is no maximum: the ratio stops at a bound.
    """
    start = float(sigma.mean()) if len(sigma) else 1.0
    ratio = np.full(len(unexplained), start)
    low, high = start / _WIDEST_RATIO, start * _WIDEST_RATIO
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(_MAX_ITERATIONS):
            shrunk = sigma[:, None] + ratio
            used = (sigma[:, None] / shrunk).sum(axis=0)
            unused = n - len(sigma) + (ratio / shrunk).sum(axis=0)
            length = (sigma[:, None] * squares / shrunk**2).sum(axis=0)
            error = unexplained + (squares * (ratio / shrunk) ** 2).sum(axis=0)
            following = np.clip(used * error / (unused * length), low, high)
            following = np.where(np.isfinite(following), following, high)
            change = np.abs(np.log(following / ratio)).max()
            ratio = following
            if change < _TOLERANCE:
                break
    return ratio


def _gram(F: np.ndarray, scale: float, in_features: bool) -> np.ndarray:
    """Return F'F or FF' of F / scale in float64. F'F is computed without a float64 copy of F."""
    if not in_features:
        scaled = F.astype(np.float64) / scale
        return scaled @ scaled.T
    return _transposed_product(F, scale, F) / scale


def _transposed_product(F: np.ndarray, scale: float, B: np.ndarray) -> np.ndarray:
    total = np.zeros((F.shape[1], B.shape[1]))
    for start in range(0, len(F), _ROWS_PER_BLOCK):
        block = slice(start, start + _ROWS_PER_BLOCK)
        total += (F[block].astype(np.float64) / scale).T @ B[block].astype(np.float64)
    return total
