"""What arrays of pyarrow hold: texts, images, numbers or lists of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sk_aft._optional import import_optional

_PURPOSE = "rows from files of tables"


def column_values(column: Any) -> list:
    """Return the texts or images of an array of pyarrow; an image as the bytes of its file."""
    values = column.to_pylist()
    return [file_of(value) for value in values] if is_image_struct(column.type) else values


def are_number_lists(kinds: Sequence[Any]) -> bool:
    """Return whether these are the types of one column of lists of numbers, such as embeddings."""
    types = import_optional("pyarrow", extra="streams", purpose=_PURPOSE).types
    are_lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return (
        len(kinds) == 1
        and any(is_type(kinds[0]) for is_type in are_lists)
        and are_numbers([kinds[0].value_type])
    )


def numbers_of_lists(column: Any) -> np.ndarray:
    """Return an array of pyarrow that holds lists of numbers as a table, (n, p)."""
    if not len(column):
        return np.empty((0, 0))
    lists = column.to_pandas().tolist()
    lengths = {None if row is None else len(row) for row in lists}
    if len(lengths) > 1 or None in lengths:
        raise ValueError(
            "X has one column of lists of numbers, which are the rows of a table if all of them "
            "have the same length and none is missing."
        )
    return np.stack(lists)


def missing_values(column: Any) -> np.ndarray:
    """Return which texts or images of an array of pyarrow are missing, (n,) bool."""
    compute = import_optional("pyarrow.compute", extra="streams", purpose=_PURPOSE)
    if not is_image_struct(column.type):
        return np.asarray(column.is_null(), dtype=bool)
    contents = [compute.struct_field(column, name).is_null() for name in ("bytes", "path")]
    return np.asarray(compute.and_(*contents), dtype=bool)


def holds_objects(kind: Any) -> bool:
    """Return whether a type of pyarrow is that of texts, of bytes, or of images."""
    types = import_optional("pyarrow", extra="streams", purpose=_PURPOSE).types
    are_files = types.is_binary(kind) or types.is_large_binary(kind) or is_image_struct(kind)
    return are_files or is_string(kind)


def is_string(kind: Any) -> bool:
    """Return whether a type of pyarrow is that of texts."""
    types = import_optional("pyarrow", extra="streams", purpose=_PURPOSE).types
    return types.is_string(kind) or types.is_large_string(kind)


def is_image_struct(kind: Any) -> bool:
    """Return whether a type of pyarrow is that in which Hugging Face keeps images."""
    types = import_optional("pyarrow", extra="streams", purpose=_PURPOSE).types
    return types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def are_numbers(kinds: Iterable[Any]) -> bool:
    """Return whether all of some types of pyarrow are those of numbers."""
    types = import_optional("pyarrow", extra="streams", purpose=_PURPOSE).types
    checks = (types.is_integer, types.is_floating, types.is_boolean)
    return all(any(is_type(kind) for is_type in checks) for kind in kinds)


def file_of(value: Any) -> Any:
    """Return the bytes or the path of an image that Hugging Face has not decoded."""
    if not (isinstance(value, Mapping) and set(value) == {"bytes", "path"}):
        return value
    return value["path"] if value["bytes"] is None else value["bytes"]
