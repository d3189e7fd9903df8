"""Rows -> the arrays that an exported graph reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from sk_aft._data._images import image_shape
from sk_aft._data._lengths import batches_of_similar_length
from sk_aft._data._pixels import Ranges, to_floats, with_bands, with_channels
from sk_aft._data._rows import Rows, check_finite, named

# Bounds the memory of a batch: a transformer of 12 heads keeps up to 200 MB for as many tokens.
_MOST_TOKENS = 1 << 14
_MOST_PIXELS = 1 << 21
_MOST_IMAGES = 64  # which a network may enlarge
_HOW_TO_FILL = "fill it before, for example with the column's mean in training."
# The name of a missing category: no character of Unicode will ever have this code point.
MISSING = "\uffff"


class GraphInputs:
    """The inputs of an exported graph.

    Parameters
    ----------
    inputs : sequence of dict
        ``metadata["inputs"]`` of the graph: for each its ``name``, ``kind`` and ``column``, and
        what reading it needs.
    open_tokenizer : callable
        Returns the JSON document of a tokenizer, given the name of its file.
    """

    def __init__(
        self, inputs: Sequence[dict[str, Any]], open_tokenizer: Callable[[str], str]
    ) -> None:
        self._readers = [_reader(spec, open_tokenizer) for spec in inputs]

    def batches(
        self, rows: Rows, batch_size: int = 256
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield batches of rows of similar length, and of images of one size.

        Parameters
        ----------
        rows : Rows
            Rows of the kind that the student was trained on. If the graph reads preprocessed
            rows, their values are the output of the preprocessor: an array, a sparse matrix in
            CSR format, an array of sequences of tokens, or a dict of these by part.
        batch_size : int, default=256
            Most rows of a batch. Long texts and large images have fewer.

        Yields
        ------
        indices : ndarray of int
            Which rows these are.
        feeds : dict of str to ndarray
            The graph's inputs.

        Raises
        ------
        ValueError
            If a row cannot be read; the message names it.
        """
        columns = [read(rows) for read in self._readers]
        for group in _of_one_size([column.sizes for column in columns], len(columns[0])):
            for some in _in_batches(columns, group, batch_size):
                feeds: dict[str, np.ndarray] = {}
                for column in columns:
                    feeds.update(column.take(group[some]))
                yield group[some], feeds


def category_name(name: str | None) -> str:
    """Return the name of a category as the graph reads it; that of a missing one is U+FFFF."""
    return MISSING if name is None else name.encode("utf-8", "backslashreplace").decode()


class _Column(ABC):
    """Rows of one input, of which batches are taken.

    Attributes
    ----------
    lengths : ndarray of shape (n_rows,) or None
        Number of tokens, if rows are sequences.
    sizes : ndarray of shape (n_rows, 2) or None
        Height and width, if rows are images.
    """

    lengths: np.ndarray | None = None
    sizes: np.ndarray | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of some rows by the names of the graph's inputs."""


class _Array(_Column):
    def __init__(self, name: str, values: np.ndarray) -> None:
        self._name, self._values = name, values

    def __len__(self) -> int:
        return len(self._values)

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {self._name: self._values[indices]}


class _Sequences(_Column):
    def __init__(self, names: Sequence[str], sequences: Sequence[Any]) -> None:
        self._names, self._sequences = names, sequences
        self.lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))

    def __len__(self) -> int:
        return len(self._sequences)

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        assert self.lengths is not None
        lengths = self.lengths[indices]
        tokens = np.zeros((len(indices), lengths.max(initial=1)), dtype=np.int64)
        for row, index in enumerate(indices):
            tokens[row, : lengths[row]] = self._sequences[index]
        return dict(zip(self._names, (tokens, lengths), strict=True))


class _Sparse(_Column):
    def __init__(self, names: Sequence[str], values: Any) -> None:
        self._names = names
        if hasattr(values, "indptr"):
            starts = values.indptr
            self._columns, self._numbers = values.indices, values.data
        else:
            rows, self._columns = np.nonzero(values)
            starts = np.searchsorted(rows, np.arange(len(values) + 1))
            self._numbers = np.asarray(values)[rows, self._columns]
        self._starts, self.lengths = starts[:-1], np.diff(starts)

    def __len__(self) -> int:
        return len(self._starts)

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        assert self.lengths is not None
        lengths = self.lengths[indices]
        shape = (len(indices), lengths.max(initial=1))
        columns, numbers = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        for row, start in enumerate(self._starts[indices]):
            own = slice(start, start + lengths[row])
            columns[row, : lengths[row]] = self._columns[own]
            numbers[row, : lengths[row]] = self._numbers[own]
        return dict(zip(self._names, (columns, numbers), strict=True))


