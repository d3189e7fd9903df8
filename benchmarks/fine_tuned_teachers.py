"""Foundation models that are fine-tuned on the labelled rows before they teach.

    python -m benchmarks.fine_tuned_teachers --data DIR [--part NAME ...] [--task NAME ...]
        [--method NAME ...] [--seeds N] [--first-seed N] [--steps N]
        [--steps-of-student N]

DIR holds trec.parquet, sst2.parquet and banking77.parquet with the columns text, label and split,
and cifar10.parquet and chest_xray.parquet with image instead of text. A task is a data set and the
number of labels of each class, such as "trec:10". Nothing is tuned: every method has its defaults,
except that students learn with "probe-kd". `benchmarks.default_transfer` has the default.

- pipelines: test error of a logistic regression on frozen and on fine-tuned features, and SetFit.
- objectives: how well the out-of-fold scores of each objective agree with its test error.
- students: small networks that are taught by a frozen and by a fine-tuned model.
- two layers: the same, with the first two layers of MiniLM as the student.
- noise: cross-validated accuracy if the labels are random.
- times: seconds of a fit with its folds, without a store.
- images: as pipelines, for EfficientNet-Lite0.

Lines go to ``benchmarks/results/fine_tuned_teachers.jsonl``, and what is there is not run again.
Times are those of an empty store: let SK_AFT_CACHE name a new directory. SetFit runs where it is
installed, ``pip install setfit datasets``; that may be another environment than that of the rest.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline

from benchmarks.accuracy._columns import draw
from benchmarks.accuracy._data import load
from benchmarks.accuracy._setfit import SetFitClassifier
from benchmarks.text_students import known_rows
from sk_aft import AFTClassifier, FineTunedFeatureExtractor, FoundationFeatureExtractor

RESULTS = Path(__file__).parent / "results" / "fine_tuned_teachers.jsonl"
UNKNOWN = -1
FROZEN, SETFIT = "frozen", "SetFit"
_N_TEST_IMAGES = 2000
_N_NOISE = 60
_MODELS = {"cifar10": "effnet-lite0", "chest_xray": "effnet-lite0"}


class Run(NamedTuple):
    """Rows of a task, some with labels, and the settings of a run.

    Parameters
    ----------
    model : str
        The foundation model.
    rows, labels : ndarray
        All training rows, and their labels, most of them -1.
    test_rows, test_labels : ndarray
        Test rows.
    seed : int
        Determines which labels are known, and is the random state of all that is fitted.
    steps : int
        Steps of fine-tuning.
    steps_of_student : int or None
        Steps of a student; None is its default.
    """

    model: str
    rows: np.ndarray
    labels: np.ndarray
    test_rows: np.ndarray
    test_labels: np.ndarray
    seed: int
    steps: int
    steps_of_student: int | None

    @property
    def labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and labels of those that have one."""
        known = self.labels != UNKNOWN
        return self.rows[known], self.labels[known]

    def tuned(self, **parameters: Any) -> FineTunedFeatureExtractor:
        """Return a fine-tuned teacher that is not fitted yet."""
        settings = {"n_steps": self.steps, "missing_label": UNKNOWN, "random_state": self.seed}
        return FineTunedFeatureExtractor(self.model, **settings | parameters)

    def student(self, **parameters: Any) -> AFTClassifier:
        """Return a student that is not fitted yet."""
        common = {"missing_label": UNKNOWN, "random_state": self.seed, "transfer": "probe-kd"}
        student = AFTClassifier(**common | parameters)
        if self.steps_of_student is None:
            return student
        n_known = int(np.sum(self.labels != UNKNOWN))
        n_others = 0 if student.beta == 0 else len(self.rows) - n_known
        # Half of a batch are rows without labels, if there are any.
        per_pass = 2 * max(n_known, n_others) if n_others else n_known
        n_epochs = max(1, round(self.steps_of_student * student.batch_size / per_pass))
        return student.set_params(max_epochs=n_epochs)


