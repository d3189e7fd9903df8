"""Texts as sequences of tokens, of any lengths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_aft._runtime._device import to_device

# What stands for the type of such inputs.
SEQUENCE = "sequence"
_BATCHES_PER_WINDOW = 50


class PreparedSequences:
    """Sequences of tokens, padded to the longest of each batch.

    The student's ``forward`` is called with ``tokens``, (B, longest) int64 that end in zeros, and
    ``lengths``, (B,) int64.

    Parameters
    ----------
    values : ndarray of shape (n_rows,), dtype object
        1-D arrays of whole numbers that are not negative; an array of shape (n_rows, length) if
        all are of one length.
    """

    dtype = SEQUENCE

    def __init__(self, values: np.ndarray) -> None:
        arrays = [np.asarray(value) for value in values]
        if values.ndim == 2 and values.dtype == object:  # NumPy's for sequences of one length
            arrays = [np.asarray(array.tolist()) for array in arrays]
        for row, array in enumerate(arrays):
            is_whole = array.dtype.kind in "iu" or array.size == 0
            if array.ndim != 1 or not is_whole or (array.size and array.min() < 0):
                raise ValueError(
                    f"The preprocessor returned for row {row} an array of dtype {array.dtype} and "
                    f"shape {array.shape}: a sequence of tokens has to be a 1-D array of whole "
                    "numbers that are not negative."
                )
        self._tokens = np.concatenate(arrays).astype(np.int64)
        self.lengths = np.array([len(array) for array in arrays], dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sizes(self) -> dict[str, int]:
        """What a network has to know of its inputs, by the names of its arguments."""
        return {"n_tokens": int(self._tokens.max(initial=0)) + 1}

    @property
    def row_bytes(self) -> int:
        """Memory of one row on average."""
        return self._tokens.nbytes // max(len(self), 1)

    def take(self, indices: np.ndarray | slice, device: torch.device) -> dict[str, Tensor]:
        """Return some rows as the student's inputs."""
        starts, lengths = self._starts[indices], self.lengths[indices]
        places = np.arange(lengths.max(initial=1))
        is_token = places < lengths[:, None]
        tokens = np.zeros(is_token.shape, dtype=np.int64)
        tokens[is_token] = self._tokens[(starts[:, None] + places)[is_token]]
        return {
            "tokens": to_device(torch.from_numpy(tokens), device),
            "lengths": to_device(torch.from_numpy(lengths), device),
        }

    def split(
        self, indices: np.ndarray | slice, batch_size: int, device: torch.device
    ) -> Iterator[dict[str, Tensor]]:
        """Gather rows now and return an iterator over batches, each as wide as its longest."""
        rows = np.arange(len(self))[indices]
        starts = range(0, max(len(rows), 1), batch_size)
        return iter([self.take(rows[start : start + batch_size], device) for start in starts])

    def move_to(self, device: torch.device) -> None:
        """Do nothing: what a batch holds is made on the CPU."""


def are_sequences(values: Any) -> bool:
    """Whether a preprocessor returned sequences: an array of arrays."""
    if not (isinstance(values, np.ndarray) and values.dtype == object and values.size):
        return False
    if values.ndim == 1:
        return isinstance(values[0], (np.ndarray, Tensor, list))
    return values.ndim == 2 and isinstance(values[0, 0], (int, np.integer))


def bucketed(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, random: np.random.RandomState
) -> np.ndarray:
    """Return a shuffled order in which rows of like length are in one batch.

    Sorted are the rows of some batches at a time, two or up to a quarter of all of them, whose
    order is then drawn: most padding vanishes, and which rows meet still differs from pass to pass.

    Parameters
    ----------
    order : ndarray of shape (n_rows,)
        Row numbers, shuffled.
    lengths : ndarray
        Length of every row.
    batch_size : int
        Rows a batch.
    random : RandomState
        Draws the order of the batches.

    Returns
    -------
    order : ndarray of shape (n_rows,)
        The same rows.
    """
    n_batches = len(order) // batch_size
    full, rest = np.split(order, [n_batches * batch_size])
    n_rows = min(_BATCHES_PER_WINDOW, max(n_batches // 4, 2)) * batch_size
    windows = []
    for start in range(0, len(full), n_rows):
        window = full[start : start + n_rows]
        window = window[np.argsort(lengths[window], kind="stable")]
        windows.append(random.permutation(window.reshape(-1, batch_size)).ravel())
    return np.concatenate([*windows, rest])
