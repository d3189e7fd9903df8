"""The work of a process: runs on one data set, one after the other."""

from __future__ import annotations

import os
import time
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import torch
from threadpoolctl import threadpool_limits

from benchmarks.accuracy._columns import Column, error, n_weights, read
from benchmarks.accuracy._paper import Experiment
from benchmarks.accuracy._runs import Runs
from benchmarks.accuracy._suites import METHODS, Suite


@dataclass(frozen=True)
class Run:
    """A method on a column with a seed.

    Parameters
    ----------
    column : Column
        What is learned.
    method : str
        One of `METHODS`.
    seed : int
        Draws the labels.
    """

    column: Column
    method: str
    seed: int

    def key(self) -> dict[str, Any]:
        """Return what identifies the run."""
        return {
            "data": self.column.data,
            "labels": self.column.labels,
            "method": self.method,
            "seed": self.seed,
        }

    def is_done(self, runs: Runs) -> bool:
        """Return whether it has a line."""
        return runs.find(**self.key()) is not None

    def run(self, runs: Runs, directory: str | None) -> None:
        """Fit the method, score it once on the test rows, and write the line."""
        runs.run(lambda: self._measure(directory), **self.key())

    def _measure(self, directory: str | None) -> dict[str, Any]:
        rows, test_labels = read(self.column, directory, self.seed)
        start = time.perf_counter()
        model = METHODS[self.method].fit(rows)
        seconds = time.perf_counter() - start
        wrong = error(test_labels, model.predict(rows.test_rows), rows.is_regression)
        return {"error": round(wrong, 3), "seconds": round(seconds, 1), **n_weights(model)}


class Job(NamedTuple):
    """Runs on one data set, whose lines are in one file.

    Parameters
    ----------
    data : str
        The data set.
    work : list of Run or Experiment
        What is done in turn.
    file : tuple of (str, Path)
        Name and folder of the lines.
    """

    data: str
    work: list[Any]
    file: tuple[str, Path]


def of_suite(suite: Suite, runs: Runs) -> list[Job]:
    """Return what is missing of a suite; a column and seed are a job, so teachers are shared."""
    missing = [one for one in (Run(*of) for of in suite.runs()) if not one.is_done(runs)]
    groups = groupby(missing, key=lambda one: (one.column, one.seed))
    return [Job(column.data, list(some), runs.file) for (column, _), some in groups]


def of_experiments(experiments: Iterable[Experiment], runs: Runs) -> list[Job]:
    """Return what is missing of some experiments."""
    return [Job(one.column.data, [one], runs.file) for one in experiments if not one.is_done(runs)]


def run(job: Job, directory: str | None, version: str, main_process: int) -> list[str]:
    """Do a job with one thread, in a process of its own if there are several; return failures."""
    if os.getpid() != main_process:
        _end_with(main_process)
    torch.set_num_threads(1)
    lines, failed = Runs(*job.file, version), []
    for one in job.work:
        try:
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")
                one.run(lines, directory)
        except (Exception, SystemExit):  # such as what is not installed: others go on
            failed.append(f"{one}\n{traceback.format_exc()}")
    return failed


@lru_cache
def _end_with(main_process: int) -> None:
    """End this process if the main one is killed; otherwise it would keep running."""

    def watch() -> None:
        while os.getppid() == main_process:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
