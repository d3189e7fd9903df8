"""Image students that start from a foundation model, alone and taught.

    python -m benchmarks.image_students --data DIR [--student NAME] [--task DATA:LABELS ...]
    python -m benchmarks.image_students --data DIR --variants

DIR holds cifar10.parquet and chest_xray.parquet with the columns image, label and split. The
teachers are EfficientNet-Lite0 and -Lite2. Each method of a student has the same number of trials
on a held-out quarter of the labelled rows. The best one is fitted to all training rows and scored
on the test rows, once for each of ``--seeds``. Linear models choose among four values of C in
5-fold cross-validation. Lines go to ``benchmarks/results/image_students.jsonl``, and what is there
is not run again. At the end a table is printed, in which "taught" is the transfer method with the
best score on held-out rows.

``--variants`` changes one setting of the student at a time and scores it on 3,000 training rows
that are not used otherwise.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from benchmarks.accuracy._data import load
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.modules import ResNet
from sk_aft.preprocessing import ImageResizer

RESULTS = Path(__file__).parent / "results" / "image_students.jsonl"
TASKS = ("cifar10:100", "cifar10:1000", "chest_xray:all")
TEACHERS = ["effnet-lite0", "effnet-lite2"]
ALONE, PROBE, PIXELS = "alone", "teachers' probe", "pixels + logistic regression"
METHODS: dict[str, dict[str, Any]] = {
    ALONE: {"beta": 0},
    "probe-kd": {"transfer": "probe-kd"},
    "aft": {"transfer": "aft"},
    "aft and probe-kd": {"transfer": [("aft", 3.0), ("probe-kd", 1.0)]},
}
_N_OTHERS = 10_000  # rows without labels
_N_VALIDATION = 3000  # of --variants


class Student(NamedTuple):
    """A kind of student.

    Parameters
    ----------
    parameters : dict
        Parameters that all trials have in common.
    trials : list of dict
        Parameters of each trial.
    """

    parameters: dict[str, Any]
    trials: list[dict[str, Any]]


STUDENTS = {
    "Lite0, 8 blocks": Student({"module": "effnet-lite0"}, [{"lr": lr} for lr in (2e-3, 4e-3)]),
    "ResNet from scratch": Student({"module": ResNet}, [{"lr": lr} for lr in (1e-3, 3e-3)]),
}
_SETTINGS: dict[str, dict[str, Any]] = {
    # 64 rows with labels, if there are rows without.
    "cifar10": {"batch_size": 192, "unlabeled_fraction": 2 / 3},
    # They lose detail at 64 pixels.
    "chest_xray": {"batch_size": 64, "module__image_size": 96},
}

# Settings of the student that change, and the methods that are compared.
_BOTH = (ALONE, "probe-kd")
VARIANTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "default": ({}, _BOTH),
    "32 px": ({"module__image_size": 32}, _BOTH),
    "48 px": ({"module__image_size": 48}, _BOTH),
    "nothing frozen": ({"module__n_frozen_layers": 0}, _BOTH),
    "3 layers frozen": ({"module__n_frozen_layers": 3}, (ALONE,)),
    "7 layers frozen": ({"module__n_frozen_layers": 7}, _BOTH),
    "12 blocks": ({"module__n_blocks": 12}, _BOTH),
    "no crops": ({"module__min_crop": 1.0}, (ALONE,)),
    "flips": ({"module__flip": True}, (ALONE,)),
    "mixup": ({"mixup": 0.2}, _BOTH),
    "head 10 times as fast": ({"module__head_lr_factor": 10}, (ALONE,)),
    "layer decay": ({"module__layer_decay": 0.8}, (ALONE,)),
}


class Images(NamedTuple):
    """Training images with their foundation features, and test images."""

    images: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def as_arrays(images: Any, size: int | None) -> np.ndarray:
    """Return images of one size as an array."""
    resize = ImageResizer(size) if size else ImageResizer()
    return np.moveaxis(resize.fit_transform(list(images)), 1, 3)


def read(task: str, folder: str | None, seed: int) -> tuple[Images, np.ndarray]:
    """Return the rows of a task that a seed draws, with features, and which labels are known."""
    name, _, n_labels = task.partition(":")
    data = load(name, folder)
    labels = np.unique(data.labels, return_inverse=True)[1]
    kept = labeled = np.arange(len(labels))
    if n_labels != "all":
        random = np.random.default_rng(seed)
        order = random.permutation(len(labels))[:-_N_VALIDATION]  # those are for --variants
        of_class = [order[labels[order] == k] for k in np.unique(labels)]
        labeled = np.concatenate([rows[: int(n_labels) // len(of_class)] for rows in of_class])
        others = order[~np.isin(order, labeled)][:_N_OTHERS]
        kept = np.concatenate([labeled, others])
    rows = [data.rows[row] for row in kept]
    extractor = FoundationFeatureExtractor(TEACHERS, verbose=1)
    features = np.array(extractor.fit_transform(rows).features)
    test_labels = np.searchsorted(np.unique(data.labels), data.test_labels)
    size = _SETTINGS[name].get("module__image_size")
    images = Images(
        as_arrays(rows, size),
        labels[kept],
        features,
        as_arrays(data.test_rows, size),
        test_labels,
    )
    return images, np.arange(len(labeled))


def fit(
    data: Images, known: np.ndarray, left_out: np.ndarray, parameters: dict, seed: int
) -> AFTClassifier:
    """Return a student fitted to all rows but some; only some of the labels are known."""
    labels = np.full(len(data.labels), -1)
    labels[known] = data.labels[known]
    kept = np.setdiff1d(np.arange(len(labels)), left_out)
    student = AFTClassifier(missing_label=-1, random_state=seed, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return student.fit(data.images[kept], labels[kept], features=data.features[kept])


def own_parameters(student: Student, task: str, method: str, trial: dict) -> dict[str, Any]:
    """Return the parameters of one trial."""
    settings = dict(_SETTINGS[task.partition(":")[0]])
    if student.parameters["module"] is ResNet:
        settings.pop("module__image_size", None)
    return {**student.parameters, **settings, **METHODS[method], **trial}


def measure(task: str, folder: str | None, student: Student, method: str, n_seeds: int) -> dict:
    """Choose among the trials of a method on held-out rows; return its test errors and costs."""
    data, known = read(task, folder, 0)
    learned, held_out = train_test_split(
        known, test_size=0.25, stratify=data.labels[known], random_state=0
    )
    trials = [own_parameters(student, task, method, trial) for trial in student.trials]
    scores = [
        fit(data, learned, held_out, parameters, 0).score(
            data.images[held_out], data.labels[held_out]
        )
        for parameters in trials
    ]
    best = int(np.argmax(scores))
    errors, seconds = [], []
    for seed in range(n_seeds):
        data, known = read(task, folder, seed)
        start = time.perf_counter()
        fitted = fit(data, known, np.arange(0), trials[best], seed)
        seconds.append(time.perf_counter() - start)
        errors.append(100 * (1 - fitted.score(data.test_images, data.test_labels)))
    return {
        "validation": max(scores),
        "chosen": student.trials[best],
        "errors": [round(error, 2) for error in errors],
        "seconds": [round(duration, 1) for duration in seconds],
        "n_weights": sum(weights.numel() for weights in fitted.module_.parameters()),
    }


def measure_linear(task: str, folder: str | None, method: str, n_seeds: int) -> dict[str, Any]:
    """Return the test errors of a logistic regression on features of the teachers or on pixels."""
    errors = []
    for seed in range(n_seeds):
        data, known = read(task, folder, seed)
        rows, test_rows = data.images, data.test_images
        scale: Any = FunctionTransformer(flatten)
        if method == PROBE:
            rows, scale = data.features, StandardScaler()
            raw = load(task.partition(":")[0], folder).test_rows
            extractor = FoundationFeatureExtractor(TEACHERS)
            test_rows = np.array(extractor.fit_transform(list(raw)).features)
        model = make_pipeline(scale, LogisticRegression(max_iter=1000))
        grid = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1]}
        search = GridSearchCV(model, grid, cv=5).fit(rows[known], data.labels[known])
        errors.append(100 * (1 - search.score(test_rows, data.test_labels)))
    fitted = search.best_estimator_[-1]
    return {
        "validation": float(search.best_score_),
        "chosen": search.best_params_,
        "errors": [round(error, 2) for error in errors],
        "seconds": [],
        "n_weights": fitted.coef_.size + fitted.intercept_.size,
    }


def flatten(images: np.ndarray) -> np.ndarray:
    """Return one row of numbers between 0 and 1 for each image."""
    return images.reshape(len(images), -1) / 255


def measure_variant(folder: str | None, parameters: dict[str, Any], method: str) -> dict[str, Any]:
    """Return the error of a changed student on unused training rows, and its costs."""
    task = "cifar10:1000"
    data, known = read(task, folder, 0)
    start = time.perf_counter()
    settings = {"module": "effnet-lite0", **_SETTINGS["cifar10"], **METHODS[method], **parameters}
    fitted = fit(data, known, np.arange(0), settings, 0)
    seconds = time.perf_counter() - start
    rows = load("cifar10", folder)
    unused = np.random.default_rng(0).permutation(len(rows.labels))[-_N_VALIDATION:]
    labels = np.unique(rows.labels, return_inverse=True)[1]
    images = as_arrays([rows.rows[row] for row in unused], None)
    start = time.perf_counter()
    error = 100 * (1 - fitted.score(images, labels[unused]))
    return {
        "errors": [round(error, 2)],
        "seconds": [round(seconds, 1)],
        "milliseconds": round(1000 * (time.perf_counter() - start) / len(unused), 2),
        "n_weights": sum(weights.numel() for weights in fitted.module_.parameters()),
    }


def wanted_lines(options: argparse.Namespace) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield the name of each line, and what measures it."""
    if options.variants:
        chosen = {name: VARIANTS[name] for name in options.variant or VARIANTS}
        for name, (parameters, methods) in chosen.items():
            for method in methods:
                names = {"variant": name, "task": "cifar10:1000", "method": method}
                yield names, (measure_variant, options.data, parameters, method)
        return
    for task in options.task or TASKS:
        for method in () if options.method else (PIXELS, PROBE):
            names = {"student": "none", "task": task, "method": method}
            yield names, (measure_linear, task, options.data, method, options.seeds)
        for name, method in product(options.student or STUDENTS, options.method or METHODS):
            names = {"student": name, "task": task, "method": method}
            measured = (measure, task, options.data, STUDENTS[name], method, options.seeds)
            yield names, measured


