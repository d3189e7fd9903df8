"""What a foundation model is trained for: loss functions, and which rows make a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Rows of a batch at most. SetFit's batch of 16 pairs holds as many texts, so that steps compare.
BATCH_SIZE = 32
# So that a batch of pairs holds two rows of each class.
MOST_CLASSES_IN_PAIRS = BATCH_SIZE // 2


class Objective(NamedTuple):
    """An objective.

    Parameters
    ----------
    lr : float
        Default learning rate of the layers.
    has_head : bool
        Whether a linear layer from the features to the classes is trained, too.
    draw : callable
        Maps class numbers (n,), a number of batches and a random state to the rows of each batch.
    loss : callable
        Maps the features of a batch, or the outputs of its head, and class numbers to the loss.
    """

    lr: float
    has_head: bool
    draw: Callable[[np.ndarray, int, np.random.RandomState], list[np.ndarray]]
    loss: Callable[[Tensor, Tensor], Tensor]


def pair_loss(features: Tensor, labels: Tensor) -> Tensor:
    r"""Return how far all pairs of a batch are from cosine 1 within a class and 0 between classes.

    .. math::
        \tfrac{1}{2} \operatorname{mean}_{y_i = y_j, i \ne j} (1 - c_{ij})^2
        + \tfrac{1}{2} \operatorname{mean}_{y_i \ne y_j} c_{ij}^2

    with c the cosine of two rows. It is the loss of SetFit (arXiv 2209.11055) on pairs of which
    half are of one class. Each text is encoded once for all of its pairs.

    Parameters
    ----------
    features : Tensor of shape (B, d)
        Features.
    labels : Tensor of shape (B,)
        Class numbers.

    Returns
    -------
    loss : Tensor, scalar
        At least 0.
    """
    unit = F.normalize(features, dim=1)
    cosines = unit @ unit.T
    are_alike = labels[:, None] == labels[None, :]
    different = cosines[~are_alike]
    alike = cosines[are_alike & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)]
    # The mean of no pairs would be NaN.
    parts = [(1 - alike).square().sum() / max(len(alike), 1)]
    parts.append(different.square().sum() / max(len(different), 1))
    return (parts[0] + parts[1]) / 2


def draw_passes(
    labels: np.ndarray, n_batches: int, random: np.random.RandomState
) -> list[np.ndarray]:
    """Return batches that pass over all rows in random order, again and again."""
    size = min(BATCH_SIZE, len(labels))
    passes = [random.permutation(len(labels)) for _ in range(-(-n_batches * size // len(labels)))]
    return list(np.concatenate(passes)[: n_batches * size].reshape(n_batches, size))


def draw_classes(
    labels: np.ndarray, n_batches: int, random: np.random.RandomState
) -> list[np.ndarray]:
    """Return batches of at most 16 classes, with as many rows of each as fit, at least two.

    A smaller class contributes all its rows. No row is twice in a batch.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    batches = []
    for _ in range(n_batches):
        chosen = [
            members[number] for number in random.permutation(len(members))[:MOST_CLASSES_IN_PAIRS]
        ]
        n_each = _n_of_each(np.array([len(rows) for rows in chosen]))
        batches.append(np.concatenate([random.permutation(rows)[:n_each] for rows in chosen]))
    return batches


def _n_of_each(sizes: np.ndarray) -> int:
    """Return how many rows of each class fit into a batch, if none has more than its size."""
    n_rows = np.minimum(sizes, np.arange(1, BATCH_SIZE + 1)[:, None]).sum(axis=1)
    return int((n_rows <= BATCH_SIZE).sum())


OBJECTIVES = {
    "linear": Objective(1e-4, True, draw_passes, F.cross_entropy),
    "pairs": Objective(3e-5, False, draw_classes, pair_loss),
}
