"""Targets that a method prepares: learned from labelled rows, said of every row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sk_aft.transfer._base import TransferRows

_ROWS_PER_READ = 4096


def labeled_rows(rows: TransferRows) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows with label and features, and their targets as a matrix.

    Parameters
    ----------
    rows : TransferRows
        The training rows.

    Returns
    -------
    labeled : ndarray of shape (m,)
        Row numbers.
    targets : ndarray of shape (m, n_outputs), float64
        Regression targets; of classes, for each whether it is the row's.

    Raises
    ------
    ValueError
        If there is nothing to learn from.
    """
    labeled = np.flatnonzero(rows.labeled_mask & rows.known_mask)
    targets = rows.targets[labeled]
    if rows.n_classes is not None:
        targets = np.eye(rows.n_classes)[targets]
    targets = np.asarray(targets, dtype=np.float64)
    if not len(labeled) or not (targets != targets[0]).any():
        raise ValueError(
            f"This transfer method learns from rows with labels and foundation features. There "
            f"are {len(labeled)}, which is too few, or their labels are all equal."
        )
    return labeled, targets


def predicted_targets(
    rows: TransferRows,
    predict: Callable[[np.ndarray], np.ndarray],
    width: int,
    among: np.ndarray | None = None,
) -> np.ndarray:
    """Return what a model of the features says of each row, some rows at a time.

    Parameters
    ----------
    rows : TransferRows
        The training rows.
    predict : callable
        From features (m, d) to predictions (m, width).
    width : int
        Number of columns.
    among : ndarray of shape (n,), bool, optional
        Which rows to predict. Default: those with features.

    Returns
    -------
    predictions : ndarray of shape (n, width), float32
        NaN in the other rows.
    """
    predictions: np.ndarray = np.full((len(rows.known_mask), width), np.nan, dtype=np.float32)
    wanted = np.flatnonzero(rows.known_mask if among is None else among)
    for start in range(0, len(wanted), _ROWS_PER_READ):
        some = wanted[start : start + _ROWS_PER_READ]
        predictions[some] = predict(rows.features.take(some))
    return predictions