def print_table(lines: list[dict[str, Any]]) -> None:
    """Print the test errors of each task, and the variants."""
    of_tasks = [line for line in lines if "student" in line]
    for student, task in dict.fromkeys((line["student"], line["task"]) for line in of_tasks):
        own = [line for line in of_tasks if (line["student"], line["task"]) == (student, task)]
        taught = [line for line in own if line["method"] not in (ALONE, PROBE, PIXELS)]
        best = max(taught, key=lambda line: line["validation"], default=None)
        print(f"\n{student}, {task}")
        for line in own:
            errors = line["errors"]
            of_mean = np.std(errors, ddof=1) / len(errors) ** 0.5 if len(errors) > 1 else np.nan
            mark = "taught" if line is best else ""
            print(
                f"  {line['method']:30s} {np.mean(errors):5.2f} +- {of_mean:4.2f}  validation "
                f"{100 * (1 - line['validation']):5.2f}  {np.mean(line['seconds'] or 0):6.1f} s  "
                f"{line['n_weights'] / 1e6:.2f} M  {line['chosen']}  {mark}"
            )
    print()
    for line in lines:
        if "variant" in line:
            print(
                f"  {line['variant']:24s} {line['method']:10s} {line['errors'][0]:6.2f}  "
                f"{line['seconds'][0]:6.1f} s  {line['milliseconds']:5.2f} ms a row  "
                f"{line['n_weights'] / 1e6:.2f} M"
            )


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="directory of the data sets; default: SK_AFT_DATA")
    parser.add_argument("--student", choices=STUDENTS, action="append", help="default: all")
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all")
    parser.add_argument("--method", choices=METHODS, action="append", help="default: all")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=1, help="draws of labelled rows (default: 1)")
    parser.add_argument("--variants", action="store_true", help="compare settings of the student")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the lines")
    options = parser.parse_args()

    def known_lines() -> list[dict[str, Any]]:
        if not options.results.exists():
            return []
        return [json.loads(line) for line in options.results.open()]

    for names, (run, *arguments) in wanted_lines(options):
        n_seeds = 1 if options.variants else options.seeds
        same = [line for line in known_lines() if names.items() <= line.items()]
        if any(len(line["errors"]) >= n_seeds for line in same):
            continue
        line = {**names, **run(*arguments)}
        with options.results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print_table([line])
    print_table(known_lines())


if __name__ == "__main__":
    main()
