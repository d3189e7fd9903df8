"""The graph of a student: its preparation and its network, joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from sk_aft._data._rows import Rows
from sk_aft._deployment.onnx._inputs import prepared_inputs
from sk_aft._deployment.onnx._network import NetworkOutputs, flat_tensors, network_graph
from sk_aft._deployment.onnx._quantize import quantized
from sk_aft._student._state import StudentState

# Names of the network's weights and operations begin with it, unlike those of columns.
_NETWORK = "network/"
_ROWS_TO_CALIBRATE, _ROWS_PER_CALL = 128, 16


def student_graph(
    student: StudentState, network: NetworkOutputs, rows: Rows, quantize: str | None
) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """Return the graph of a student, and its inputs as `GraphInputs` reads them.

    Parameters
    ----------
    student : StudentState
        A trained student.
    network : NetworkOutputs
        Its network.
    rows : Rows
        Some of its rows. Sizes are taken from them, and for int8 the ranges of a convolution's
        inputs.
    quantize : {"float16", "int8"} or None
        Type of the weights.
    """
    few = student.inputs.transform(rows.take(np.arange(2) % len(rows)))
    prepared = prepared_inputs(student, few)
    model = network_graph(network, few, prepared.names)

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        tensors = student.inputs.transform(rows.take(slice(0, _ROWS_TO_CALIBRATE)))
        for start in range(0, len(tensors), _ROWS_PER_CALL):
            inputs = flat_tensors(tensors, student.module, slice(start, start + _ROWS_PER_CALL))
            yield dict(zip(prepared.names, map(np.asarray, inputs), strict=True))

    model = quantized(model, quantize, feeds)
    model = onnx.compose.add_prefix(model, _NETWORK, rename_inputs=False, rename_outputs=False)
    if not prepared.graph.is_empty:
        raw = {name for spec in prepared.specs for name in spec.get("names", [])}
        links = [name for name in prepared.names if name not in raw]
        before = prepared.graph.model(links)
        model = onnx.compose.merge_models(before, model, [(name, name) for name in links])
    return model, prepared.specs
