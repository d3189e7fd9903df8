"""What the teachers of the default transfer add, and what useless teachers cost.

    python -m benchmarks.default_transfer --data DIR [--task NAME ...] [--method NAME ...]
        [--seeds N] [--first-seed N] [--table]

DIR holds trec.parquet, sst2.parquet, banking77.parquet and cifar10.parquet, see
`benchmarks.accuracy`, which compares the default with rivals. Fashion-MNIST is that of Debian, or
fashion_mnist.parquet. A task is a data set and the number of labels of each class; the other
training rows (of images 5,000) have none. All methods have their default settings, and are scored
once on test rows (of images 2,000). The rule was developed on held-out training rows with seeds 0
to 2, without Fashion-MNIST; seeds from 10 are fresh.

- default, student alone: `AFTClassifier()` and the same with ``beta=0``, after a frozen teacher:
  MiniLM, or EfficientNet-Lite0 and -Lite2.
- pool of ...: the default with fewer teachers.
- useless ...: the default with features that know nothing of the rows.

Lines go to ``benchmarks/results/default_transfer.jsonl``; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.accuracy._data import load
from benchmarks.text_students import known_rows
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.transfer import PooledDistillation, TransferRows

RESULTS = Path(__file__).parent / "results" / "default_transfer.jsonl"
UNKNOWN = -1
ALONE, DEFAULT = "student alone", "default"
TEXTS = ("trec", "sst2", "banking77")
IMAGES = ("cifar10", "fashion_mnist")
NUMBERS = ("10", "50")
_TEACHERS: dict[str, Any] = {name: "minilm" for name in TEXTS}
_TEACHERS |= {name: ["effnet-lite0", "effnet-lite2"] for name in IMAGES}
_N_OTHER_IMAGES, _N_TEST_IMAGES = 5000, 2000


class Run(NamedTuple):
    """Rows of a task; labels are -1 where they are not known."""

    name: str
    rows: Any
    labels: np.ndarray
    test_rows: Any
    test_labels: np.ndarray
    seed: int

    @property
    def known(self) -> np.ndarray:
        """Indices of the labelled rows."""
        return np.flatnonzero(self.labels != UNKNOWN)

    def student(self, **parameters: Any) -> AFTClassifier:
        """Return a student that is not fitted yet."""
        return AFTClassifier(missing_label=UNKNOWN, random_state=self.seed, **parameters)

    def extractor(self, **parameters: Any) -> FoundationFeatureExtractor:
        """Return the frozen teachers."""
        return FoundationFeatureExtractor(_TEACHERS[self.name], **parameters)


class WithoutStudent(PooledDistillation):
    """The pool of the teachers alone, without linear models of what the student has."""

    def fit(self, rows: TransferRows) -> np.ndarray:
        """Fit the teachers."""
        return super().fit(replace(rows, student_columns=None))


def read(task: str, folder: str | None, seed: int) -> Run:
    """Return the rows of a task, with the labels that a seed draws."""
    name, _, number = task.partition(":")
    data = load(name, folder)
    is_image = name in IMAGES
    known = known_rows(data.labels, number, seed)
    kept = np.arange(len(data.labels))
    if is_image:
        others = np.random.default_rng(seed + 1).permutation(np.setdiff1d(kept, known))
        kept = np.concatenate([known, others[:_N_OTHER_IMAGES]])
    labels = np.full(len(data.labels), UNKNOWN)
    labels[known] = data.labels[known]
    n_test = _N_TEST_IMAGES if is_image else None
    test_rows, test_labels = data.test_rows[:n_test], data.test_labels[:n_test]
    return Run(name, data.rows[kept], labels[kept], test_rows, test_labels, seed)


Measured = tuple[Any, float, dict[str, Any]]


def default(run: Run, **parameters: Any) -> Measured:
    """Fit the default; the features are there before the time is taken."""
    rows = run.extractor().fit_transform(run.rows)
    student = run.student(**parameters)
    seconds = fitted(student, rows, run.labels)
    return student, seconds, facts(student)


def pool(with_student: bool, **parameters: Any) -> Callable[[Run], Measured]:
    """Return what fits a student with some of the default's teachers."""

    def measure(run: Run) -> Measured:
        rows = run.extractor(**parameters).fit_transform(run.rows)
        transfer: Any = "auto" if with_student else WithoutStudent()
        student = run.student(transfer=transfer)
        seconds = fitted(student, rows, run.labels)
        return student, seconds, facts(student)

    return measure


