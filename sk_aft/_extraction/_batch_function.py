"""One picklable function from a batch to the batch with features, for Ray, Dask, Spark and others.

The function holds the extractor as bytes. A process unpickles them once, however often an engine
unpickles the function, so models are loaded once per process and kept between batches.
"""

from __future__ import annotations

import copy
import pickle
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from joblib import wrap_non_picklable_objects
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from sk_aft._data._pixels import Ranges
from sk_aft._data._record_batches import RecordBatch, record_batch
from sk_aft._extraction._door import columns_of, columns_of_models
from sk_aft._extraction._reader import Reader
from sk_aft._extraction._row_faults import NoRowReadError
from sk_aft._predictors._soft_targets import is_predictor
from sk_aft._runtime._threads import call_after_fork
from sk_aft.backbones import resolve_backbone

# A process keeps the models of as many functions: a pipeline may run two in turn, and models of
# more would pile up in a notebook.
_FUNCTIONS_KEPT = 2
_FIT_FIRST = "fit the extractor on a few rows first: extractor.fit(sample).as_batch_function(...)."

_lock = threading.Lock()
_in_process: OrderedDict[bytes, _Loaded] = OrderedDict()


class BatchFunction:
    """Maps a batch to the same batch with a column of features.

    Made by `FoundationFeatureExtractor.as_batch_function`. It can be pickled. Each process loads
    the models when its first batch comes, and keeps them. Threads of a process take turns.

    Parameters
    ----------
    extractor : FoundationFeatureExtractor
        Computes the features; copied, so that later changes have no effect.
    column : object
        Name of the column that the models read; None if ``model`` is a mapping of columns.
    output : str
        Name of the new column.

    Attributes
    ----------
    columns : list
        Names of the columns that are read.
    output : str
        Name of the new column.
    n_features : int
        Number of features of a row.
    """

    def __init__(self, extractor: Any, column: Any = None, output: str = "features") -> None:
        self.columns = _columns_read(extractor, column)
        if not isinstance(output, str) or output in self.columns:
            raise ValueError(
                f"output={output!r} has to be a string that names a new column, but the columns "
                f"{self.columns} are read."
            )
        self.output = output
        _check_has_features_only(extractor)
        fitted = _fitted(extractor)
        self.n_features: int = fitted.n_features_out_
        self._by_column = isinstance(extractor.model, Mapping)
        self._names = list(fitted.feature_slices_)
        # By value, because the functions of a script or notebook cannot be imported elsewhere.
        self._extractor: bytes = pickle.dumps(
            wrap_non_picklable_objects(_portable(fitted), keep_wrapper=False)
        )

    def __call__(self, batch: Any) -> Any:
        """Return the batch with the features of its rows.

        Parameters
        ----------
        batch : dict, DataFrame of pandas or polars, or Table or RecordBatch of pyarrow
            Rows; it is not changed.

        Returns
        -------
        batch : of the same type
            With the column ``output``.

        Raises
        ------
        ValueError
            If a column is missing, ``output`` exists already, or a row cannot be read; the message
            names the row of the batch.
        """
        records = record_batch(batch)
        names = records.names
        absent = [name for name in self.columns if name not in names]
        if absent:
            raise ValueError(f"The batch has no column {absent[0]!r}; its columns are {names}.")
        if self.output in names:
            raise ValueError(
                f"The batch has a column {self.output!r} already: give "
                "as_batch_function(output=...) another name, or drop the column first."
            )
        features, missing = self._features(records)
        return records.with_features(self.output, features, missing)

    def __repr__(self) -> str:
        return (
            f"BatchFunction(columns={self.columns}, output={self.output!r}, "
            f"features=[{', '.join(self._names)}])"
        )

    def _features(self, records: RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of a batch, and which rows have none."""
        n_rows = len(records)
        if n_rows == 0:  # engines ask for the types of the columns in this way
            return np.empty((0, self.n_features), np.float32), np.zeros(0, dtype=bool)
        with _naming(n_rows, None if self._by_column else self.columns[0]):
            if self._by_column:
                return self._loaded.run(records.frame(self.columns), n_rows)
            return self._loaded.run(records.column(self.columns[0]), n_rows)

    @cached_property
    def _loaded(self) -> _Loaded:
        """The extractor of this process, which all copies of the function share."""
        key = blake2b(self._extractor).digest()
        with _lock:
            if key not in _in_process:
                _in_process[key] = _Loaded(self._extractor)
            _in_process.move_to_end(key)
            while len(_in_process) > _FUNCTIONS_KEPT:
                _in_process.popitem(last=False)
            return _in_process[key]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_loaded"}


class _Loaded:
    """An extractor and its models in one process."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled
        self._lock = threading.Lock()

    @cached_property
    def _extractor(self) -> Any:
        return _on_this_machine(pickle.loads(self._pickled))

    def run(self, X: Any, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return features in memory, and which rows have none."""
        with self._lock:
            extractor = self._extractor
            seen = extractor._check_rows(X, reset=False)
            _check_ranges(extractor, seen.read)
            rows = extractor._beside_features(seen)
            try:
                return np.array(rows.features), rows.missing_mask
            except NoRowReadError:  # which says nothing of a batch: it may have one row
                nothing: np.ndarray = np.full(
                    (n_rows, extractor.n_features_out_), np.nan, np.float32
                )
                return nothing, np.ones(n_rows, dtype=bool)


@contextmanager
def _naming(n_rows: int, column: Any) -> Iterator[None]:
    """Say in an error about a row that its number is that in the batch, and name the column."""
    try:
        yield
    except (TypeError, ValueError) as error:
        where = "" if column is None else f"column {column!r}: "
        raise ValueError(f"In a batch of {n_rows} rows: {where}{error}") from error


def _columns_read(extractor: Any, column: Any) -> list:
    names = columns_of_models(extractor.model)
    if names is not None:
        if column is not None:
            raise ValueError(
                f"column={column!r} was given, but model is a mapping, which names the columns: "
                "leave column out."
            )
        return names
    if column is None or isinstance(column, (list, tuple)):
        raise ValueError(
            f"column={column!r} has to be the name of one column. For models of several columns "
            "give the extractor a mapping, such as model={'text': 'minilm', 'photo': ...}, and "
            "leave column out."
        )
    return [column]


def _check_has_features_only(extractor: Any) -> None:
    if any(is_predictor(model) for _, model in extractor._models()):
        raise ValueError(
            "A batch function adds features, and TeacherPredictions or a predictor has none: leave "
            "it out of model. Soft targets of a student are computed by fit_transform."
        )


def _fitted(extractor: Any) -> Any:
    """Return a fitted extractor, so that no batch decides how rows are read."""
    try:
        check_is_fitted(extractor)
    except NotFittedError:
        return _fitted_without_rows(extractor)
    return extractor


def _fitted_without_rows(extractor: Any) -> Any:
    """Return a fitted copy of an extractor whose models say themselves what they read."""
    name = type(extractor).__name__
    if extractor.__sklearn_tags__().target_tags.required:
        raise ValueError(f"This {name} learns from labels: call fit(X, y) before.")
    readers, _ = extractor._resolved()
    for reader in readers:
        backbone = reader.backbone
        if backbone.kind not in _EXAMPLES or backbone.n_features_out is None:
            raise ValueError(
                f"What model {backbone.name!r} reads, or the number of its features, is not known "
                f"before it has seen a row, and batches must not decide it one by one: {_FIT_FIRST}"
            )
    # The driver of a cluster may lack the GPU of its workers.
    copied = clone(extractor).set_params(device="cpu", cache=None, inputs=None)
    copied.fit(_example_rows(readers))
    return copied.set_params(device=extractor.device, cache=extractor.cache)


# An image with more than two levels of grey, so that it is not taken for a mask.
_EXAMPLES: dict[str | None, Any] = {
    "text": "a text",
    "image": np.arange(48 * 48, dtype=np.uint8).reshape(48, 48),
}


def _example_rows(readers: Sequence[Reader]) -> Any:
    """Return one row of what the models read."""
    if readers[0].column is None:
        return [_EXAMPLES[readers[0].backbone.kind]]
    columns = {
        name: [_EXAMPLES[reader.backbone.kind]]
        for reader in readers
        for name in columns_of(reader.column)
    }
    return record_batch(columns).frame(list(columns))


def _portable(fitted: Any) -> Any:
    """Return a copy with what computes features, and nothing else."""
    other = copy.copy(fitted)
    other.inputs = None  # the batch need not have the columns of the student
    other.verbose = 0
    other._teacher = None
    del other._soft_targets  # a fine-tuned extractor's hold a model
    return other


def _on_this_machine(extractor: Any) -> Any:
    """Find the files of models by name: another machine may have them in another directory."""
    extractor._soft_targets = None
    models = (model for _, model in extractor._models())
    extractor._readers = [
        reader._replace(backbone=resolve_backbone(model).of_kind(str(reader.kind)))
        if isinstance(model, str) and reader.backbone.original is reader.backbone
        else reader
        for reader, model in zip(extractor._readers, models, strict=True)
    ]
    extractor.backbones_ = [reader.backbone for reader in extractor._readers]
    return extractor


def _check_ranges(extractor: Any, read: Any) -> None:
    """Raise ValueError if the numbers of a batch alone would decide what images look like."""
    for reader in extractor._readers:
        rows = reader.rows(read)
        if rows.kind != "image":
            continue
        fitted, found = extractor._float_ranges[reader.column], rows.float_range
        if _decides_itself(fitted, found):
            raise ValueError(
                "These images are floats, or have more than 8 bits, and the extractor has seen "
                "none like them, so that each batch would find a range of its own: fit the "
                "extractor on a few images of this kind first."
            )


def _decides_itself(fitted: Ranges, found: Ranges) -> bool:
    is_new_scale = found.floats is not None and fitted.floats is None
    return is_new_scale or (found.whole == "16 bits" and fitted.whole != "16 bits")


def _forget_after_fork() -> None:
    # Threads of a loaded model do not survive a fork.
    global _lock, _in_process
    _lock, _in_process = threading.Lock(), OrderedDict()


call_after_fork(_forget_after_fork)
