"""Rows -> batches, a whole batch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sk_aft._prepared_inputs import Inputs, Prepared, in_batches
from sk_aft._runtime._device import has_room, to_device
from sk_aft._sequences import bucketed

# So much is gathered at a time: many small rows or few large ones. More would leave the cache.
_BYTES_PER_GATHER = 4 << 20
_ROWS_PER_READ = 8192


class Batch(NamedTuple):
    """Some rows as the loss wants them.

    Parameters
    ----------
    inputs : Tensor of shape (B, ...), or dict of these or of dict
        What the student's ``forward`` is called with; a dict is passed as keyword arguments. It
        holds a text's tokens, or the parts of rows of several kinds.
    targets : Tensor of shape (n_labeled,) or (n_labeled, n_outputs), optional
        Class numbers or regression targets of the first rows; the others have none.
    features : Tensor of shape (B, n_features), optional
        Foundation features.
    weights : Tensor of shape (n_labeled,), optional
        Weights of the first rows in the task loss.
    """

    inputs: Inputs
    targets: Tensor | None = None
    features: Tensor | None = None
    weights: Tensor | None = None


def batches_per_epoch(is_labeled: np.ndarray, batch_size: int, unlabeled_fraction: float) -> int:
    """Return how many batches see every row at least once."""
    n_labeled = int(is_labeled.sum())
    n_others = len(is_labeled) - n_labeled
    if not n_others:
        return -(-n_labeled // batch_size)
    n_unlabeled = _n_unlabeled(batch_size, unlabeled_fraction)
    return max(-(-n_labeled // (batch_size - n_unlabeled)), -(-n_others // n_unlabeled))


def _n_unlabeled(batch_size: int, unlabeled_fraction: float) -> int:
    return min(max(round(unlabeled_fraction * batch_size), 1), batch_size - 1)


class RowBatches:
    """An iterable over batches, reshuffled at every pass where a generator is given.

    Parameters
    ----------
    inputs : PreparedInputs, PreparedSequences or PreparedParts
        Rows of the student.
    targets : Tensor of shape (n_rows, ...), optional
        Class numbers or regression targets.
    features : object with ``take(indices) -> ndarray``, optional
        Foundation features of the same rows, read some batches at a time.
    weights : Tensor of shape (n_rows,), optional
        Weights of the rows.
    batch_size : int
        Rows a batch.
    device : torch.device
        Where the batches go.
    shuffle : numpy.random.RandomState, optional
        Shuffles; without it rows keep their order.
    is_labeled : ndarray of shape (n_rows,), bool, optional
        Which rows have targets; the default is all of them. Where some have none, every batch
        holds rows of both kinds, those with targets first, and a pass sees every row at least
        once: the kind that there is less of is repeated.
    unlabeled_fraction : float, default=0.5
        Share of rows without targets in a batch.
    """

    def __init__(
        self,
        inputs: Prepared,
        targets: Tensor | None = None,
        *,
        features: Any = None,
        weights: Tensor | None = None,
        batch_size: int,
        device: torch.device,
        shuffle: np.random.RandomState | None = None,
        is_labeled: np.ndarray | None = None,
        unlabeled_fraction: float = 0.5,
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.features = features
        self.weights = weights
        self.batch_size = batch_size
        self.device = device
        self.shuffle = shuffle
        self.is_labeled = np.ones(len(inputs), bool) if is_labeled is None else is_labeled
        self._n_labeled: int | None = None
        if not self.is_labeled.all():
            self._n_labeled = batch_size - _n_unlabeled(batch_size, unlabeled_fraction)
        self._unlabeled_fraction = unlabeled_fraction

    def __len__(self) -> int:
        if self._n_labeled is None:
            return -(-self._n_rows // self.batch_size)
        return batches_per_epoch(self.is_labeled, self.batch_size, self._unlabeled_fraction)

    def __iter__(self) -> Iterator[Batch]:
        n_rows = self._rows_per_gather()
        order = np.arange(self._n_rows) if self.shuffle is None else self._order(self.shuffle)
        pieces = [order[start : start + n_rows] for start in range(0, len(order), n_rows)]
        if not self._is_slow:
            return chain.from_iterable(map(self._gather, pieces))
        # Each thread has a device and a stream of its own; the tensors are read in this one's.
        is_cuda = self.device.type == "cuda"
        stream = torch.cuda.current_stream(self.device) if is_cuda else None

        def gather(rows: np.ndarray) -> Iterator[Batch]:
            with torch.cuda.stream(stream):
                return self._gather(rows)

        return chain.from_iterable(_ahead(gather, pieces))

    def move_to_device(self) -> None:
        """Move to the device, once and for all, what there is room for."""
        for name in ("targets", "weights"):
            if getattr(self, name) is not None:
                setattr(self, name, getattr(self, name).to(self.device))
        is_elsewhere = self.device.type != "cpu"
        if is_elsewhere and has_room(self.device, len(self.inputs) * self.inputs.row_bytes):
            self.inputs.move_to(self.device)
        if self.features is None or isinstance(self.features, OnDevice):
            return
        is_elsewhere |= getattr(self.features, "is_on_disk", False)
        if is_elsewhere and has_room(self.device, 4 * math.prod(self.features.shape)):
            self.features = OnDevice.read(self.features, self.device)

    @property
    def _n_rows(self) -> int:
        # One row is no batch to learn from: it has no variance and no other row to compare with.
        n_rows = len(self.inputs)
        leave_last = self.shuffle is not None and n_rows > 1 and n_rows % self.batch_size == 1
        return n_rows - leave_last

    @property
    def _is_slow(self) -> bool:
        """Whether the next rows are worth fetching while the network learns from others."""
        return self.device.type != "cpu" or getattr(self.features, "is_on_disk", False)

    def _rows_per_gather(self) -> int:
        row_bytes = self.inputs.row_bytes
        if self.features is not None:
            row_bytes += 4 * self.features.shape[1]
        return max(1, _BYTES_PER_GATHER // max(row_bytes * self.batch_size, 1)) * self.batch_size

    def _order(self, random: np.random.RandomState) -> np.ndarray:
        """Return the rows of one pass, batch after batch."""
        if self._n_labeled is None:
            order = random.permutation(len(self.inputs))[: self._n_rows]
            if self.inputs.lengths is not None:
                return bucketed(order, self.inputs.lengths, self.batch_size, random)
            return order
        halves = []
        for rows, n_a_batch in (
            (np.flatnonzero(self.is_labeled), self._n_labeled),
            (np.flatnonzero(~self.is_labeled), self.batch_size - self._n_labeled),
        ):
            # All of them as often as it takes, each time in new order.
            n_times = -(-len(self) * n_a_batch // len(rows))
            several = np.concatenate([random.permutation(rows) for _ in range(n_times)])
            halves.append(several[: len(self) * n_a_batch].reshape(-1, n_a_batch))
        return np.concatenate(halves, axis=1).ravel()

    def _gather(self, rows: np.ndarray) -> Iterator[Batch]:
        """Fetch rows of some batches at once."""
        inputs = self.inputs.split(rows, self.batch_size, self.device)
        known, n_known = rows, self.batch_size
        if self._n_labeled is not None:
            known = rows.reshape(-1, self.batch_size)[:, : self._n_labeled].ravel()
            n_known = self._n_labeled
        targets, weights = (self._part(x, known, n_known) for x in (self.targets, self.weights))
        features: Any = repeat(None)
        if self.features is not None:
            features = in_batches(self._features_of(rows), self.batch_size)
        # Inputs come first: they end the iteration where the others repeat None.
        return map(Batch, inputs, targets, features, weights)

    def _features_of(self, rows: np.ndarray) -> Tensor:
        if isinstance(self.features, OnDevice):
            return self.features.take(rows)
        return to_device(torch.from_numpy(self.features.take(rows)), self.device)

    def _part(self, values: Tensor | None, rows: np.ndarray, n_rows: int) -> Any:
        if values is None:
            return repeat(None)
        some = values[torch.from_numpy(rows).to(values.device)]
        return in_batches(some.to(self.device), n_rows)


class OnDevice:
    """Foundation features that were all read, and are where the network is.

    Parameters
    ----------
    matrix : Tensor of shape (n_rows, n_features)
        The features.
    features : object with ``feature_slices``
        What they were read from, whose description is kept.
    """

    def __init__(self, matrix: Tensor, features: Any) -> None:
        self.matrix = matrix
        self.shape = tuple(matrix.shape)
        self.feature_slices = features.feature_slices
        self.has_masked_rows = features.has_masked_rows

    @classmethod
    def read(cls, features: Any, device: torch.device) -> OnDevice:
        """Read all rows, some at a time."""
        n_rows, width = features.shape
        matrix = torch.empty(n_rows, width, device=device)
        for start in range(0, n_rows, _ROWS_PER_READ):
            rows = np.arange(start, min(start + _ROWS_PER_READ, n_rows))
            matrix[start : start + len(rows)] = torch.from_numpy(features.take(rows))
        return cls(matrix, features)

    def take(self, rows: np.ndarray) -> Tensor:
        """Return some rows."""
        return self.matrix.index_select(0, torch.from_numpy(rows).to(self.matrix.device))


def _ahead(gather: Callable[[Any], Any], pieces: list[Any]) -> Iterator[Any]:
    """Do what ``map`` does, each item while the one before is used."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        ahead = [executor.submit(gather, piece) for piece in pieces[:1]]
        for piece in pieces[1:]:
            ahead.append(executor.submit(gather, piece))
            yield ahead.pop(0).result()
        for last in ahead:
            yield last.result()
