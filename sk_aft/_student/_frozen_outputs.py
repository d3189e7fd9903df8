"""Outputs of frozen layers, which are computed once instead of in every step."""

from __future__ import annotations

import inspect

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from sk_aft._data._batches import RowBatches
from sk_aft._data._tensors import ArrayTensors, PartTensors
from sk_aft._runtime._device import has_room
from sk_aft.modules._parameter_groups import n_frozen_layers

# Bytes that each process may keep. Computing them again in every step would take longer than
# reading them.
_LARGEST_ON_A_CPU = 1 << 30


def keep_frozen_outputs(
    batches: RowBatches, module: nn.Module, *, n_epochs: int, verbose: int
) -> RowBatches:
    """Return batches of what the frozen layers make of the rows, if there is room for it.

    Otherwise, and if rows are seen only once, the batches stay as they are, and the layers run in
    every step. Training is the same, except for rounding to 16 bits.

    Parameters
    ----------
    batches : RowBatches
        Batches of the training rows.
    module : nn.Module
        The network, in training mode. It keeps outputs if it has a method ``frozen_outputs``,
        and its ``forward`` takes the result as an argument of this name.
    n_epochs : int
        Passes over the rows.
    verbose : int
        Whether to show progress.

    Returns
    -------
    batches : RowBatches
        Batches of the same rows.
    """
    n_rows, device = len(batches.inputs), batches.device
    # A user's subclass may have a forward of its own, of images only.
    takes_outputs = "frozen_outputs" in inspect.signature(module.forward).parameters
    is_able = hasattr(module, "frozen_outputs") and takes_outputs
    if not is_able or n_frozen_layers(module) == 0 or n_epochs == 1:
        return batches
    starts = range(0, n_rows, batches.batch_size)
    kept: torch.Tensor | None = None
    for start in tqdm(starts, desc="frozen layers, once", unit="batch", disable=not verbose):
        rows = np.arange(start, min(start + batches.batch_size, n_rows))
        maps = module.frozen_outputs(batches.inputs.take(rows, device))
        if kept is None:
            n_bytes = 2 * n_rows * maps[0].numel()
            if not has_room(device, n_bytes, on_a_cpu=_LARGEST_ON_A_CPU):
                return batches
            kept = torch.empty(n_rows, *maps.shape[1:], dtype=torch.float16, device=device)
        kept[start : start + len(rows)] = maps
    return batches.with_inputs(PartTensors({"frozen_outputs": ArrayTensors(kept)}))
