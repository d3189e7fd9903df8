"""The printed report: the table, and an explanation of its numbers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.model_selection import ParameterGrid

from sk_aft._quickstart._measure import VALIDATION_FRACTION, Result, standard_error
from sk_aft._quickstart._tasks import BASELINE, PROBE, RIVAL, STUDENT, TAUGHT, Task
from sk_aft.store import default_store_path

_HEADINGS = ("Method", "Test accuracy (%)", "Parameters to deploy", "ms per prediction")
_WIDTH = 88


def format_table(results: Sequence[Result]) -> str:
    """Return the results as a table of aligned columns."""
    lines = [
        (
            result.method.name,
            format_percent(result.accuracy, result.standard_error),
            format_count(result.n_parameters),
            f"{result.milliseconds:.2f}",
        )
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *lines, strict=True)]
    table = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in (_HEADINGS, *lines)
    ]
    return "\n".join([table[0], "-" * len(table[0]), *table[1:]])


def explain(task: Task, results: Sequence[Result], n_rows: int) -> str:
    """Return what the numbers mean, how they were measured, and what to read next.

    Parameters
    ----------
    task : Task
        What was compared.
    results : sequence of Result
        At most one of each role.
    n_rows : int
        Labelled rows of each seed.

    Returns
    -------
    text : str
        Paragraphs whose lines fit a terminal.
    """
    by_role = {result.method.role: result for result in results}
    taught, probe = by_role[TAUGHT], by_role[PROBE]
    rivals = [by_role[role] for role in (STUDENT, BASELINE, RIVAL) if role in by_role]
    gains = [f"{_gain(rival, taught)} against {rival.method.name}" for rival in rivals]
    n_seeds = len(taught.accuracies)
    chosen = "; ".join(f"{result.method.name}: {_values(result.chosen)}" for result in results)
    paragraphs = [
        f"{taught.method.name}, in points, from differences per seed: {'; '.join(gains)}. The "
        "transfer does not make predictions slower: only training uses the foundation model. "
        f"{probe.method.name} runs it for every prediction, in "
        f"{probe.milliseconds / taught.milliseconds:.0f} times the student's time and "
        f"{probe.n_parameters / taught.n_parameters:.0f} times its parameters.",
        f"Accuracies are means over {n_seeds} seed{'s' * (n_seeds > 1)}"
        f"{' ± their standard error' * (n_seeds > 1)}; each seed draws its own {n_rows} labelled "
        f"rows{_others(task)}. Every method had the same "
        f"{len(ParameterGrid(taught.method.grid))} trials on a held-out {VALIDATION_FRACTION:.0%} "
        "of the first seed's labelled rows, then was fitted to all of them; test rows were used "
        f"only for these scores. Chosen: {chosen}. Times are for one row at a time on one thread.",
        f"Foundation features are kept in {default_store_path()} (SK_AFT_CACHE changes this), so "
        "a second run does not compute them again.",
        "Read next: the pipelines compared here, in sk_aft/_quickstart/_tasks.py, and "
        "help(sk_aft.AFTClassifier).",
    ]
    return "\n\n".join(
        textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
        for text in paragraphs
    )


def _others(task: Task) -> str:
    """Return who learns from the rows without labels, if there are any."""
    if not task.n_unlabeled:
        return " and initial weights"
    named = [method.name for method in task.methods(0) if method.reads_unlabeled]
    return (
        f", initial weights and {task.n_unlabeled:,} other rows, whose labels are hidden. These "
        f"are given to: {', '.join(named)}"
    )


def format_percent(share: float, error: float) -> str:
    """Return a share and its standard error, if there is one, in percent."""
    return f"{100 * share:.1f}" + ("" if math.isnan(error) else f" ± {100 * error:.1f}")


def format_count(count: int) -> str:
    """Return a number of parameters in thousands or millions."""
    if count >= 100_000:
        return f"{count / 1e6:.{1 if count >= 1e7 else 2}f} M"
    return f"{count / 1e3:.1f} k"


def _values(parameters: Mapping[str, float]) -> str:
    return ", ".join(f"{name.split('__')[-1]} {value:g}" for name, value in parameters.items())


def _gain(before: Result, after: Result) -> str:
    """Return by how much a method beats another on the same draws, or loses to it."""
    gains = np.subtract(after.accuracies, before.accuracies)
    text = format_percent(float(gains.mean()), standard_error(gains))
    return text if text.startswith("-") else f"+{text}"
