"""What the project set out to reach, and what the runs say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.accuracy._suites import BAG, BOTH_LITE, BOTH_TEXT, COMPARED, SMALL
from benchmarks.accuracy.report._scores import ALONE, Scores, alone_of, normalized
from benchmarks.accuracy.report._tables import (
    Cell,
    cell_of,
    correlation,
    is_on_front,
    is_worse,
    markdown,
    mean_normalized,
)

_DEFAULT = "default"
_SINGLE = {BOTH_TEXT: ("minilm", "wordllama"), BOTH_LITE: ("effnet-lite0", "effnet-lite2")}


def targets_table(found: Callable[[str], list[Scores]], costs: Sequence[dict[str, Any]]) -> str:
    """Return each target beside what came out; empty where the first has no runs.

    Parameters
    ----------
    found : callable
        From the name of a suite to its scores.
    costs : sequence of dict
        What predictions cost, as `benchmarks.accuracy.pareto` measured it.
    """
    suites = [*found("language"), *found("vision")]
    means = mean_normalized(found("methods"), COMPARED)
    if not means[_DEFAULT][2]:
        return ""
    ranking = sorted(means, key=lambda method: means[method][0])
    every_one = [*suites, *found("multimodal"), *found("labels")]
    pairs = [
        (one, alone)
        for one in {one.experiment: one for one in every_one}.values()
        if one.experiment.method == _DEFAULT and (alone := alone_of(one, every_one)) is not None
    ]
    worse = [one for one, alone in pairs if is_worse(one, alone)]
    better, sets = _two_teachers(suites)
    rows = [
        (
            "default: mean normalised error, texts and images",
            "at most 0.80",
            f"{means[_DEFAULT][0]:.3f}",
            means[_DEFAULT][0] <= 0.8,
        ),
        (
            "default: lower than every other method",
            "first",
            f"{ranking.index(_DEFAULT) + 1} of {len(ranking)}, after {ranking[0]}",
            ranking[0] == _DEFAULT,
        ),
        *_few_labels(found("labels")),
        *_correlations(found("teachers")),
        (
            "two teachers better than either (best of default, aft, probe-kd): data sets",
            "at least 3",
            f"{better} of {sets}",
            better >= 3,
        ),
        (
            "default: columns worse than the student alone by two standard errors",
            "none",
            f"{len(worse)} of {len(pairs)}",
            not worse,
        ),
    ]
    if costs:
        on_front = [
            is_on_front(one, found("pareto"), costs)
            for one in found("pareto")
            if one.experiment.method == _DEFAULT
        ]
        rows.append(
            (
                "default: on the Pareto front of error and time, data sets",
                "all",
                f"{sum(on_front)} of {len(on_front)}",
                all(on_front),
            )
        )
    header = ["target", "wanted", "came out", ""]
    return markdown(header, [[*texts, "met" if is_met else "missed"] for *texts, is_met in rows])


def _few_labels(found: Sequence[Scores]) -> Iterable[tuple[str, str, str, bool]]:
    """Yield, for 10 labels a class, the error of the better method that sees the other rows."""
    by_cell: dict[Cell, list[float]] = {}
    for one in found:
        alone = alone_of(one, found)
        if one.experiment.method.endswith("unlabelled") and alone is not None:
            by_cell.setdefault(cell_of(one), []).append(normalized(one, alone))
    for cell, ratios in by_cell.items():
        if cell.labels == "10 a class":
            yield (
                f"{cell.title}, and rows without label: normalised error of aft or probe-kd",
                "at most 0.55",
                f"{min(ratios):.2f}",
                min(ratios) <= 0.55,
            )


def _correlations(found: Sequence[Scores]) -> Iterable[tuple[str, str, str, bool]]:
    """Yield the correlation that each column has with the teachers' probes."""
    for cell in dict.fromkeys(map(cell_of, found)):
        for method in ("aft", "aft + unlabelled", "probe-kd + unlabelled"):
            value = correlation(found, method, cell)
            if not np.isnan(value):
                name = f"{cell.title}: correlation of {method} with the teacher's probe"
                yield name, "at least 0.95", f"{value:.2f}", value >= 0.95


def _two_teachers(found: Sequence[Scores]) -> tuple[int, int]:
    """Return on how many data sets a method does better with two teachers than with either."""
    best: dict[tuple[Cell, str], float] = {}
    for one in found:
        if one.experiment.student in (BAG, SMALL) and one.experiment.method != ALONE:
            key = cell_of(one), one.experiment.teacher
            if one.experiment.method in (_DEFAULT, "aft", "probe-kd"):
                best[key] = min(one.mean, best.get(key, np.inf))
    better = [
        best[cell, both] < min(best.get((cell, name), np.inf) for name in _SINGLE[both])
        for cell, both in best
        if both in _SINGLE and any((cell, name) in best for name in _SINGLE[both])
    ]
    return sum(better), len(better)
