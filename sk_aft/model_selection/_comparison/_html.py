"""A comparison as HTML: the summary, the table and the plot."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import numpy as np

from sk_aft.model_selection._comparison._candidates import ALONE
from sk_aft.model_selection._comparison._records import Facts
from sk_aft.model_selection._comparison._time_words import duration

_STYLE = """
.sk-aft { font-family: system-ui, sans-serif; color: #111827; background: #fff; line-height: 1.45;
  max-width: 68rem; }
.sk-aft ul { padding-left: 1.2rem; }
.sk-aft table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
.sk-aft th, .sk-aft td { padding: 0.35rem 0.6rem; border-bottom: 1px solid #e5e7eb;
  text-align: right; vertical-align: top; }
.sk-aft td { white-space: nowrap; }
.sk-aft th:first-child, .sk-aft td:first-child, .sk-aft td:last-child, .sk-aft th:last-child {
  text-align: left; white-space: normal; }
.sk-aft td:first-child .note { display: block; font-weight: 400; }
.sk-aft tr.chosen { background: #fff7ed; font-weight: 600; }
.sk-aft .table { overflow-x: auto; }
.sk-aft .note { color: #4b5563; font-size: 0.85rem; }
.sk-aft svg { max-width: 100%; height: auto; }
"""
_HEADINGS = (
    "Candidate",
    "Score",
    "Against the student alone",
    "Fit (s)",
    "Size (MB)",
    "ms a row",
    "ms a row of 256",
    "Prediction needs",
)


def fragment(
    summary: str,
    table: Any,
    *,
    best_name: str,
    facts: Facts,
    left_out: Mapping[str, str],
    plot: Callable[..., Any],
) -> str:
    """Return a comparison as a part of a page.

    Parameters
    ----------
    summary : str
        Sentences, one a line.
    table : pandas.DataFrame
        As of `TransferComparison.frame`.
    best_name : str
        The line of the table to stress.
    facts : Facts
        What was compared on.
    left_out : mapping of str to str
        Candidates that did not take part, and why.
    plot : callable
        ``plot(ax=...)`` draws.

    Returns
    -------
    html : str
        Text of the user is escaped.
    """
    sentences = "".join(f"<li>{escape(line)}</li>" for line in summary.split("\n"))
    parts = [f"<style>{_STYLE}</style>", f'<div class="sk-aft"><ul>{sentences}</ul>']
    parts.append(f'<div class="table">{_table(table, best_name)}</div>')
    parts.append(f'<p class="note">{escape(_how(facts))}</p>')
    if left_out:
        why = "; ".join(f"{name} ({reason})" for name, reason in left_out.items())
        parts.append(f'<p class="note">Left out: {escape(why)}.</p>')
    parts.append(f"{_svg(plot)}</div>")
    return "\n".join(parts)


def page(title: str, content: str) -> str:
    """Return a page that needs no other file.

    Parameters
    ----------
    title : str
        Plain text.
    content : str
        HTML.

    Returns
    -------
    html : str
        The page.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(title)}</title>\n'
        f'</head>\n<body style="margin: 2rem; background: #fff">\n'
        f'<h1 style="font-family: system-ui, sans-serif; font-size: 1.5rem">{escape(title)}</h1>\n'
        f"{content}\n</body>\n</html>\n"
    )


def _table(table: Any, best_name: str) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    body = "\n".join(
        _line(name, row, is_chosen=name == best_name) for name, row in table.iterrows()
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _line(name: str, row: Mapping[str, Any], *, is_chosen: bool) -> str:
    is_compared = not np.isnan(row["gain"]) and name != ALONE
    gain = f"{row['gain']:+.3f}" if is_compared else ""
    if gain and not np.isnan(row["gain_standard_error"]):
        gain += f" ± {row['gain_standard_error']:.3f}"
    score = f"{row['score']:.3f}"
    if not np.isnan(row["standard_error"]):
        score += f" ± {row['standard_error']:.3f}"
    title = escape(row["title"])
    if row["title"] != name:
        title += f' <span class="note">{escape(name)}</span>'
    cells = [
        score,
        gain,
        f"{row['fit_seconds']:.3g}",
        f"{row['megabytes']:.3g}",
        f"{row['ms_per_row']:.3g}",
        f"{row['ms_per_row_of_256']:.3g}",
        row["packages"],
    ]
    inner = f"<td>{title}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr class="chosen">{inner}</tr>' if is_chosen else f"<tr>{inner}</tr>"


def _how(facts: Facts) -> str:
    """Return how the numbers were measured."""
    others = f" and {facts.n_unlabeled:,} rows without a label" if facts.n_unlabeled else ""
    classes = f" of {facts.n_classes} classes" if facts.n_classes else ""
    features = ""
    if facts.feature_seconds > 0.5:
        features = f" Features took {duration(facts.feature_seconds)}, once, besides the fits."
    settings = "Students have default settings"
    if facts.teacher:
        settings = f"Students were taught by {facts.teacher}, with default settings"
    return (
        f"Scores are {facts.scoring}, mean ± standard error over {facts.n_folds} folds of "
        f"{facts.n_labeled:,} labelled rows{classes}{others}, the same for all. "
        f"{settings}; rivals chose their main hyper-parameter within the training rows of each "
        f"fold.{features} Times of predictions are on one thread of this machine. All of it took "
        f"{duration(facts.seconds)}."
    )


def _svg(plot: Callable[..., Any]) -> str:
    """Return the plot as SVG; empty without matplotlib."""
    try:
        # Not pyplot, which would look for a display.
        figures = importlib.import_module("matplotlib.figure")
    except ImportError:
        return ""
    matplotlib = importlib.import_module("matplotlib")
    figure = figures.Figure(figsize=(8.4, 5), layout="constrained")
    plot(ax=figure.subplots())
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sk-aft"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :]
