"""The output of a preprocessor, as tensors that batches are taken from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol, TypeAlias, Union

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from sk_aft._runtime._device import to_device

# The contents of one batch: the argument of the network's forward, or its arguments by name.
Inputs: TypeAlias = Union[Tensor, dict[str, Any]]  # noqa: UP007 - evaluated by 3.10

# The dtype of sequences of tokens.
SEQUENCE = "sequence"


class InputTensors(Protocol):
    """Preprocessed rows that batches are taken from.

    `to_tensors` returns one of `ArrayTensors`, `SequenceTensors` and `PartTensors`.
    """

    @property
    def lengths(self) -> np.ndarray | None:
        """Number of tokens of each row, if rows are sequences.

        Rows of similar length share a batch.
        """

    @property
    def dtype(self) -> Any:
        """Dtype of dense numbers, such as "float32"; None for sparse rows, a dict for parts."""

    @property
    def sizes(self) -> dict[str, Any]:
        """Sizes of the inputs, by the names of the network's arguments."""

    @property
    def row_bytes(self) -> int:
        """Memory of one row, on average if rows differ."""

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray | slice, device: torch.device) -> Inputs:
        """Return some rows as the student's inputs."""

    def split(
        self, indices: np.ndarray | slice, batch_size: int, device: torch.device
    ) -> Iterator[Inputs]:
        """Gather all rows now, and return an iterator over batches of them."""

    def move_to(self, device: torch.device) -> None:
        """Keep the rows on a device from now on, if that is useful."""


class ArrayTensors:
    """Rows of one array, dense or sparse.

    Dense numbers become float32 (integers int64). 8-bit images stay unchanged until a batch is
    made, and then become float32 in [0, 1]. Sparse rows become the arguments of
    ``torch.nn.EmbeddingBag``: indices, offsets and weights.

    Parameters
    ----------
    values : ndarray, Tensor or scipy.sparse matrix of n_rows rows
        Preprocessed rows.
    integers : bool, default=True
        Whether integers become int64; otherwise they become float32.
    dtype : str, optional
        Dtype to which dense numbers are converted, such as "float32".
    """

    lengths = None

    def __init__(self, values: Any, *, integers: bool = True, dtype: str | None = None) -> None:
        if scipy.sparse.issparse(values):
            self._values = scipy.sparse.csr_matrix(values)
            return
        if not isinstance(values, Tensor):
            try:
                values = np.asarray(values)
            except ValueError as error:
                raise ValueError(
                    "The preprocessor returned rows of different lengths. If they are sequences "
                    "of tokens, return them as an array of dtype object: "
                    "rows = np.empty(n_rows, dtype=object); rows[:] = list_of_arrays."
                ) from error
            if values.dtype == object or values.dtype.kind in "USOMm":
                raise ValueError(
                    f"The preprocessor returned an array of dtype {values.dtype}: a network needs "
                    "numbers. Give a preprocessor that turns rows into numbers."
                )
            is_image = values.dtype == np.uint8 and values.ndim == 4
            if not is_image:
                whole = integers and values.dtype.kind in "iu"
                with np.errstate(over="ignore"):
                    values = values.astype(np.int64 if whole else np.float32)
                if not (whole or np.isfinite(values).all()):
                    raise ValueError(
                        "The preprocessor returned NaN, infinity or a number beyond float32 for "
                        f"row {np.argwhere(~np.isfinite(values))[0][0]}: a network needs numbers."
                    )
            values = torch.from_numpy(np.require(values, requirements=["C", "W"]))
        if dtype not in (None, "uint8") and values.dtype != torch.uint8:
            values = values.to(getattr(torch, dtype))
        self._values = values

    def __len__(self) -> int:
        return self._values.shape[0]

    @property
    def dtype(self) -> str | None:
        """Dtype of dense numbers, such as "float32"; None for sparse rows."""
        if scipy.sparse.issparse(self._values):
            return None
        return str(self._values.dtype).removeprefix("torch.")

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the inputs, by the names of the network's arguments."""
        if scipy.sparse.issparse(self._values):
            return {"n_tokens": self._values.shape[1], "n_inputs": self._values.shape[1]}
        if self._values.ndim == 4:
            return {"n_channels": self._values.shape[1], "n_inputs": self._values.shape[1]}
        return {"n_inputs": self._values.shape[1]} if self._values.ndim > 1 else {}

    @property
    def row_bytes(self) -> int:
        """Memory of one row, on average if rows differ."""
        if scipy.sparse.issparse(self._values):
            return 12 * self._values.nnz // max(len(self), 1)
        return self._values.nbytes // max(len(self), 1)

    def take(self, indices: np.ndarray | slice, device: torch.device) -> Inputs:
        """Return some rows as the student's inputs."""
        return next(self.split(indices, max(len(self), 1), device))

    def split(
        self, indices: np.ndarray | slice, batch_size: int, device: torch.device
    ) -> Iterator[Inputs]:
        """Gather all rows now, and return an iterator over batches of them."""
        if scipy.sparse.issparse(self._values):
            return self._split_sparse(indices, batch_size, device)
        if isinstance(indices, slice):
            rows = self._values[indices]
        else:
            rows = self._values.index_select(0, torch.from_numpy(indices).to(self._values.device))
        batches = in_batches(to_device(rows, device), batch_size)
        return (batch.float() / 255 if batch.dtype == torch.uint8 else batch for batch in batches)

    def _split_sparse(
        self, indices: np.ndarray | slice, batch_size: int, device: torch.device
    ) -> Iterator[Inputs]:
        # Slicing a sparse matrix is slow when predicting a single row.
        is_whole = isinstance(indices, slice) and indices == slice(0, len(self))
        rows = self._values if is_whole else self._values[indices]
        tokens = to_device(torch.from_numpy(rows.indices.astype(np.int64)), device)
        first_of_batch: np.ndarray = np.arange(rows.shape[0]) // batch_size * batch_size
        relative = rows.indptr[:-1].astype(np.int64) - rows.indptr[first_of_batch]
        offsets = to_device(torch.from_numpy(relative), device)
        weights = to_device(torch.from_numpy(rows.data.astype(np.float32)), device)

        def batch(first: int) -> Inputs:
            last = min(first + batch_size, rows.shape[0])
            own = slice(rows.indptr[first], rows.indptr[last])
            return {
                "indices": tokens[own],
                "offsets": offsets[first:last],
                "weights": weights[own],
            }

        return map(batch, range(0, max(rows.shape[0], 1), batch_size))

    def move_to(self, device: torch.device) -> None:
        """Keep the rows on a device from now on; sparse ones stay where they are."""
        if isinstance(self._values, Tensor):
            self._values = self._values.to(device)


