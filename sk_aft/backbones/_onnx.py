"""Export of a torch module to ONNX Runtime, in memory."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Inputs: TypeAlias = tuple[Tensor, ...]

_log = logging.getLogger(__name__)

# Relative to the norm of a row's feature vector.
_LARGEST_DIFFERENCE = 1e-3
_ROWS_COMPARED = 4


class OnnxSession:
    """A model of ONNX Runtime; may be called from several threads, each call runs on one thread.

    Parameters
    ----------
    model : bytes or str
        The serialised model, or the path of its file.
    """

    def __init__(self, model: bytes | str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # parallelism comes from the caller's threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._names = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]

    def __call__(self, inputs: Inputs) -> np.ndarray:
        """Return the features of one batch; several outputs are side by side."""
        return side_by_side(self.outputs(inputs))

    def outputs(self, inputs: Inputs) -> list[np.ndarray]:
        """Return each output for one batch."""
        arrays = [tensor.numpy() for tensor in inputs]
        return self._session.run(self._outputs, dict(zip(self._names, arrays, strict=True)))

    def only(self, number: int) -> OnnxSession:
        """Return a session with one of the outputs, which shares the model."""
        other = copy.copy(self)
        other._outputs = [self._outputs[number]]
        return other


def side_by_side(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return matrices of the same rows as one."""
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=1)


def as_outputs(outputs: Tensor | tuple[Tensor, ...]) -> list[np.ndarray]:
    """Return what a module returned, which may be several tensors, as float32 arrays."""
    tensors = (outputs,) if isinstance(outputs, Tensor) else outputs
    return [tensor.float().cpu().numpy() for tensor in tensors]


def export_to_onnx(
    module: nn.Module, example: Inputs, varying_axes: tuple[int, ...]
) -> OnnxSession | None:
    """Return the module as a session of ONNX Runtime.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU, in evaluation mode; maps tensors to an (n, d) tensor, or to several.
    example : tuple of Tensor
        A batch of real rows.
    varying_axes : tuple of int
        Axes of the inputs whose length may differ from that of the example.

    Returns
    -------
    session : OnnxSession or None
        None if ONNX Runtime is not installed, the module cannot be exported, or the results
        differ by more than 1e-3.
    """
    if not all(map(find_spec, ("onnx", "onnxruntime"))):
        return None
    if len(example[0]) == 1:  # the export would specialise to a single row
        example = tuple(torch.cat([tensor, tensor]) for tensor in example)
    try:
        axes = {axis: f"axis_{axis}" for axis in varying_axes}
        inputs = {f"input_{index}": axes for index in range(len(example))}
        two_rows = tuple(tensor[:2] for tensor in example)
        n_outputs = len(_expected(module, two_rows))
        outputs = {f"features_{number}": {0: "axis_0"} for number in range(n_outputs)}
        model = serialise(module, two_rows, inputs, outputs)
        session = OnnxSession(model)
        shapes = _vary_shapes(example, varying_axes)
        agree = all(_agree(module, session, inputs) for inputs in shapes)
    except Exception:
        # The exporter raises errors of many types. PyTorch is slower but gives the same features.
        _log.debug("%s stays in PyTorch", type(module).__name__, exc_info=True)
        return None
    if not agree:
        _log.debug("%s stays in PyTorch: the exported features differ", type(module).__name__)
    return session if agree else None


def serialise(
    module: nn.Module,
    example: Inputs,
    axes: Mapping[str, Mapping[int, str]],
    outputs: Mapping[str, Mapping[int, str]],
    *,
    opset: int = 17,
    fold: bool = False,
) -> bytes:
    """Return a module as a serialised model of ONNX.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU, in evaluation mode.
    example : tuple of Tensor
        A batch of at least two rows.
    axes, outputs : mapping of str to mapping of int to str
        The names of the inputs and of the outputs, with the names of their dynamic axes.
    opset : int, default=17
        Version of the operators.
    fold : bool, default=False
        Whether to fold constants, which ONNX Runtime does, too, but not in a file.

    Returns
    -------
    model : bytes
        The model.
    """
    # PyTorch's newer exporter needs another package and takes ten times as long for these models.
    # Versions without it do not accept the argument.
    legacy = {"dynamo": False}
    if "dynamo" not in inspect.signature(torch.onnx.export).parameters:
        legacy = {}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad(), _plain_attention(module):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            buffer,
            input_names=list(axes),
            output_names=list(outputs),
            dynamic_axes={**axes, **outputs},
            do_constant_folding=fold,
            opset_version=opset,
            **legacy,
        )
    return buffer.getvalue()


@contextmanager
def _plain_attention(module: nn.Module) -> Iterator[None]:
    """Use attention that is made of several operators.

    torch's fused one cannot be exported, and ONNX Runtime fuses the eager one of transformers
    better.
    """
    is_fused = torch.backends.mha.get_fastpath_enabled()
    models = [layer for layer in module.modules() if hasattr(layer, "set_attn_implementation")]
    before = [(model, model.config._attn_implementation) for model in models[:1]]
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for model, _ in before:
            model.set_attn_implementation("eager")
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fused)
        for model, implementation in before:
            model.set_attn_implementation(implementation)


def _vary_shapes(example: Inputs, varying_axes: tuple[int, ...]) -> Iterator[Inputs]:
    """Yield parts of the example of several shapes, to detect a length fixed by the export."""
    rows = tuple(tensor[:_ROWS_COMPARED] for tensor in example)
    yield rows
    for axis in varying_axes:
        length = (rows[0].shape[axis] + 1) // 2
        yield tuple(tensor.narrow(axis, 0, length).contiguous() for tensor in rows)


def _agree(module: nn.Module, session: OnnxSession, inputs: Inputs) -> bool:
    pairs = zip(session.outputs(inputs), _expected(module, inputs), strict=True)
    return all(_are_close(features, expected) for features, expected in pairs)


def _are_close(features: np.ndarray, expected: np.ndarray) -> bool:
    difference = np.linalg.norm(features - expected, axis=1)
    return bool((difference <= _LARGEST_DIFFERENCE * np.linalg.norm(expected, axis=1)).all())


@torch.inference_mode()
def _expected(module: nn.Module, inputs: Inputs) -> list[np.ndarray]:
    return as_outputs(module(*inputs))
