"""The network of a student as a graph, from its own inputs to probabilities."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import onnx
import torch
from torch import Tensor, nn

from sk_aft._data._resize import resize_and_crop
from sk_aft._data._tensors import Inputs, InputTensors, PartTensors, SequenceTensors
from sk_aft._deployment.onnx._builder import OPSET
from sk_aft._student._state import StudentState
from sk_aft._student._targets import NumericTargets, Targets
from sk_aft._student._training import run_network
from sk_aft.backbones._onnx import serialise
from sk_aft.modules import PenultimateFeatures
from sk_aft.modules._image_input import ImageInput
from sk_aft.transfer._base import concatenate

_CPU = torch.device("cpu")


class Part(NamedTuple):
    """One of the inputs of a network.

    Parameters
    ----------
    name : str or None
        Name of the part; None if the network reads this input alone.
    kind : {"array", "sequence", "sparse"}
        An array is one tensor; others are two, (B, longest): tokens and lengths, or columns and
        values.
    """

    name: str | None
    kind: str


def parts_of(tensors: InputTensors) -> list[Part]:
    """Return the inputs of the network that reads some rows."""
    if isinstance(tensors, PartTensors):
        return [Part(name, _kind(part)) for name, part in tensors.parts.items()]
    return [Part(None, _kind(tensors))]


def _kind(tensors: InputTensors) -> str:
    if isinstance(tensors, SequenceTensors):
        return "sequence"
    return "sparse" if tensors.dtype is None else "array"


def resizes_itself(module: nn.Module) -> ImageInput | None:
    """Return the part of a network that resizes its images, None if it does not."""
    prepare = getattr(module, "prepare", None)
    return prepare if isinstance(prepare, ImageInput) else None


def flat_tensors(tensors: InputTensors, module: nn.Module) -> tuple[Tensor, ...]:
    """Return rows as the tensors that `NetworkOutputs` reads."""
    inputs: Any = tensors.take(slice(None), _CPU)
    resizer = resizes_itself(module)
    if resizer is not None and isinstance(inputs, Tensor):
        inputs = resize_and_crop(inputs, resizer.geometry, (0.0, 1.0))
    parts = parts_of(tensors)
    return tuple(
        tensor
        for part in parts
        for tensor in _as_tensors(inputs if part.name is None else inputs[part.name], part.kind)
    )


def _as_tensors(inputs: Any, kind: str) -> Sequence[Tensor]:
    if kind == "array":
        return [inputs]
    if kind == "sequence":
        return [inputs["tokens"], inputs["lengths"]]
    n_numbers = len(inputs["indices"])
    lengths = torch.diff(inputs["offsets"], append=torch.tensor([n_numbers]))
    rows = [inputs[name].split(lengths.tolist()) for name in ("indices", "weights")]
    return [nn.utils.rnn.pad_sequence(list(row), batch_first=True) for row in rows]


class NetworkOutputs(nn.Module):
    """A student's network, from flat tensors to its predictions and features.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    targets : ClassTargets or NumericTargets
        What its outputs mean.
    """

    def __init__(self, module: nn.Module, targets: Targets) -> None:
        super().__init__()
        self.network = module
        self.parts = [Part(None, "array")]  # set for the export
        self._targets = targets
        self._penultimate = PenultimateFeatures(module)
        self.scale = self.mean = None
        if isinstance(targets, NumericTargets):
            self.scale = torch.from_numpy(targets.scaler.scale_)
            self.mean = torch.from_numpy(targets.scaler.mean_)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities (B, n_classes) or predictions (B, n_outputs), and features."""
        logits, features = self.outputs(_as_inputs(self.parts, tensors))
        if self.scale is None:
            return logits.softmax(dim=1), features
        return logits.double() * self.scale + self.mean, features

    def outputs(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return logits (B, n_outputs) and features (B, p)."""
        logits, features = run_network(self.network, inputs, self._targets.n_outputs)
        features = self._penultimate.take() if features is None else concatenate(features)
        return logits.float(), features.float().flatten(1)


def _as_inputs(parts: list[Part], tensors: Sequence[Tensor]) -> Any:
    remaining = iter(tensors)
    inputs = {part.name: _as_input(part.kind, remaining) for part in parts}
    return inputs.get(None, inputs)


def _as_input(kind: str, tensors: Any) -> Any:
    first = next(tensors)
    if kind == "array":
        return first
    second = next(tensors)
    if kind == "sequence":
        return {"tokens": first, "lengths": second}
    offsets = torch.arange(first.shape[0], device=first.device) * first.shape[1]
    return {"indices": first.reshape(-1), "offsets": offsets, "weights": second.reshape(-1)}


def exportable(student: StudentState) -> NetworkOutputs:
    """Return a copy of a student's network, on the CPU and in evaluation mode."""
    return NetworkOutputs(copy.deepcopy(student.module).to(_CPU), student.targets).eval()


def network_graph(
    network: NetworkOutputs, tensors: InputTensors, names: list[str]
) -> onnx.ModelProto:
    """Return the graph of a network.

    Parameters
    ----------
    network : NetworkOutputs
        The network.
    tensors : InputTensors
        Two rows.
    names : list of str
        What its inputs are called.

    Raises
    ------
    ValueError
        If the network cannot be exported.
    """
    network.parts = parts_of(tensors)
    example = flat_tensors(tensors, network.network)
    axes = {
        name: {0: "batch", 1: longest} if longest and tensor.ndim == 2 else {0: "batch"}
        for name, tensor, longest in zip(
            names, example, _longest_axes(network.parts, names), strict=True
        )
    }
    first = "probabilities" if network.scale is None else "predictions"
    outputs = {first: {0: "batch"}, "features": {0: "batch"}}
    try:
        model = serialise(network, example, axes, outputs, opset=OPSET, fold=True)
    except Exception as error:  # the exporter raises errors of many types
        raise ValueError(
            f"{type(network.network).__name__} cannot be exported to ONNX: {error}"
        ) from error
    return onnx.load_from_string(model)


def _longest_axes(parts: list[Part], names: list[str]) -> list[str | None]:
    """Return for each tensor of the inputs the name of the axis that is as long as its longest row.

    Each part has a name of its own: ONNX Runtime takes axes of one name to be of one length.
    """
    axes: list[str | None] = []
    for part in parts:
        if part.kind == "array":
            axes.append(None)
        else:
            axes += [f"{names[len(axes)]} longest"] * 2
    return axes
