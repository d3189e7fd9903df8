"""Rows -> batches, a whole batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, Union

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

Inputs: TypeAlias = Union[Tensor, dict[str, Any]]  # noqa: UP007 - evaluated by 3.10


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


class PreparedInputs:
    """What the preprocessor returned, from which batches of tensors are taken.

    Dense numbers become float32 (integers int64); images of 8 bits are kept as they are until a
    batch is made, then float32 in [0, 1]. Sparse rows become the arguments of
    ``torch.nn.EmbeddingBag``: indices, offsets and weights.

    Parameters
    ----------
    values : ndarray, Tensor or scipy.sparse matrix of n_rows rows
        Prepared rows.
    integers : bool, default=True
        Whether whole numbers stay whole (int64); otherwise they become float32, too.
    dtype : str, optional
        What dense numbers have to become, whatever they are: such as "float32".
    """

    def __init__(self, values: Any, *, integers: bool = True, dtype: str | None = None) -> None:
        if scipy.sparse.issparse(values):
            self._values = scipy.sparse.csr_matrix(values)
            return
        if not isinstance(values, Tensor):
            values = np.asarray(values)
            if values.dtype == object or values.dtype.kind in "USOMm":
                raise ValueError(
                    f"The preprocessor returned an array of dtype {values.dtype}: a network needs "
                    "numbers. Give a preprocessor that turns rows into numbers."
                )
            is_image = values.dtype == np.uint8 and values.ndim == 4
            if not is_image:
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise ValueError(
                        "The preprocessor returned NaN or infinity for row "
                        f"{np.argwhere(~np.isfinite(values))[0][0]}: a network needs numbers."
                    )
                whole = integers and values.dtype.kind in "iu"
                values = values.astype(np.int64 if whole else np.float32)
            values = torch.from_numpy(np.require(values, requirements=["C", "W"]))
        if dtype not in (None, "uint8") and values.dtype != torch.uint8:
            values = values.to(getattr(torch, dtype))
        self._values = values

    def __len__(self) -> int:
        return self._values.shape[0]

    @property
    def dtype(self) -> str | None:
        """What dense numbers are, such as "float32"; None for sparse rows."""
        if scipy.sparse.issparse(self._values):
            return None
        return str(self._values.dtype).removeprefix("torch.")

    @property
    def sizes(self) -> dict[str, int]:
        """What a network has to know of its inputs, by the names of its arguments."""
        if scipy.sparse.issparse(self._values):
            return {"n_tokens": self._values.shape[1], "n_inputs": self._values.shape[1]}
        if self._values.ndim == 4:
            return {"n_channels": self._values.shape[1], "n_inputs": self._values.shape[1]}
        return {"n_inputs": self._values.shape[1]} if self._values.ndim > 1 else {}

    def take(self, indices: np.ndarray | slice, device: torch.device) -> Inputs:
        """Return some rows as the student's inputs."""
        if scipy.sparse.issparse(self._values):
            # Slicing a sparse matrix is slow where prediction is of one row.
            is_whole = isinstance(indices, slice) and indices == slice(0, len(self))
            rows = self._values if is_whole else self._values[indices]
            return {
                "indices": torch.from_numpy(rows.indices.astype(np.int64)).to(device),
                "offsets": torch.from_numpy(rows.indptr[:-1].astype(np.int64)).to(device),
                "weights": torch.from_numpy(rows.data.astype(np.float32)).to(device),
            }
        index = indices if isinstance(indices, slice) else torch.from_numpy(indices)
        rows = self._values[index].to(device)
        return rows.float() / 255 if rows.dtype == torch.uint8 else rows


class PreparedParts:
    """Prepared rows that consist of several parts, such as a text, an image and some numbers.

    Parameters
    ----------
    parts : mapping of str to PreparedInputs
        The parts by their names, of n_rows rows each.
    """

    def __init__(self, parts: Mapping[str, PreparedInputs]) -> None:
        self._parts = dict(parts)

    def __len__(self) -> int:
        return len(next(iter(self._parts.values())))

    @property
    def dtype(self) -> dict[str, str | None]:
        """What the dense numbers of each part are."""
        return {name: part.dtype for name, part in self._parts.items()}

    @property
    def sizes(self) -> dict[str, Any]:
        """What a network has to know of each part."""
        return {"parts": {name: part.sizes for name, part in self._parts.items()}}

    def take(self, indices: np.ndarray | slice, device: torch.device) -> Inputs:
        """Return some rows as the student's inputs, by the names of the parts."""
        return {name: part.take(indices, device) for name, part in self._parts.items()}