def useless(
    features: Callable[[Run, np.random.Generator], np.ndarray],
) -> Callable[[Run], Measured]:
    """Return what fits the default with features that know nothing of the rows."""

    def measure(run: Run) -> Measured:
        start = {"module__start": "minilm"} if run.name in TEXTS else {}
        student = run.student(**start)
        made = features(run, np.random.default_rng(run.seed))
        seconds = fitted(student, run.rows, run.labels, features=made)
        return student, seconds, facts(student)

    return measure


def random_features(run: Run, random: np.random.Generator) -> np.ndarray:
    """Return noise."""
    return random.normal(size=(len(run.rows), 384)).astype(np.float32)


def features_of_others(run: Run, random: np.random.Generator) -> np.ndarray:
    """Return each row's features for another row."""
    rows = run.extractor().fit_transform(run.rows).teacher_features
    return random.permutation(rows.features)


def fitted(model: Any, rows: Any, labels: np.ndarray, **parameters: Any) -> float:
    """Fit a model, and return the seconds."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, labels, **parameters)
    return time.perf_counter() - start


def facts(student: AFTClassifier) -> dict[str, Any]:
    """Return what taught a student."""
    if student.beta_ == 0:
        return {}
    weights = {name: round(weight, 2) for name, weight in student.teacher_weights_.items()}
    return {"teachers": weights, "score": round(student.teacher_score_, 3)}


METHODS: dict[str, Callable[[Run], Measured]] = {
    ALONE: lambda run: default(run, beta=0),
    DEFAULT: default,
    "pool of the last layer": pool(False, layers=[-1]),
    "pool of two layers": pool(False, layers="auto"),
    "useless: random": useless(random_features),
    "useless: other rows": useless(features_of_others),
    "useless: embeddings": pool(True, layers=[0]),
}
_ONLY_TEXTS = ("useless: embeddings",)
TASKS = [f"{name}:{number}" for name, number in product((*TEXTS, *IMAGES), NUMBERS)]


def measure(task: str, method: str, seed: int, folder: str | None) -> dict[str, Any]:
    """Return the line of a task, a method and a seed."""
    run = read(task, folder, seed)
    model, seconds, more = METHODS[method](run)
    error = 100 * float(np.mean(model.predict(run.test_rows) != run.test_labels))
    line = {"task": task, "method": method, "seed": seed, "error": round(error, 2)}
    return {**line, "seconds": round(seconds, 1), **more}


def print_table(lines: list[dict[str, Any]]) -> None:
    """Print the mean errors, and those over the student alone with the same labels."""
    errors = {(line["task"], line["method"], line["seed"]): line["error"] for line in lines}
    for number in NUMBERS:
        print(f"\n{number} labels a class: error, and error over the student alone")
        ratios: dict[str, list[float]] = {}
        for method in METHODS:
            cells = []
            for task in (task for task in TASKS if task.endswith(f":{number}")):
                seeds = [s for t, m, s in errors if (t, m) == (task, method)]
                own = np.array([errors[task, method, seed] for seed in seeds])
                alone = np.array([errors.get((task, ALONE, seed), np.nan) for seed in seeds])
                if not len(own):
                    continue
                ratio = own.mean() / alone.mean()
                ratios.setdefault(method, []).append(ratio)
                spread = (own - ratio * alone).std(ddof=1) / len(own) ** 0.5 if len(own) > 1 else 0
                cells.append(
                    f"{task.partition(':')[0]} {own.mean():5.2f}{_spread(own)} "
                    f"{ratio:.2f} +- {spread / alone.mean():.2f} ({len(own)})"
                )
            if cells:
                print(f"  {method:24s} mean {np.mean(ratios[method]):.2f}   " + "   ".join(cells))


def _spread(values: np.ndarray) -> str:
    return f" +- {values.std(ddof=1) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="directory of the data sets; default: SK_AFT_DATA")
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all")
    parser.add_argument("--method", choices=METHODS, action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds, default: 2")
    parser.add_argument("--first-seed", type=int, default=10, help="first seed, default: 10")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the lines")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    path = options.results

    def known_lines() -> list[dict[str, Any]]:
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    seeds = range(options.first_seed, options.first_seed + options.seeds)
    wanted = list(product(seeds, options.task or TASKS, options.method or METHODS))
    for seed, task, method in [] if options.table else wanted:
        is_text = task.partition(":")[0] in TEXTS
        done = {(line["seed"], line["task"], line["method"]) for line in known_lines()}
        if (seed, task, method) in done or (method in _ONLY_TEXTS and not is_text):
            continue
        line = measure(task, method, seed, options.data)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    print_table([line for line in known_lines() if line["seed"] in seeds])


if __name__ == "__main__":
    main()
