"""The kind and columns of a student's rows, and checks that other rows match them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from sk_aft._data._containers import is_frame, select_columns
from sk_aft._data._opened_streams import opened
from sk_aft._data._rows import Rows, as_rows, check_finite
from sk_aft._features import FoundationFeatures

_HOW_TO_FILL = (
    "fill it, for example with preprocessor=make_pipeline(SimpleImputer(), StandardScaler())."
)


@dataclass(frozen=True, eq=False)
class RowSchema:
    """Kind and columns of the rows that a student was trained on.

    Parameters
    ----------
    kind : {"text", "image", "numeric", "category", "frame"}
        The kind of the rows.
    n_features_in : int, optional
        Number of columns; only for numbers and frames.
    feature_names_in : ndarray of str, optional
        Names of the columns, if they are strings.
    columns : list, optional
        Names of the columns of a frame, of any type.
    """

    kind: str
    n_features_in: int | None = None
    feature_names_in: np.ndarray | None = None
    columns: list | None = None


def check_rows(
    X: Any, schema: RowSchema | None, *, owner: str, allow_nan: bool = False
) -> tuple[Rows, RowSchema]:
    """Recognise and check the rows of a student.

    Parameters
    ----------
    X : FoundationFeatures, or array-like, list, Series or DataFrame
        Rows; those of `FoundationFeatures` were already checked by the extractor.
    schema : RowSchema or None
        What the rows have to match; None if a training starts with them.
    owner : str
        Class of the estimator, for messages.
    allow_nan : bool, default=False
        Whether rows may be missing, and numbers NaN or infinite, because the user's own
        preprocessor handles them.

    Returns
    -------
    rows : Rows
        The rows.
    schema : RowSchema
        Their kind and columns.

    Raises
    ------
    ValueError
        If the rows cannot be read, or do not match those that the student was trained on.
    """
    X = opened(X)
    given = X.inputs if isinstance(X, FoundationFeatures) else X
    if schema is not None and schema.kind == "frame":
        return _like_frame(X, given, schema.columns), schema
    if isinstance(X, FoundationFeatures):
        rows = X._rows if schema is None else X._rows.read_as(schema.kind)
    else:
        kind = None if schema is None else schema.kind
        rows = as_rows(X, kind=kind, frames=schema is None, missing=allow_nan)
    if len(rows) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    if not allow_nan:
        rows.check_complete()
    if rows.kind in ("text", "image"):
        if schema is None and not allow_nan:
            _check_files(rows)
        return rows, schema or RowSchema(rows.kind)
    checker = _checker_class(owner)()
    if schema is not None:
        vars(checker).update(_attributes(schema))
    table = given if is_frame(given) else rows.values
    validate_data(checker, table, reset=schema is None, skip_check_array=True)
    if rows.kind == "numeric":
        check_array(rows.values, ensure_all_finite=False)
        if not allow_nan:
            columns = list(given.columns) if is_frame(given) else None
            check_finite(rows.values, columns=columns, advice=_HOW_TO_FILL)
    if schema is None:
        schema = RowSchema(
            rows.kind,
            checker.n_features_in_,
            getattr(checker, "feature_names_in_", None),
            list(given.columns) if rows.kind == "frame" else None,
        )
    return rows, schema


def _check_files(rows: Rows) -> None:
    """Raise if rows that were recognised as paths do not exist: they may be texts."""
    for index in range(len(rows) if rows.holds_strings and rows.kind == "image" else 0):
        path = rows.values[index]
        if path is not None and not os.path.exists(path):
            raise ValueError(
                f"Row {rows.position(index)} ({path!r}) is not a readable image: there is no such "
                "file. Strings that all end like image files are read as paths; if these are "
                "texts, set preprocessor=sk_aft.preprocessing.SubwordTokenizer()."
            )


def _like_frame(X: Any, given: Any, columns: Any) -> Rows:
    """Return the columns of a DataFrame that a student was trained on."""
    frame = select_columns(given, columns)
    if isinstance(X, FoundationFeatures) and X._rows.kind == "frame":
        # What a column was recognised as does not depend on the order of the columns.
        return X._rows if X._rows.values is frame else replace(X._rows, values=frame)
    return as_rows(frame, kind="frame")


@lru_cache(maxsize=16)
def _checker_class(owner: str) -> type[BaseEstimator]:
    """Return an estimator class of this name, for scikit-learn's checks to set attributes on."""
    return type(owner, (BaseEstimator,), {})


def _attributes(schema: RowSchema) -> dict[str, Any]:
    attributes: dict[str, Any] = {"n_features_in_": schema.n_features_in}
    if schema.feature_names_in is not None:
        attributes["feature_names_in_"] = schema.feature_names_in
    return attributes
