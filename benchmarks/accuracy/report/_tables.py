"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.accuracy.report._scores import ALONE, Scores, alone_of, difference, normalized

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
    found = [one for one in found if one.experiment.student in (student, "")]
    cells = list(dict.fromkeys(cell_of(one) for one in found))
    several = len({one.experiment.teacher for one in found if one.experiment.teacher}) > 1
    by_row: dict[str, dict[Cell, Scores]] = {}
    for one in found:
        title = one.experiment.method
        if several and one.experiment.teacher:
            title += f" ({one.experiment.teacher})"
        by_row.setdefault(title, {})[cell_of(one)] = one
    lines = []
    for title, of_cells in by_row.items():
        ratios, texts = [], []
        for cell in cells:
            one = of_cells.get(cell)
            alone = by_row[ALONE].get(cell)
            texts.append("" if one is None else error_text(one, alone))
            if one is not None and alone is not None:
                ratios.append(normalized(one, alone))
        is_whole = len(ratios) == len(by_row[ALONE])
        mean = f"{np.mean(ratios):.3f}" if is_whole else ""
        lines.append([title, *texts, mean])
    return markdown(["error (%)", *(cell.title for cell in cells), "normalised, mean"], lines)


def error_text(one: Scores, alone: Scores | None = None) -> str:
    """Return "mean ± standard error" in per cent, marked where worse than the student alone."""
    text = f"{100 * one.mean:.1f}"
    if len(one.errors) > 1:
        text += f" ± {100 * one.standard_error:.1f}"
    return text + (" †" if alone is not None and is_worse(one, alone) else "")


def is_worse(one: Scores, alone: Scores) -> bool:
    """Whether errors are higher than the student's alone by more than two standard errors."""
    if len(one.errors) != len(alone.errors) or one is alone:
        return False
    mean, error = difference(one, alone)
    return mean > 2 * error


def mean_normalized(
    found: Sequence[Scores], methods: Iterable[str]
) -> dict[str, tuple[float, float, int]]:
    """Return of each method the mean normalised error, its standard error and the number of cells.

    Cells are those that all of the methods have.
    """
    of_methods = {
        method: {
            cell_of(one): normalized(one, alone)
            for one in found
            if one.experiment.method == method and (alone := alone_of(one, found)) is not None
        }
        for method in methods
    }
    shared = set.intersection(*(set(cells) for cells in of_methods.values()))
    result = {}
    for method, cells in of_methods.items():
        ratios = np.array([cells[cell] for cell in sorted(shared)])
        error = ratios.std(ddof=1) / np.sqrt(len(ratios)) if len(ratios) > 1 else np.nan
        result[method] = (float(ratios.mean()), float(error), len(ratios))
    return result


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
