"""An experiment: one method on one data set, tuned on held-out rows, scored on test rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline

from benchmarks._bfloat16 import lacks_bfloat16
from benchmarks.accuracy._data import Task, draw, held_out, load, mixtures, take
from benchmarks.accuracy._methods import BATCH_SIZE, METHODS, Setting
from benchmarks.accuracy._runs import Runs
from benchmarks.accuracy._students import student_settings
from benchmarks.accuracy._teachers import teacher
from sk_aft import FoundationFeatureExtractor
from sk_aft.exceptions import DivergenceError

_FEWEST_JUDGES = 100  # held-out rows that choose a setting, of several splits if need be
_MOST_SPLITS = 3
_EPOCHS_OF_MIXTURES = 4  # how often each is seen
_COLUMNS = ("image", "text")  # students of one of them


def _of_column(rows: Any, column: str | None) -> Any:
    return rows if column is None else rows[column].tolist()


@dataclass(frozen=True)
class RowsToEmbed:
    """Rows that a teacher has to have seen."""

    data: str
    teacher: str
    labels: str
    n_draws: int
    has_unlabeled: bool
    has_test: bool
    column: str | None

    def embed(self, directory: str | None) -> None:
        """Compute what is not in the store."""
        task = load(self.data, directory)
        draws = [draw(task, self.labels, seed) for seed in range(self.n_draws)]
        rows = np.arange(len(task.labels)) if self.has_unlabeled else np.unique(draws)
        sets = [take(task.rows, rows), *([task.test_rows] if self.has_test else [])]
        extractor = FoundationFeatureExtractor(teacher(self.teacher))
        for one in sets:
            extractor.precompute(_of_column(one, self.column))


@dataclass(frozen=True)
class Experiment:
    """What is run, once for each trial and then for each seed.

    Parameters
    ----------
    data : str
        Data set.
    method : str
        One of `METHODS`.
    student : str
        One of `STUDENTS`, or "" for methods without.
    teacher : str
        Foundation models, or "" for methods without.
    labels : str
        Which rows have a label, see `draw`.
    steps : int
        Batches that the student sees; 0 for methods without.
    """

    data: str
    method: str
    student: str = ""
    teacher: str = ""
    labels: str = "all"
    steps: int = 0

    @property
    def _is_deterministic(self) -> bool:
        """Whether every seed would give the same."""
        return self.labels == "all" and not METHODS[self.method].is_student

    @property
    def as_deployed(self) -> Experiment:
        """The same without its steps, which do not change what a prediction costs."""
        return replace(self, steps=0)

    def _seeds(self, n_seeds: int) -> range:
        """Return the seeds of its test scores; a grid has trials only."""
        if METHODS[self.method].grid:
            return range(0)
        return range(1 if self._is_deterministic else n_seeds)

    def rows_to_embed(self, n_seeds: int) -> RowsToEmbed:
        """Return which rows the teacher has to have seen."""
        method = METHODS[self.method]
        return RowsToEmbed(
            self.data,
            self.teacher,
            self.labels,
            1 if self.labels == "all" else n_seeds,
            has_unlabeled=method.uses_unlabeled,
            has_test=not method.is_student,
            column=self._column,
        )

    def lines(self, runs: Runs, n_seeds: int) -> list[dict[str, Any]] | None:
        """Return the lines of its test scores, or None if some are not there yet."""
        seeds = self._seeds(n_seeds)
        found = [runs.find(**asdict(self), seed=seed, on="test") for seed in seeds]
        return None if None in found else found

    def is_done(self, runs: Runs, n_seeds: int) -> bool:
        """Return whether nothing is left to run."""
        if grid := METHODS[self.method].grid:
            return all(self.trial_errors(runs, setting) for setting in grid)
        return self.lines(runs, n_seeds) is not None

    def trial_errors(self, runs: Runs, setting: Setting) -> list[float]:
        """Return the errors of a setting on held-out rows; none if it was not tried."""
        key = {**asdict(self), "setting": setting, "on": "validation"}
        lines = [runs.find(**key, split=split) for split in range(_MOST_SPLITS)]
        return [line["error"] for line in lines if line is not None]

    def run(
        self, task: Task, runs: Runs, n_seeds: int, device: str, *, has_trials: bool = True
    ) -> None:
        """Do what was not done before: trials on the first draw, then every seed.

        Parameters
        ----------
        task : Task
            The data.
        runs : Runs
            What was done, and where to keep what will be.
        n_seeds : int
            How many test scores.
        device : str
            Where students are trained.
        has_trials : bool, default=True
            Without, the usual setting is taken.
        """
        if self.is_done(runs, n_seeds):
            return
        start = METHODS[self.method].search(self.student, self.data).start
        setting = self._choose(task, runs, device) if has_trials else start
        for seed in self._seeds(n_seeds):
            runs.run(
                lambda seed=seed: self._test(task, setting, seed, device),
                **asdict(self),
                seed=seed,
                on="test",
            )

    def _choose(self, task: Task, runs: Runs, device: str) -> Setting:
        """Return the setting that did best on held-out rows."""
        search = METHODS[self.method].search(self.student, self.data)
        return search.best(lambda setting: self._trial(task, runs, setting, device))

    def _trial(self, task: Task, runs: Runs, setting: Setting, device: str) -> float:
        """Return the mean error of a setting on rows held out of the first draw."""
        labeled = draw(task, self.labels, 0)
        n_splits = int(np.clip(np.ceil(_FEWEST_JUDGES / (len(labeled) // 5)), 1, _MOST_SPLITS))
        errors = []
        for split in range(n_splits):

            def judged(split: int = split) -> dict[str, Any]:
                train, judges = held_out(task, labeled, split)
                judging = take(task.rows, judges), task.labels[judges]
                return self._line(
                    lambda: self.fit(task, train, setting, 0, device, hidden=judges), *judging
                )

            line = runs.run(judged, **asdict(self), setting=setting, split=split, on="validation")
            errors.append(line["error"])
        return float(np.mean(errors))

    def _test(self, task: Task, setting: Setting, seed: int, device: str) -> dict[str, Any]:
        labeled = draw(task, self.labels, seed)
        line = self._line(
            lambda: self.fit(task, labeled, setting, seed, device), task.test_rows, task.test_labels
        )
        return {"setting": setting, **line}

    def fit(
        self,
        task: Task,
        labeled: np.ndarray,
        setting: Setting,
        seed: int,
        device: str,
        hidden: Any = (),
    ) -> Any:
        """Train on labelled rows, and on all others but the hidden ones if the method does.

        Parameters
        ----------
        task : Task
            The data.
        labeled, hidden : array-like of int
            Rows.
        setting : dict
            What was chosen in the trials.
        seed : int
            Of the training.
        device : str
            Where to train.

        Returns
        -------
        model : estimator
            Fitted.
        """
        method = METHODS[self.method]
        half = BATCH_SIZE // 2
        others = np.array([], dtype=int)
        if method.uses_unlabeled:
            others = np.setdiff1d(np.arange(len(task.labels)), np.append(labeled, hidden))
            if len(others) > self.steps * half:  # no more than there are steps for
                random = np.random.RandomState(seed)
                others = random.choice(others, self.steps * half, replace=False)
        rows = _of_column(take(task.rows, np.append(labeled, others)), self._column)
        if method.uses_mixtures:
            number = self.steps * half // _EPOCHS_OF_MIXTURES
            rows = np.concatenate([rows, mixtures(rows, number, seed)])
        n_unlabeled = len(rows) - len(labeled)
        missing = np.nan if task.is_regression else -1
        labels = np.append(task.labels[labeled], np.full(n_unlabeled, missing))
        n_batches = -(-len(labeled) // BATCH_SIZE)
        if n_unlabeled:
            n_batches = max(-(-len(labeled) // half), -(-n_unlabeled // half))
        n_epochs = max(1, round(self.steps / n_batches))
        model = method.build(
            self.data, self.student, self.teacher, setting, n_epochs, seed, task.is_regression
        )
        if method.is_student:
            student = _student_of(model).set_params(device=device)
            if student.precision == "bf16-mixed" and lacks_bfloat16(device):
                student.set_params(precision="float32")
        return model.fit(rows, labels)

    @property
    def _column(self) -> str | None:
        return self.student if self.student in _COLUMNS else None

    def _line(self, fit: Callable[[], Any], rows: Any, targets: np.ndarray) -> dict[str, Any]:
        """Return the contents of a line besides its key; the error is infinite if it diverged."""
        start = time.perf_counter()
        try:
            model = fit()
        except DivergenceError as error:
            return {"error": math.inf, "failed": str(error)}
        seconds = time.perf_counter() - start
        line = {
            "error": 1 - float(model.score(_of_column(rows, self._column), targets)),
            "seconds": round(seconds, 1),
        }
        if METHODS[self.method].is_student:
            student = _student_of(model)
            line["beta"] = student.beta_
            line["n_parameters"] = sum(part.numel() for part in student.module_.parameters())
            lacking = student.precision == "float32" and _is_in_bfloat16(self.student, self.data)
            without = " without bfloat16" if lacking else ""
            line["device"] = f"{student.device_}{without}, torch {torch.__version__}"
        return line


def _is_in_bfloat16(student: str, data: str) -> bool:
    return student_settings(student, data).get("precision") == "bf16-mixed"


def _student_of(model: Any) -> Any:
    return model[-1] if isinstance(model, Pipeline) else model