def prepare_inputs(
    values: Any, *, integers: bool = True, dtype: Any = None
) -> PreparedInputs | PreparedParts:
    """Return what a preprocessor returned in a form that batches are taken from.

    Parameters
    ----------
    values : ndarray, Tensor, sparse matrix, or mapping of str to these
        Prepared rows; a mapping holds their parts.
    integers, dtype
        As of `PreparedInputs`; ``dtype`` is a dict where there are parts.

    Returns
    -------
    inputs : PreparedInputs or PreparedParts
        The rows.
    """
    if not isinstance(values, Mapping):
        return PreparedInputs(values, integers=integers, dtype=dtype)
    parts = {}
    for name, part in values.items():
        try:
            of_part = None if dtype is None else dtype[name]
            parts[name] = PreparedInputs(part, integers=integers, dtype=of_part)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
    return PreparedParts(parts)


class RowBatches:
    """An iterable over batches, reshuffled at every pass where a generator is given.

    Parameters
    ----------
    inputs : PreparedInputs or PreparedParts
        Rows of the student.
    targets : Tensor of shape (n_rows, ...), optional
        Class numbers or regression targets.
    features : object with ``take(indices) -> ndarray``, optional
        Foundation features of the same rows, read batch by batch.
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
        inputs: PreparedInputs | PreparedParts,
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
        self._labeled: np.ndarray | None = None
        if is_labeled is not None and not is_labeled.all():
            self._labeled, self._unlabeled = np.flatnonzero(is_labeled), np.flatnonzero(~is_labeled)
            n_unlabeled = min(max(round(unlabeled_fraction * batch_size), 1), batch_size - 1)
            self._n_unlabeled = n_unlabeled

    def __len__(self) -> int:
        if self._labeled is None:
            return len(self._starts())
        n_labeled = self.batch_size - self._n_unlabeled
        return max(
            -(-len(self._labeled) // n_labeled), -(-len(self._unlabeled) // self._n_unlabeled)
        )

    def __iter__(self) -> Iterator[Batch]:
        if self._labeled is not None:
            yield from self._mixed(self._labeled, self._unlabeled)
            return
        n_rows = len(self.inputs)
        order = self.shuffle.permutation(n_rows) if self.shuffle is not None else None
        for start in self._starts():
            stop = min(start + self.batch_size, n_rows)
            if order is None:
                yield self._batch(slice(start, stop), np.arange(start, stop))
            else:
                yield self._batch(order[start:stop], order[start:stop])

    def _starts(self) -> range:
        n_rows = len(self.inputs)
        # One row is no batch to learn from: it has no variance and no other row to compare with.
        leave_last = self.shuffle is not None and n_rows > 1 and n_rows % self.batch_size == 1
        return range(0, n_rows - leave_last, self.batch_size)

    def _mixed(self, labeled: np.ndarray, unlabeled: np.ndarray) -> Iterator[Batch]:
        n_labeled = self.batch_size - self._n_unlabeled
        first = self._repeated(labeled, len(self) * n_labeled).reshape(-1, n_labeled)
        others = self._repeated(unlabeled, len(self) * self._n_unlabeled)
        for known, unknown in zip(first, others.reshape(len(first), -1), strict=True):
            indices = np.concatenate([known, unknown])
            yield self._batch(indices, indices, n_labeled)

    def _repeated(self, rows: np.ndarray, n_rows: int) -> np.ndarray:
        """Return so many of the rows: all of them as often as it takes, each time in new order."""
        assert self.shuffle is not None
        n_times = -(-n_rows // len(rows))
        return np.concatenate([self.shuffle.permutation(rows) for _ in range(n_times)])[:n_rows]

    def _batch(
        self, rows: np.ndarray | slice, indices: np.ndarray, n_labeled: int | None = None
    ) -> Batch:
        known = indices[:n_labeled]
        features = None
        if self.features is not None:
            features = torch.from_numpy(self.features.take(indices)).to(self.device)
        return Batch(
            self.inputs.take(rows, self.device),
            None if self.targets is None else self.targets[known].to(self.device),
            features,
            None if self.weights is None else self.weights[known].to(self.device),
        )
