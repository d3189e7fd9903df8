"""The figures of docs/guide/benchmarks.md. What is told apart by colour differs in shape, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.accuracy import _suites as names
from benchmarks.accuracy._columns import Column
from benchmarks.accuracy._paper_tables import PUBLISHED
from benchmarks.accuracy._scores import Estimate, Scores, estimate, on_all_seeds
from benchmarks.accuracy._tables import CHEAP_RIVALS, title

_GREY, _RED, _DARK, _BLUE, _BLACK = "#9ca3af", "#dc2626", "#7f1d1d", "#2563eb", "#111827"
_BEST_RIVAL = "best rival as cheap"
# The look of each method, and its height in a row, so that equal errors do not hide each other.
_SHOWN: dict[str, tuple[dict[str, Any], float]] = {
    names.ALONE: ({"marker": "o", "color": _GREY}, 0),
    names.PROBE: ({"marker": "|", "color": _BLACK}, 0),
    names.TAUGHT: ({"marker": "o", "color": _RED}, 0),
    names.TAUGHT_BY_TUNED: ({"marker": "D", "color": _DARK}, -0.27),
    _BEST_RIVAL: ({"marker": "x", "color": _BLUE}, 0.27),
}


def draw_few(scores: Scores, columns: Sequence[Column]) -> Figure:
    """Draw the error of the student alone and taught, of its teacher and the best cheap rival."""
    figure = Figure(figsize=(7.2, 0.48 * len(columns) + 1.3), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(columns), 0, -1)
    for place, column in zip(places, columns, strict=True):
        ends = [_error(scores, column, name) for name in (names.ALONE, names.TAUGHT)]
        if None not in ends:
            axes.plot(ends, [place, place], color=_GREY, zorder=1)
    for name, (look, height) in _SHOWN.items():
        found = [
            _best_rival(scores, column) if name == _BEST_RIVAL else _error(scores, column, name)
            for column in columns
        ]
        _scatter(axes, found, places + height, name, look)
    axes.set_yticks(places, [f"{title(column)} a class" for column in columns])
    axes.set_xlim(left=0)
    axes.set_xlabel("test error, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _scatter(
    axes: Any, found: Sequence[float | None], places: Any, label: str, look: dict[str, Any]
) -> None:
    shown = [(one, place) for one, place in zip(found, places, strict=True) if one is not None]
    if shown:
        size = 150 if look["marker"] == "|" else 40
        axes.scatter(*zip(*shown, strict=True), label=label, s=size, zorder=3, **look)


def _error(scores: Scores, column: Column, method: str) -> float | None:
    """Return the mean error of a method, on the scale of the student's seeds if it has fewer."""
    return on_all_seeds(scores.errors(column, method), scores.errors(column, names.TAUGHT))


def _best_rival(scores: Scores, column: Column) -> float | None:
    """Return the error of the best rival that predicts as fast as the student."""
    found = [_error(scores, column, rival) for rival in CHEAP_RIVALS[column.kind]]
    return min((one for one in found if one is not None), default=None)


def draw_methods(ratios: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Draw each method's error over that of the student alone, in every column and on average."""
    means = {method: estimate([one.mean for one in of.values()]) for method, of in ratios.items()}
    order = sorted(
        (method for method in means if method != "stl"), key=lambda method: -means[method].mean
    )
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color=_GREY, linewidth=1)
    for place, method in enumerate(order):
        values = [one.mean for one in ratios[method].values()]
        axes.scatter(values, np.full(len(values), place), s=22, color=_GREY, zorder=2)
        axes.errorbar(
            means[method].mean, place, xerr=means[method].spread, color=_RED, fmt="o", zorder=3
        )
        if method in PUBLISHED:
            axes.scatter(PUBLISHED[method], place, s=70, marker="*", color=_BLUE, zorder=3)
    for label, look in (
        ("a data set", {"marker": "o", "color": _GREY, "s": 22}),
        ("mean, with its standard error", {"marker": "o", "color": _RED}),
        ("the paper's mean, of other data sets and students", {"marker": "*", "color": _BLUE}),
    ):
        axes.scatter([], [], label=label, **look)
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel("test error over that of the student alone")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def draw_costs(figures: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the error of deployed models over the time of a prediction; areas are sizes on disk.

    Parameters
    ----------
    figures : sequence of dict
        Of several forms of a method with about the same time, the first is drawn.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    drawn = {(one["method"], round(np.log10(one["ms_alone"]))): one for one in reversed(figures)}
    lowest: dict[tuple[float, bool], float] = {}
    errors = [one["compared_error"] for one in figures]
    times = [one["ms_alone"] for one in figures]
    middle = (min(times) * max(times)) ** 0.5
    gap = 0.12 * (max(errors) - min(errors))
    methods = [method for method, _ in drawn]
    for (method, decade), one in sorted(drawn.items(), key=lambda item: item[1]["compared_error"]):
        error, form = one["compared_error"], f", {one['form']}" * (methods.count(method) > 1)
        is_ours = "student" in method or "2 layers" in method
        look = {"color": _RED} if is_ours else {"color": _GREY, "marker": "s"}
        size = one["files_mb"] + one["packages_mb"]
        time = one["ms_alone"]
        axes.scatter(time, error, s=size / 2, alpha=0.6, **look)
        # Labels lie outside, and those of about the same time are moved up to show all of them.
        is_left = time < middle
        lowest[decade, is_left] = max(error, lowest.get((decade, is_left), 0) + gap)
        axes.annotate(
            f"{method}{form}\n{size:,.0f} MB",
            (time, error),
            (time / 1.5 if is_left else time * 1.5, lowest[decade, is_left]),
            ha="right" if is_left else "left",
            va="center",
            fontsize="small",
            arrowprops={"arrowstyle": "-", "color": _GREY, "linewidth": 0.6},
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("milliseconds for one row, on one thread")
    axes.set_ylabel("test error, %")
    axes.margins(x=0.3, y=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_teachers(points: Mapping[str, Mapping[str, tuple[float, float]]]) -> Figure:
    """Draw the accuracy of students over that of the probes of their teachers.

    Parameters
    ----------
    points : dict
        By the title of a panel, of each teacher the errors of its probe and of its student.
    """
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    panels = figure.subplots(1, len(points), squeeze=False)[0]
    for axes, (name, of) in zip(panels, points.items(), strict=True):
        probes, students = 100 - np.array(list(of.values())).T
        axes.scatter(probes, students, color=_RED, s=30)
        axes.set_title(f"{name}: r = {np.corrcoef(probes, students)[0, 1]:.2f}", fontsize="medium")
        axes.set_xlabel("accuracy of the teacher's probe, %")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy of its student, %")
    return figure
