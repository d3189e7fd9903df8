"""The report of a comparison: what is printed, and the folder that is written."""

from __future__ import annotations

import math
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


def write_report(comparison: Any, folder: Path, title: str) -> None:
    """Write the page, the table and the plot of a comparison, and print table and summary.

    Parameters
    ----------
    comparison : TransferComparison
        What to report.
    folder : Path
        Created if necessary.
    title : str
        Title of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frame = comparison.frame()
    comparison.to_html(folder / PAGE, title=title)
    frame.to_csv(folder / TABLE)
    comparison.plot().figure_.savefig(folder / PLOT, bbox_inches="tight")
    report(f"\n{format_table(frame)}\n\n{comparison.summary()}\n")
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
        A header, a rule, a line for each candidate, and what the columns mean.
    """
    lines = [_HEADER, *(_line(str(name), row) for name, row in frame.iterrows())]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_HEADER))]
    widths[0] = min(widths[0], _WIDTH - sum(width + 2 for width in widths[1:]))
    shown = ["  ".join(_padded(line, widths)).rstrip() for line in lines]
    note = (
        "score: mean over the folds ± standard error. gain: difference to the student alone.\n"
        "MB: what is deployed. ms/row: one row at a time; of 256: each of 256 rows. One thread."
    )
    rule = "-" * max(map(len, shown))
    return "\n".join([shown[0], rule, *shown[1:], rule, note])


def _line(name: str, row: Any) -> tuple[str, ...]:
    gain = "" if name == _ALONE else _pair(row["gain"], row["gain_standard_error"], sign="+")
    costs = ("fit_seconds", "megabytes", "ms_per_row", "ms_per_row_of_256")
    return (
        f"{row['title']}",
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


def _padded(line: tuple[str, ...], widths: list[int]) -> list[str]:
    first = line[0] if len(line[0]) <= widths[0] else line[0][: widths[0] - 3] + "..."
    others = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
    return [first.ljust(widths[0]), *others]
