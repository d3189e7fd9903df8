"""How the figures look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sk_aft._optional import import_optional

# Okabe and Ito's colours, which most colour-blind readers can tell apart; the markers are for all.
BLUE, ORANGE, GREEN, PINK, SKY, RED = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
)
GREY = "#6b7280"
FRAME = "#9ca3af"
COLORS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_CHARACTERS_A_ROW = 95
_CHARACTERS_OF_A_LINE = 6  # width of its sample in a legend


def axes_of(
    ax: Any, purpose: str, *, figsize: tuple[float, float] = (6.4, 4.0), **options: Any
) -> Any:
    """Return the given axes, or those of a new figure.

    Parameters
    ----------
    ax : matplotlib.axes.Axes or None
        The given axes.
    purpose : str
        Name of the display, for the error without matplotlib.
    figsize : tuple of two float, default=(6.4, 4.0)
        Width and height of a new figure, in inches.
    **options
        Options of `matplotlib.pyplot.subplots`.

    Returns
    -------
    ax : matplotlib.axes.Axes
        The axes, with a light frame.
    """
    if ax is None:
        pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose=purpose)
        _, ax = pyplot.subplots(figsize=figsize, layout="constrained", **options)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FRAME)
    ax.grid(color="#e5e7eb", linewidth=0.8)
    ax.set_axisbelow(True)
    return ax


def legend_above(ax: Any, artists: Sequence[Any], labels: Sequence[str]) -> None:
    """Add a legend above the axes, where it covers nothing.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        The axes.
    artists : sequence of Artist
        Lines, for example.
    labels : sequence of str
        What they are.
    """
    widths = [len(label) + _CHARACTERS_OF_A_LINE for label in labels]
    fits = sum(widths) <= _CHARACTERS_A_ROW
    ax.legend(
        artists,
        labels,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.3,
        frameon=False,
        fontsize="small",
        columnspacing=1.5,
        ncols=len(labels) if fits else max(1, _CHARACTERS_A_ROW // max(widths)),
    )


def plain(text: Any) -> str:
    """Return a text as matplotlib has to get it: dollar signs would start a formula.

    Parameters
    ----------
    text : object
        A name of the user's.

    Returns
    -------
    text : str
        On one line.
    """
    return " ".join(str(text).split()).replace("$", r"\$")
