"""Outputs of a trained network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sk_aft._data._lengths import batches_of_similar_length
from sk_aft._data._rows import Rows
from sk_aft._data._tensors import InputTensors
from sk_aft._student._components import Infer
from sk_aft._student._inputs import StudentInputs

# Number of rows preprocessed at a time for prediction, so that memory does not limit their number.
_ROWS_PER_PIECE = 4096

# A call of a small network costs more than a hundred rows of numbers. Images would fill the cache.
_FEWEST_ROWS_PER_CALL = 1024


def network_outputs(
    rows: Rows,
    inputs: StudentInputs,
    infer: Infer,
    *,
    batch_size: int,
    device: torch.device,
    is_training: bool = False,
) -> Iterator[Tensor]:
    """Yield the network's outputs for checked rows, in their order."""
    is_small = rows.kind in ("numeric", "text") and not is_training
    rows_per_call = max(batch_size, _FEWEST_ROWS_PER_CALL) if is_small else batch_size
    for start in range(0, len(rows), _ROWS_PER_PIECE):
        is_whole = len(rows) <= _ROWS_PER_PIECE
        piece = rows if is_whole else rows.take(slice(start, start + _ROWS_PER_PIECE))
        piece = piece.loaded()
        tensors = inputs.transform(piece)
        if tensors.lengths is not None:
            yield _outputs_by_length(tensors, infer, batch_size=batch_size, device=device)
            continue
        for first in range(0, len(tensors), rows_per_call):
            batch = slice(first, min(first + rows_per_call, len(tensors)))
            with torch.inference_mode():
                logits, _ = infer(tensors.take(batch, device))
            yield logits


@torch.inference_mode()
def _outputs_by_length(
    tensors: InputTensors, infer: Infer, *, batch_size: int, device: torch.device
) -> Tensor:
    """Run rows of similar length together; return outputs in the order of the rows."""
    batches = [np.arange(1)]  # a single row needs no order
    if len(tensors) > 1:
        batches = batches_of_similar_length(np.asarray(tensors.lengths), batch_size)
    try:
        logits = [infer(tensors.take(batch, device))[0] for batch in batches]
    except IndexError as error:
        raise ValueError(
            "The network cannot look up a token that is larger than those of the training "
            "rows: give it the size of the preprocessor's vocabulary, such as "
            "module__n_tokens=30_000."
        ) from error
    if len(tensors) == 1:
        return logits[0]
    order = np.argsort(np.concatenate(batches))
    return torch.cat(logits)[torch.from_numpy(order).to(device)]
