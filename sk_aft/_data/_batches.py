"""Rows -> batches."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sk_aft._data._feature_rows import FeatureRows
from sk_aft._data._tensors import Inputs, InputsOnDemand, InputTensors, in_batches
from sk_aft._runtime._device import has_room, to_device

# Bytes gathered at a time: many small rows or few large ones. More would not fit the cache.
_BYTES_PER_GATHER = 4 << 20
_ROWS_PER_READ = 8192
_SMALLEST_LAST = 8  # a last batch of less than an eighth of the rows is left out,
_FEW_BATCHES = 4  # but not after fewer full ones, of whose steps it is too large a part
_BATCHES_PER_WINDOW = 50  # at most so many batches are sorted by length together


class Batch(NamedTuple):
    """Some rows, in the form that the loss needs.

    Parameters
    ----------
    inputs : Tensor of shape (B, ...), or dict of these or of dict
        Input of the student's ``forward``; a dict is passed as keyword arguments. It
        holds the tokens of texts, or the parts of rows of several kinds.
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


def batches_per_epoch(
    n_labeled: int,
    n_unlabeled: int,
    *,
    batch_size: int,
    unlabeled_fraction: float,
    drops_small_batch: bool = True,
    n_parts: int = 1,
) -> int:
    """Return the number of batches of a pass over the rows.

    Parameters
    ----------
    n_labeled, n_unlabeled : int
        Number of rows with and without a target.
    batch_size : int
        Rows per batch.
    unlabeled_fraction : float
        Share of rows without a target in a batch, if there are any.
    drops_small_batch : bool, default=True
        Whether a small last batch is dropped, as by `RowBatches` in training.
    n_parts : int, default=1
        Number of equal parts of each batch, as in `RowBatches`.

    Returns
    -------
    n_batches : int
        At least 1.
    """
    if not n_unlabeled:
        n_left_out = _n_left_out(n_labeled, batch_size, n_parts) if drops_small_batch else 0
        return -(-(n_labeled - n_left_out) // batch_size)
    n_a_batch = n_parts * _unlabeled_per_batch(batch_size // n_parts, unlabeled_fraction)
    return max(-(-n_labeled // (batch_size - n_a_batch)), -(-n_unlabeled // n_a_batch))


def _unlabeled_per_batch(batch_size: int, unlabeled_fraction: float) -> int:
    return min(max(round(unlabeled_fraction * batch_size), 1), batch_size - 1)


def _n_left_out(n_rows: int, batch_size: int, n_parts: int) -> int:
    """Return how many rows of the last batch are left out of a pass over shuffled rows.

    A step has the same length whatever the number of its rows. A last batch of a few rows would
    undo what the others have learned: with 3 after 896 X-rays, twice as many errors. Its rows take
    part in other passes. A part of a single row has no other row to compare with.
    """
    n_last = n_rows % batch_size
    if n_rows == 1:
        return 0
    least = 2 * n_parts
    if n_rows > _FEW_BATCHES * batch_size:
        least = max(least, batch_size // _SMALLEST_LAST)
    return n_last if n_last < least else n_last % n_parts


class RowBatches:
    """An iterable over batches, reshuffled at every pass if ``shuffle`` is given.

    Parameters
    ----------
    inputs : InputTensors
        Rows of the student.
    targets : Tensor of shape (n_rows, ...), optional
        Class numbers or regression targets.
    features : FeatureRows or Tensor of shape (n_rows, n_features), optional
        Foundation features of the same rows, read a few batches at a time; or all of them, on
        the device.
    weights : Tensor of shape (n_rows,), optional
        Weights of the rows.
    batch_size : int
        Rows per batch, of all its parts.
    device : torch.device
        Where the batches go.
    soft_targets : ndarray of shape (n_rows, n_outputs), optional
        Soft targets, which a transfer method may take instead of the features; NaN in rows
        without them. Batches do not hold them.
    shuffle : numpy.random.RandomState, optional
        Shuffles the rows; by default they keep their order. If shuffled, a last batch of less than
        an eighth of ``batch_size``, after four or more full ones, is left out; its rows are
        others in each pass.
    labeled_mask : ndarray of shape (n_rows,), bool, optional
        Which rows have targets; the default is all of them. If some have none, every batch
        holds rows of both kinds, those with targets first. A pass sees every row at least
        once, and repeats rows of the smaller kind.
    unlabeled_fraction : float, default=0.5
        Share of rows without targets in a batch.
    part, n_parts : int, default=0 and 1
        If processes share each batch, the number of this process and of all of them. Their parts
        are equal, and the ``batch_size`` that is stored is that of a part.
    """

    def __init__(
        self,
        inputs: InputTensors,
        targets: Tensor | None = None,
        *,
        features: Any = None,
        weights: Tensor | None = None,
        batch_size: int,
        device: torch.device,
        soft_targets: np.ndarray | None = None,
        shuffle: np.random.RandomState | None = None,
        labeled_mask: np.ndarray | None = None,
        unlabeled_fraction: float = 0.5,
        part: int = 0,
        n_parts: int = 1,
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.features = features
        self.weights = weights
        self.batch_size = batch_size // n_parts
        self.device = device
        self.soft_targets = soft_targets
        self.shuffle = shuffle
        self.labeled_mask: np.ndarray = (
            np.ones(len(inputs), dtype=bool) if labeled_mask is None else labeled_mask
        )
        self._n_labeled: int | None = None
        if not self.labeled_mask.all():
            n_unlabeled = _unlabeled_per_batch(self.batch_size, unlabeled_fraction)
            self._n_labeled = self.batch_size - n_unlabeled
        self._unlabeled_fraction = unlabeled_fraction
        self._part = part
        self._n_parts = n_parts

    def __len__(self) -> int:
        n_labeled = int(self.labeled_mask.sum())
        return batches_per_epoch(
            n_labeled,
            len(self.inputs) - n_labeled,
            batch_size=self._whole_batch,
            unlabeled_fraction=self._unlabeled_fraction,
            drops_small_batch=self.shuffle is not None,
            n_parts=self._n_parts,
        )

    def __iter__(self) -> Iterator[Batch]:
        n_rows = self._rows_per_gather()
        order = np.arange(self._n_rows) if self.shuffle is None else self._order(self.shuffle)
        # Batches are multiples of the number of parts, so this takes a part of each of them.
        order = order[self._part :: self._n_parts]
        pieces = [order[start : start + n_rows] for start in range(0, len(order), n_rows)]
        if not self._is_slow:
            return chain.from_iterable(map(self._gather, pieces))
        # CUDA streams are per thread, but the tensors are used in the stream of this thread.
        is_cuda = self.device.type == "cuda"
        stream = torch.cuda.current_stream(self.device) if is_cuda else None

        def gather(rows: np.ndarray) -> Iterator[Batch]:
            with torch.cuda.stream(stream):
                return self._gather(rows)

        return chain.from_iterable(_ahead(gather, pieces))

    @property
    def has_untaught_rows(self) -> bool:
        """Whether some rows have no features or no soft targets; these are NaN."""
        lacks_soft_targets = self.soft_targets is not None and np.isnan(self.soft_targets).any()
        lacks_features = self.features is not None and self.features.missing_mask.any()
        return bool(lacks_soft_targets or lacks_features)

    def with_inputs(self, inputs: InputTensors) -> RowBatches:
        """Return batches of the same rows in another form."""
        others = copy.copy(self)
        others.inputs = inputs
        return others

    def with_features(self, features: FeatureRows) -> RowBatches:
        """Return batches of the same rows with other features."""
        others = copy.copy(self)
        others.features = features
        return others

    def move_to_device(self) -> None:
        """Keep on the device whatever fits in its memory."""
        for name in ("targets", "weights"):
            if getattr(self, name) is not None:
                setattr(self, name, getattr(self, name).to(self.device))
        is_elsewhere = self.device.type != "cpu"
        if is_elsewhere and has_room(self.device, len(self.inputs) * self.inputs.row_bytes):
            self.inputs.move_to(self.device)
        if self.features is None or isinstance(self.features, Tensor):
            return
        is_elsewhere |= self._reads_disk
        if is_elsewhere and has_room(self.device, 4 * math.prod(self.features.shape)):
            self.features = read_features(self.features, self.device)

    @property
    def _n_rows(self) -> int:
        n_rows = len(self.inputs)
        if self.shuffle is None:
            return n_rows
        return n_rows - _n_left_out(n_rows, self._whole_batch, self._n_parts)

    @property
    def _whole_batch(self) -> int:
        return self.batch_size * self._n_parts

    @property
    def _is_slow(self) -> bool:
        """Whether to fetch the next rows while the network trains on the current ones."""
        is_on_demand = isinstance(self.inputs, InputsOnDemand)
        return self.device.type != "cpu" or self._reads_disk or is_on_demand

    @property
    def _reads_disk(self) -> bool:
        # The features returned by a user's transfer method may lack the attribute.
        return getattr(self.features, "is_on_disk", False)

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
                return bucketed(order, self.inputs.lengths, self._whole_batch, random)
            return order
        halves = []
        for rows, n_a_batch in (
            (np.flatnonzero(self.labeled_mask), self._n_labeled),
            (np.flatnonzero(~self.labeled_mask), self.batch_size - self._n_labeled),
        ):
            # All rows, repeated as often as needed, each time in a new order.
            n_taken = len(self) * n_a_batch * self._n_parts
            n_times = -(-n_taken // len(rows))
            several = np.concatenate([random.permutation(rows) for _ in range(n_times)])
            halves.append(several[:n_taken].reshape(len(self), -1))
        return np.concatenate(halves, axis=1).ravel()

    def _gather(self, rows: np.ndarray) -> Iterator[Batch]:
        """Fetch the rows of several batches at once."""
        inputs = self.inputs.split(rows, self.batch_size, self.device)
        known, n_known = rows, self.batch_size
        if self._n_labeled is not None:
            known = rows.reshape(-1, self.batch_size)[:, : self._n_labeled].ravel()
            n_known = self._n_labeled
        targets, weights = (self._some_of(x, known, n_known) for x in (self.targets, self.weights))
        features: Any = repeat(None)
        if self.features is not None:
            features = in_batches(self._features_of(rows), self.batch_size)
        # Inputs come first: they end the iteration where the others repeat None.
        return map(Batch, inputs, targets, features, weights)

    def _features_of(self, rows: np.ndarray) -> Tensor:
        if isinstance(self.features, Tensor):
            return self.features.index_select(0, torch.from_numpy(rows).to(self.features.device))
        return to_device(torch.from_numpy(self.features.take(rows)), self.device)

    def _some_of(self, values: Tensor | None, rows: np.ndarray, n_rows: int) -> Any:
        if values is None:
            return repeat(None)
        some = values[torch.from_numpy(rows).to(values.device)]
        return in_batches(some.to(self.device), n_rows)


def read_features(features: FeatureRows, device: torch.device) -> Tensor:
    """Read all features into a matrix on a device, a few thousand rows at a time."""
    n_rows, width = features.shape
    matrix = torch.empty(n_rows, width, device=device)
    for start in range(0, n_rows, _ROWS_PER_READ):
        rows = np.arange(start, min(start + _ROWS_PER_READ, n_rows))
        matrix[start : start + len(rows)] = torch.from_numpy(features.take(rows))
    return matrix


def _ahead(gather: Callable[[Any], Any], pieces: list[Any]) -> Iterator[Any]:
    """Like ``map``, but compute each item in a thread while the one before is used."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        ahead = [executor.submit(gather, piece) for piece in pieces[:1]]
        for piece in pieces[1:]:
            ahead.append(executor.submit(gather, piece))
            yield ahead.pop(0).result()
        for last in ahead:
            yield last.result()


def bucketed(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, random: np.random.RandomState
) -> np.ndarray:
    """Return a shuffled order in which rows of similar length share a batch.

    Rows are sorted by length within windows of at least two batches and at most a quarter of all
    rows, and the batches of a window are shuffled. This removes most padding, and batches still
    differ between passes.

    Parameters
    ----------
    order : ndarray of shape (n_rows,)
        Row numbers, shuffled.
    lengths : ndarray
        Length of every row.
    batch_size : int
        Rows per batch.
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
