"""The interface of a transfer method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TransferRows:
    """The training rows (samples) that a transfer method may use before the first step.

    Parameters
    ----------
    features : object with ``take(indices) -> ndarray`` and ``shape``, or None
        Foundation features of the n rows, (n, d) float32, read on demand; NaN in rows without
        features. None if no row has any; only for methods with ``takes_soft_targets``.
    targets : ndarray of shape (n,) int64, or (n, n_outputs) float32
        Class indices, or standardised regression targets.
    labeled_mask : ndarray of shape (n,), bool
        Which rows have a label. The targets of the others are arbitrary.
    known_mask : ndarray of shape (n,), bool
        Which rows have features.
    feature_slices : mapping of str to slice
        The columns of each foundation model in the features.
    n_classes : int or None
        Number of classes; None for regression.
    student_features : callable
        Maps row indices (m,) to the features (m, p), float32, that the untrained student
        computes for these rows.
    seed : int
        Seed of the splits and of initial weights.
    soft_targets : ndarray of shape (n, n_outputs), float32, or None
        Class probabilities that sum to 1, or predictions in the standardised unit of ``targets``;
        NaN in rows without them. None if there are none; for methods with ``takes_soft_targets``.
    weights : ndarray of shape (n,), or None
        Weights of the rows in the task loss, 0 for rows without a label. None if all are equal.
    student_columns : callable or None
        Returns what linear models can read of what the student itself reads and starts from: a
        mapping of names to arrays of shape (n, n_columns) of scale 1.
    """

    features: Any
    targets: np.ndarray
    labeled_mask: np.ndarray
    known_mask: np.ndarray
    feature_slices: Mapping[str, slice]
    n_classes: int | None
    student_features: Callable[[np.ndarray], np.ndarray]
    seed: int
    soft_targets: np.ndarray | None = None
    weights: np.ndarray | None = None
    student_columns: Callable[[], Mapping[str, np.ndarray]] | None = None


class TransferMethod(nn.Module):
    """Base class of the transfer objectives: student and foundation features -> a scalar.

    The constructor of a subclass takes any of ``n_features`` (width d of the foundation
    features), ``n_student_features``, ``n_outputs`` and ``feature_slices``; `make_transfer`
    passes those that it names. Its parameters are learned together with the student's.

    Attributes
    ----------
    default_beta : float
        beta used unless it is tuned.
    uses_logits : bool
        Whether ``forward`` takes the student's logits (B, n_outputs) as its third argument.
    accepts_pairs : bool
        Whether ``forward`` takes a tuple of the student's features, one tensor per modality,
        if the student has several. Otherwise it gets one concatenated tensor.
    has_soft_targets : bool
        Whether what `fit` returns are predictions, such as class probabilities. Those of a mixture
        of two rows are taken to be the mixture of theirs, see ``mixup``.
    takes_soft_targets : bool
        Whether `fit` reads `TransferRows.soft_targets`, and then needs no features. Soft targets
        that X holds are computed only if a method takes them; those given to a student whose
        methods do not take them are ignored with a warning.
    learns_from_all_layers : bool
        Whether `fit` gets `FoundationFeatures.teacher_features` of rows that have them: all layers
        of a model, and those of a fine-tuned model before it saw the labels.
    """

    default_beta: float = 1.0
    uses_logits: ClassVar[bool] = False
    accepts_pairs: ClassVar[bool] = False
    has_soft_targets: ClassVar[bool] = False
    takes_soft_targets: ClassVar[bool] = False
    learns_from_all_layers: ClassVar[bool] = False

    def fit(self, rows: TransferRows) -> Any:
        """Learn what the method needs before the first training step.

        Called once, before training. If it returns targets, it is called again before each
        resumed training, with the rows of that training.

        Parameters
        ----------
        rows : TransferRows
            The training rows.

        Returns
        -------
        targets : ndarray or object with ``take(indices)`` and ``shape`` (n, k), or None
            float32 values that ``forward`` receives instead of the foundation features, NaN in
            rows without features. None if it receives the features themselves. An object with
            ``take`` is read on demand, as the features are.
        """
        return None


def student_features_for(method: nn.Module, student: Tensor | tuple[Tensor, ...]) -> Any:
    """Return the student's features in the form the method accepts; see ``accepts_pairs``."""
    return student if getattr(method, "accepts_pairs", False) else concatenate(student)


def concatenate(student: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return a student's features as one matrix, modalities concatenated along columns."""
    return torch.cat(student, dim=1) if isinstance(student, tuple) else student