def fitted(model: Any, rows: Any, labels: np.ndarray) -> float:
    """Fit a model, and return the seconds."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, labels)
    return round(time.perf_counter() - start, 1)


def facts(model: Any) -> dict[str, Any]:
    """Return what a pipeline's fine-tuned teacher has chosen."""
    teacher = model[0] if isinstance(model, Pipeline) else model
    if not isinstance(teacher, FineTunedFeatureExtractor):
        return {}
    scores = {
        name: {metric: round(value, 4) for metric, value in own.items()}
        for name, own in teacher.cv_scores_.items()
    }
    return {"objective": teacher.objective_, "cv_scores": scores}


def measured(model: Any, run: Run, rows: Any, labels: np.ndarray) -> dict[str, Any]:
    """Fit a model to some rows; return its test error and the seconds of the fit."""
    seconds = fitted(model, rows, labels)
    error = 100 * float(np.mean(model.predict(run.test_rows) != run.test_labels))
    return {"error": round(error, 2), "seconds": seconds, **facts(model)}


def frozen(run: Run) -> dict[str, Any]:
    """Measure the frozen probe."""
    model = _probe(FoundationFeatureExtractor(run.model, cache=None))
    return measured(model, run, *run.labelled)


def tuned(objective: str, cache: str | None = None) -> Callable[[Run], dict[str, Any]]:
    """Return what measures a probe on fine-tuned features."""

    def measure(run: Run) -> dict[str, Any]:
        model = _probe(run.tuned(objective=objective, cache=cache))
        return measured(model, run, *run.labelled)

    return measure


def setfit(run: Run) -> dict[str, Any]:
    """Measure SetFit with as many steps."""
    model = SetFitClassifier(max_steps=run.steps, seed=run.seed)
    return measured(model, run, *run.labelled)


def _probe(extractor: Any) -> Pipeline:
    return make_pipeline(extractor, LogisticRegression(max_iter=1000))


def student(teacher: str, **parameters: Any) -> Callable[[Run], dict[str, Any]]:
    """Return what measures a student on all training rows, most of them without labels."""

    def measure(run: Run) -> dict[str, Any]:
        model = run.student(**parameters)
        if teacher == "frozen":
            model = make_pipeline(FoundationFeatureExtractor(run.model), model)
        elif teacher == "tuned":
            model = make_pipeline(run.tuned(), model)
        return measured(model, run, run.rows, run.labels)

    return measure


def pseudo_labels(run: Run) -> dict[str, Any]:
    """Measure TF-IDF and a logistic regression on what the fine-tuned probe predicts."""
    teacher = _probe(run.tuned()).fit(*run.labelled)
    labels = np.where(run.labels == UNKNOWN, teacher.predict(run.rows), run.labels)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    return measured(model, run, run.rows, labels)


def noise(with_student: bool) -> Callable[[Run], dict[str, Any]]:
    """Return what cross-validates a pipeline on labels that are random."""

    def measure(run: Run) -> dict[str, Any]:
        random = np.random.default_rng(run.seed)
        rows = random.permutation(run.rows)[:_N_NOISE]
        labels = random.permutation(np.arange(_N_NOISE) % 2)
        run = run._replace(rows=rows, labels=labels)
        model = make_pipeline(run.tuned(), run.student()) if with_student else _probe(run.tuned())
        start = time.perf_counter()
        accuracy = cross_val_score(model, rows, labels, error_score="raise").mean()
        seconds = round(time.perf_counter() - start, 1)
        return {"error": round(100 * (1 - accuracy), 2), "chance": 50.0, "seconds": seconds}

    return measure


def times(run: Run) -> dict[str, Any]:
    """Measure the seconds of a fit that finds nothing in a store."""
    teacher = FineTunedFeatureExtractor(run.model, cache=None, random_state=run.seed)
    seconds = fitted(teacher, *run.labelled)
    return {"seconds": seconds, **facts(teacher)}


class Method(NamedTuple):
    """A way to learn a task.

    Parameters
    ----------
    measure : callable
        Takes a run, returns what it measured.
    settings : tuple of str
        Settings of the run that change its result.
    """

    measure: Callable[[Run], dict[str, Any]]
    settings: tuple[str, ...] = ("steps",)


