"""The figure: accuracy against the cost of a prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sk_aft._optional import import_optional
from sk_aft._quickstart._measure import Result
from sk_aft._quickstart._report import format_count
from sk_aft._quickstart._tasks import BASELINE, PROBE, RIVAL, STUDENT, TAUGHT

# Methods differ in shape and darkness as well, for readers who cannot tell the colours apart.
_LOOKS = {
    BASELINE: {"color": "#6b7280", "marker": "s"},
    RIVAL: {"color": "#6d28d9", "marker": "^"},
    STUDENT: {"color": "#3b8ec2", "marker": "o"},
    TAUGHT: {"color": "#c2410c", "marker": "o"},
    PROBE: {"color": "#111827", "marker": "D"},
}
# Possible places of a label: side of the point, vertical alignment, offset in points.
_PLACES = [
    ("left", "center", (12, 0)),
    ("right", "center", (-12, 0)),
    ("left", "bottom", (8, 6)),
    ("left", "top", (8, -6)),
    ("right", "bottom", (-8, 6)),
    ("right", "top", (-8, -6)),
]


def save_figure(results: Sequence[Result], title: str, path: Path) -> None:
    """Draw one labelled point per method and save the figure.

    Parameters
    ----------
    results : sequence of Result
        What to draw.
    title : str
        Title of the figure.
    path : Path
        File to write; its suffix determines the format.
    """
    # Not pyplot, which would look for a display.
    figure_module = import_optional("matplotlib.figure", extra="demo", purpose="the figure")
    figure = figure_module.Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for result in results:
        axes.errorbar(
            result.milliseconds,
            100 * result.accuracy,
            yerr=None if math.isnan(result.standard_error) else 100 * result.standard_error,
            markersize=9,
            capsize=4,
            linestyle="none",
            **_LOOKS[result.method.role],
        )
    _frame(axes, results)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    figure.draw_without_rendering()  # settles the layout, which labels depend on
    _label(axes, results)
    figure.savefig(path, dpi=200)


def _frame(axes: Any, results: Sequence[Result]) -> None:
    """Scale and name the axes."""
    costs = [result.milliseconds for result in results]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 8, max(costs) * 3)
    axes.margins(y=0.2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("Milliseconds per prediction, one row at a time on one thread")
    repeated = len(results[0].accuracies) > 1
    axes.set_ylabel("Test accuracy (%" + ", mean ± standard error" * repeated + ")")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def _label(axes: Any, results: Sequence[Result]) -> None:
    """Write each point's name and size at the first free place next to it."""
    taken = [_extent(axes, result) for result in results]
    # From the right, where there are the fewest free places.
    for result in sorted(results, key=lambda result: -result.milliseconds):
        for side, vertical, offset in _PLACES:
            label = axes.annotate(
                f"{result.method.name}\n{format_count(result.n_parameters)} parameters",
                (result.milliseconds, 100 * result.accuracy),
                xytext=offset,
                textcoords="offset points",
                horizontalalignment=side,
                verticalalignment=vertical,
                color=_LOOKS[result.method.role]["color"],
            )
            box = label.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if (inside and not box.count_overlaps(taken)) or offset == _PLACES[-1][-1]:
                break  # if no place is free, the last one is used
            label.remove()
        taken.append(box)


def _extent(axes: Any, result: Result) -> Any:
    """Return the box of a point and its error bar in pixels."""
    transforms = import_optional("matplotlib.transforms", extra="demo", purpose="the figure")
    error = 0 if math.isnan(result.standard_error) else result.standard_error
    corners = [
        (result.milliseconds, 100 * (result.accuracy - error)),
        (result.milliseconds, 100 * (result.accuracy + error)),
    ]
    return transforms.Bbox(axes.transData.transform(corners)).padded(8)
