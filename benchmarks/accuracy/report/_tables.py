"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.accuracy._experiments import Experiment
from benchmarks.accuracy._methods import METHODS
from benchmarks.accuracy.report._scores import (
    ALONE,
    Scores,
    alone_of,
    difference,
    held_out_error,
    normalized,
)

_DATA = {
    "banking77": "Banking77",
    "sst2": "SST-2",
    "trec": "TREC",
    "sst5": "SST-5",
    "cifar10": "CIFAR-10",
    "fashion_mnist": "Fashion-MNIST",
    "chest_xray": "chest X-rays",
    "entailment": "entailment",
}


class Cell(NamedTuple):
    """A data set and which of its rows have labels."""

    data: str
    labels: str

    @property
    def title(self) -> str:
        """What a table calls it."""
        name = _DATA[self.data]
        return name if self.labels == "all" else f"{name}, {_with_comma(self.labels)}"


def _with_comma(labels: str) -> str:
    number, *rest = labels.split()
    return " ".join([f"{int(number):,}", *rest])


def cell_of(one: Scores) -> Cell:
    """Return the column of a score."""
    return Cell(one.experiment.data, one.experiment.labels)


def comparison(found: Sequence[Scores], student: str) -> str:
    """Return the errors of all methods that teach one student, and of those without student.

    Parameters
    ----------
    found : sequence of Scores
        All scores that may be needed.
    student : str
        The student; its errors without a teacher are what the others are divided by.
    """
    of_student = [one for one in found if one.experiment.student == student]
    if not of_student:
        return ""
    data = {one.experiment.data for one in of_student}
    teachers = {one.experiment.teacher for one in of_student} | {""}
    found = [
        one
        for one in found
        if one.experiment.student in (student, "")
        and one.experiment.data in data
        and one.experiment.teacher in teachers
    ]
    order = list(METHODS)
    found = sorted(found, key=lambda one: order.index(one.experiment.method))
    cells = list(dict.fromkeys(cell_of(one) for one in of_student))
    several = len({one.experiment.teacher for one in found if one.experiment.teacher}) > 1
    by_row: dict[str, dict[Cell, Scores]] = {}
    for one in found:
        title = title_of(one) if several else one.experiment.method
        row = by_row.setdefault(title, {})
        if cell_of(one) in row:
            raise ValueError(f"{row[cell_of(one)].experiment} and {one.experiment} have one place.")
        row[cell_of(one)] = one
    of_alone = by_row.get(ALONE, {})
    lines = []
    for title, of_cells in by_row.items():
        ratios, texts = [], []
        for cell in cells:
            one = of_cells.get(cell)
            alone = of_alone.get(cell)
            texts.append("" if one is None else error_text(one, alone))
            if one is not None and alone is not None:
                ratios.append(normalized(one, alone))
        is_whole = len(ratios) == len(cells)
        mean = f"{np.mean(ratios):.3f}" if is_whole else ""
        lines.append([title, *texts, mean])
    return markdown(["error (%)", *(cell.title for cell in cells), "normalised, mean"], lines)


def title_of(one: Scores) -> str:
    """Return what a method is called where there is one student, but several teachers."""
    method, teacher = one.experiment.method, one.experiment.teacher
    return f"{method} ({teacher})" if teacher else method


def error_text(one: Scores, alone: Scores | None = None) -> str:
    """Return "mean ± standard error" in per cent.

    Marked with † where worse than the student alone, with ‡ where trained on another device.
    """
    if not np.isfinite(one.mean):
        return f"diverged, {np.isinf(one.errors).sum()} of {len(one.errors)}"
    text = f"{100 * one.mean:.1f}"
    if len(one.errors) > 1:
        text += f" ± {100 * one.standard_error:.1f}"
    if alone is not None and is_worse(one, alone):
        text += " †"
    if alone is not None and one.devices and one.devices != alone.devices:
        text += " ‡"
    return text


def is_worse(one: Scores, alone: Scores) -> bool:
    """Whether it diverged, or errors are higher than the student's alone by two standard errors."""
    if one is alone:
        return False
    mean, error = difference(one, alone)
    return not np.isfinite(one.mean) or mean > 2 * error


def steps_table(found: Sequence[Scores], results: Path) -> str:
    """Return errors on held-out rows by data set and number of steps."""
    numbers = sorted({one.experiment.steps for one in found})
    rows = []
    for data in dict.fromkeys(one.experiment.data for one in found):
        texts = {
            one.experiment.steps: f"{100 * held_out_error(one, results):.1f}"
            for one in found
            if one.experiment.data == data
        }
        rows.append([_DATA[data], *(texts.get(number, "") for number in numbers)])
    header = ["held-out error (%)", *(f"{number:,} steps" for number in numbers)]
    return markdown(header, rows) if rows else ""


def teachers_table(found: Sequence[Scores]) -> str:
    """Return errors by teacher: of its probe, and of the students that it teaches."""
    methods = [m for m in dict.fromkeys(one.experiment.method for one in found) if m != ALONE]
    if "probe" not in methods:
        return ""
    by_key = {(cell_of(one), one.experiment.teacher, one.experiment.method): one for one in found}
    lines = []
    for cell in dict.fromkeys(cell_of(one) for one in found):
        for teacher in dict.fromkeys(one.experiment.teacher for one in found):
            row = [by_key.get((cell, teacher, method)) for method in methods]
            if teacher and any(row):
                texts = ["" if one is None else error_text(one) for one in row]
                lines.append([cell.title, teacher, *texts])
    return markdown(["", "teacher", *methods], lines)


