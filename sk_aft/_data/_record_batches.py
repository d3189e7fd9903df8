"""Batches of named columns as data engines pass them: dicts, pandas, polars, Arrow."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from sk_aft._data._arrow_columns import column_values, holds_objects
from sk_aft._data._streams import table_rows
from sk_aft._optional import import_optional


class RecordBatch(Protocol):
    """A batch of rows with named columns."""

    @property
    def names(self) -> list:
        """Names of the columns."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def column(self, name: Any) -> Any:
        """Return the rows of one column, as `as_rows` takes them."""

    def frame(self, names: Sequence[Any]) -> Any:
        """Return some columns as a DataFrame."""

    def with_features(self, name: str, features: np.ndarray, missing: np.ndarray) -> Any:
        """Return the user's batch with one more column.

        Parameters
        ----------
        name : str
            Name of the new column.
        features : ndarray of shape (n_rows, n_features), float32
            Its rows.
        missing : ndarray of shape (n_rows,), bool
            Which rows are null; in an array they are NaN.
        """


def record_batch(batch: Any) -> RecordBatch:
    """Recognise a batch.

    Raises
    ------
    TypeError
        If it is none of the four kinds.
    """
    libraries = {base.__module__.partition(".")[0] for base in type(batch).__mro__}
    is_table = hasattr(batch, "columns") and hasattr(batch, "__len__")
    if isinstance(batch, Mapping):
        return _Columns(batch)
    if is_table and "pandas" in libraries:
        return _PandasFrame(batch)
    if is_table and "polars" in libraries:
        return _PolarsFrame(batch)
    if is_table and "pyarrow" in libraries:
        return _ArrowTable(batch)
    raise TypeError(
        f"A batch has to be a dict of columns, a DataFrame of pandas or polars, or a Table or "
        f"RecordBatch of pyarrow, got a {type(batch).__name__}."
    )


class _Columns:
    """A dict of lists or arrays, as Ray Data and Hugging Face's ``map`` pass it."""

    def __init__(self, batch: Mapping[Any, Any]) -> None:
        self._batch = batch

    @property
    def names(self) -> list:
        return list(self._batch)

    def __len__(self) -> int:
        names = self.names
        return len(self.column(names[0])) if names else 0

    def column(self, name: Any) -> Any:
        # A lazy batch of Hugging Face would keep what is read, and encode images a second time.
        return copy.copy(self._batch)[name]

    def frame(self, names: Sequence[Any]) -> Any:
        pandas = import_optional(
            "pandas", extra="clusters", purpose="models of several columns in a dict"
        )
        # As lists, because an image is one value of a column.
        return pandas.DataFrame({name: pandas.Series(list(self.column(name))) for name in names})

    def with_features(self, name: str, features: np.ndarray, missing: np.ndarray) -> Any:
        features[missing] = np.nan
        return self._batch | {name: features}  # type: ignore[operator]


class _Frame:
    def __init__(self, batch: Any) -> None:
        self._batch = batch

    @property
    def names(self) -> list:
        return list(self._batch.columns)

    def __len__(self) -> int:
        return len(self._batch)

    def column(self, name: Any) -> Any:
        return self._batch[name]

    def frame(self, names: Sequence[Any]) -> Any:
        return self._batch[list(names)]


class _PandasFrame(_Frame):
    def with_features(self, name: str, features: np.ndarray, missing: np.ndarray) -> Any:
        pandas = import_optional("pandas", extra="clusters", purpose="a pandas DataFrame")
        array = pandas.arrays.ArrowExtensionArray(fixed_size_lists(features, missing))
        return self._batch.assign(**{name: pandas.Series(array, index=self._batch.index)})


class _PolarsFrame(_Frame):
    def with_features(self, name: str, features: np.ndarray, missing: np.ndarray) -> Any:
        polars = import_optional("polars", extra="clusters", purpose="a polars DataFrame")
        dtype = polars.Array(polars.Float32, features.shape[1])
        column = polars.Series(name, features, dtype=dtype)
        if missing.any():
            present = polars.Series(~missing)
            column = polars.select(polars.when(present).then(column).alias(name))[name]
        return self._batch.with_columns(column)


class _ArrowTable:
    """A Table or a RecordBatch."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    @property
    def names(self) -> list:
        return list(self._batch.schema.names)

    def __len__(self) -> int:
        return self._batch.num_rows

    def column(self, name: Any) -> Any:
        values = self._batch.column(name)
        if hasattr(values.type, "index_type"):
            # Of a dictionary in chunks, `to_numpy` returns the last value for null.
            values = values.cast(values.type.value_type)
        if holds_objects(values.type):
            return column_values(values)
        # A Table's column has chunks, and converts itself without this argument.
        is_chunked = hasattr(values, "chunks")
        return values.to_numpy() if is_chunked else values.to_numpy(zero_copy_only=False)

    def frame(self, names: Sequence[Any]) -> Any:
        return table_rows(self._batch, names)

    def with_features(self, name: str, features: np.ndarray, missing: np.ndarray) -> Any:
        array = fixed_size_lists(features, missing)
        pyarrow = import_optional("pyarrow", extra="clusters", purpose="an Arrow table")
        schema = self._batch.schema.append(pyarrow.field(name, array.type))
        return type(self._batch).from_arrays([*self._batch.columns, array], schema=schema)


def fixed_size_lists(features: np.ndarray, missing: np.ndarray) -> Any:
    """Return a matrix as an Arrow array of lists of one length, without copying it.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features), float32
        The matrix, contiguous.
    missing : ndarray of shape (n_rows,), bool
        Which rows are null.

    Returns
    -------
    array : pyarrow.FixedSizeListArray
        Parquet keeps it as a list of floats.
    """
    pyarrow = import_optional(
        "pyarrow", extra="clusters", purpose="a column of features in a DataFrame"
    )
    mask = pyarrow.array(missing) if missing.any() else None
    values = pyarrow.array(features.reshape(-1), pyarrow.float32())
    return pyarrow.FixedSizeListArray.from_arrays(values, features.shape[1], mask=mask)