class SequenceTensors:
    """Sequences of tokens, padded to the longest of each batch.

    The student's ``forward`` is called with ``tokens``, (B, longest) int64 that end in zeros, and
    ``lengths``, (B,) int64.

    Parameters
    ----------
    values : ndarray of shape (n_rows,), dtype object
        1-D arrays of non-negative integers, or an array of shape (n_rows, length) if
        all have the same length.
    """

    dtype = SEQUENCE

    def __init__(self, values: np.ndarray) -> None:
        arrays = [np.asarray(value) for value in values]
        if values.ndim == 2 and values.dtype == object:  # NumPy's form if all have one length
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

    @classmethod
    def joined(cls, parts: Sequence[SequenceTensors]) -> SequenceTensors:
        """Return the sequences of several pieces, one after another."""
        joined = cls.__new__(cls)
        joined._tokens = np.concatenate([part._tokens for part in parts])
        joined.lengths = np.concatenate([part.lengths for part in parts])
        joined._starts = np.cumsum(joined.lengths) - joined.lengths
        return joined

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sequences(self) -> list[np.ndarray]:
        """The tokens of each row."""
        return np.split(self._tokens, self._starts[1:])

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the inputs, by the names of the network's arguments."""
        return {"n_tokens": int(self._tokens.max(initial=0)) + 1}

    @property
    def row_bytes(self) -> int:
        """Memory of one row on average."""
        return self._tokens.nbytes // max(len(self), 1)

    def take(self, indices: np.ndarray | slice, device: torch.device) -> dict[str, Tensor]:
        """Return some rows as the student's inputs."""
        starts, lengths = self._starts[indices], self.lengths[indices]
        if len(lengths) == 1 and lengths[0]:  # one text to predict: nothing to pad
            row = self._tokens[starts[0] : starts[0] + lengths[0]]
            return {
                "tokens": to_device(torch.from_numpy(row[None]), device),
                "lengths": to_device(torch.from_numpy(lengths), device),
            }
        positions = np.arange(lengths.max(initial=1))
        is_token = positions < lengths[:, None]
        tokens = np.zeros(is_token.shape, dtype=np.int64)
        tokens[is_token] = self._tokens[(starts[:, None] + positions)[is_token]]
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
        """Do nothing: batches are made on the CPU."""