_OF_STUDENT = ("steps_of_student",)
_OF_BOTH = ("steps", "steps_of_student")
_TWO = {"module": "minilm", "module__n_layers": 2}
# "tuned, auto" goes first and alone to the store: what others left there would save it time, and
# it teaches the students.
METHODS = {
    FROZEN: Method(frozen, ()),
    "tuned, auto": Method(tuned("auto", cache="auto")),
    "tuned, pairs": Method(tuned("pairs")),
    "tuned, linear": Method(tuned("linear")),
    SETFIT: Method(setfit),
    "student alone": Method(student("none", beta=0), _OF_STUDENT),
    "student of frozen": Method(student("frozen"), _OF_STUDENT),
    "student of tuned": Method(student("tuned"), _OF_BOTH),
    "TF-IDF on labels of tuned": Method(pseudo_labels),
    "2 layers alone": Method(student("none", beta=0, **_TWO), _OF_STUDENT),
    "2 layers of frozen": Method(student("frozen", **_TWO), _OF_STUDENT),
    "2 layers of tuned": Method(student("tuned", **_TWO), _OF_BOTH),
    "noise, probe": Method(noise(with_student=False)),
    "noise, student": Method(noise(with_student=True), _OF_BOTH),
    "fit": Method(times, ()),
}


class Part(NamedTuple):
    """A table.

    Parameters
    ----------
    tasks : tuple of str
        Data sets, each with its number of labels; "DATA:10" is 10 of each class, "DATA:800 rows"
        800 in all.
    methods : tuple of str
        Rows of the table.
    n_seeds : int
        How many seeds at most.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    n_seeds: int = 10


_TUNED = ("tuned, auto", "tuned, pairs", "tuned, linear")
_FEW = ("trec:10", "sst2:10", "banking77:10")
PARTS = {
    "pipelines": Part(_FEW, (FROZEN, *_TUNED, SETFIT)),
    "objectives": Part((*_FEW, "trec:50", "sst2:50"), (FROZEN, *_TUNED)),
    "students": Part(
        (*_FEW, "trec:50"),
        (
            FROZEN,
            "tuned, auto",
            "student alone",
            "student of frozen",
            "student of tuned",
            "TF-IDF on labels of tuned",
        ),
    ),
    "two layers": Part(
        ("trec:10",), ("tuned, auto", *(name for name in METHODS if name.startswith("2 layers"))), 1
    ),
    "noise": Part(("trec:10",), ("noise, probe", "noise, student")),
    "times": Part(("trec:10", "banking77:800 rows"), ("fit",), 1),
    "images": Part(
        ("cifar10:10", "cifar10:100", "chest_xray:10", "chest_xray:100"), (FROZEN, "tuned, auto")
    ),
}


def read(task: str, folder: str | None, seed: int, steps: int, steps_of_student: int | None) -> Run:
    """Return the rows of a task, with the labels that a seed draws."""
    name, _, number = task.partition(":")
    data = load(name, folder)
    of_class = not number.endswith("rows")
    number = number.removesuffix(" rows")
    known = known_rows(data.labels, number, seed) if of_class else draw(data.labels, number, seed)
    labels = np.full(len(data.labels), UNKNOWN)
    labels[known] = data.labels[known]
    n_test = _N_TEST_IMAGES if name == "cifar10" else None
    return Run(
        _MODELS.get(name, "minilm"),
        data.rows,
        labels,
        data.test_rows[:n_test],
        data.test_labels[:n_test],
        seed,
        steps,
        steps_of_student,
    )


class Cell(NamedTuple):
    """What a line is about: a method on a task with a seed, and the settings that matter to it."""

    task: str
    method: str
    seed: int
    settings: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, task: str, method: str, seed: int, settings: dict[str, Any]) -> Cell:
        """Return a cell; settings that the method does not use are left out."""
        used = tuple((name, settings[name]) for name in METHODS[method].settings)
        return cls(task, method, seed, used)

    def as_dict(self) -> dict[str, Any]:
        """Return the head of the line."""
        return {"task": self.task, "method": self.method, "seed": self.seed, **dict(self.settings)}


class Lines:
    """What has been measured.

    Parameters
    ----------
    path : Path
        The file, with a line for each cell.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = [json.loads(line) for line in path.open()] if path.exists() else []
        self._lines = {
            Cell.of(line["task"], line["method"], line["seed"], line): line for line in lines
        }

    def get(self, cell: Cell) -> dict[str, Any] | None:
        """Return the line of a cell, if there is one."""
        return self._lines.get(cell)

    def add(self, cell: Cell, measured: dict[str, Any]) -> None:
        """Write a line."""
        self._lines[cell] = line = cell.as_dict() | measured
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def cells(part: Part, options: argparse.Namespace) -> Iterator[Cell]:
    """Yield what a part has to measure."""
    tasks = [task for task in part.tasks if task in (options.task or part.tasks)]
    methods = [name for name in part.methods if name in (options.method or part.methods)]
    n_seeds = min(options.seeds, part.n_seeds)
    seeds = range(options.first_seed, options.first_seed + n_seeds)
    for task, seed, method in product(tasks, seeds, methods):
        yield Cell.of(task, method, seed, vars(options))


