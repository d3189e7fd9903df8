"""What a transfer method is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TransferRows:
    """The training rows, as a transfer method may look at them before the first step.

    Parameters
    ----------
    features : object with ``take(indices) -> ndarray`` and ``shape``
        Foundation features of the n rows, (n, d) float32, read when asked for; NaN in rows
        without features.
    targets : ndarray of shape (n,) int64, or (n, n_outputs) float32
        Class numbers, or standardised regression targets.
    labeled_mask : ndarray of shape (n,), bool
        Whose target is known; those of other rows mean nothing.
    known_mask : ndarray of shape (n,), bool
        Which rows have features.
    feature_slices : mapping of str to slice
        Which columns of the features are which foundation model's.
    n_classes : int or None
        Number of classes; None for regression.
    student_features : callable
        From row numbers (m,) to the features (m, p) float32 that the untrained student has of
        these rows.
    seed : int
        Determines splits and initial weights.
    shared : dict
        What another training on the same rows, from the same seed, left for this one.
    """

    features: Any
    targets: np.ndarray
    labeled_mask: np.ndarray
    known_mask: np.ndarray
    feature_slices: Mapping[str, slice]
    n_classes: int | None
    student_features: Callable[[np.ndarray], np.ndarray]
    seed: int
    shared: dict[str, Any] = field(default_factory=dict)


class TransferMethod(nn.Module):
    """Base of the transfer objectives: student and foundation features -> a scalar.

    A subclass takes ``n_features``, the width d of the foundation features, and may take
    ``n_student_features`` and ``n_outputs``, which are passed to whose constructor names them.
    Its parameters are learned together with the student's.

    Attributes
    ----------
    default_beta : float
        beta unless tuned.
    uses_logits : bool
        Whether ``forward`` takes the student's logits (B, n_outputs) as its third argument.
    accepts_pairs : bool
        Whether ``forward`` takes a tuple of the student's features of each modality, where the
        student has such; others get them side by side.
    """

    default_beta: float = 1.0
    uses_logits: ClassVar[bool] = False
    accepts_pairs: ClassVar[bool] = False

    def fit(self, rows: TransferRows) -> Any:
        """Learn what has to be known before the first step.

        Called once, before training.

        Parameters
        ----------
        rows : TransferRows
            The training rows.

        Returns
        -------
        targets : ndarray or object with ``take(indices)`` and ``shape`` (n, k), or None
            What ``forward`` is to get of each row in place of its foundation features, float32,
            NaN in rows without features; None for the features themselves. The object is read
            when asked for, as the features are.
        """
        return None


def student_features_for(method: nn.Module, student: Tensor | tuple[Tensor, ...]) -> Any:
    """Return a student's features as a transfer method takes them; see ``accepts_pairs``."""
    return student if getattr(method, "accepts_pairs", False) else concatenate(student)


def concatenate(student: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return a student's features as one matrix."""
    return torch.cat(student, dim=1) if isinstance(student, tuple) else student
