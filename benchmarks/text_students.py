"""Text students that start from a foundation model, alone and taught.

    python -m benchmarks.text_students --data DIR [--student NAME] [--task DATA:LABELS ...]

DIR holds banking77.parquet, trec.parquet and sst2.parquet with the columns text, label and split.
Each method has six trials on held-out training rows. The best one is fitted to all training rows
with three seeds, and scored on the test rows. Lines go to
``benchmarks/results/text_students.jsonl``, and what is there is not run again. At the end a table
is printed, in which "taught" is the transfer method with the best score on held-out rows.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import joblib
import numpy as np
from sklearn.model_selection import train_test_split

from benchmarks.accuracy._data import load
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.transfer import ProbeDistillation, TransferRows

RESULTS = Path(__file__).parent / "results" / "text_students.jsonl"
TASKS = ("banking77:10", "banking77:all", "trec:all", "sst2:all")
ALONE = "alone"


class RememberedProbe(ProbeDistillation):
    """The same as "probe-kd", but trials on the same rows share the probe, which takes longest."""

    known: ClassVar[dict[str, np.ndarray]] = {}

    def fit(self, rows: TransferRows) -> np.ndarray:
        """Return the probe's predictions."""
        some = rows.features.take(np.arange(min(100, len(rows.targets))))
        key = joblib.hash((some, rows.targets, rows.labeled_mask, rows.seed))
        if key not in self.known:
            self.known[key] = super().fit(rows)
        return self.known[key]


METHODS: dict[str, dict[str, Any]] = {
    ALONE: {"beta": 0},
    "probe-kd": {"transfer": RememberedProbe()},
    "aft": {"transfer": "aft"},
    "kd": {"transfer": "kd"},
    "kd and probe-kd": {"transfer": [("kd", 1.0), (RememberedProbe(), 1.0)]},
}
_HIDDEN = {"module__hidden_size": 256, "module__token_dropout": 0.3}
_BATCH = 128
_SEEDS = 3


class Student(NamedTuple):
    """A kind of student.

    Parameters
    ----------
    parameters : dict
        Parameters that all trials have in common.
    trials : list of (dict, int)
        Parameters of each trial, and its number of steps.
    """

    parameters: dict[str, Any]
    trials: list[tuple[dict[str, Any], int]]


# The rate of the embeddings, and that of the head relative to it, which makes 2e-3.
_RATES = ((1e-3, 2.0), (3e-3, 0.67), (1e-2, 0.2))
_OF_STATIC = [
    ({"lr": lr, "module__head_lr_factor": factor, **more}, steps)
    for (lr, factor), (more, steps) in product(_RATES, (({}, 500), (_HIDDEN, 1000)))
]
STUDENTS = {
    "static": Student({"module__start": "minilm"}, _OF_STATIC),
    "static, random start": Student({"module__start": "random"}, _OF_STATIC),
    "first 2 layers of MiniLM": Student(
        {"module": "minilm", "module__n_layers": 2},
        [({"lr": lr}, steps) for lr, steps in product((5e-5, 1e-4, 3e-4), (300, 600))],
    ),
}


class Texts(NamedTuple):
    """Training texts with their foundation features, and test texts."""

    texts: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    test_texts: np.ndarray
    test_labels: np.ndarray


def read(data: str, folder: str | None) -> Texts:
    """Return a data set with the features of MiniLM."""
    task = load(data, folder)
    texts, test_texts = (np.array(list(rows), dtype=object) for rows in (task.rows, task.test_rows))
    features = FoundationFeatureExtractor("minilm", verbose=1).fit_transform(texts).features
    return Texts(texts, task.labels, np.array(features), test_texts, task.test_labels)


def known_rows(labels: np.ndarray, per_class: str, seed: int) -> np.ndarray:
    """Return the rows whose labels are known."""
    if per_class == "all":
        return np.arange(len(labels))
    random = np.random.default_rng(seed)
    of_class = [np.flatnonzero(labels == name) for name in np.unique(labels)]
    return np.concatenate([random.permutation(rows)[: int(per_class)] for rows in of_class])


