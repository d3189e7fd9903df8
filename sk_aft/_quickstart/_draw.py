"""Which training rows a seed gets, and which of them have labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sk_aft._quickstart._tasks import UNKNOWN, Task
from sk_aft.datasets._draw import draw_rows


class Draw(NamedTuple):
    """Training rows of one seed.

    Parameters
    ----------
    rows : ndarray of shape (n_rows,), int
        Their indices; those with labels come first.
    labels : ndarray of shape (n_rows,), int
        Their labels, `UNKNOWN` where there is none.
    """

    rows: np.ndarray
    labels: np.ndarray


def draw(labels: np.ndarray, task: Task, seed: int) -> Draw:
    """Draw rows with labels, the same number of each class, and others without.

    Parameters
    ----------
    labels : ndarray of shape (n_rows,), int
        Labels of all training rows.
    task : Task
        Says how many to draw.
    seed : int
        Determines the draw.

    Returns
    -------
    draw : Draw
        All other rows, if fewer than ``task.n_unlabeled`` are left.
    """
    labeled = draw_rows(labels, task.labels_per_class, seed)
    others = np.setdiff1d(np.arange(len(labels)), labeled)
    unlabeled = np.random.default_rng(seed).permutation(others)[: task.n_unlabeled]
    rows = np.concatenate([labeled, unlabeled])
    known = np.arange(len(rows)) < len(labeled)
    return Draw(rows, np.where(known, labels[rows], UNKNOWN))
