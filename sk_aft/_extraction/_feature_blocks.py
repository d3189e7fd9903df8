"""Which columns of the features belong to which model, under which name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sk_aft._extraction._reader import Reader


class FeatureBlocks(NamedTuple):
    """Layers of models, and which columns each of them has.

    Parameters
    ----------
    readers : sequence of Reader
        The models and their layers.
    feature_slices : dict of str to slice
        Which columns belong to which layer of which model.
    column_slices : dict of str to slice
        Which features come from which column of a DataFrame.
    """

    readers: Sequence[Reader]
    feature_slices: dict[str, slice]
    column_slices: dict[Any, slice]


@dataclass
class Blocks:
    """Features of several models, one after the other."""

    feature_slices: dict[str, slice] = field(default_factory=dict)
    column_slices: dict[Any, slice] = field(default_factory=dict)
    width: int = 0

    def add(self, widths: Mapping[str, int], column: Any) -> None:
        """Append features of a model, given the width of each of its layers."""
        first = self.width
        for name, width in widths.items():
            columns = slice(self.width, self.width + width)
            self.feature_slices[_unique_name(name, self.feature_slices)] = columns
            self.width = columns.stop
        if column is not None:
            first = self.column_slices.get(column, slice(first, None)).start
            self.column_slices[column] = slice(first, self.width)


def names_of(readers: list[Reader]) -> list[str]:
    """Return different names: the column precedes those that models of several columns share."""
    columns_of = Counter(name for name, _ in {(r.backbone.name, r.column) for r in readers})
    names: list[str] = []
    for reader in readers:
        name = reader.backbone.name
        if columns_of[name] > 1:
            name = f"{_joined(reader.column)}_{name}"
        names.append(_unique_name(name, names))
    return names


def _joined(column: Any) -> str:
    return "_".join(map(str, column)) if isinstance(column, tuple) else str(column)


def _unique_name(name: str, taken: Any) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
