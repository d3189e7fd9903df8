"""The two terms of the loss of one batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sk_aft._data._batches import Batch
from sk_aft.transfer._base import student_features_for
from sk_aft.transfer._combination import Combination

# Losses of torch that can take the mean over rows themselves.
_WITH_MEAN = (nn.CrossEntropyLoss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)


def has_plain_mean(criterion: nn.Module) -> bool:
    """Whether a criterion's own mean weights all rows equally, whatever their targets."""
    leaves_none_out = getattr(criterion, "ignore_index", -100) < 0
    is_plain = getattr(criterion, "weight", None) is None and leaves_none_out
    return type(criterion) in _WITH_MEAN and is_plain


def task_loss(criterion: nn.Module, logits: Tensor, batch: Batch, mean_weight: float) -> Tensor:
    """Return the task loss; ``mean_weight`` is that of all rows."""
    losses = criterion(logits, batch.targets)
    if losses.ndim == 0:
        if batch.weights is not None:
            raise ValueError(
                "The criterion returns one number for the batch, so rows cannot be weighted: "
                "give a criterion that takes reduction='none'."
            )
        return losses
    if losses.ndim > 1:
        losses = losses.flatten(1).mean(dim=1)
    if batch.weights is None:
        return losses.mean()
    # Divided by the mean of all rows, not of the batch: a row's weight is the same in any batch.
    return (losses * batch.weights).sum() / (len(losses) * mean_weight)


def transfer_loss(
    transfer: nn.Module,
    student: Any,
    foundation: Tensor,
    logits: Tensor,
    *,
    has_untaught_rows: bool,
) -> Tensor:
    """Return the transfer objective over the rows that have what it compares.

    The parts of a combination may be computed over different rows.
    """
    if has_untaught_rows and isinstance(transfer, Combination):
        total = 0.0 * logits.sum()
        for part, beta, own in transfer.parts_of(foundation):
            total = total + beta * transfer_loss(part, student, own, logits, has_untaught_rows=True)
        return total
    student = student_features_for(transfer, student)
    if has_untaught_rows:
        known = ~foundation.isnan().any(dim=1)
        if known.sum() < 2:
            return 0.0 * logits.sum()
        foundation, logits = foundation[known], logits[known]
        is_whole = isinstance(student, Tensor)
        student = student[known] if is_whole else tuple(part[known] for part in student)
    uses_logits = getattr(transfer, "uses_logits", False)
    loss = transfer(student, foundation, *([logits] if uses_logits else []))
    if loss.ndim > 0:
        raise ValueError(
            f"The transfer method {type(transfer).__name__} returned a tensor of shape "
            f"{tuple(loss.shape)}, expected a scalar, such as the mean over the batch."
        )
    return loss
