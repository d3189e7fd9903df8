"""Any container of rows -> one NumPy array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, MappingView, Sequence, Set
from numbers import Complex, Number, Real
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np

from sk_aft._data._images import is_pil_image
from sk_aft._data._missing import is_all_missing, is_missing, missing_mask
from sk_aft.exceptions import SeveralKindsError


def check_is_collected(X: Any) -> None:
    """Raise if X is not a collection of rows with a length and an order.

    Raises
    ------
    ValueError, TypeError
        If X is None, a single string, a mapping, a set, an iterator, sparse, or not computed yet.
        The message says how to convert it.
    """
    name = type(X).__name__
    if X is None:
        raise ValueError("X is None: give the rows to learn from.")
    if is_sparse(X):
        raise TypeError(
            "Sparse data was passed for X, but dense data is required. "
            "Use '.toarray()' to convert to a dense numpy array."
        )
    if isinstance(X, (str, bytes)):
        raise ValueError(
            "X is a single string: give a list of rows, for example [text], or the path of files "
            "that end in .parquet, .csv or .arrow."
        )
    if isinstance(X, Mapping) and type(X).__module__.startswith("datasets."):
        raise ValueError(f"X is a {name}: choose one of its splits, {list(X)}.")
    if isinstance(X, Mapping):
        raise ValueError(f"X is a {name}: give a DataFrame, for example pandas.DataFrame(X).")
    if isinstance(X, MappingView):
        raise ValueError(f"X is a {name}: make it a list.")
    if isinstance(X, Set):
        raise ValueError(f"X is a {name}, whose rows have no order: give a list.")
    is_indexed = hasattr(X, "__getitem__") or hasattr(X, "to_numpy")
    if hasattr(X, "__array__") or (hasattr(X, "__len__") and is_indexed):
        if hasattr(X, "column_names") and hasattr(X, "to_pandas"):
            raise ValueError(f"X is a {name}: give a DataFrame, for example X.to_pandas().")
        return
    if hasattr(X, "collect"):
        raise ValueError(f"X is a {name}, which is not computed yet: call .collect() first.")
    if isinstance(X, Iterable):
        raise ValueError(
            f"X is a {name}, which is no list of rows: make it a list, or an iterator with "
            "iter(X), which is read as a stream."
        )


def is_sparse(X: Any) -> bool:
    """Whether this is a sparse matrix of SciPy, which is not imported for that."""
    return any(base.__module__.startswith("scipy.sparse") for base in type(X).__mro__)


def is_frame(X: Any) -> bool:
    """Whether this is a DataFrame of any library."""
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def is_category(X: Any) -> bool:
    """Whether this is a column of categories, or a DataFrame with one such column."""
    dtypes = list(X.dtypes) if is_frame(X) else [getattr(X, "dtype", None)]
    if len(dtypes) != 1:
        return False
    name = getattr(dtypes[0], "__name__", type(dtypes[0]).__name__)
    # pandas, polars and Arrow in pandas.
    is_arrow = name == "ArrowDtype" and str(dtypes[0]).startswith("dictionary")
    return is_arrow or name in ("CategoricalDtype", "Categorical", "Enum")


def category_names(X: Any) -> np.ndarray:
    """Return a column of categories as strings, None where one is missing, (n_rows,) objects.

    The name of a category does not depend on the others: 1 and 1.0 are both "1".
    """
    if is_frame(X):
        X = X.iloc[:, 0] if hasattr(X, "iloc") else X.to_series(0)
    categorical = getattr(X, "cat", X)
    if hasattr(categorical, "codes"):  # pandas, which makes floats of ints and None
        categories, codes = categorical.categories, np.asarray(categorical.codes)
    else:  # polars, and Arrow in pandas
        values = X.to_list() if hasattr(X, "to_list") else X.tolist()
        categories = dict.fromkeys(value for value in values if not is_missing(value))
        code_of = {value: code for code, value in enumerate(categories)}
        codes = np.array([code_of.get(value, -1) for value in values], dtype=int)
    return as_objects([*map(category_name, categories), None])[codes]


def category_name(category: Any) -> str:
    """Return the name of one category, which is the same for 1 and 1.0."""
    is_whole = isinstance(category, (float, np.floating)) and category.is_integer()
    return str(int(category)) if is_whole else str(category)


def require_columns(X: Any, names: Sequence[Any]) -> None:
    """Raise ValueError if this is not a DataFrame, or if it lacks some of the columns."""
    check_is_collected(X)
    if not is_frame(X):
        raise ValueError(
            f"X has to be a DataFrame with the columns {list(names)}, got a {type(X).__name__}."
        )
    present = list(X.columns)
    missing = [name for name in names if name not in present]
    if missing:
        which = "column " if len(missing) == 1 else "columns "
        which += ", ".join(map(repr, missing)) + (" is" if len(missing) == 1 else " are")
        raise ValueError(f"{which} missing from X, which has {present}.")
    require_distinct_columns(X)


def require_distinct_columns(X: Any, argument: str = "X") -> None:
    """Raise ValueError if two columns of a DataFrame have the same name."""
    names = list(X.columns)
    if len(set(names)) < len(names):
        name, count = Counter(names).most_common(1)[0]
        raise ValueError(
            f"{argument} has {count} columns named {name!r}: give each a different name."
        )


def select_columns(X: Any, names: Sequence[Any]) -> Any:
    """Return a DataFrame of some columns in this order; raises ValueError if one is missing."""
    require_columns(X, names)
    return X if list(X.columns) == list(names) else X[list(names)]


def rows_of_frame(X: Any, indices: np.ndarray) -> Any:
    """Return some rows of a DataFrame."""
    return X.iloc[indices] if hasattr(X, "iloc") else X[indices]


def to_array(X: Any) -> np.ndarray:
    """Convert any container to a NumPy array without changing its elements.

    Strings become objects, never numbers. Objects that are numbers become floats, and missing
    ones NaN.

    Raises
    ------
    SeveralKindsError
        If the columns of a DataFrame are not all numbers.
    ValueError, TypeError
        If this is not an array of rows.
    """
    if is_frame(X):
        return _frame_to_array(X)
    if isinstance(X, Sequence) and not hasattr(X, "__array__"):
        return _list_to_array(list(X))
    if isinstance(X, np.ma.MaskedArray):
        X = _without_mask(X)
    elif hasattr(X, "detach"):
        X = X.detach().cpu()  # a tensor
        X = X.float() if str(X.dtype) == "torch.bfloat16" else X  # unknown to NumPy
    if not hasattr(X, "__array__") and hasattr(X, "to_numpy"):
        X = X.to_numpy()
    try:
        values = np.asarray(X)
    except (TypeError, ValueError, RuntimeError) as error:
        name = type(X).__name__
        raise ValueError(f"X of type {name} is not an array of rows: {error}") from error
    return _tidy(values)


def _without_mask(X: Any) -> np.ndarray:
    if not np.ma.is_masked(X):
        return X.data
    is_number = X.dtype.kind in "biuf"
    return X.astype(float).filled(np.nan) if is_number else X.astype(object).filled(None)


def _frame_to_array(X: Any) -> np.ndarray:
    require_distinct_columns(X)
    if len(X.columns) == 1 or all(map(_holds_numbers, X.dtypes)):
        return _tidy(np.asarray(X))
    columns = [_column_of_numbers(X, number) for number in range(len(X.columns))]
    return np.column_stack(columns)


def _holds_numbers(dtype: Any) -> bool:
    if hasattr(dtype, "is_numeric"):  # polars
        return dtype.is_numeric() or str(dtype) == "Boolean"
    return getattr(dtype, "kind", None) in ("b", "i", "u", "f")


def _column_of_numbers(X: Any, number: int) -> np.ndarray:
    column = X.iloc[:, number] if hasattr(X, "iloc") else X[:, number]
    values = None if is_category(column) else np.asarray(column)
    if values is not None and values.dtype == object:
        # A column without any value is no reason against a table of numbers.
        values = np.full(len(X), np.nan) if is_all_missing(values) else _as_numbers(values)
    if values is None or values.dtype.kind not in "biuf":
        names = ", ".join(map(str, X.columns))
        raise SeveralKindsError(
            f"X is a DataFrame whose columns ({names}) are not all numbers, for example "
            f"{list(X.columns)[number]!r}: "
        )
    return values


def _list_to_array(X: list) -> np.ndarray:
    if len(X) and type(X[0]).__module__ == "torch":
        X = [np.asarray(tensor.detach().cpu()) for tensor in X]
    first = next((x for x in X if not is_missing(x)), None)
    if isinstance(first, (str, bytes, PurePath)) or is_pil_image(first):
        return as_objects(X)
    if isinstance(first, np.ndarray) and first.ndim >= 2:
        # Of unlike dtypes, uint8 would become floats of another range.
        if all(_is_like(first, x) for x in X):
            return np.stack(X)
        return as_objects(X)
    try:
        array = np.asarray(X)
    except ValueError:
        return as_objects(X)
    # If there are strings, NumPy also turns numbers and None into strings.
    return _tidy(np.asarray(X, dtype=object) if array.dtype.kind in "US" else array)


def _is_like(first: np.ndarray, x: Any) -> bool:
    return isinstance(x, np.ndarray) and (x.shape, x.dtype) == (first.shape, first.dtype)


def _tidy(values: np.ndarray) -> np.ndarray:
    """Strings become objects, and objects that are numbers become numbers.

    One column without any value stays objects: it may be of any kind.
    """
    if values.dtype.kind in "UST":
        values = values.astype(object)
    if values.dtype != object or values.ndim == 0 or values.size == 0:
        return values
    is_table = values.ndim == 2 and values.shape[1] > 1
    if is_all_missing(values):
        return np.full(values.shape, np.nan) if is_table else values
    numbers = _as_numbers(values)
    if numbers is not None:
        return numbers
    if is_table:
        _refuse_table(values)
    return values


def _as_numbers(values: np.ndarray) -> np.ndarray | None:
    """Return objects as floats if all are numbers or missing, otherwise None."""
    types = set(map(type, values.flat))
    if any(issubclass(kind, Complex) and not issubclass(kind, Real) for kind in types):
        raise ValueError("Complex data not supported: rows have to be real numbers.")
    others = {kind for kind in types if not issubclass(kind, (Number, np.bool_))}
    if not others:
        return values.astype(float)
    missing = missing_mask(values)
    if any(kind in others for kind in map(type, values[~missing])):
        return None
    return np.where(missing, np.nan, values).astype(float)


def _refuse_table(values: np.ndarray) -> NoReturn:
    for (row, column), value in np.ndenumerate(values):
        if isinstance(value, (str, bytes)):
            raise ValueError(
                f"X[{row}, {column}] is a string ({value!r}), and strings are neither numbers nor "
                "one text per row: give a DataFrame, such as pandas.DataFrame(X), whose columns of "
                "strings are texts, or make them numbers with X.astype(float)."
            )
        if not isinstance(value, (Number, np.bool_)) and value is not None:
            break
    raise TypeError(
        "X holds objects that are not numbers: every argument must be a string or a "
        "number, an image, or one column of these."
    )


def as_objects(X: list) -> np.ndarray:
    """Return an array of dtype object that holds the elements as they are, (n,)."""
    # Element by element: a single assignment would treat images as arrays and decode them.
    return np.fromiter(X, dtype=object, count=len(X))
