"""Mixup: training on mixtures of two rows and of their targets."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sk_aft._data._batches import Batch
from sk_aft._data._tensors import ArrayTensors, InputTensors


class MixedBatch(NamedTuple):
    """A batch whose rows are mixed with others of the batch.

    Parameters
    ----------
    batch : Batch
        Mixed inputs and soft targets, and the rows' own targets.
    partners : Batch
        The same with the targets and weights of the rows that were mixed in.
    share : float
        Share of the row itself, between 0 and 1; the rest is that of its partner.
    """

    batch: Batch
    partners: Batch
    share: float


def mix(batch: Batch, alpha: float) -> MixedBatch:
    """Mix the rows of a batch (Zhang et al. 2018, arXiv 1710.09412).

    Labelled rows are mixed with labelled ones, and the others with each other.

    Parameters
    ----------
    batch : Batch
        Some rows; its inputs are one tensor, its features soft targets.
    alpha : float
        The share is drawn from the distribution Beta(alpha, alpha), for the whole batch.

    Returns
    -------
    mixed : MixedBatch
        The mixtures.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    inputs: Any = batch.inputs  # see check_mixup
    n_rows, device = len(inputs), inputs.device
    n_labeled = n_rows if batch.targets is None else len(batch.targets)
    known = torch.randperm(n_labeled, device=device)
    partners = torch.cat([known, n_labeled + torch.randperm(n_rows - n_labeled, device=device)])

    def mixed(rows: Tensor) -> Tensor:
        return torch.lerp(rows[partners].float(), rows.float(), share)

    soft_targets = None if batch.features is None else mixed(batch.features)
    batch = batch._replace(inputs=mixed(inputs), features=soft_targets)
    others = {
        name: None if values is None else values[known]
        for name, values in (("targets", batch.targets), ("weights", batch.weights))
    }
    return MixedBatch(batch, batch._replace(**others), share)


def check_mixup(mixup: float, tensors: InputTensors, transfer: Any) -> None:
    """Raise if rows or what is transferred cannot be mixed.

    Parameters
    ----------
    mixup : float
        The estimator's parameter.
    tensors : InputTensors
        The training rows.
    transfer : nn.Module or None
        The transfer objective.

    Raises
    ------
    ValueError
        If the rows are not dense numbers or images, or the targets of the transfer are not
        predictions.
    """
    if mixup == 0:
        return
    if not isinstance(tensors, ArrayTensors) or tensors.dtype not in ("uint8", "float32"):
        raise ValueError(
            f"mixup={mixup} mixes images or rows of numbers, and these rows are of another kind: "
            "use mixup=0."
        )
    if transfer is not None and not getattr(transfer, "has_soft_targets", False):
        raise ValueError(
            f"mixup={mixup} mixes the targets of two rows, and {type(transfer).__name__} compares "
            "features, which are not those of a mixture: use transfer='pooled-kd' (that of 'auto') "
            "or 'probe-kd', or mixup=0."
        )
