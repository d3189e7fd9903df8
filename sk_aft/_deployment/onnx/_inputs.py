"""The inputs of a student's graph, and the operations that prepare them for the network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sk_aft._data._pixels import UNSCALED
from sk_aft._data._tensors import InputTensors
from sk_aft._deployment._tokenizer_files import tokenizer_files
from sk_aft._deployment.onnx._builder import GraphBuilder
from sk_aft._deployment.onnx._images import (
    is_read_as_8_bit,
    resized_and_cropped,
    resized_images,
)
from sk_aft._deployment.onnx._network import parts_of, resizes_itself
from sk_aft._deployment.onnx._tables import (
    encoded_categories,
    encodes_categories,
    fills_numbers,
    scaled_numbers,
    scales_numbers,
)
from sk_aft._student._state import StudentState
from sk_aft.preprocessing import ColumnPreprocessor, ImageResizer, SubwordTokenizer
from sk_aft.serving._graph_inputs import MISSING

_OUTPUTS = ("probabilities", "predictions", "features")
# What the names of weights and of results in a graph begin with; no input may be called so.
_INTERNAL = ("network.", "prepare/", "onnx::", "/")


@dataclass
class PreparedInputs:
    """What a graph begins with.

    Parameters
    ----------
    graph : GraphBuilder
        The operations before the network.
    specs : list of dict
        The inputs, as `GraphInputs` reads them.
    names : list of str
        What the tensors of the network are called, in their order: inputs of the graph, or
        outputs of the operations.
    """

    graph: GraphBuilder = field(default_factory=GraphBuilder)
    specs: list[dict[str, Any]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=lambda: set(_OUTPUTS))

    def describe(self, kind: str, column: Any, **others: Any) -> dict[str, Any]:
        """Add an input; its name is that of its column, or ``default``."""
        default = others.pop("default", kind)
        name = self._free(default if column is None else str(column))
        spec = {"name": name, "kind": kind, "column": column, **others}
        self.specs.append(spec)
        return spec

    def add_names(self, spec: dict[str, Any], first: str, second: str) -> None:
        """Name the two tensors of an input of sequences or of sparse rows."""
        prefix = "" if spec["column"] is None else f"{spec['name']}."
        spec["names"] = [self._free(prefix + name) for name in (first, second)]
        self.names += spec["names"]

    def _free(self, name: str) -> str:
        if name.startswith(_INTERNAL):
            name = f"_{name}"
        while not name or name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def prepared_inputs(student: StudentState, tensors: InputTensors) -> PreparedInputs:
    """Return the inputs of a student's graph.

    The graph begins with raw rows if it can do all that the preprocessor does; otherwise with the
    inputs of the network.

    Parameters
    ----------
    student : StudentState
        A trained student.
    tensors : InputTensors
        Some of its rows.

    Raises
    ------
    ValueError
        If a column has a name that is neither a string nor a number.
    """
    preprocessor = student.inputs.preprocessor
    kind = student.schema.kind
    prepared = PreparedInputs()
    if isinstance(preprocessor, ColumnPreprocessor):
        _check_names(preprocessor.kinds_)
        steps = preprocessor.transformers_
        if all(_is_inside(preprocessor.kinds_[columns[0]], step) for _, step, columns in steps):
            _add_columns(prepared, preprocessor)
            return prepared
    elif kind != "frame" and _is_inside(kind, preprocessor):
        _add_rows(prepared, student, kind)
        return prepared
    _add_network_inputs(prepared, student, tensors)
    return prepared


def _is_inside(kind: str, step: Any) -> bool:
    """Return whether the graph can do what a preprocessor of rows of a kind does."""
    if kind == "numeric":
        return step is not None and scales_numbers(step)
    if kind == "category":
        return encodes_categories(step)
    return type(step) is {"text": SubwordTokenizer, "image": ImageResizer}[kind]


def _check_names(columns: Iterable[Any]) -> None:
    for column in columns:
        if not isinstance(column, (str, int, float)):
            raise ValueError(
                f"The column {column!r} cannot be an input of an ONNX graph: names of columns have "
                "to be strings or numbers."
            )


def _add_rows(prepared: PreparedInputs, student: StudentState, kind: str) -> None:
    preprocessor, graph = student.inputs.preprocessor, prepared.graph
    if kind == "text":
        _add_text(prepared, None, preprocessor)
    elif kind == "image":
        images = _add_image(prepared, None, preprocessor)
        own = resizes_itself(student.module)
        if own is not None and own.geometry.size != preprocessor.size_:
            images = resized_and_cropped(graph, own.geometry, images, (0.0, 1.0))
        prepared.names.append(images)
    elif kind == "numeric":
        spec = prepared.describe(
            "numeric", None, default="numbers", allows_nan=fills_numbers(preprocessor)
        )
        width = student.schema.n_features_in
        numbers = graph.input(spec["name"], np.float64, ["batch", width])
        prepared.names.append(scaled_numbers(graph, preprocessor, numbers))
    else:
        name = _add_category(prepared, None)
        prepared.names.append(encoded_categories(graph, preprocessor, [name]))


def _add_columns(prepared: PreparedInputs, preprocessor: ColumnPreprocessor) -> None:
    graph = prepared.graph
    parts: dict[str, str] = {}
    files = {id(tokenizer): file for file, tokenizer in tokenizer_files(preprocessor).items()}
    for name, step, columns in preprocessor.transformers_:
        kind = preprocessor.kinds_[columns[0]]
        if kind == "text":
            _add_text(prepared, columns[0], step, files[id(step)])
            continue
        if kind == "image":
            part = _add_image(prepared, columns[0], step)
        elif kind == "numeric":
            part = scaled_numbers(graph, step, _add_numbers(prepared, step, columns))
        else:
            names = [_add_category(prepared, column) for column in columns]
            part = encoded_categories(graph, step, names)
        if name in parts:  # numbers, followed by categories
            place = prepared.names.index(parts[name])
            part = graph("Concat", parts[name], part, axis=1)
            prepared.names[place] = part
        else:
            prepared.names.append(part)
        parts[name] = part


def _add_text(
    prepared: PreparedInputs,
    column: Any,
    tokenizer: SubwordTokenizer,
    file: str = "tokenizer.json",
) -> None:
    spec = prepared.describe(
        "text", column, tokenizer=file, max_length=int(tokenizer.max_length), default="text"
    )
    prepared.add_names(spec, "tokens", "lengths")


def _add_image(prepared: PreparedInputs, column: Any, resizer: ImageResizer) -> str:
    graph, is_8_bit = prepared.graph, None
    dtype = "uint8" if is_read_as_8_bit(resizer) else "float32"
    spec = prepared.describe(
        "image",
        column,
        default="images",
        dtype=dtype,
        n_channels=int(resizer.n_channels_),
        size=list(map(int, resizer.size_)) if resizer.geometry_.crop_fraction == 1 else None,
        float_range=resizer.float_range_,
        whole_range=resizer.whole_range_,
    )
    name = spec["name"]
    axes = ["batch", f"{name} height", f"{name} width", spec["n_channels"]]
    images = graph.input(name, dtype, axes)
    if dtype == "float32" and resizer.float_range_ not in UNSCALED:
        spec["is_8_bit"] = prepared._free(f"{name}.is_8_bit")
        is_8_bit = graph.input(spec["is_8_bit"], np.bool_, ["batch"])
    return resized_images(graph, resizer, images, is_8_bit)


def _add_numbers(prepared: PreparedInputs, step: Any, columns: tuple) -> str:
    graph, names = prepared.graph, []
    for column in columns:
        spec = prepared.describe("numeric", column, allows_nan=fills_numbers(step))
        number = graph.input(spec["name"], np.float64, ["batch"])
        names.append(graph("Unsqueeze", number, [1]))
    return graph("Concat", *names, axis=1)


def _add_category(prepared: PreparedInputs, column: Any) -> str:
    spec = prepared.describe("category", column, default="categories", missing=MISSING)
    return prepared.graph.input(spec["name"], object, ["batch"])


def _add_network_inputs(
    prepared: PreparedInputs, student: StudentState, tensors: InputTensors
) -> None:
    for part in parts_of(tensors):
        if part.kind == "array":
            of_part: Any = tensors if part.name is None else tensors.parts[part.name]  # type: ignore[attr-defined]
            _add_array(prepared, student, part.name, of_part.take(slice(0, 1), torch.device("cpu")))
            continue
        spec = prepared.describe(part.kind, part.name, preprocessed=True)
        names = {"sequence": ("tokens", "lengths"), "sparse": ("columns", "values")}[part.kind]
        prepared.add_names(spec, *names)


def _add_array(prepared: PreparedInputs, student: StudentState, part: Any, row: Any) -> None:
    shape, dtype = list(row.shape[1:]), str(row.dtype).removeprefix("torch.")
    spec = prepared.describe(
        "array", part, default="inputs", preprocessed=True, shape=shape, dtype=dtype
    )
    name, own = spec["name"], resizes_itself(student.module)
    if own is not None and own.geometry.size != tuple(shape[1:]):
        images = prepared.graph.input(name, dtype, ["batch", *shape])
        name = resized_and_cropped(prepared.graph, own.geometry, images, (0.0, 1.0))
    prepared.names.append(name)