class _Images(_Column):
    def __init__(self, spec: dict[str, Any], rows: Rows) -> None:
        ranges = Ranges(spec["float_range"], spec["whole_range"])
        with _named(spec["column"]):
            self._spec, self._rows = spec, rows.in_float_range(ranges)
        values = self._rows.values
        shapes = [values.shape[1:3]] * len(values)
        if values.dtype == object:
            ranges = self._rows.float_range
            with _named(spec["column"]):
                shapes = [
                    image_shape(value, rows.position(index), ranges)[:2]
                    for index, value in enumerate(values)
                ]
        self.sizes = np.array(shapes, dtype=np.int64).reshape(len(values), 2)

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        with _named(self._spec["column"]):
            return self._taken(indices)

    def _taken(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        if self._rows.values.dtype != object:
            some = self._rows.take(indices)
            images = self._with_bands(with_channels(some.images(), ndim=4), some.position(0))
            are_8_bit = np.full(len(images), images.dtype == np.uint8)
            return self._as_read(images, are_8_bit)
        decoded = [self._decoded(int(index)) for index in indices]
        are_8_bit = np.array([image.dtype == np.uint8 for image in decoded])
        if not are_8_bit.all():
            decoded = [to_floats(image) for image in decoded]
        return self._as_read(np.concatenate(decoded), are_8_bit)

    def _decoded(self, index: int) -> np.ndarray:
        image = with_channels(self._rows.image(index), ndim=3)
        return self._with_bands(image[None], self._rows.position(index))

    def _with_bands(self, images: np.ndarray, row: int) -> np.ndarray:
        return with_bands(images, self._spec["n_channels"], row)

    def _as_read(self, images: np.ndarray, are_8_bit: np.ndarray) -> dict[str, np.ndarray]:
        """Return images in the dtype of the graph, and which of them were of 8 bits if it asks."""
        name = self._spec["name"]
        if self._spec["dtype"] == "uint8":
            if images.dtype != np.uint8:
                images = np.rint(images.clip(0, 1) * 255).astype(np.uint8)
            return {name: images}
        feeds = {name: to_floats(images)}
        if "is_8_bit" in self._spec:
            feeds[self._spec["is_8_bit"]] = are_8_bit
        return feeds


def _reader(
    spec: dict[str, Any], open_tokenizer: Callable[[str], str]
) -> Callable[[Rows], _Column]:
    """Return what reads the input that is described."""
    kind, column = spec["kind"], spec["column"]
    if spec.get("preprocessed"):
        make, names = _PREPROCESSED[kind], spec.get("names", spec["name"])
        return partial(_read_preprocessed, spec, partial(make, names))
    if kind == "text":
        from sk_aft._data._texts import TextEncoder

        encode = TextEncoder(open_tokenizer(spec["tokenizer"]), spec["max_length"])
        return lambda rows: _Sequences(spec["names"], encode(_part(rows, "text", column).values))
    read = {"image": _Images, "numeric": _read_numbers, "category": _read_categories}[kind]
    return partial(_read_part, read, spec)


def _read_part(
    read: Callable[[dict[str, Any], Rows], _Column], spec: dict[str, Any], rows: Rows
) -> _Column:
    return read(spec, _part(rows, spec["kind"], spec["column"]))


def _named(column: Any) -> AbstractContextManager[None]:
    return nullcontext() if column is None else named(column)


def _part(rows: Rows, kind: str, column: Any) -> Rows:
    return rows.read_as(kind) if column is None else rows.column(column, kind=kind)


def _read_numbers(spec: dict[str, Any], part: Rows) -> _Column:
    values = part.values.astype(np.float64)
    if not spec["allows_nan"]:
        columns = None if spec["column"] is None else [spec["column"]]
        check_finite(values, columns=columns, advice=_HOW_TO_FILL)
    return _Array(spec["name"], values if spec["column"] is None else values[:, 0])


def _read_categories(spec: dict[str, Any], part: Rows) -> _Column:
    names = np.fromiter(map(category_name, part.values[:, 0]), dtype=object, count=len(part))
    return _Array(spec["name"], names)


def _read_preprocessed(spec: dict[str, Any], make: Callable[[Any], _Column], rows: Rows) -> _Column:
    values = rows.values if spec["column"] is None else rows.values[spec["column"]]
    if spec["kind"] == "array":
        values = np.asarray(values)
        if list(values.shape[1:]) != spec["shape"]:
            raise ValueError(
                f"The graph reads preprocessed rows of shape (n_rows, "
                f"{', '.join(map(str, spec['shape']))}), got {values.shape}: apply the student's "
                "preprocessor first."
            )
        values = values.astype(spec["dtype"])
    return make(values)


_PREPROCESSED: dict[str, Callable[[Any, Any], _Column]] = {
    "array": _Array,
    "sequence": _Sequences,
    "sparse": _Sparse,
}


def _of_one_size(sizes: Sequence[np.ndarray | None], n_rows: int) -> list[np.ndarray]:
    """Return groups of rows whose images have the same height and width, in each column."""
    of_images = [size for size in sizes if size is not None]
    if all(bool((size == size[0]).all()) for size in of_images):
        return [np.arange(n_rows)]
    _, group = np.unique(np.hstack(of_images), axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    return np.split(order, np.cumsum(np.bincount(group.reshape(-1)))[:-1])


def _in_batches(
    columns: Sequence[_Column], group: np.ndarray, batch_size: int
) -> Sequence[np.ndarray]:
    """Return places in a group of rows whose images have one size."""
    n_pixels = [int(c.sizes[group[0]].prod()) for c in columns if c.sizes is not None]
    if n_pixels:
        batch_size = min(batch_size, _MOST_IMAGES, max(1, _MOST_PIXELS // max(1, *n_pixels)))
    lengths = [column.lengths[group] for column in columns if column.lengths is not None]
    if lengths:
        return batches_of_similar_length(np.sum(lengths, axis=0), batch_size, _MOST_TOKENS)
    places = np.arange(len(group))
    return [places[start : start + batch_size] for start in range(0, len(group), batch_size)]
