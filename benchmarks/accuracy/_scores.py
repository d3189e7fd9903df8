"""Arithmetic of test errors: means, ratios, and what beats what."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

# The errors of a method in a column, by seed.
Errors = Mapping[int, float]


class Estimate(NamedTuple):
    """A mean of ``n`` values with its standard error, which is NaN if there is one."""

    mean: float
    spread: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if np.isnan(self.spread) else f" ± {self.spread:.1f}")

    def as_ratio(self) -> str:
        """Return it with two digits."""
        return f"{self.mean:.2f}" + ("" if np.isnan(self.spread) else f" ± {self.spread:.2f}")


class Scores:
    """The test errors of a suite.

    Parameters
    ----------
    lines : iterable of dict
        Lines with a key of data, labels, method and seed, and an error.
    """

    def __init__(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self._errors: dict[tuple[str, str, str], dict[int, float]] = {}
        for line in lines:
            key = line["key"]
            of = key["data"], key["labels"], key["method"]
            self._errors.setdefault(of, {})[key["seed"]] = line["error"]

    def errors(self, column: Any, method: str) -> Errors:
        """Return the errors of a method in a column, by seed."""
        return self._errors.get((column.data, column.labels, method), {})

    def mean(self, column: Any, method: str) -> Estimate | None:
        """Return the mean error of a method in a column; None if it was not run."""
        return estimate(list(self.errors(column, method).values()))

    def ratio(self, column: Any, method: str, reference: str) -> Estimate | None:
        """Return the error over that of another method on the same seeds; None without any."""
        return ratio(self.errors(column, method), self.errors(column, reference))

    def mean_ratio(self, columns: Iterable[Any], method: str, reference: str) -> Estimate | None:
        """Return the mean of the ratios of columns, and the standard error over columns."""
        found = [self.ratio(column, method, reference) for column in columns]
        return estimate([one.mean for one in found if one is not None])


def estimate(values: list[float]) -> Estimate | None:
    """Return the mean of some values and its standard error; None if there are none."""
    if not values:
        return None
    spread = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return Estimate(float(np.mean(values)), float(spread), len(values))


def ratio(own: Errors, reference: Errors) -> Estimate | None:
    """Return the ratio of mean errors over the seeds that both have.

    The standard error is that of the mean of ``own - ratio * reference``, over the mean of the
    reference: draws of labels that are hard for both do not count.
    """
    seeds = sorted(own.keys() & reference.keys())
    if not seeds:
        return None
    numerator, denominator = (np.array([of[seed] for seed in seeds]) for of in (own, reference))
    value = numerator.mean() / denominator.mean()
    rest = estimate(list(numerator - value * denominator))
    return Estimate(float(value), rest.spread / denominator.mean(), len(seeds))


def is_better(one: Estimate | None) -> bool:
    """Return whether a ratio is below 1 by two standard errors; one seed does not tell."""
    return one is not None and one.mean + 2 * one.spread < 1


def is_worse(one: Estimate | None) -> bool:
    """Return whether a ratio is above 1 by two standard errors; one seed does not tell."""
    return one is not None and one.mean - 2 * one.spread > 1


def on_all_seeds(errors: Errors, of_student: Errors) -> float | None:
    """Return the error that a method of few seeds would have with all seeds of the student.

    That is the student's mean plus the mean difference from it on the seeds that both have: some
    draws of labels are easier than others, for all methods alike.
    """
    shared = errors.keys() & of_student.keys()
    if not shared:
        return statistics.mean(errors.values()) if errors else None
    difference = statistics.mean(errors[seed] - of_student[seed] for seed in shared)
    return round(statistics.mean(of_student.values()) + difference, 3)


def correlation(pairs: Iterable[tuple[float, float]]) -> float:
    """Return Pearson's correlation."""
    first, second = np.array(list(pairs)).T
    return float(np.corrcoef(first, second)[0, 1])
