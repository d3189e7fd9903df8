"""What the first rows decide: the kind that each model reads, its layers and their widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sk_aft._data._rows import Rows
from sk_aft._extraction._door import check_complete, columns_of
from sk_aft._extraction._feature_blocks import Blocks, FeatureBlocks, names_of
from sk_aft._extraction._reader import Reader
from sk_aft._extraction._source import FeatureSource
from sk_aft.backbones._base import ModelFaultError
from sk_aft.backbones._layers import layers_to_store
from sk_aft.exceptions import MissingFeaturesError

# The first row tells the width of a model's features. If rows may be broken, more are tried.
_ROWS_TRIED_FOR_WIDTH = 100


class FittedReaders(NamedTuple):
    """Models that have seen rows.

    Parameters
    ----------
    readers : list of Reader
        The models, and what each reads.
    names : list of str
        Their names, which differ.
    shown : Blocks
        Which columns of the features belong to which model.
    stored : Blocks
        The same, with the layers that only the teacher's features have.
    float_ranges : dict
        The range of the floats in each column of images.
    """

    readers: list[Reader]
    names: list[str]
    shown: Blocks
    stored: Blocks
    float_ranges: dict[Any, Any]

    @property
    def teacher(self) -> FeatureBlocks | None:
        """All layers that are stored, if the features are only some of them."""
        if self.stored == self.shown:
            return None
        whole = [reader._replace(shown=slice(None)) for reader in self.readers]
        return FeatureBlocks(whole, self.stored.feature_slices, self.stored.column_slices)


def fitted_readers(
    source: FeatureSource, rows: Rows, layers: Any, names: Sequence[str] | None
) -> FittedReaders:
    """Return models for rows such as these.

    Parameters
    ----------
    source : FeatureSource
        The models, and how to run them.
    rows : Rows
        What they read.
    layers : {"last", "auto"} or list of int
        Which layers give features.
    names : sequence of str or None
        Names of the columns of the rows, if they have names.
    """
    readers = [_of_rows(reader, rows, layers) for reader in source.readers]
    model_names = names_of(readers)
    float_ranges = {}
    shown, stored = Blocks(), Blocks()
    for number, (reader, name) in enumerate(zip(readers, model_names, strict=True)):
        backbone, column = reader.backbone, reader.column
        read = reader.rows(rows)
        check_complete(read, source.on_error, column)
        if read.kind == "image":
            float_ranges[column] = read.float_range
        reader = reader._replace(kind=read.kind)
        backbone.check_rows(read, names if column is None else columns_of(column))
        widths = _widths(source._replace(readers=[reader]), name, rows)
        stored.add(widths, column)
        if reader.layers and isinstance(layers, str) and layers == "last":
            last = widths.popitem()
            reader = reader._replace(shown=slice(sum(widths.values()), None))
            widths = dict([last])
        shown.add(widths, column)
        readers[number] = reader
    return FittedReaders(readers, model_names, shown, stored, float_ranges)


def _of_rows(reader: Reader, rows: Rows, layers: Any) -> Reader:
    """Return the part of a model that reads such rows, and its layers."""
    backbone = reader.backbone.of_kind(reader.rows(rows).kind)
    return reader._replace(backbone=backbone, layers=layers_to_store(backbone, layers))


def _widths(source: FeatureSource, name: str, rows: Rows) -> dict[str, int]:
    """Return the width of each layer of one model that is stored, by its name."""
    (reader,) = source.readers
    backbone, widths = reader.backbone, {name: reader.backbone.n_features_out}
    if reader.layers:
        last = widths.pop(name)
        for layer in reader.layers:
            if layer == backbone.n_layers:
                widths[name] = last
            else:
                widths[f"{name}_layer{layer}"] = backbone.layer_width(layer)
    known = {key: width for key, width in widths.items() if width is not None}
    if len(known) == len(widths):
        return known
    rest = _width(source, rows) - sum(known.values())
    return {key: rest if width is None else width for key, width in widths.items()}


def _width(source: FeatureSource, rows: Rows) -> int:
    """Run a model to find the width of what is stored of it."""
    n_tried = 1 if source.on_error == "raise" else min(len(rows), _ROWS_TRIED_FOR_WIDTH)
    source = source._replace(verbose=0, on_error="raise")
    for row in range(n_tried):
        try:
            # Through the store, because the row is needed there anyway.
            return source.compute(rows[row : row + 1])[0].matrix.width
        except ModelFaultError:
            raise
        except MissingFeaturesError:
            source.compute(rows)  # this raises, and counts all rows that are missing
            raise
        except ValueError:
            continue
    # This raises; the other rows tell whether the first is to blame.
    return source.compute(rows[:_ROWS_TRIED_FOR_WIDTH])[0].matrix.width