def correlations(found: Sequence[Scores], methods: Iterable[str]) -> str:
    """Return, for each column, how accuracies of probes and of students go together."""
    cells = list(dict.fromkeys(map(cell_of, found)))
    rows = []
    for method in methods:
        values = [correlation(found, method, cell) for cell in cells]
        if not np.isnan(values).all():
            rows.append([method, *("" if np.isnan(value) else f"{value:.2f}" for value in values)])
    if not rows:
        return ""
    return markdown(["correlation with the probe", *(cell.title for cell in cells)], rows)


def correlation(found: Sequence[Scores], method: str, cell: Cell) -> float:
    """Return the correlation of accuracies over teachers; NaN where there are fewer than three."""
    of_method, of_probe = (
        {one.experiment.teacher: one.mean for one in found if _is(one, name, cell)}
        for name in (method, "probe")
    )
    shared = [name for name in of_method if name in of_probe]
    if len(shared) < 3:
        return float("nan")
    pairs = [(of_probe[name], of_method[name]) for name in shared]
    return float(np.corrcoef(np.transpose(pairs))[0, 1])


def _is(one: Scores, method: str, cell: Cell) -> bool:
    return one.experiment.method == method and cell_of(one) == cell


def mean_normalized(
    found: Sequence[Scores], methods: Iterable[str]
) -> dict[str, tuple[float, float, int]]:
    """Return of each method the mean normalised error, its standard error and the number of cells.

    Cells are those that all of the methods have; methods that were not run are left out.
    """
    of_methods = {
        method: {
            cell_of(one): normalized(one, alone)
            for one in found
            if one.experiment.method == method and (alone := alone_of(one, found)) is not None
        }
        for method in methods
    }
    of_methods = {method: cells for method, cells in of_methods.items() if cells}
    shared = set.intersection(*(set(cells) for cells in of_methods.values())) if of_methods else ()
    if not shared:
        return {}
    result = {}
    for method, cells in of_methods.items():
        ratios = np.array([cells[cell] for cell in sorted(shared)])
        error = ratios.std(ddof=1) / np.sqrt(len(ratios)) if len(ratios) > 1 else np.nan
        result[method] = (float(ratios.mean()), float(error), len(ratios))
    return result


def costs_table(found: Sequence[Scores], costs: Sequence[dict[str, Any]]) -> str:
    """Return accuracy and cost of what could be deployed, the dearest last."""
    of_experiment = {Experiment(**cost["experiment"]): cost for cost in costs}
    lines = []
    for cell in dict.fromkeys(cell_of(one) for one in found):
        here = [one for one in found if cell_of(one) == cell]
        here = [one for one in here if one.experiment.as_deployed in of_experiment]
        here.sort(key=lambda one: of_experiment[one.experiment.as_deployed]["milliseconds"]["1"])
        for one in here:
            cost = of_experiment[one.experiment.as_deployed]
            times = [f"{cost['milliseconds'][batch]:.3g}" for batch in ("1", "256")]
            size = f"{cost['parameters'] / 1e6:.2f} M"
            fronts = [name for name in COSTS_OF if is_on_front(one, here, costs, name)]
            texts = [error_text(one), *times, size, ", ".join(fronts)]
            lines.append([cell.title, title_of(one), *texts])
    header = ["", "", "error (%)", "ms a row", "ms a row, of 256", "parameters", "on the front of"]
    return markdown(header, lines)


def is_on_front(
    one: Scores,
    among: Sequence[Scores],
    costs: Sequence[dict[str, Any]],
    of: str = "time of one row",
) -> bool:
    """Return whether nothing that costs as little, but for what a clock does, has a lower error."""
    amounts = {Experiment(**cost["experiment"]): COSTS_OF[of](cost) for cost in costs}
    amount = amounts.get(one.experiment.as_deployed)
    return amount is not None and not any(
        other.mean < one.mean and amounts[other.experiment.as_deployed] <= _CLOCK * amount
        for other in among
        if cell_of(other) == cell_of(one) and other.experiment.as_deployed in amounts
    )


_CLOCK = 1.05  # times of one network differ by as much
# What a prediction costs: time, one row or 256 at once, and numbers to keep.
COSTS_OF: dict[str, Callable[[dict[str, Any]], float]] = {
    "time of one row": lambda cost: cost["milliseconds"]["1"],
    "time of 256": lambda cost: cost["milliseconds"]["256"],
    "size": lambda cost: cost["parameters"],
}


def means_table(found: Sequence[Scores], methods: Sequence[str]) -> str:
    """Return the mean normalised error of each method, best first."""
    means = mean_normalized(found, methods)
    if not means:
        return ""
    rows = [
        [method, f"{mean:.3f}" + ("" if np.isnan(error) else f" ± {error:.3f}"), str(n_cells)]
        for method, (mean, error, n_cells) in sorted(means.items(), key=lambda item: item[1])
    ]
    return markdown(["method", "mean normalised error", "columns"], rows)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
