"""Recognises labelled rows by their content, in whatever container they come again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sk_aft._data._rows import Rows
from sk_aft.store import row_digests


def content_keys(rows: Rows, columns: Sequence[Any] | None = None, dtype: Any = float) -> list:
    """Return a key of each row's content; equal rows have equal keys.

    Numbers of equal value are equal whatever their dtype, and so are texts, categories and dates of
    pandas, polars and NumPy.

    Parameters
    ----------
    rows : Rows
        The rows.
    columns : sequence, optional
        The columns of a DataFrame that count; default: all.
    dtype : type, default=float
        Numbers are rounded to it.

    Returns
    -------
    keys : list of bytes
        One for each row.
    """
    if rows.kind == "frame":
        names = list(rows.values.columns) if columns is None else list(columns)
        parts = [_column_parts(rows, name, dtype) for name in names]
    elif rows.kind == "numeric":
        parts = [_number_parts(rows.values, dtype)]
    else:
        return row_digests(rows, on_error=lambda row, error: None)
    return [xxhash.xxh3_128_digest(b"".join(row)) for row in zip(*parts, strict=True)]


def groups_of(keys: Sequence[bytes], groups: Any) -> np.ndarray:
    """Return numbers of groups, where rows of equal content are in one.

    Parameters
    ----------
    keys : sequence of bytes
        The content of each row.
    groups : array-like of shape (n_rows,), or None
        The groups that are known.

    Returns
    -------
    numbers : ndarray of shape (n_rows,)
        From 0. Groups that share a row of equal content are one.
    """
    of_key = np.unique(np.asarray(keys, dtype=object).astype("S16"), return_inverse=True)[1]
    if groups is None:
        return of_key
    of_group = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    size = len(keys)
    edges = coo_array((np.ones(size), (of_group, size + of_key)), shape=(2 * size, 2 * size))
    _, component = connected_components(edges, directed=False)
    return np.unique(component[of_group], return_inverse=True)[1]


def means_of_equal(values: np.ndarray, keys: Sequence[bytes]) -> np.ndarray:
    """Return the mean of the values of each row and of its copies; NaN if none has a value."""
    copies: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        copies.setdefault(key, []).append(row)
    means = values.copy()
    for several in copies.values():
        known = [row for row in several if not np.isnan(values[row, 0])]
        if len(several) > 1 and known:
            means[several] = values[known].mean(axis=0)
    return means


def _number_parts(numbers: np.ndarray, dtype: Any) -> list[bytes]:
    values = np.ascontiguousarray(numbers, dtype=dtype) + 0.0  # -0.0 becomes 0.0
    return [row.tobytes() for row in values]


def _column_parts(rows: Rows, name: Any, dtype: Any) -> list[bytes]:
    values = np.asarray(rows.values[name])
    if values.dtype.kind in "mM":
        return _number_parts(values.astype(f"{values.dtype.kind}8[ns]").astype(np.int64), dtype)
    if values.dtype.kind in "biuf":
        return _number_parts(values, dtype)
    recognised = rows.column(name, missing=True)
    if recognised.kind == "numeric":
        return _number_parts(recognised.values, dtype)
    if recognised.kind == "category" or recognised.holds_strings:
        recognised = recognised.read_as("text")
    return row_digests(recognised, on_error=lambda row, error: None)
