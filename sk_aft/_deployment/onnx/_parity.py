"""Compares an exported graph, as it is served, with the student in PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, r2_score

from sk_aft._data._rows import Rows
from sk_aft._data._tensors import InputTensors, PartTensors, SequenceTensors
from sk_aft._data._texts import TRUNCATION
from sk_aft._deployment.onnx._network import NetworkOutputs
from sk_aft._student._prediction import network_outputs
from sk_aft._student._state import StudentState
from sk_aft._student._targets import NumericTargets
from sk_aft.serving._graph_inputs import GraphInputs
from sk_aft.serving._onnx import OnnxNetwork

LARGEST_DIFFERENCE = 1e-4
# Where the graph resizes images of 8 bits, some pixels lie so close to a half that errors of
# rounding decide whether they are one level higher.
LARGEST_DIFFERENCE_OF_RESIZED = 1e-3
_CPU = torch.device("cpu")
_ROWS_COMPARED = 32
_BATCH_SIZE = 128


def compared(
    student: StudentState,
    network: NetworkOutputs,
    served: OnnxNetwork,
    inputs: GraphInputs,
    *,
    rows: Rows,
    labels: Any,
) -> dict[str, Any]:
    """Return how the outputs of a graph differ from those of PyTorch.

    Parameters
    ----------
    student : StudentState
        The student.
    network : NetworkOutputs
        Its network in PyTorch.
    served : OnnxNetwork
        The graph.
    inputs : GraphInputs
        Makes the graph's inputs.
    rows : Rows
        Rows; at most 32 of them are compared.
    labels : array-like or None
        True labels, for a score on all rows.

    Returns
    -------
    found : dict
        ``n_rows``; ``largest_difference`` of each output: of probabilities, of predictions in
        standard deviations of the targets, and of features relative to their norm;
        ``largest_allowed``, which holds for graphs that are not quantized; of classifiers
        ``equal_predictions``, a fraction of the rows; and with labels ``accuracy`` or ``r2`` of
        "onnx" and "torch" on ``n_rows_scored`` rows.
    """
    places = np.unique(np.linspace(0, len(rows) - 1, _ROWS_COMPARED).astype(int))
    some = rows
    if labels is None:
        some, places = rows.take(places), np.arange(len(places))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", TRUNCATION)
        expected = _outputs_of_torch(student, network, some)
        found, is_resized = _outputs_of_graph(student, served, inputs, some)
    first, features = ((a[places], b[places]) for a, b in zip(expected, found, strict=True))
    report: dict[str, Any] = {
        "n_rows": len(places),
        "largest_difference": {
            served.names[0]: float(np.abs(first[1] - first[0]).max()),
            served.names[1]: _relative_difference(*features),
        },
        "largest_allowed": LARGEST_DIFFERENCE_OF_RESIZED if is_resized else LARGEST_DIFFERENCE,
    }
    is_classifier = student.targets.needs_classes
    if is_classifier:
        one, other = (outputs.argmax(axis=1) for outputs in first)
        report["equal_predictions"] = float((one == other).mean())
    if labels is not None:
        score = accuracy_score if is_classifier else r2_score
        report["n_rows_scored"] = len(some)
        report["accuracy" if is_classifier else "r2"] = {
            name: float(score(labels, _predictions(student, outputs[0])))
            for name, outputs in (("onnx", found), ("torch", expected))
        }
    return report


def _relative_difference(expected: np.ndarray, found: np.ndarray) -> float:
    norm = np.linalg.norm(expected, axis=1)
    difference = np.linalg.norm(found - expected, axis=1)
    return float((difference / np.where(norm > 0, norm, 1)).max())


def _predictions(student: StudentState, outputs: np.ndarray) -> np.ndarray:
    targets = student.targets
    return targets.original(outputs.argmax(axis=1) if targets.needs_classes else outputs)


def _outputs_of_torch(
    student: StudentState, network: NetworkOutputs, rows: Rows
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (of a regressor standardised predictions), and features."""

    def infer(inputs: Any) -> tuple[torch.Tensor, None]:
        return torch.cat(network.outputs(inputs), dim=1), None  # both in the order of the rows

    pieces = network_outputs(rows, student.inputs, infer, batch_size=_BATCH_SIZE, device=_CPU)
    both = torch.cat(list(pieces)).double()
    first, features = both[:, : student.n_outputs], both[:, student.n_outputs :]
    first = first.softmax(dim=1) if student.targets.needs_classes else first
    return first.numpy(), features.numpy()


def _outputs_of_graph(
    student: StudentState, served: OnnxNetwork, inputs: GraphInputs, rows: Rows
) -> tuple[tuple[np.ndarray, np.ndarray], bool]:
    """Return what `_outputs_of_torch` does, and whether images of 8 bits were resized."""
    specs = served.metadata["inputs"]
    order, pieces, is_resized = [], [], False
    for indices, feeds in inputs.batches(preprocessed(rows, student, specs)):
        order.append(indices)
        pieces.append(served(feeds))
        is_resized |= any(_resizes_8_bit(spec, feeds) for spec in specs)
    places = np.argsort(np.concatenate(order))
    first, features = (
        np.concatenate([piece[name] for piece in pieces])[places] for name in served.names
    )
    if isinstance(student.targets, NumericTargets):
        scaler = student.targets.scaler
        first = (first - scaler.mean_) / scaler.scale_
    return (first, features), is_resized


def _resizes_8_bit(spec: dict[str, Any], feeds: dict[str, np.ndarray]) -> bool:
    if spec["kind"] != "image" or list(feeds[spec["name"]].shape[1:3]) == spec["size"]:
        return False
    return spec["dtype"] == "uint8" or bool("is_8_bit" in spec and feeds[spec["is_8_bit"]].any())


def read_in_double(rows: Rows) -> Rows:
    """Return tables of float32 in the precision in which the graph scales them."""
    if rows.kind == "numeric" and rows.values.dtype == np.float32:
        return replace(rows, values=rows.values.astype(np.float64))
    return rows


def preprocessed(rows: Rows, student: StudentState, inputs: Sequence[dict[str, Any]]) -> Rows:
    """Return rows as `GraphInputs` reads them: preprocessed if the graph does not do it."""
    if not inputs[0].get("preprocessed"):
        return rows
    tensors = student.inputs.transform(rows)
    if isinstance(tensors, PartTensors):
        return Rows(rows.kind, {name: _values(part) for name, part in tensors.parts.items()})
    return Rows(rows.kind, _values(tensors))


def _values(tensors: InputTensors) -> Any:
    if isinstance(tensors, SequenceTensors):
        return tensors.sequences
    if tensors.dtype is None:
        return tensors._values  # type: ignore[attr-defined]
    return np.asarray(tensors.take(slice(None), _CPU))
