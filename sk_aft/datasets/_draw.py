"""Shared parts of the loaders: choosing and returning the rows."""

from __future__ import annotations

from importlib.resources import files
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

DATA = files("sk_aft.datasets") / "data"


def check_subset(subset: str) -> None:
    """Raise ValueError unless the part of the data is "train" or "test"."""
    if subset not in ("train", "test"):
        raise ValueError(f'subset has to be "train" or "test", got {subset!r}.')


def draw_rows(labels: np.ndarray, labels_per_class: int | None, random_state: Any) -> np.ndarray:
    """Draw the same number of rows of each class.

    Parameters
    ----------
    labels : ndarray of shape (n_rows,)
        Labels of all rows.
    labels_per_class : int or None
        Rows of each class; None takes every row.
    random_state : int, RandomState or None
        Determines the draw.

    Returns
    -------
    rows : ndarray of int
        Which rows were drawn, in ascending order.

    Raises
    ------
    ValueError
        If ``labels_per_class`` is not positive or a class has fewer rows.
    """
    if labels_per_class is None:
        return np.arange(len(labels))
    if not isinstance(labels_per_class, Integral) or labels_per_class < 1:
        raise ValueError(
            f"labels_per_class has to be a positive integer or None, got {labels_per_class!r}."
        )
    random = check_random_state(random_state)
    drawn = []
    for name in np.unique(labels):
        candidates = np.flatnonzero(labels == name)
        if len(candidates) < labels_per_class:
            raise ValueError(
                f"labels_per_class={labels_per_class}, but class {name!s} has only "
                f"{len(candidates)} rows."
            )
        drawn.append(random.choice(candidates, labels_per_class, replace=False))
    return np.sort(np.concatenate(drawn))
