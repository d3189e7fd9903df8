"""Writes a student as one ONNX graph, and compares the two."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sk_aft._data._rows import Rows
from sk_aft._data._texts import TRUNCATION
from sk_aft._deployment._teachers import json_value
from sk_aft._deployment._tokenizer_files import tokenizer_files
from sk_aft._optional import import_optional
from sk_aft._student._state import StudentState
from sk_aft._student._targets import ClassTargets
from sk_aft.serving._graph_inputs import GraphInputs
from sk_aft.serving._onnx import FORMAT_VERSION, METADATA, OnnxNetwork

_MODEL, _REPORT = "model.onnx", "parity.json"
_TYPES = (None, "float16", "int8")


def export_student(
    student: StudentState,
    rows: Rows,
    directory: Path,
    *,
    labels: Any = None,
    quantize: str | None = None,
    identity: str,
) -> dict[str, Any]:
    """Write a student as one ONNX graph, and a report of how it differs from PyTorch.

    Parameters
    ----------
    student : StudentState
        A trained student.
    rows : Rows
        Checked rows of its kind. At most 32 of them are compared, and none is stored.
    directory : Path
        Where model.onnx and parity.json are written; it is created.
    labels : array-like of shape (n_rows,) or (n_rows, n_outputs), optional
        True labels of the rows: the report then holds the score of the graph on all of them, and
        that of PyTorch.
    quantize : {"float16", "int8"} or None, default=None
        Type of the weights, see `sk_aft._deployment.onnx._quantize.quantized`.
    identity : str
        What the graph belongs to; stored in its metadata.

    Returns
    -------
    report : dict
        The content of parity.json.

    Raises
    ------
    ImportError
        If onnx or onnxruntime is not installed.
    ValueError
        If the network cannot be exported, or if without quantization an output differs by more
        than 1e-4, or 1e-3 where images of 8 bits are resized. Nothing is written then.
    """
    if quantize not in _TYPES:
        raise ValueError(f"quantize={quantize!r} is unknown, expected one of {_TYPES}.")
    for name in ("onnx", "onnxruntime"):
        import_optional(name, extra="onnx", purpose="exporting a student to ONNX")
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".onnx-", dir=directory) as unfinished:
            report = _write(student, rows, Path(unfinished), labels, quantize, identity)
            for name in (_MODEL, _REPORT):
                os.replace(Path(unfinished) / name, directory / name)
    except BaseException:
        if is_new:
            with suppress(OSError):  # somebody else wrote there
                directory.rmdir()
        raise
    return report


def _write(
    student: StudentState,
    rows: Rows,
    directory: Path,
    labels: Any,
    quantize: str | None,
    identity: str,
) -> dict[str, Any]:
    import onnx

    from sk_aft._deployment.onnx._graph import student_graph
    from sk_aft._deployment.onnx._network import exportable
    from sk_aft._deployment.onnx._parity import compared, read_in_double

    rows = read_in_double(rows)
    network = exportable(student)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", TRUNCATION)
        model, specs = student_graph(student, network, rows, quantize)
    inputs = GraphInputs(specs, _documents(student).__getitem__)
    metadata = {
        "format_version": FORMAT_VERSION,
        "identity": identity,
        "inputs": specs,
        **_targets(student),
        "quantize": quantize,
    }
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(metadata)
    model.producer_name, model.producer_version = "sk-aft", version("sk-aft")
    onnx.save_model(model, directory / _MODEL)
    served = OnnxNetwork(directory / _MODEL)
    found = compared(student, network, served, inputs, rows=rows, labels=labels)
    found["preprocessed"] = any(spec.get("preprocessed", False) for spec in specs)
    if quantize is None:
        _check(found["largest_difference"], found["largest_allowed"])
    else:
        found["largest_allowed"] = None
    report = {**_versions(), "identity": identity, "quantize": quantize, **found}
    (directory / _REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return report


def _documents(student: StudentState) -> dict[str, str]:
    files = tokenizer_files(student.inputs.preprocessor)
    return {file: tokenizer.tokenizer_json_ for file, tokenizer in files.items()}


def _targets(student: StudentState) -> dict[str, Any]:
    if isinstance(student.targets, ClassTargets):
        return {"classes": json_value(student.targets.classes.tolist())}
    return {"n_outputs": student.n_outputs}


def _versions() -> dict[str, Any]:
    names = ("sk-aft", "torch", "onnx", "onnxruntime", "numpy")
    versions = {name: version(name) for name in names}
    return {"date": date.today().isoformat(), "versions": versions}


def _check(differences: dict[str, float], largest: float) -> None:
    name = max(differences, key=lambda name: differences[name])
    if not differences[name] <= largest:
        raise ValueError(
            f"ONNX Runtime gives other {name} than PyTorch: the largest difference is "
            f"{differences[name]:.2g}, and at most {largest:g} is allowed. Nothing was written. "
            "Does the network draw random numbers, or does a row depend on others of its batch?"
        )
