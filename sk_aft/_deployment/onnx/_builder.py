"""Writes the operations of an ONNX graph one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

# Resize with antialiasing needs opset 18, and torch 2.4 writes at most 20.
OPSET = 18
ML = "ai.onnx.ml"
IR_VERSION = 8


class GraphBuilder:
    """A graph under construction; a call appends an operation and returns the name of its output.

    Examples
    --------
    >>> from sk_aft._deployment.onnx._builder import GraphBuilder
    >>> graph = GraphBuilder()
    >>> x = graph.input("x", np.float32, ["batch", 3])
    >>> y = graph("Mul", x, np.float32(2))
    >>> [node.op_type for node in graph.model([y]).graph.node]
    ['Mul']
    """

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._inputs: list[Any] = []

    def input(self, name: str, dtype: Any, shape: Sequence[Any]) -> str:
        """Add an input; names in its shape are dynamic axes."""
        # Objects are strings.
        kind = (
            TensorProto.STRING
            if dtype is object
            else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        )
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def __call__(self, operation: str, *inputs: Any, domain: str = "", **attributes: Any) -> str:
        """Append an operation on names, on numbers or arrays, or on None for an input left out."""
        name = f"prepare/{len(self._nodes)}"
        names = [given if isinstance(given, str) else self._constant(given) for given in inputs]
        node = helper.make_node(operation, names, [name], name=name, domain=domain, **attributes)
        self._nodes.append(node)
        return name

    def _constant(self, value: Any) -> str:
        if value is None:
            return ""
        name = f"prepare/constant/{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    @property
    def is_empty(self) -> bool:
        """Whether no operation was appended."""
        return not self._nodes

    def model(self, outputs: Sequence[str]) -> ModelProto:
        """Return the graph; the types of its outputs are left open."""
        open_outputs = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(
            self._nodes, "prepare", self._inputs, open_outputs, self._constants
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == ML for node in self._nodes):
            opsets.append(helper.make_opsetid(ML, 3))
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
