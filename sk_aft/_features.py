"""FoundationFeatures: raw rows together with their foundation features."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from sk_aft._data._feature_rows import StoredRows
from sk_aft._data._rows import Rows, as_rows
from sk_aft._data._soft_targets import SoftTargetSource
from sk_aft._extraction._feature_blocks import FeatureBlocks
from sk_aft._extraction._reader import Reader
from sk_aft._extraction._source import FeatureSource
from sk_aft.store._model_rows import ModelRows


class FoundationFeatures:
    """Rows and their foundation features, in one array-like that scikit-learn can slice.

    To scikit-learn it is an (n_rows, n_features) float32 array of features. `AFTClassifier`
    and `AFTRegressor` read the raw rows from it, and use the features only to fit. Features are
    computed when they are first used.

    It is returned by `FoundationFeatureExtractor`, whose ``set_output`` returns frames with named
    columns instead. ``numpy.asarray`` and ``pandas.DataFrame`` use only the features.

    Parameters
    ----------
    inputs : array-like, list, Series or DataFrame of n_rows rows
        The raw rows.
    rows : Rows
        The same, recognised.
    source : FeatureSource
        Computes the features.
    feature_slices : dict of str to slice
        Which columns belong to which model.
    parts : list of StoredRows, optional
        The features of each model, if they are already known.
    read : Rows, optional
        What the models read; default: ``rows``.
    column_slices : dict of str to slice, optional
        Which features come from which column of what the models read.
    soft_target_source : SoftTargetSource, optional
        Computes soft targets of the rows; default: they have none.
    teacher : FeatureBlocks, optional
        What ``teacher_features`` consist of; default: of the features.

    Attributes
    ----------
    inputs : array-like, list, Series or DataFrame of n_rows rows
        The raw rows as they were given.
    features : ndarray of shape (n_rows, n_features), float32
        Computed when first used; memory-mapped if the store holds the rows in order.
    feature_slices : dict of str to slice
        Which columns belong to which model.
    column_slices : dict of str to slice
        Which features come from which column of a DataFrame; empty if models read whole rows.
    teacher_features : FoundationFeatures of shape (n_rows, n_teacher_features)
        The same rows with all layers that the store holds, each in a slice of its own: what the
        default transfer of the students learns from. Of a fine-tuned model, these are the layers of
        the model before it was fine-tuned.
    missing_mask : ndarray of shape (n_rows,), bool
        Which rows lack the features of at least one model; only with ``on_error="mask"``.
    soft_targets : ndarray of shape (n_rows, n_classes) or (n_rows, n_outputs), or None
        Class probabilities (float32), or numbers in the unit of the targets (float64), that the
        models predict; computed when first used, and NaN in rows without them. None if the
        extractor predicts nothing. They are a teacher of the student, which drops the columns of
        classes that its labels lack.
    soft_target_classes : ndarray of shape (n_classes,) or None
        Labels of the columns of ``soft_targets``; None if these are numbers, or if there are none.
    shape : tuple of int
        (n_rows, n_features); known without computing.
    ndim : int
        2.
    dtype : dtype
        float32.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_aft import FoundationFeatureExtractor
    >>> def count_letters(texts):
    ...     return np.array([[text.count("a"), text.count("b")] for text in texts])
    >>> rows = FoundationFeatureExtractor(count_letters).fit_transform(["ab", "a", "bb"])
    >>> rows.inputs
    ['ab', 'a', 'bb']
    >>> print(rows[[0, 2]].features)
    [[1. 1.]
     [0. 2.]]
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(
        self,
        inputs: Any,
        rows: Rows,
        source: FeatureSource,
        feature_slices: dict[str, slice],
        parts: list[StoredRows] | None = None,
        *,
        read: Rows | None = None,
        column_slices: dict[Any, slice] | None = None,
        soft_target_source: SoftTargetSource | None = None,
        teacher: FeatureBlocks | None = None,
    ) -> None:
        self.inputs = inputs
        self._rows = rows
        self._source = source
        self.feature_slices = feature_slices
        self.column_slices = column_slices or {}
        self._stored = _Stored(parts)
        self._read = rows if read is None else read
        self._soft_target_source = soft_target_source
        self._soft_targets: np.ndarray | None = None
        self._teacher = teacher
        shares = teacher is not None and _whole(teacher.readers) == _whole(source.readers)
        self._teacher_stored = self._stored if shares else _Stored(None)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of features; known without computing."""
        return len(self), max((part.stop for part in self.feature_slices.values()), default=0)

    @property
    def size(self) -> int:
        """Number of elements of the matrix of features."""
        return len(self) * self.shape[1]

    @property
    def features(self) -> np.ndarray:
        """The features, (n_rows, n_features) float32; computed when first used."""
        return self._side_by_side([part.view() for part in self._computed()], len(self))

    @property
    def is_computed(self) -> bool:
        """Whether the features are available without running a model or reading the store."""
        return self._parts is not None

    @property
    def teacher_features(self) -> FoundationFeatures:
        """The same rows with the features that a teacher may use; computed when first used.

        These are all layers that the store holds, each in a slice of its own: with
        ``layers="last"`` or ``"auto"`` a middle layer and the last, with a list its layers. They
        are computed together with ``features``, in one pass. Of a fine-tuned model, they are those
        of the model before it was fine-tuned, without soft targets. It is the object itself if
        there is nothing to add.

        Returns
        -------
        rows : FoundationFeatures of shape (n_rows, n_teacher_features)
            With the same ``inputs``.
        """
        if self._teacher is None:
            return self
        rows = FoundationFeatures(
            self.inputs,
            self._rows,
            self._source._replace(readers=self._teacher.readers),
            self._teacher.feature_slices,
            read=self._read,
            column_slices=self._teacher.column_slices,
        )
        rows._stored = self._teacher_stored
        return rows

    @property
    def is_on_disk(self) -> bool:
        """Whether the features are read from a file."""
        return any(part.is_on_disk for part in self._computed())

    @property
    def missing_mask(self) -> np.ndarray:
        """Which rows lack the features of at least one model, (n_rows,) bool; see ``on_error``."""
        masks = [part.missing_mask for part in self._computed()]
        return np.any(masks, axis=0) if masks else np.zeros(len(self), dtype=bool)

    @property
    def is_masked(self) -> np.ndarray:
        """The former name of ``missing_mask``."""
        warnings.warn(
            "FoundationFeatures.is_masked is called missing_mask from 0.2 on; the former name goes "
            "in 0.3.",
            FutureWarning,
            stacklevel=2,
        )
        return self.missing_mask

    @property
    def has_soft_targets(self) -> bool:
        """Whether there are soft targets; known without computing."""
        return self._soft_target_source is not None

    @property
    def soft_targets(self) -> np.ndarray | None:
        """Class probabilities that the models predict, (n_rows, n_classes); None without."""
        if self._soft_targets is None and self._soft_target_source is not None:
            self._soft_targets = self._soft_target_source.compute(self._read, self._computed())
        return self._soft_targets

    @property
    def soft_target_classes(self) -> np.ndarray | None:
        """Labels of the columns of ``soft_targets``; None of numbers, or if there are none."""
        return None if self._soft_target_source is None else self._soft_target_source.classes

    def take(self, indices: Any) -> np.ndarray:
        """Return the features of some rows as an array in memory; other rows are not read."""
        taken = [part.take(indices) for part in self._computed()]
        return self._side_by_side(taken, len(np.arange(len(self))[indices]))

    def _side_by_side(self, parts: list[np.ndarray], n_rows: int) -> np.ndarray:
        if not parts:  # teachers that only predict
            return np.empty((n_rows, 0), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    @property
    def _parts(self) -> list[StoredRows] | None:
        return self._stored.parts

    def _computed(self) -> list[StoredRows]:
        """Return the features of each model."""
        if self._stored.parts is None:
            self._stored.parts = self._source.compute(self._read)
        return [
            replace(part, columns=reader.shown)
            for part, reader in zip(self._stored.parts, self._source.readers, strict=True)
        ]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(np.asarray(self))  # pandas.DataFrame needs it

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            if len(key) == 2 and not (key[1] is Ellipsis or _is_full_slice(key[1])):
                return np.asarray(self)[key]
            key = key[0]
        if isinstance(key, (int, np.integer)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"row {key} is out of range for {len(self)} rows")
            return self.take([key])[0]
        indices = np.arange(len(self))[key]
        rows = self._rows[indices]
        is_same = self.inputs is self._rows.values
        some = FoundationFeatures(
            rows.values if is_same else _safe_indexing(self.inputs, indices),
            rows,
            self._source,
            self.feature_slices,
            self._stored.subset(indices).parts,
            read=rows if self._read is self._rows else self._read[indices],
            column_slices=self.column_slices,
            soft_target_source=self._soft_target_source,
            teacher=self._teacher,
        )
        if self._soft_targets is not None:
            some._soft_targets = self._soft_targets[indices]
        if some._teacher_stored is not some._stored:
            some._teacher_stored = self._teacher_stored.subset(indices)
        return some

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.asarray(self.features)
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError("A copy is needed to change the dtype of the features.")
            return array.astype(dtype)
        # Views of the store are read-only; a copy may be written to.
        return array.copy() if copy else array

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if self._rows.values is not self.inputs:
            # The rows are recognised again after loading, rather than stored twice.
            state["_rows"] = replace(self._rows, values=None)
            state["_read"] = None if self._read is self._rows else self._read
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._rows.values is None:
            rows = as_rows(self.inputs, kind=self._rows.kind, missing=True)
            self._rows = replace(self._rows, values=rows.values)
            self._read = self._rows if self._read is None else self._read

    def __repr__(self) -> str:
        names = ", ".join(reader.backbone.name for reader in self._source.readers)
        state = "" if self.is_computed else ", not computed yet"
        return f"FoundationFeatures(shape={self.shape}, models=[{names}]{state})"


@dataclass
class _Stored:
    """Stored rows of the models, shared by the objects that show some of their columns."""

    parts: list[StoredRows] | None

    def subset(self, indices: np.ndarray) -> _Stored:
        """Return some of the rows."""
        return _Stored(self.parts and [part.subset(indices) for part in self.parts])

    def __getstate__(self) -> dict[str, Any]:
        is_in_memory = all(not isinstance(part.matrix, ModelRows) for part in self.parts or ())
        # Others are looked up again by content: another process may not see their file.
        return {"parts": self.parts if is_in_memory else None}


def _whole(readers: Sequence[Reader]) -> list[Reader]:
    """Return readers of all stored columns."""
    return [reader._replace(shown=slice(None)) for reader in readers]


def _is_full_slice(key: Any) -> bool:
    return isinstance(key, slice) and key == slice(None)
