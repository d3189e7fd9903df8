"""Targets of a transfer method: learned from labelled rows, predicted for every row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sk_aft.transfer._base import TransferRows

_ROWS_PER_READ = 4096


def labeled_rows(rows: TransferRows) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of rows with label and features, and their targets as a matrix.

    Parameters
    ----------
    rows : TransferRows
        The training rows.

    Returns
    -------
    indices : ndarray of shape (m,)
        Rows that have both a label and features.
    targets : ndarray of shape (m, n_outputs), float64
        Regression targets, or one-hot encoded classes.

    Raises
    ------
    ValueError
        If there is no such row, or all targets are equal.
    """
    indices = np.flatnonzero(rows.labeled_mask & rows.known_mask)
    targets = rows.targets[indices]
    if rows.n_classes is not None:
        targets = np.eye(rows.n_classes)[targets]
    targets = np.asarray(targets, dtype=np.float64)
    if not len(indices) or not (targets != targets[0]).any():
        raise ValueError(
            "This transfer method learns from rows with labels and foundation features, and needs "
            f"at least two different labels among them. The {len(indices)} such rows have fewer."
        )
    return indices, targets


def predicted_targets(
    rows: TransferRows,
    predict: Callable[[np.ndarray], np.ndarray],
    width: int,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Return predictions of a model of the features, computed in blocks of rows.

    Parameters
    ----------
    rows : TransferRows
        The training rows.
    predict : callable
        Maps features (m, d) to predictions (m, width).
    width : int
        Number of columns of the predictions.
    mask : ndarray of shape (n,), bool, optional
        Which rows to predict. Default: those with features.

    Returns
    -------
    predictions : ndarray of shape (n, width), float32
        NaN in the other rows.
    """
    predictions: np.ndarray = np.full((len(rows.known_mask), width), np.nan, dtype=np.float32)
    indices = np.flatnonzero(rows.known_mask if mask is None else mask)
    for start in range(0, len(indices), _ROWS_PER_READ):
        block = indices[start : start + _ROWS_PER_READ]
        predictions[block] = predict(rows.features.take(block))
    return predictions
