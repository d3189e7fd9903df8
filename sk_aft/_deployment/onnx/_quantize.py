"""Smaller weights of an exported graph: float16, or int8."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

# Smaller types are not worth it for fewer numbers.
_FEWEST_NUMBERS = 256
_FEWEST_NUMBERS_A_ROW = 8
_FEWEST_WEIGHTS = 1 << 12  # of a matrix
_LARGEST_FLOAT16 = 65504.0
_INT8 = 127
# So that the quantizer does not ask for shapes to be inferred.
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")


def quantized(model: ModelProto, quantize: str | None) -> ModelProto:
    """Return a graph with smaller weights.

    Parameters
    ----------
    model : ModelProto
        The graph.
    quantize : {"float16", "int8"} or None
        Type of the weights.

        - "float16": weights are stored as float16, and converted when the graph is loaded.
        - "int8": large linear layers are computed in int8. Vectors of embeddings are stored in
          int8 with a scale each, and the weights of convolutions as float16.

    Returns
    -------
    model : ModelProto
        The graph.

    Notes
    -----
    Convolutions are not worth it in int8: an EfficientNet-Lite0 of 8 blocks became slower and lost
    9 to 18 points of accuracy in three runs; 1 or 2 points if weights alone were stored in int8.
    """
    if quantize is None:
        return model
    names = [weights.name for weights in model.graph.initializer]
    if quantize == "float16":
        return _in_float16(model, names)
    convolutions = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    return _with_int8_products(_with_int8_vectors(_in_float16(model, convolutions)))


def _in_float16(model: ModelProto, names: Collection[str]) -> ModelProto:
    casts = []
    for weights in model.graph.initializer:
        name = weights.name
        if name not in names or not _is_large(weights, _FEWEST_NUMBERS):
            continue
        numbers = numpy_helper.to_array(weights)
        if np.abs(numbers).max() <= _LARGEST_FLOAT16:
            weights.CopyFrom(numpy_helper.from_array(numbers.astype(np.float16), f"{name}/float16"))
            casts.append(
                helper.make_node("Cast", [weights.name], [name], to=TensorProto.FLOAT, name=name)
            )
    _replace_nodes(model, [*casts, *model.graph.node])
    return model


def _with_int8_vectors(model: ModelProto) -> ModelProto:
    """Store each vector of an embedding in int8, with a scale."""
    weights = {weights.name: weights for weights in model.graph.initializer}
    n_uses = Counter(_names_read(model.graph))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        table = weights.get(node.input[0]) if node.op_type == "Gather" else None
        if table is not None and _is_table(table) and n_uses[table.name] == 1:
            scales = _to_int8(table, f"{node.name}/int8")
            model.graph.initializer.append(scales)
            nodes += _looked_up(node, table.name, scales.name)
        else:
            nodes.append(node)
    _replace_nodes(model, nodes)
    return model


def _names_read(graph: GraphProto) -> Iterator[str]:
    """Yield what the nodes of a graph read, with those in the bodies of its loops."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _names_read(attribute.g)


def _to_int8(table: TensorProto, name: str) -> TensorProto:
    """Replace vectors by whole numbers, and return the scale of each."""
    numbers = numpy_helper.to_array(table)
    scales = np.abs(numbers).max(axis=1, keepdims=True) / np.float32(_INT8)
    levels = np.rint(numbers / np.where(scales > 0, scales, 1)).astype(np.int8)
    table.CopyFrom(numpy_helper.from_array(levels, name))
    return numpy_helper.from_array(scales, f"{name}/scales")


def _looked_up(node: NodeProto, levels: str, scales: str) -> list[NodeProto]:
    (output,), indices = node.output, node.input[1]
    return [
        helper.make_node("Gather", [levels, indices], [f"{output}/int8"]),
        helper.make_node("Cast", [f"{output}/int8"], [f"{output}/levels"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [scales, indices], [f"{output}/scales"]),
        helper.make_node("Mul", [f"{output}/levels", f"{output}/scales"], [output]),
    ]


def _with_int8_products(model: ModelProto) -> ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    weights = {weights.name: weights for weights in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    others = [node.name for node in products if not _is_matrix(weights.get(node.input[1]))]
    if len(others) == len(products):
        return model

    def quantize(before: Path, after: Path) -> None:
        quantize_dynamic(
            before,
            after,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            # Sums of products of 8 bits overflow on processors without VNNI.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=others,
            extra_options={"MatMulConstBOnly": True},
        )

    return _by_files(model, quantize)


def _by_files(model: ModelProto, quantize: Callable[[Path, Path], None]) -> ModelProto:
    mark = model.metadata_props.add()
    mark.key, mark.value = _PREPARED
    with tempfile.TemporaryDirectory() as directory:
        before, after = Path(directory) / "before.onnx", Path(directory) / "after.onnx"
        onnx.save_model(model, before)
        disabled = logging.root.manager.disable
        # Advice for those who call the quantizer themselves.
        logging.disable(max(disabled, logging.WARNING))
        try:
            quantize(before, after)
        finally:
            logging.disable(disabled)
        model = onnx.load_model(after)
    kept = [entry for entry in model.metadata_props if not entry.key.startswith("onnx.")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model


def _is_large(weights: TensorProto, fewest: int) -> bool:
    return weights.data_type == TensorProto.FLOAT and int(np.prod(weights.dims)) >= fewest


def _is_matrix(weights: TensorProto | None) -> bool:
    return weights is not None and len(weights.dims) == 2 and _is_large(weights, _FEWEST_WEIGHTS)


def _is_table(weights: TensorProto) -> bool:
    """Return whether weights are vectors that are wide enough for a scale each."""
    is_wide = len(weights.dims) == 2 and weights.dims[1] >= _FEWEST_NUMBERS_A_ROW
    return is_wide and _is_large(weights, _FEWEST_NUMBERS)


def _replace_nodes(model: ModelProto, nodes: Sequence[NodeProto]) -> None:
    kept = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)
