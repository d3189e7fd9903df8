"""``python -m sk_aft fit``: a file of rows -> the folder of a trained student."""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing

from sk_aft._command._arguments import PROGRAM
from sk_aft._command._column import write_column
from sk_aft._command._describe import describe_data
from sk_aft._command._folders import check_is_free, megabytes
from sk_aft._command._labels import CLASSIFICATION
from sk_aft._command._messages import CommandError, counted, report
from sk_aft._command._pipeline import build_pipeline, targets_of_all_rows, teacher_models
from sk_aft._command._tables import (
    NUMBER,
    TrainingData,
    check_numbers_are_there,
    read_test_data,
)
from sk_aft.modules import StaticText
from sk_aft.preprocessing import SubwordTokenizer
from sk_aft.serving._folder import CONFIG, ONNX, WEIGHTS, FolderError, StudentFolder
from sk_aft.transfer._pooled_distillation import SOFT_TARGETS, STUDENT_ROWS, STUDENT_START

_MOST_TEACHERS_SHOWN = 6
_SHOWN_TEACHERS = {
    SOFT_TARGETS: "the teacher's predictions",
    STUDENT_ROWS: "a linear model of the rows",
    STUDENT_START: "a linear model of the student's features before training",
}
_LAYER = re.compile(r"(.+)_layer(\d+)")


def fit(options: argparse.Namespace, data: TrainingData) -> None:
    """Train a student, save it, and print what it learned and how to use it.

    Parameters
    ----------
    options : Namespace
        As `_arguments` defines them.
    data : TrainingData
        What it learns from.

    Raises
    ------
    CommandError
        If the data or the folder cannot be used; nothing is trained then.
    """
    _check_out(options.out)
    if set(data.kinds.values()) != {NUMBER}:  # these are filled
        check_numbers_are_there(data)
    models = teacher_models(options.teacher, data, options.seed)
    if options.fine_tune and models is None:
        raise CommandError("--fine-tune needs a teacher, and --teacher is none.")
    pipe = build_pipeline(
        data,
        models=models,
        module=options.student,
        fine_tune=options.fine_tune,
        max_epochs=options.max_epochs,
        seed=options.seed,
        verbose=0 if options.quiet else 1,
    )
    train, (X_test, y_test) = _split(options, data)
    for line in describe_data(data):
        report(line, quiet=options.quiet)
    report("Training the student ...", quiet=options.quiet)
    start = time.monotonic()
    pipe.fit(_safe_indexing(data.rows, train), targets_of_all_rows(data)[train])
    student = pipe[-1]
    report(f"Trained in {time.monotonic() - start:.0f} s. {_lesson(student)}", quiet=options.quiet)
    has_graph = _needs_graph(student) and _can_export()
    student.save_pretrained(
        options.out, X_test=X_test, y_test=y_test, onnx=has_graph, dtype=options.dtype
    )
    _remember_column(options.out, data)
    _report_folder(options, is_served=has_graph or not _needs_graph(student))


def _check_out(folder: Path) -> None:
    """Raise unless the folder is new or empty, or holds a student, which is replaced."""
    if folder.is_dir() and (folder / CONFIG).is_file():
        try:
            StudentFolder.open(folder)
        except FolderError as error:
            raise CommandError(f"--out {folder} holds something else: {error}") from error
    else:
        check_is_free(folder, own=())


def _split(options: argparse.Namespace, data: TrainingData) -> tuple[np.ndarray, tuple[Any, Any]]:
    """Return the rows to train on, and the rows and targets to score on, if asked for."""
    everything = np.arange(len(data.rows))
    if options.test is not None:
        return everything, read_test_data(options, data)
    if options.test_fraction is None:
        return everything, (None, None)
    targets = data.labels.targets
    n_test = int(np.ceil(options.test_fraction * data.n_labeled))
    train: np.ndarray = np.empty(0, dtype=int)
    test = np.arange(data.n_labeled)
    if n_test < data.n_labeled:
        train, test = train_test_split(
            test,
            test_size=n_test,
            random_state=options.seed,
            stratify=targets if _can_stratify(data, n_test) else None,
        )
    if len(np.unique(targets[train])) < 2:
        raise CommandError(
            f"--test-fraction {options.test_fraction:g} leaves {counted(len(train), 'row')} to "
            "train on, with fewer than two different labels: label more rows, or hold out fewer."
        )
    held_out = _safe_indexing(data.rows, test), targets[test]
    return np.append(np.sort(train), everything[data.n_labeled :]), held_out


def _can_stratify(data: TrainingData, n_test: int) -> bool:
    if data.labels.task != CLASSIFICATION:
        return False
    counts = Counter(data.labels.targets.tolist())
    fits = len(counts) <= min(n_test, data.n_labeled - n_test)
    return fits and min(counts.values()) >= 2


def _lesson(student: Any) -> str:
    """Return what a fitted student learned from."""
    if student.transfer_method_ is None:
        return "It learned from the labels alone."
    weights = getattr(student, "teacher_weights_", {})
    if not weights:
        return "It learned from the labels and from its teacher."
    best = sorted(weights.items(), key=lambda item: -item[1])[:_MOST_TEACHERS_SHOWN]
    shown = ", ".join(f"{_shown_teacher(teacher)} {weight:.2f}" for teacher, weight in best)
    return f"It learned from the labels and from these teachers, with their weights: {shown}."


def _shown_teacher(name: str) -> str:
    """Return what a key of ``teacher_weights_`` stands for."""
    if name in _SHOWN_TEACHERS:
        return _SHOWN_TEACHERS[name]
    layer = _LAYER.fullmatch(name)
    return f"{layer[1]} (layer {layer[2]})" if layer else name


def _needs_graph(student: Any) -> bool:
    """Return whether a student is served by ONNX Runtime."""
    is_static = isinstance(student.module_, StaticText)
    return not (is_static and isinstance(student.preprocessor_, SubwordTokenizer))


def _can_export() -> bool:
    return all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def _remember_column(folder: Path, data: TrainingData) -> None:
    """Write which column the student reads if it does not know that itself."""
    identity = StudentFolder.open(folder).config["identity"]
    ((name, kind), *_) = data.kinds.items() if isinstance(data.rows, list) else [(None, None)]
    write_column(folder, kind, name, identity)


def _report_folder(options: argparse.Namespace, *, is_served: bool) -> None:
    folder = StudentFolder.open(options.out)
    score = (folder.config["measured"] or {}).get("score")
    if score is not None:
        name = {"r2": "R²"}.get(score["metric"], score["metric"])
        report(f"Held-out {name}: {score['value']:.3f} ({counted(score['n_rows'], 'row')}).")
        if options.test_fraction is not None:
            report(
                "It was not trained on these rows: without --test-fraction it learns from all.",
                quiet=options.quiet,
            )
    size = megabytes(options.out)
    served = ""
    if (options.out / ONNX).is_file():
        rest = size - (options.out / WEIGHTS).stat().st_size / 1e6
        served = f"; {rest:.1f} MB without {WEIGHTS}, which only PyTorch needs"
    report(f"Saved: {options.out}/ ({size:.1f} MB{served})")
    if not is_served:
        report(
            "It predicts with PyTorch only, because onnx or onnxruntime is not installed. Run "
            "pip install 'sk-aft[onnx]' and train again to deploy it."
        )
        return
    rows = "new_pictures/" if Path(options.data).is_dir() else f"new{Path(options.data).suffix}"
    report(
        f"Predict: {PROGRAM} predict {options.out} {rows} --out predictions.csv",
        quiet=options.quiet,
    )
