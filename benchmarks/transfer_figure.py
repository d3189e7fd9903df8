"""Draws how the default transfer works.

    python -m benchmarks.transfer_figure

Writes ``docs/images/transfer.png``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FIGURE = Path(__file__).parents[1] / "docs" / "images" / "transfer.png"

_GREY, _BLUE, _GREEN, _ORANGE = "#374151", "#2b6cb0", "#2f855a", "#c05621"
_MUTED = "#6b7280"
_FACES = {_GREY: "#f3f4f6", _BLUE: "#eaf2fb", _GREEN: "#eef7ee", _ORANGE: "#fdf3ea"}
_WIDTH, _HEIGHT = 13.0, 6.2  # inches, which are the units of all positions

# Each teacher: what it is, how its predictions come about, its colour and its place from below.
_TEACHERS = (
    ("probe of layer 4", "linear model of features", _BLUE, 4.72),
    ("probe of the last layer", "linear model of features", _BLUE, 3.82),
    ("model of the student's rows", "linear model of TF-IDF or numbers", _GREEN, 2.60),
    ("model of the student's start", "linear model before training", _GREEN, 1.70),
    ("tuned foundation model", "its soft targets", _ORANGE, 0.48),
)
_GROUPS = (
    ("foundation model: one probe for each layer", _BLUE, 3.72, 1.95),
    ("student: only if some rows have no label", _GREEN, 1.60, 1.95),
    ("only after FineTunedFeatureExtractor", _ORANGE, 0.38, 1.05),
)
_LEFT, _TEACHER_WIDTH, _TEACHER_HEIGHT = 2.45, 2.9, 0.68


def main() -> None:
    """Draw the figure and save it."""
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(_WIDTH, _HEIGHT))
    panel = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(0, _HEIGHT))
    panel.set_axis_off()
    _draw_rows(panel)
    for title, colour, bottom, height in _GROUPS:
        _box(panel, (_LEFT - 0.1, bottom), (_TEACHER_WIDTH + 0.2, height), colour, filled=False)
        _text(panel, (_LEFT, bottom + height - 0.15), title, colour=colour, ha="left")
    for number, (name, how, colour, bottom) in enumerate(_TEACHERS, start=1):
        _draw_teacher(panel, number, name, how, colour, bottom)
    _draw_pool_and_loss(panel)
    figure.savefig(FIGURE, dpi=130)


def _draw_rows(panel: Any) -> None:
    _box(panel, (0.15, 3.35), (1.6, 0.8), _GREY)
    _text(panel, (0.95, 3.75), "labelled rows", size=11)
    _box(panel, (0.15, 1.95), (1.6, 0.8), _GREY)
    _text(panel, (0.95, 2.35), "rows without\na label", size=11)
    _arrow(panel, (1.75, 3.75), (_LEFT - 0.12, 3.35))
    _arrow(panel, (1.75, 2.35), (_LEFT - 0.12, 2.75))


def _draw_teacher(panel: Any, number: int, name: str, how: str, colour: str, bottom: float) -> None:
    middle = bottom + _TEACHER_HEIGHT / 2
    right = _LEFT + _TEACHER_WIDTH
    _box(panel, (_LEFT, bottom), (_TEACHER_WIDTH, _TEACHER_HEIGHT), colour)
    _text(panel, (_LEFT + _TEACHER_WIDTH / 2, middle + 0.13), name, size=11)
    _text(panel, (_LEFT + _TEACHER_WIDTH / 2, middle - 0.16), how, colour=_MUTED)
    _arrow(panel, (right, middle), (6.3, middle), colour)
    _box(panel, (6.3, middle - 0.25), (1.0, 0.5), colour)
    _text(panel, (6.8, middle), f"$q_{number}$", size=13)
    start, end = (7.3, middle), (8.7, 3.65 - 0.3 * (number - 1))
    _arrow(panel, start, end, colour)
    beside = [a + 0.4 * (b - a) for a, b in zip(start, end, strict=True)]
    _text(panel, (beside[0], beside[1]), f"$w_{number}$", size=12, box=True)


def _draw_pool_and_loss(panel: Any) -> None:
    _text(panel, (6.8, 5.9), "predictions", size=11, weight="bold")
    _text(panel, (6.8, 5.58), "of labelled rows: out of fold", colour=_MUTED)
    _text(panel, (7.85, 0.72), "weights", size=11, weight="bold", ha="left")
    about = "those with which the pool is\nbest on labelled rows"
    _text(panel, (7.85, 0.34), about, colour=_MUTED, ha="left")
    _box(panel, (8.7, 2.2), (1.9, 1.7), _GREY)
    _text(panel, (9.65, 3.6), "pool", size=11, weight="bold")
    _text(panel, (9.65, 3.05), r"$q \propto \prod_j \; q_j^{\,w_j}$", size=14)
    _text(panel, (9.65, 2.5), "probabilities\nof all rows", colour=_MUTED)
    _arrow(panel, (10.6, 3.05), (11.0, 3.05))
    _box(panel, (11.0, 1.75), (1.85, 2.6), _GREY)
    _text(panel, (11.925, 4.07), "student's loss", size=11, weight="bold")
    _text(panel, (11.925, 3.65), "cross-entropy\nof the labels", size=10.5)
    _text(panel, (11.925, 3.34), "+", size=12)
    _text(panel, (11.925, 3.05), r"$\beta\,\lambda\;\mathrm{KL}(q\,\Vert\,p)$", size=13)
    about = "p: probabilities\nthat the student\npredicts for all rows"
    _text(panel, (11.925, 2.3), about, colour=_MUTED)


def _box(
    panel: Any,
    corner: tuple[float, float],
    size: tuple[float, float],
    colour: str,
    *,
    filled: bool = True,
) -> None:
    from matplotlib.patches import FancyBboxPatch

    face, dashes = (_FACES[colour], "-") if filled else ("none", (0, (4, 3)))
    style = "round,pad=0,rounding_size=0.08"
    panel.add_patch(
        FancyBboxPatch(corner, *size, boxstyle=style, fc=face, ec=colour, ls=dashes, lw=1.2)
    )


def _arrow(
    panel: Any, start: tuple[float, float], end: tuple[float, float], colour: str = _GREY
) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    panel.annotate("", end, start, arrowprops=style)


def _text(
    panel: Any,
    place: tuple[float, float],
    text: str,
    *,
    colour: str = "#111827",
    size: float = 9,
    weight: str = "normal",
    ha: str = "center",
    box: bool = False,
) -> None:
    around = {"fc": "white", "ec": "none", "pad": 1} if box else None
    panel.text(
        *place, text, color=colour, size=size, weight=weight, ha=ha, va="center", bbox=around
    )


if __name__ == "__main__":
    main()