def print_table(title: str, wanted: list[Cell], lines: Lines) -> None:
    """Print what the seeds of each method measured on each task."""
    print(f"\n{title}")
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in wanted:
        if line := lines.get(cell):
            measured.setdefault((cell.task, cell.method), []).append(line)
    for (task, method), own in measured.items():
        reference = [] if method == FROZEN else measured.get((task, FROZEN), [])
        shown = "  ".join([*_errors(own, reference), *_facts(own)])
        print(f"  {task:19s} {method:26s} {shown}")


def _errors(lines: list[dict[str, Any]], reference: list[dict[str, Any]]) -> list[str]:
    """Return the error of a method, and what the reference's is more on the same labels.

    Which labels are drawn changes the errors of all methods, so the difference is more certain.
    """
    errors = {line["seed"]: line["error"] for line in lines if "error" in line}
    if not errors:
        return []
    shown = [f"{_mean(list(errors.values()))} %"]
    pairs = [line["error"] - errors[line["seed"]] for line in reference if line["seed"] in errors]
    return [*shown, f"frozen has {_mean(pairs)} more"] if pairs else shown


def _mean(values: list[float]) -> str:
    """Return the mean and, of two or more values, its standard error."""
    spread = f" +- {np.std(values, ddof=1) / len(values) ** 0.5:4.2f}" if values[1:] else ""
    return f"{np.mean(values):6.2f}{spread}"


def _facts(lines: list[dict[str, Any]]) -> list[str]:
    """Return the seconds, objectives and out-of-fold errors of a method."""
    shown = [f"{np.mean([line['seconds'] for line in lines]):7.1f} s  {len(lines)} seeds"]
    if "objective" in lines[0]:
        shown.append("/".join(line["objective"] for line in lines))
        for name in lines[0]["cv_scores"]:
            own = [line["cv_scores"][name] for line in lines if name in line["cv_scores"]]
            error = 100 * (1 - np.mean([scores["accuracy"] for scores in own]))
            log_loss = np.mean([scores["log_loss"] for scores in own])
            shown.append(f"{name} out of fold {error:.2f} %, log loss {log_loss:.3f}")
    return shown


def _problem_of_setfit() -> str:
    """Return why SetFit cannot be imported; "" if it can, and its import costs no time later."""
    try:
        import setfit  # noqa: F401
    except ImportError as error:
        return str(error)
    return ""


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    every_task = sorted({task for part in PARTS.values() for task in part.tasks})
    parser.add_argument("--data", help="directory of the data sets; default: SK_AFT_DATA")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--task", choices=every_task, action="append", help="default: all")
    parser.add_argument("--method", choices=METHODS, action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, default: 3")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed, default: 0")
    parser.add_argument("--steps", type=int, default=100, help="of fine-tuning, default: 100")
    parser.add_argument("--steps-of-student", type=int, help="default: those of AFTClassifier")
    options = parser.parse_args()
    lines = Lines(RESULTS)
    wanted = {name: list(cells(PARTS[name], options)) for name in options.part or PARTS}
    missing = [cell for part in wanted.values() for cell in part if not lines.get(cell)]
    if any(cell.method == SETFIT for cell in missing) and (problem := _problem_of_setfit()):
        print(f"SetFit is left out ({problem}); to run it: pip install setfit datasets")
        missing = [cell for cell in missing if cell.method != SETFIT]
    for cell in dict.fromkeys(missing):
        run = read(cell.task, options.data, cell.seed, options.steps, options.steps_of_student)
        lines.add(cell, METHODS[cell.method].measure(run))
    for name, part in wanted.items():
        print_table(name, part, lines)


if __name__ == "__main__":
    main()
