"""The graph of a student: its preparation and its network, joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from sk_aft._data._rows import Rows
from sk_aft._deployment.onnx._inputs import prepared_inputs
from sk_aft._deployment.onnx._network import NetworkOutputs, network_graph
from sk_aft._deployment.onnx._quantize import quantized
from sk_aft._student._state import StudentState


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
        Some of its rows, from which sizes are taken.
    quantize : {"float16", "int8"} or None
        Type of the weights.
    """
    few = student.inputs.transform(rows.take(np.arange(2) % len(rows)))
    prepared = prepared_inputs(student, few)
    model = quantized(network_graph(network, few, prepared.names), quantize)
    if not prepared.graph.is_empty:
        raw = {name for spec in prepared.specs for name in spec.get("names", [])}
        links = [name for name in prepared.names if name not in raw]
        before = prepared.graph.model(links)
        model = onnx.compose.merge_models(before, model, [(name, name) for name in links])
    return model, prepared.specs
