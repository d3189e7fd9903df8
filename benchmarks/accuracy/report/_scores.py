"""Test errors of experiments, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy._experiments import Experiment
from benchmarks.accuracy._runs import RESULTS, Runs

ALONE = "student alone"


@dataclass(frozen=True)
class Scores:
    """What an experiment came to.

    Parameters
    ----------
    experiment : Experiment
        Which.
    errors : ndarray of shape (n_seeds,)
        Share of test rows that it got wrong, or of the variance that it did not explain.
    lines : list of dict
        The runs.
    """

    experiment: Experiment
    errors: np.ndarray
    lines: list[dict[str, Any]]

    @property
    def mean(self) -> float:
        """Mean error over the seeds."""
        return float(self.errors.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; NaN for one seed."""
        return standard_error(self.errors)

    @property
    def devices(self) -> set[str]:
        """Kinds of devices that the students were trained on."""
        return {
            line["device"].split(",")[0].split(":")[0] for line in self.lines if "device" in line
        }


def standard_error(values: np.ndarray) -> float:
    """Return the standard error of a mean, NaN for a single value and where one is infinite."""
    n = len(values)
    is_known = n > 1 and np.isfinite(values).all()
    return float(np.std(values, ddof=1) / np.sqrt(n)) if is_known else float("nan")


def scores(
    experiments: Iterable[Experiment], n_seeds: int = 3, results: Path = RESULTS
) -> list[Scores]:
    """Return the scores of those experiments whose runs are all there."""
    found = []
    for experiment in dict.fromkeys(experiments):
        lines = experiment.lines(_runs(experiment.data, results), n_seeds)
        if lines:
            errors = np.array([line["error"] for line in lines])
            found.append(Scores(experiment, errors, lines))
    return found


@lru_cache
def _runs(name: str, results: Path) -> Runs:
    return Runs(name, results)


def held_out_error(one: Scores, results: Path = RESULTS) -> float:
    """Return the mean error that the chosen setting had in its trials."""
    runs = _runs(one.experiment.data, results)
    return float(np.mean(one.experiment.trial_errors(runs, one.lines[0]["setting"])))


def alone_of(one: Scores, among: Iterable[Scores]) -> Scores | None:
    """Return the scores of the same student without a teacher, or of any if it has no student."""
    wanted = replace(one.experiment, method=ALONE, teacher="")
    for other in among:
        of_any = replace(other.experiment, student=wanted.student, steps=wanted.steps)
        if wanted == (other.experiment if wanted.student else of_any):
            return other
    return None


def normalized(one: Scores, alone: Scores) -> float:
    """Return the mean error divided by that of the student alone."""
    return one.mean / alone.mean


def difference(one: Scores, alone: Scores) -> tuple[float, float]:
    """Return the mean difference of the errors, paired by seed, and its standard error."""
    paired = one.errors - alone.errors
    return float(paired.mean()), standard_error(paired)
