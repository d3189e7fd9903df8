"""Writes the folder of a student: its files, the ONNX graph and the model card."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, r2_score

from sk_aft._data._rows import Rows
from sk_aft._deployment._model_card import CardFacts, Score, measure, model_card
from sk_aft._deployment._networks import tensors_of
from sk_aft._deployment._writer import (
    as_json,
    digests,
    identity_of,
    replaced_folder,
    student_files,
)
from sk_aft._deployment.onnx import export_student
from sk_aft._runtime._processor import processor_name
from sk_aft._student._state import StudentState
from sk_aft.preprocessing import ColumnPreprocessor
from sk_aft.serving._folder import CONFIG, ONNX, StudentFolder
from sk_aft.serving._load import NotServableError, load

_PARITY = "onnx/parity.json"


def write_folder(
    directory: Path,
    student: StudentState,
    parameters: Mapping[str, Any],
    *,
    dtype: str,
    name: str,
    graph_rows: Rows | None,
    quantize: str | None,
    load_student: Callable[[Path], Any],
    X_test: Any = None,
    y_test: Any = None,
) -> None:
    """Write a folder; an error leaves what is there unchanged.

    Parameters
    ----------
    directory : Path
        Created if necessary.
    student, parameters, dtype
        As for `student_files`.
    name : str
        Name in the model card: of the directory, or "owner/name".
    graph_rows : Rows or None
        Rows with which the ONNX graph is checked; None for no graph.
    quantize : {"float16", "int8"} or None
        Number format of the graph.
    load_student : callable
        Returns the estimator of a folder.
    X_test : rows, optional
        Rows to measure on.
    y_test : ndarray, optional
        Their targets.
    """
    files = student_files(student, parameters, dtype=dtype)
    with replaced_folder(directory) as temporary:
        for file, content in files.items():
            (temporary / file).write_bytes(content)
        if graph_rows is not None:
            _export(temporary, student, graph_rows, labels=None, quantize=quantize)
        folder = StudentFolder.open(temporary)
        facts = _facts(folder, student, name=name)
        if X_test is not None:
            facts |= _measured(temporary, folder, load_student, X_test, y_test)
        (temporary / "README.md").write_text(model_card(CardFacts(**facts)), encoding="utf-8")


def add_graph(
    directory: Path, student: StudentState, rows: Rows, *, labels: Any, quantize: str | None
) -> dict[str, Any]:
    """Add the ONNX graph to the folder of a student; an error leaves the folder unchanged.

    Parameters
    ----------
    directory : Path
        A folder of this student.
    student : StudentState
        The student.
    rows, labels, quantize
        As for `export_student`.

    Returns
    -------
    report : dict
        The content of onnx/parity.json.

    Raises
    ------
    ValueError
        If the folder holds another student, or the export fails.
    """
    folder = StudentFolder.open(directory)
    if folder.config["identity"] != identity_of(student) and not _holds(folder, student):
        raise ValueError(
            f"{directory} holds another student than this one: give another directory, or save "
            "this student there first with save_pretrained."
        )
    with replaced_folder(directory) as temporary:
        shutil.copy(directory / CONFIG, temporary)
        return _export(temporary, student, rows, labels=labels, quantize=quantize)


def _holds(folder: StudentFolder, student: StudentState) -> bool:
    """Return whether a student was loaded from a folder, whose weights may be rounded."""
    stored = folder.arrays()
    tensors = tensors_of(student.module)
    return all(np.array_equal(stored.get(f"network.{k}"), v) for k, v in tensors.items())


def _export(
    directory: Path, student: StudentState, rows: Rows, *, labels: Any, quantize: str | None
) -> dict[str, Any]:
    """Write the graph, and its digests into the configuration."""
    config = json.loads((directory / CONFIG).read_bytes())
    (directory / "onnx").mkdir(exist_ok=True)
    report = export_student(
        student,
        rows,
        directory / "onnx",
        labels=labels,
        quantize=quantize,
        identity=config["identity"],
    )
    files = {name: (directory / name).read_bytes() for name in (ONNX, _PARITY)}
    config["files"] |= digests(files)
    (directory / CONFIG).write_bytes(as_json(config))
    return report


def _facts(folder: StudentFolder, student: StudentState, *, name: str) -> dict[str, Any]:
    config, inputs = folder.config, student.inputs
    geometry = getattr(getattr(student.module, "prepare", None), "geometry", None)
    columns = {}
    if isinstance(inputs.preprocessor, ColumnPreprocessor):
        columns = {str(name): kind for name, kind in inputs.preprocessor.kinds_.items()}
    method = config["transfer"]["method"]
    sizes = {file: entry["size"] for file, entry in config["files"].items()}
    return {
        "name": name,
        "estimator": config["class"],
        "kind": config["rows"]["kind"],
        "network": config["network"]["class"],
        "n_weights": sum(weights.numel() for weights in student.module.parameters()),
        "sizes": {CONFIG: (folder.path / CONFIG).stat().st_size, **sizes},
        "dtype": config["dtype"],
        "versions": {"Python": platform.python_version(), **config["versions"]},
        "classes": config["targets"].get("classes"),
        "n_targets": student.n_outputs if student.targets.n_classes is None else 1,
        "columns": columns,
        "n_columns": config["rows"]["n_features_in"],
        "image_size": None if geometry is None else geometry.size,
        "teachers": config["teachers"],
        "started_from": config["started_from"],
        "transfer": method if method is None or isinstance(method, str) else json.dumps(method),
        "beta": config["transfer"]["beta"],
        "has_graph": folder.has(ONNX),
    }


def _measured(
    directory: Path,
    folder: StudentFolder,
    load_student: Callable[[Path], Any],
    X_test: Any,
    y_test: Any,
) -> dict[str, Any]:
    """Return the score and the time of what is saved, as it will be deployed."""
    try:
        deployed = load(directory)
    except NotServableError:
        deployed = load_student(directory)
    found: dict[str, Any] = {
        "ms_per_row": measure(deployed.predict, X_test),
        "machine": processor_name(),
    }
    if y_test is not None:
        is_classifier = folder.config["class"] == "AFTClassifier"
        metric, name = (accuracy_score, "accuracy") if is_classifier else (r2_score, "r2")
        value = float(metric(y_test, deployed.predict(X_test)))
        found["score"] = Score(name, value, len(y_test), date.today().isoformat())
    return found