class PartTensors:
    """Rows that consist of several parts, such as a text, an image and some numbers.

    Parameters
    ----------
    parts : mapping of str to ArrayTensors or SequenceTensors
        The parts by their names, of n_rows rows each.
    """

    def __init__(self, parts: Mapping[str, ArrayTensors | SequenceTensors]) -> None:
        self.parts = dict(parts)

    @property
    def lengths(self) -> np.ndarray | None:
        """Number of tokens of each row, if any parts are sequences."""
        lengths = [part.lengths for part in self.parts.values() if part.lengths is not None]
        return np.sum(lengths, axis=0) if lengths else None

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    @property
    def dtype(self) -> dict[str, str | None]:
        """Dtype of the dense numbers of each part."""
        return {name: part.dtype for name, part in self.parts.items()}

    @property
    def sizes(self) -> dict[str, Any]:
        """What a network has to know about each part."""
        return {"parts": {name: part.sizes for name, part in self.parts.items()}}

    @property
    def row_bytes(self) -> int:
        """Memory of one row, on average if rows differ."""
        return sum(part.row_bytes for part in self.parts.values())

    def take(self, indices: np.ndarray | slice, device: torch.device) -> Inputs:
        """Return some rows as the student's inputs, by the names of the parts."""
        return next(self.split(indices, max(len(self), 1), device))

    def split(
        self, indices: np.ndarray | slice, batch_size: int, device: torch.device
    ) -> Iterator[Inputs]:
        """Gather all rows now, and return an iterator over batches of them."""
        batches = [part.split(indices, batch_size, device) for part in self.parts.values()]
        return (dict(zip(self.parts, parts, strict=True)) for parts in zip(*batches, strict=True))

    def move_to(self, device: torch.device) -> None:
        """Keep the parts on a device from now on."""
        for part in self.parts.values():
            part.move_to(device)


class InputsOnDemand:
    """Rows of a file that are preprocessed when a batch needs them, again in every pass.

    Parameters
    ----------
    transform : callable
        Returns the preprocessed rows of an array of their numbers.
    rows : sized
        The rows.
    first : InputTensors
        The first rows, which tell the sizes of all.
    """

    lengths = None

    def __init__(
        self, transform: Callable[[np.ndarray], InputTensors], rows: Sized, first: InputTensors
    ) -> None:
        self._transform = transform
        self._rows = rows
        self._first = first
        self.dtype, self.sizes, self.row_bytes = first.dtype, first.sizes, first.row_bytes

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: np.ndarray | slice, device: torch.device) -> Inputs:
        """Return some rows as the student's inputs."""
        return next(self.split(indices, max(len(self), 1), device))

    def split(
        self, indices: np.ndarray | slice, batch_size: int, device: torch.device
    ) -> Iterator[Inputs]:
        """Make all rows now, and return an iterator over batches of them."""
        rows = np.arange(len(self))[indices]
        return self._transform(rows).split(slice(0, len(rows)), batch_size, device)

    def move_to(self, device: torch.device) -> None:
        """Do nothing: the rows stay in their file."""


def to_tensors(values: Any, *, integers: bool = True, dtype: Any = None) -> InputTensors:
    """Return the output of a preprocessor in a form that batches are taken from.

    Parameters
    ----------
    values : ndarray, Tensor, sparse matrix, or mapping of str to these
        Preprocessed rows; a mapping holds their parts. An array of dtype object whose items are
        1-D arrays of integers holds sequences of tokens.
    integers, dtype
        As for `ArrayTensors`; ``dtype`` is a dict if there are parts.

    Returns
    -------
    inputs : ArrayTensors, SequenceTensors or PartTensors
        The rows.
    """
    if not isinstance(values, Mapping):
        return _part_to_tensors(values, integers=integers, dtype=dtype)
    parts: dict[str, ArrayTensors | SequenceTensors] = {}
    for name, part in values.items():
        try:
            of_part = None if dtype is None else dtype[name]
            parts[name] = _part_to_tensors(part, integers=integers, dtype=of_part)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
    return PartTensors(parts)


def _part_to_tensors(
    values: Any, *, integers: bool, dtype: str | None
) -> ArrayTensors | SequenceTensors:
    if dtype == SEQUENCE or are_sequences(values):
        return SequenceTensors(np.asarray(values))
    return ArrayTensors(values, integers=integers, dtype=dtype)


def are_between_0_and_1(inputs: InputTensors, n_rows: int = 256) -> bool:
    """Return whether the first rows are dense numbers between 0 and 1, as images are.

    Resizing and augmentation may exceed the range by a thousandth.
    """
    rows = inputs.take(slice(0, n_rows), torch.device("cpu"))
    if not isinstance(rows, Tensor) or rows.numel() == 0:
        return False
    low, high = rows.aminmax()
    return bool(low >= -0.001 and high <= 1.001)


def in_batches(rows: Tensor, n_rows: int) -> Iterator[Tensor]:
    """Return an iterator over ``n_rows`` rows at a time, which a network may change in place."""
    return (part.detach() for part in rows.split(n_rows))


def are_sequences(values: Any) -> bool:
    """Whether a preprocessor returned sequences: an array of arrays."""
    if not (isinstance(values, np.ndarray) and values.dtype == object and values.size):
        return False
    if values.ndim == 1:
        return isinstance(values[0], (np.ndarray, Tensor, list))
    return values.ndim == 2 and isinstance(values[0, 0], (int, np.integer))
