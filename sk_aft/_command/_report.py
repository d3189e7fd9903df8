"""The report of a comparison: what is printed, and the folder that is written."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sk_aft._command._messages import report
from sk_aft._optional import import_optional

PAGE, TABLE, PLOT = "index.html", "table.csv", "plot.svg"
FILES = (PAGE, TABLE, PLOT)

_WIDTH = 100
_HEADER = ("candidate", "score", "gain", "fit, s", "MB", "ms/row", "of 256")
_ALONE = "student-alone"


def check_packages() -> None:
    """Raise ImportError before any work if a report cannot be written; names the pip command."""
    for package in ("pandas", "matplotlib"):
        import_optional(package, extra="demo", purpose="the report of a comparison")


def write_report(comparison: Any, folder: Path, title: str, *, unfit: Collection[str] = ()) -> None:
    """Write the page, the table and the plot of a comparison, and print table and summary.

    Parameters
    ----------
    comparison : TransferComparison
        What to report.
    folder : Path
        Created if necessary.
    title : str
        Title of the page.
    unfit : collection of str
        Candidates that do not fit the kind of rows: they are not missed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frame = comparison.frame()
    comparison.to_html(folder / PAGE, title=title)
    frame.to_csv(folder / TABLE, float_format="%.6g")
    comparison.plot().figure_.savefig(folder / PLOT, bbox_inches="tight")
    sentences = [textwrap.fill(line, _WIDTH) for line in comparison.summary().splitlines()]
    missed = _missed(comparison.left_out_, unfit)
    report("\n".join(["", format_table(frame), "", *missed, *sentences, ""]))
    report(f"Report: {folder / PAGE} (with {TABLE} and {PLOT})")


def format_table(frame: Any) -> str:
    """Return the table of a comparison as text of at most 100 columns.

    Parameters
    ----------
    frame : DataFrame
        As ``TransferComparison.frame()`` returns it.

    Returns
    -------
    table : str
        A header, a rule, a line for each candidate, what the columns mean, and a line for each
        candidate that says what it is.
    """
    lines = [_HEADER, *(_line(name, row) for name, row in frame.iterrows())]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_HEADER))]
    widths[0] = min(widths[0], _WIDTH - sum(width + 2 for width in widths[1:]))
    shown = [text for line in lines for text in _wrapped(line, widths)]
    note = (
        "score: mean over the folds ± standard error. gain: difference to the student alone.\n"
        "MB: what is deployed. ms/row: one row at a time; of 256: each of 256 rows. One thread."
    )
    rule = "-" * max(map(len, shown))
    return "\n".join([shown[0], rule, *shown[1:], rule, note, *_legend(frame)])


def _legend(frame: Any) -> list[str]:
    """Return what each candidate is, if its name does not say it."""
    return [
        textwrap.fill(f"{name}: {title}", _WIDTH, subsequent_indent="  ")
        for name, title in frame["title"].items()
        if title != name
    ]


def _missed(left_out: Mapping[str, str], unfit: Collection[str]) -> list[str]:
    """Return one paragraph on the candidates that did not take part, or none."""
    reasons = [f"{name} ({why})" for name, why in left_out.items() if name not in unfit]
    return [textwrap.fill(f"Not compared: {'; '.join(reasons)}.", _WIDTH)] if reasons else []


def _line(name: Any, row: Any) -> tuple[str, ...]:
    gain = "" if name == _ALONE else _pair(row["gain"], row["gain_standard_error"], sign="+")
    costs = ("fit_seconds", "megabytes", "ms_per_row", "ms_per_row_of_256")
    return (
        str(name),
        _pair(row["score"], row["standard_error"]),
        gain,
        *(_cost(row[cost]) for cost in costs),
    )


def _pair(mean: float, error: float, sign: str = "") -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:{sign}.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")


def _cost(value: float) -> str:
    """Return a positive number with three digits, at most."""
    if value is None or math.isnan(value):
        return ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def _wrapped(line: tuple[str, ...], widths: list[int]) -> list[str]:
    """Return a line in columns; a long name takes several."""
    first, *more = textwrap.wrap(line[0], widths[0], subsequent_indent="  ")
    others = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
    return ["  ".join([first.ljust(widths[0]), *others]).rstrip(), *more]
