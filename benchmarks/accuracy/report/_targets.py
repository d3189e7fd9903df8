"""What the project set out to reach, and what the runs say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.accuracy._experiments import Experiment
from benchmarks.accuracy._suites import BAG, COMPARED, SMALL
from benchmarks.accuracy.report._scores import Scores, alone_of, difference, normalized
from benchmarks.accuracy.report._tables import (
    COSTS_OF,
    cell_of,
    correlation,
    is_on_front,
    is_worse,
    markdown,
    mean_normalized,
)

_DEFAULT = "default"


Row = tuple[str, str, str, bool]


def targets_table(found: Callable[[str], list[Scores]], costs: Sequence[dict[str, Any]]) -> str:
    """Return each target beside what came out, where it was measured with several seeds.

    Parameters
    ----------
    found : callable
        From the name of a suite to its scores.
    costs : sequence of dict
        What predictions cost, as `benchmarks.accuracy.pareto` measured it.
    """
    of_suites = [*found("language"), *found("vision"), *found("multimodal"), *found("labels")]
    every_one = {one.experiment: one for one in of_suites}.values()
    if any(len(one.errors) < 2 for one in every_one if one.experiment.student):
        return ""
    rows = [
        *_means(found("methods")),
        *_few_labels(found("labels")),
        *_correlations(found("teachers")),
        *_two_teachers([*found("language"), *found("vision")]),
        *_harm(list(every_one)),
        *_front(found("pareto"), costs),
    ]
    header = ["target", "wanted", "came out", ""]
    return markdown(header, [[*texts, "met" if is_met else "missed"] for *texts, is_met in rows])


def _means(found: Sequence[Scores]) -> Iterable[Row]:
    means = mean_normalized(found, COMPARED)
    if _DEFAULT in means:
        mean = means[_DEFAULT][0]
        ranking = sorted(means, key=lambda method: means[method][0])
        name = "default: mean normalised error, texts and images"
        yield name, "at most 0.80", f"{mean:.3f}", mean <= 0.8
        place = f"{ranking.index(_DEFAULT) + 1} of {len(ranking)}; first is {ranking[0]}"
        yield "default: lower than every other method", "first", place, ranking[0] == _DEFAULT


def _few_labels(found: Sequence[Scores]) -> Iterable[Row]:
    """Yield errors with 10 labels a class where the other rows take part."""
    for one in found:
        alone = alone_of(one, found)
        method, cell = one.experiment.method, cell_of(one)
        if "unlabelled" in method and cell.labels == "10 a class" and alone is not None:
            value = normalized(one, alone)
            name = f"{cell.title}: normalised error of {method}"
            yield name, "at most 0.55", f"{value:.2f}", value <= 0.55


def _correlations(found: Sequence[Scores]) -> Iterable[Row]:
    """Yield the correlation that each column has with the teachers' probes."""
    for cell in dict.fromkeys(map(cell_of, found)):
        for method in ("aft", "aft + unlabelled", "probe-kd + unlabelled"):
            value = correlation(found, method, cell)
            if not np.isnan(value):
                name = f"{cell.title}: correlation of {method} with the teacher's probe"
                yield name, "at least 0.95", f"{value:.2f}", value >= 0.95


def _two_teachers(found: Sequence[Scores]) -> Iterable[Row]:
    """Yield in how many columns two teachers do better than the better one alone."""
    students = [one for one in found if one.experiment.student in (BAG, SMALL)]
    for method in (_DEFAULT, "aft", "probe-kd"):
        of_method = [one for one in students if one.experiment.method == method]
        pairs = [
            (both, min(singles, key=lambda one: one.mean))
            for both in of_method
            if len(singles := [one for one in of_method if _is_single_of(one, both)]) > 1
        ]
        if pairs:
            means = [difference(both, single) for both, single in pairs]
            n_lower = sum(mean < 0 for mean, _ in means)
            n_sure = sum(mean < -2 * error for mean, error in means)
            name = f"{method}: columns where two teachers beat the better one"
            came_out = f"{n_lower} of {len(pairs)}, {n_sure} by two standard errors"
            yield name, "at least 3", came_out, n_sure >= 3


def _is_single_of(one: Scores, both: Scores) -> bool:
    names = both.experiment.teacher.split(" + ")
    return one.experiment.teacher in names and one.experiment == replace(
        both.experiment, teacher=one.experiment.teacher
    )


def _harm(found: Sequence[Scores]) -> Iterable[Row]:
    for method in (_DEFAULT, f"{_DEFAULT}, not tuned"):
        of_method = [one for one in found if one.experiment.method == method]
        pairs = [(one, alone) for one in of_method if (alone := alone_of(one, found)) is not None]
        if pairs:
            n_worse = sum(is_worse(*pair) for pair in pairs)
            name = f"{method}: columns that were run, and are worse than the student alone (†)"
            yield name, "none", f"{n_worse} of {len(pairs)}", not n_worse


def _front(found: Sequence[Scores], costs: Sequence[dict[str, Any]]) -> Iterable[Row]:
    measured = [Experiment(**cost["experiment"]) for cost in costs]
    of_default = [one for one in found if one.experiment.method == _DEFAULT]
    of_default = [one for one in of_default if one.experiment.as_deployed in measured]
    for cost in COSTS_OF if of_default else ():
        on_front = [is_on_front(one, found, costs, cost) for one in of_default]
        name = f"default: columns where it is on the Pareto front of error and {cost}"
        yield name, "all", f"{sum(on_front)} of {len(on_front)}", all(on_front)
