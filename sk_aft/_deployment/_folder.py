"""Writes the folder of a student: its files, the ONNX graph and the model card."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, r2_score

from sk_aft._data._rows import Rows
from sk_aft._deployment._card_facts import CardFacts, Score
from sk_aft._deployment._model_card import measure, model_card
from sk_aft._deployment._networks import tensors_of
from sk_aft._deployment._writer import (
    as_json,
    check_directory,
    digests,
    identity_of,
    replaced_files,
    student_files,
)
from sk_aft._deployment.onnx import export_student
from sk_aft._runtime._processor import processor_name
from sk_aft._student._state import StudentState
from sk_aft.serving._folder import CONFIG, ONNX, StudentFolder
from sk_aft.serving._load import load

_CARD, _PARITY = "README.md", "onnx/parity.json"


def write_folder(
    directory: Path,
    student: StudentState,
    parameters: Mapping[str, Any],
    *,
    dtype: str,
    name: str,
    graph_rows: Rows | None,
    graph_labels: Any,
    quantize: str | None,
    load_student: Callable[[Path], Any],
    X_test: Any = None,
    y_test: Any = None,
) -> dict[str, Any] | None:
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
    graph_labels : array-like or None
        Their targets.
    quantize : {"float16", "int8"} or None
        Number format of the graph.
    load_student : callable
        Returns the estimator of a folder.
    X_test : rows, optional
        Rows to measure on.
    y_test : ndarray, optional
        Their targets.

    Returns
    -------
    report : dict or None
        The content of onnx/parity.json, if there is a graph.
    """
    check_directory(directory)
    files = student_files(student, parameters, dtype=dtype)
    report = None
    with replaced_files(directory, all_of_them=True) as temporary:
        for file, content in files.items():
            (temporary / file).write_bytes(content)
        if graph_rows is not None:
            report = _export(temporary, student, graph_rows, labels=graph_labels, quantize=quantize)
        if X_test is not None:
            _measure(temporary, load_student, X_test, y_test)
        _write_card(temporary, name)
    return report


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
    name = directory.resolve().name
    card = directory / _CARD
    is_edited = not card.exists() or card.read_text(encoding="utf-8") != _card(directory, name)
    with replaced_files(directory, all_of_them=False) as temporary:
        shutil.copy(directory / CONFIG, temporary)
        report = _export(temporary, student, rows, labels=labels, quantize=quantize)
        if not is_edited:
            _write_card(temporary, name)
    return report


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
    config["graph"] = {"dtype": quantize or "float32", "preprocessed": report["preprocessed"]}
    if report["preprocessed"]:
        warnings.warn(
            "The preprocessor is not a part of the ONNX graph, so sk_aft.serving cannot predict "
            "with this student. It knows preprocessor='auto', and scikit-learn's StandardScaler, "
            "MinMaxScaler, MaxAbsScaler, RobustScaler and SimpleImputer, also in a Pipeline.",
            stacklevel=5,
        )
    (directory / CONFIG).write_bytes(as_json(config))
    return report


def _is_served(folder: StudentFolder) -> bool:
    """Return whether `sk_aft.serving` can predict with a folder."""
    graph = folder.config["graph"]
    return folder.is_static_text if graph is None else not graph["preprocessed"]


def _write_card(directory: Path, name: str) -> None:
    (directory / _CARD).write_text(_card(directory, name), encoding="utf-8")


def _card(directory: Path, name: str) -> str:
    """Return the model card of a folder, which depends on its configuration only."""
    folder = StudentFolder.open(directory)
    config = folder.config
    state = (config["preprocessor"] or {}).get("state", {})
    kinds = state.get("kinds_", {}) if config["rows"]["kind"] == "frame" else {}
    graph = config["graph"]
    method, measured = config["transfer"]["method"], dict(config["measured"] or {})
    score = measured.pop("score", None)
    sizes = {file: entry["size"] for file, entry in config["files"].items()}
    facts = CardFacts(
        name=name,
        estimator=config["class"],
        kind=config["rows"]["kind"],
        network=config["network"]["class"],
        n_weights=config["network"]["n_weights"],
        sizes=sizes,
        dtype=config["dtype"],
        versions=config["versions"],
        classes=config["targets"].get("classes"),
        n_targets=config["targets"].get("n_outputs", 1),
        columns={str(column): kind for column, kind in dict(kinds).items()},
        n_columns=config["rows"]["n_features_in"],
        image_size=config["rows"]["image_size"],
        teachers=config["teachers"],
        started_from=config["started_from"],
        transfer=method if method is None or isinstance(method, str) else json.dumps(method),
        beta=config["transfer"]["beta"],
        score=None if score is None else Score(**score),
        column_names=config["rows"]["feature_names_in"] if not kinds else None,
        graph=graph and graph["dtype"],
        is_served=_is_served(folder),
        **measured,
    )
    return model_card(facts)


def _measure(
    directory: Path, load_student: Callable[[Path], Any], X_test: Any, y_test: Any
) -> None:
    """Write the score and the time of what is saved, as it will be deployed, into its config."""
    config = json.loads((directory / CONFIG).read_bytes())
    serves = _is_served(StudentFolder(directory, config))
    deployed = load(directory) if serves else load_student(directory)
    measured: dict[str, Any] = {
        "measured_with": "sk_aft.serving" if serves else "PyTorch",
        "ms_per_row": measure(deployed.predict, X_test),
        "machine": processor_name(),
    }
    if y_test is not None:
        is_classifier = config["class"] == "AFTClassifier"
        metric, name = (accuracy_score, "accuracy") if is_classifier else (r2_score, "r2")
        measured["score"] = {
            "metric": name,
            "value": float(metric(y_test, deployed.predict(X_test))),
            "n_rows": len(y_test),
            "date": date.today().isoformat(),
        }
    (directory / CONFIG).write_bytes(as_json({**config, "measured": measured}))
