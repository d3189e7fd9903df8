"""Smaller weights of an exported graph: float16, or int8."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

# Smaller weights than this many numbers do not pay.
_FEWEST_NUMBERS = 256
_FEWEST_WEIGHTS = 1 << 12
_FEWEST_VECTORS = 64
_LARGEST_FLOAT16 = 65504.0
_INT8 = 127
# So that the quantizer does not ask for shapes to be inferred.
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")

Feeds = Iterable[dict[str, np.ndarray]]


def quantized(model: ModelProto, quantize: str | None, rows: Callable[[], Feeds]) -> ModelProto:
    """Return a graph with smaller weights.

    Parameters
    ----------
    model : ModelProto
        The graph.
    quantize : {"float16", "int8"} or None
        Type of the weights.

        - "float16": weights are stored as float16, and converted when the graph is loaded.
        - "int8": so are the vectors of embeddings, with a scale each; linear layers and
          convolutions are computed in int8.
    rows : callable
        Returns inputs from which the ranges of the maps of a convolution are found.

    Returns
    -------
    model : ModelProto
        The graph.
    """
    if quantize is None:
        return model
    if quantize == "float16":
        return _in_float16(model)
    model = _with_int8_vectors(model)
    operations = {node.op_type for node in model.graph.node}
    if "Conv" in operations:
        model = _with_int8_convolutions(model, rows())
    if operations & {"MatMul", "Gemm"}:
        model = _with_int8_products(model)
    return model


def _in_float16(model: ModelProto) -> ModelProto:
    casts = []
    for weights in model.graph.initializer:
        if not _is_large(weights, _FEWEST_NUMBERS):
            continue
        numbers = numpy_helper.to_array(weights)
        if np.abs(numbers).max() > _LARGEST_FLOAT16:
            continue
        name = weights.name
        weights.CopyFrom(numpy_helper.from_array(numbers.astype(np.float16), f"{name}/float16"))
        casts.append(helper.make_node("Cast", [weights.name], [name], to=TensorProto.FLOAT))
    _put_first(model, casts)
    return model


def _with_int8_vectors(model: ModelProto) -> ModelProto:
    """Store each vector of an embedding in int8, with a scale."""
    tables = {weights.name: weights for weights in model.graph.initializer}
    n_uses = {name: 0 for name in tables}
    for node in model.graph.node:
        for name in node.input:
            n_uses[name] = n_uses.get(name, 0) + 1
    nodes = []
    for node in model.graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _is_table(table) or n_uses[table.name] > 1:
            nodes.append(node)
            continue
        vectors = numpy_helper.to_array(table)
        scales = np.abs(vectors).max(axis=1, keepdims=True) / np.float32(_INT8)
        levels = np.rint(vectors / np.where(scales > 0, scales, 1)).astype(np.int8)
        (out,), indices = node.output, node.input[1]
        table.CopyFrom(numpy_helper.from_array(levels, f"{table.name}/int8"))
        model.graph.initializer.append(numpy_helper.from_array(scales, f"{out}/scales"))
        nodes += [
            helper.make_node("Gather", [table.name, indices], [f"{out}/int8"]),
            helper.make_node("Cast", [f"{out}/int8"], [f"{out}/levels"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [f"{out}/scales", indices], [f"{out}/scale"]),
            helper.make_node("Mul", [f"{out}/levels", f"{out}/scale"], [out]),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _with_int8_products(model: ModelProto) -> ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    others = _other_products(model)

    def quantize(before: Path, after: Path) -> None:
        quantize_dynamic(
            before,
            after,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            # Products of 8 bits overflow on processors without VNNI.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=others,
            extra_options={"MatMulConstBOnly": True},
        )

    return _by_files(model, quantize)


def _with_int8_convolutions(model: ModelProto, rows: Feeds) -> ModelProto:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, np.ndarray]] = iter(rows)

        def get_next(self) -> Any:
            return next(self._feeds, None)

    def quantize(before: Path, after: Path) -> None:
        quantize_static(
            before,
            after,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    return _by_files(model, quantize)


def _by_files(model: ModelProto, quantize: Callable[[Path, Path], None]) -> ModelProto:
    mark = model.metadata_props.add()
    mark.key, mark.value = _PREPARED
    with tempfile.TemporaryDirectory() as directory:
        before, after = Path(directory) / "before.onnx", Path(directory) / "after.onnx"
        onnx.save_model(model, before)
        logging.disable(logging.WARNING)  # advice for those who call the quantizer themselves
        try:
            quantize(before, after)
        finally:
            logging.disable(logging.NOTSET)
        model = onnx.load_model(after)
    kept = [entry for entry in model.metadata_props if not entry.key.startswith("onnx.")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model


def _other_products(model: ModelProto) -> list[str]:
    """Return the products to leave as they are: by small matrices, or by stacks of them."""
    weights = {weights.name: weights for weights in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    return [
        node.name
        for node in products
        if (matrix := weights.get(node.input[1])) is not None
        and not (_is_large(matrix, _FEWEST_WEIGHTS) and len(matrix.dims) == 2)
    ]


def _is_large(weights: TensorProto, fewest: int) -> bool:
    return weights.data_type == TensorProto.FLOAT and int(np.prod(weights.dims)) >= fewest


def _is_table(weights: TensorProto) -> bool:
    is_matrix = len(weights.dims) == 2 and weights.dims[0] >= _FEWEST_VECTORS
    return is_matrix and _is_large(weights, _FEWEST_WEIGHTS) and weights.dims[1] >= 8


def _put_first(model: ModelProto, nodes: list[Any]) -> None:
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])
