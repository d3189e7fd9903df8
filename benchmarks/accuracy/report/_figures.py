"""Figures. Methods differ in shape and darkness as well as in colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.accuracy._experiments import Experiment
from benchmarks.accuracy._methods import BETAS, LEARNING_RATES
from benchmarks.accuracy._runs import RESULTS, Runs
from benchmarks.accuracy._suites import FAMILIES, IN_MEANS, OF_TEACHERS, sensitivity
from benchmarks.accuracy.report._scores import Scores, alone_of, normalized
from benchmarks.accuracy.report._tables import (
    Cell,
    cell_of,
    correlation,
    mean_normalized,
    title_of,
)

IMAGES = Path(__file__).parents[3] / "docs" / "images"
# Training rows and classes.
_SIZES = {
    "banking77": (10_003, 77),
    "trec": (5_452, 6),
    "sst2": (6_920, 2),
    "cifar10": (50_000, 10),
}
_GREY, _BLUE, _RED, _BLACK = "#6b7280", "#2563eb", "#b91c1c", "#111827"
_PALE_RED, _PALE_BLUE = "#fca5a5", "#7dd3fc"
_SMALLER_TEACHERS = ("wordllama", "effnet-lite0")
# Pale and dark differ in print without colours, and shapes do.
_LOOKS: dict[str, dict[str, Any]] = {
    "student alone": {"color": _GREY, "marker": "o", "linestyle": "-"},
    "default": {"color": _RED, "marker": "P", "linestyle": "-"},
    "aft": {"color": _PALE_RED, "marker": "s", "linestyle": "-"},
    "probe-kd": {"color": _PALE_BLUE, "marker": "^", "linestyle": "-"},
    "aft + unlabelled": {"color": _RED, "marker": "s", "linestyle": "--"},
    "probe-kd + unlabelled": {"color": _BLUE, "marker": "^", "linestyle": "--"},
    "TF-IDF + linear": {"color": _GREY, "marker": "X", "linestyle": ":"},
    "HOG + SVM": {"color": _GREY, "marker": "X", "linestyle": ":"},
    "probe": {"color": _BLACK, "marker": "D", "linestyle": "-"},
    "SetFit": {"color": "#a21caf", "marker": "*", "linestyle": "none", "markersize": 10},
    "probe-kd by SetFit + unlabelled, not tuned": {
        "color": "#a21caf",
        "marker": "p",
        "linestyle": "none",
        "markersize": 7,
    },
    "kd": {"color": _BLUE, "marker": "v", "linestyle": "--"},
}
_WORST_SHOWN = 1.5  # normalised error; what is beyond stands at the edge


def draw_methods(found: Sequence[Scores]) -> Figure:
    """Draw the normalised error of each method: its mean, and every column."""
    means = mean_normalized(found, IN_MEANS)
    order = sorted(means, key=lambda method: means[method][0], reverse=True)
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color=_GREY, linewidth=1)
    for height, method in enumerate(order):
        ratios = [
            (normalized(one, alone), one.experiment.data)
            for one in found
            if one.experiment.method == method and (alone := alone_of(one, found)) is not None
        ]
        beyond = [f"{ratio:.1f}" for ratio, _ in sorted(ratios) if ratio > _WORST_SHOWN]
        axes.annotate(" ".join(beyond), (_WORST_SHOWN, height - 0.25), ha="right", fontsize=7)
        for ratio, data in ratios:
            shape = "o" if data in ("banking77", "sst2", "trec", "sst5") else "s"
            if ratio > _WORST_SHOWN:
                shape = ">"
            place = min(ratio, _WORST_SHOWN)
            axes.plot(
                place, height + 0.25, shape, color=_GREY, markersize=5, fillstyle="none", zorder=3
            )
        mean, error, _ = means[method]
        color = _RED if method == "default" else _BLACK
        look = {"fmt": "D", "color": color, "markersize": 7, "capsize": 4, "zorder": 2}
        if mean <= _WORST_SHOWN:
            axes.errorbar(mean, height - 0.1, xerr=error, **look)
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel("test error / test error of the student alone")
    axes.set_title("Diamonds: means. Small: columns (circles: texts, squares: images)", fontsize=9)
    _clean(axes)
    return figure


def draw_teachers(found: Sequence[Scores]) -> Figure:
    """Draw the accuracy of students against that of the probes of their teachers."""
    alone = {cell_of(one): one for one in found if one.experiment.method == "student alone"}
    figure = Figure(figsize=(3.4 * max(len(alone), 1), 4.2), layout="constrained")
    every_axes = figure.subplots(1, max(len(alone), 1), squeeze=False)[0]
    for axes, cell in zip(every_axes, alone, strict=False):
        here = [one for one in found if cell_of(one) == cell]
        probes = {o.experiment.teacher: o for o in here if o.experiment.method == "probe"}
        axes.axhline(_accuracy(alone[cell]), color=_GREY, linewidth=1, label="student alone")
        for method in OF_TEACHERS:
            students = [
                one
                for one in here
                if one.experiment.method == method and one.experiment.teacher in probes
            ]
            if len(students) < 3:
                continue
            axes.errorbar(
                [_accuracy(probes[one.experiment.teacher]) for one in students],
                [_accuracy(one) for one in students],
                yerr=[100 * one.standard_error for one in students],
                label=f"{method} (r = {correlation(found, method, cell):.2f})",
                capsize=2,
                **{**_LOOKS[method], "linestyle": "none"},
            )
        axes.set_title(cell.title, fontsize=10)
        axes.set_xlabel("accuracy of the teacher's probe (%)")
        axes.legend(fontsize=7, frameon=False)
        _clean(axes)
    figure.axes[0].set_ylabel("accuracy of the student (%)")
    return figure


def _accuracy(one: Scores) -> float:
    return 100 * (1 - one.mean)


def draw_labels(found: Sequence[Scores]) -> Figure:
    """Draw the error of each method against the number of labels."""
    names = list(dict.fromkeys(one.experiment.data for one in found))
    figure = Figure(figsize=(3.2 * max(len(names), 1), 4.4), layout="constrained")
    every_axes = figure.subplots(1, max(len(names), 1), squeeze=False)[0]
    for axes, data in zip(every_axes, names, strict=False):
        of_data = [one for one in found if one.experiment.data == data]
        methods = list(dict.fromkeys(one.experiment.method for one in of_data))
        for place, method in enumerate(methods):
            of_method = [one for one in of_data if one.experiment.method == method]
            of_method.sort(key=_n_labels)
            beside = 1.04 ** (place - len(methods) / 2)  # bars would hide each other
            axes.errorbar(
                [beside * _n_labels(one) for one in of_method],
                [100 * one.mean for one in of_method],
                yerr=[np.nan_to_num(100 * one.standard_error) for one in of_method],
                label=method,
                **{"markersize": 5, "capsize": 2, "linewidth": 1.2, **_LOOKS[method]},
            )
        axes.set_xscale("log")
        axes.set_title(Cell(data, "all").title, fontsize=10)
        axes.set_xlabel("labelled rows")
        _clean(axes)
    figure.axes[0].set_ylabel("test error (%)")
    figure.suptitle("Means and standard errors, shifted sideways to be seen", fontsize=9)
    shown: dict[str, Any] = {}
    for axes in figure.axes:
        shown |= {name: one for one, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    place = "outside lower center"
    figure.legend(shown.values(), shown, loc=place, ncols=5, fontsize=9, frameon=False)
    return figure


def _n_labels(one: Scores) -> int:
    """Return how many rows have a label, about."""
    n_rows, n_classes = _SIZES[one.experiment.data]
    if one.experiment.labels == "all":
        return n_rows
    number, *a_class = one.experiment.labels.split()
    return int(number) * (n_classes if a_class else 1)


def draw_sensitivity(results: Path = RESULTS) -> Figure:
    """Draw held-out errors against strength, for learning rates, steps and teachers."""
    figure = Figure(figsize=(8.6, 7), layout="constrained")
    every_axes = figure.subplots(len(FAMILIES), 3, sharex=True, sharey="row")
    for row, family in zip(every_axes, FAMILIES, strict=True):
        for unused in row[len(family[-1]) :]:
            unused.set_visible(False)
    cells = [axes for row in every_axes for axes in row if axes.get_visible()]
    places = range(len(BETAS))
    for axes, experiment in zip(cells, sensitivity(), strict=True):
        runs = Runs(experiment.data, results)
        looks = zip(LEARNING_RATES, "os^", (_PALE_BLUE, _BLUE, _BLACK), strict=True)
        for lr, marker, color in looks:
            errors = [experiment.trial_errors(runs, {"lr": lr, "beta": b}) for b in BETAS]
            percent = [100 * np.mean(several) if several else np.nan for several in errors]
            label = f"lr = {lr:g}"
            axes.plot(places, percent, marker=marker, color=color, label=label, markersize=4)
        cell = Cell(experiment.data, experiment.labels)
        axes.set_title(f"{cell.title}\n{experiment.teacher}, {experiment.steps} steps", fontsize=7)
        axes.set_xticks(places, [f"{b:g}" for b in BETAS])
        axes.tick_params(labelbottom=True)
        _clean(axes)
    for row in every_axes:
        row[0].set_ylabel("held-out error (%)")
    for axes in every_axes[-1]:
        axes.set_xlabel("beta")
    every_axes[0][0].legend(fontsize=7, frameon=False)
    return figure


def draw_pareto(found: Sequence[Scores], costs: Sequence[dict[str, Any]]) -> Figure:
    """Draw errors against the time of a prediction, one row at a time and 256."""
    of_experiment = {Experiment(**cost["experiment"]): cost for cost in costs}
    found = [one for one in found if one.experiment.as_deployed in of_experiment]
    cells = list(dict.fromkeys(cell_of(one) for one in found))
    n_rows = -(-len(cells) // 2)
    figure = Figure(figsize=(9, 3.4 * n_rows), layout="constrained")
    every_axes = figure.subplots(n_rows, 2, squeeze=False).ravel()
    for unused in every_axes[len(cells) :]:
        unused.set_visible(False)
    for axes, cell in zip(every_axes, cells, strict=False):
        for one in found:
            if cell_of(one) != cell:
                continue
            milliseconds = of_experiment[one.experiment.as_deployed]["milliseconds"]
            look = {**_LOOKS[one.experiment.method], "linestyle": ":"}
            if one.experiment.teacher in _SMALLER_TEACHERS:
                look["color"] = _GREY
            times = [milliseconds["1"], milliseconds["256"]]
            axes.plot(times, [100 * one.mean] * 2, **look, linewidth=0.8, fillstyle="none")
            bar = np.nan_to_num(100 * one.standard_error)
            axes.errorbar(times[:1], [100 * one.mean], bar, **look, label=title_of(one))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(cell.title, fontsize=10)
        axes.set_xlabel("milliseconds a row")
        axes.set_ylabel("test error (%)")
        axes.legend(fontsize=6.5, frameon=False)
        _clean(axes)
    figure.suptitle(
        "Filled: one row at a time. Hollow: 256 at once, or all of a smaller test set.", fontsize=9
    )
    return figure


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