def fit(
    data: Texts, known: np.ndarray, left_out: np.ndarray, parameters: dict, steps: int, seed: int
) -> AFTClassifier:
    """Return a student fitted to all rows but some; only some of the labels are known."""
    labels = np.full(len(data.labels), -1)
    labels[known] = data.labels[known]
    kept = np.setdiff1d(np.arange(len(labels)), left_out)
    n_labeled = int((labels[kept] >= 0).sum())
    n_others = 0 if parameters.get("beta") == 0 else len(kept) - n_labeled
    # Half of a batch are rows without labels, if there are any.
    per_pass = 2 * max(n_labeled, n_others) if n_others else n_labeled
    student = AFTClassifier(
        missing_label=-1,
        random_state=seed,
        batch_size=_BATCH,
        max_epochs=max(1, round(steps * _BATCH / per_pass)),
        **parameters,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return student.fit(data.texts[kept], labels[kept], features=data.features[kept])


def validate(data: Texts, per_class: str, parameters: dict, steps: int) -> float:
    """Return the accuracy on a fifth of the known rows; if they are few, the mean of six."""
    n_draws, n_splits = (1, 1) if per_class == "all" else (_SEEDS, 2)
    scores = []
    for draw, split in product(range(n_draws), range(n_splits)):
        known = known_rows(data.labels, per_class, draw)
        learned, held_out = train_test_split(
            known, test_size=0.2, stratify=data.labels[known], random_state=split
        )
        student = fit(data, learned, held_out, parameters, steps, draw)
        scores.append(student.score(data.texts[held_out], data.labels[held_out]))
    return float(np.mean(scores))


def measure(data: Texts, per_class: str, student: Student, method: str) -> dict[str, Any]:
    """Choose among the trials of a method on held-out rows; return its test errors and costs."""
    trials = [({**student.parameters, **METHODS[method], **own}, n) for own, n in student.trials]
    scores = [validate(data, per_class, *trial) for trial in trials]
    parameters, steps = trials[int(np.argmax(scores))]
    errors, seconds = [], []
    for seed in range(_SEEDS):
        known = known_rows(data.labels, per_class, seed)
        start = time.perf_counter()
        fitted = fit(data, known, np.arange(0), parameters, steps, seed)
        seconds.append(time.perf_counter() - start)
        errors.append(100 * (1 - fitted.score(data.test_texts, data.test_labels)))
    return {
        "validation": max(scores),
        "chosen": {**student.trials[int(np.argmax(scores))][0], "steps": steps},
        "errors": [round(error, 2) for error in errors],
        "seconds": [round(duration, 1) for duration in seconds],
        "n_weights": sum(weights.numel() for weights in fitted.module_.parameters()),
    }


def print_table(lines: list[dict[str, Any]]) -> None:
    """Print the test error of each student alone and taught, and of each method."""
    for student, task in dict.fromkeys((line["student"], line["task"]) for line in lines):
        own = [line for line in lines if (line["student"], line["task"]) == (student, task)]
        taught = [line for line in own if line["method"] != ALONE]
        best = max(taught, key=lambda line: line["validation"], default=None)
        print(f"\n{student}, {task}")
        for line in own:
            mean, error = np.mean(line["errors"]), np.std(line["errors"], ddof=1) / _SEEDS**0.5
            mark = "taught" if line is best else ""
            print(
                f"  {line['method']:16s} {mean:5.2f} +- {error:4.2f}  validation "
                f"{100 * (1 - line['validation']):5.2f}  {np.mean(line['seconds']):6.1f} s  "
                f"{line['n_weights'] / 1e6:.2f} M  {line['chosen']}  {mark}"
            )


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="directory of the data sets; default: SK_AFT_DATA")
    parser.add_argument("--student", choices=STUDENTS, action="append", help="default: all")
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all")
    options = parser.parse_args()
    lines = [json.loads(line) for line in RESULTS.open()] if RESULTS.exists() else []
    done = {(line["student"], line["task"], line["method"]) for line in lines}
    wanted = product(options.task or TASKS, options.student or STUDENTS, METHODS)
    for task, student, method in wanted:
        if (student, task, method) in done:
            continue
        data, _, per_class = task.partition(":")
        line = {"student": student, "task": task, "method": method}
        line |= measure(read(data, options.data), per_class, STUDENTS[student], method)
        lines.append(line)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print_table([line])
    print_table(lines)


if __name__ == "__main__":
    main()
