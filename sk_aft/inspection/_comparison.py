"""ComparisonDisplay: scores of candidates against what a prediction costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sk_aft._optional import import_optional
from sk_aft.inspection._axes import axes_of, legend_above, plain

# Roles differ in shape and darkness as well, for readers who cannot tell the colours apart.
_LOOKS = {
    "student": {"color": "#c2410c", "marker": "o"},
    "rival": {"color": "#3b8ec2", "marker": "s"},
    "teacher": {"color": "#111827", "marker": "D"},
    "added": {"color": "#6d28d9", "marker": "^"},
}
_MEANINGS = {
    "student": "student",
    "rival": "rival without a foundation model",
    "teacher": "runs a foundation model",
    "added": "added by you",
}
# Possible places of a label: side of the point, vertical alignment, offset in points.
_PLACES = [
    ("left", "center", (10, 0)),
    ("right", "center", (-10, 0)),
    ("left", "bottom", (7, 5)),
    ("left", "top", (7, -5)),
    ("right", "bottom", (-7, 5)),
    ("right", "top", (-7, -5)),
    ("left", "bottom", (7, 18)),
    ("left", "top", (7, -18)),
    ("right", "bottom", (-7, 18)),
    ("right", "top", (-7, -18)),
]


class ComparisonDisplay:
    """Scores of candidates against the time of a prediction, with the Pareto front.

    The front joins the candidates that no other beats in both: each step to the right costs more
    and scores higher.

    Parameters
    ----------
    names : list of n_candidates str
        Names to show.
    roles : list of n_candidates str
        "student", "rival", "teacher" or "added"; decides the colour and the marker.
    scores : array-like of shape (n_candidates,)
        Mean scores; more is better.
    standard_errors : array-like of shape (n_candidates,)
        Their standard errors; NaN draws no bar.
    costs : array-like of shape (n_candidates,)
        Milliseconds to predict a row.
    scoring : str, default="score"
        Name of the score.

    Attributes
    ----------
    ax_, figure_ : matplotlib axes and figure
        Where it was drawn.
    front_ : matplotlib line
        The Pareto front.
    errorbars_ : list of matplotlib containers
        One for each candidate.
    labels_ : list of matplotlib annotations
        Their names.

    See Also
    --------
    sk_aft.model_selection.compare_transfer : Measures the scores and costs.

    Examples
    --------
    >>> from sk_aft.inspection import ComparisonDisplay
    >>> display = ComparisonDisplay(
    ...     names=["TF-IDF", "student", "probe"],
    ...     roles=["rival", "student", "teacher"],
    ...     scores=[0.76, 0.84, 0.85],
    ...     standard_errors=[0.01, 0.01, 0.01],
    ...     costs=[1.7, 0.05, 7.5],
    ... )
    >>> display.plot().front_.get_xdata().tolist()
    [0.05, 7.5]
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        roles: Sequence[str],
        scores: Any,
        standard_errors: Any,
        costs: Any,
        scoring: str = "score",
    ) -> None:
        self.names, self.roles = list(names), list(roles)
        self.scores = np.asarray(scores, dtype=float)
        self.standard_errors = np.asarray(standard_errors, dtype=float)
        self.costs = np.asarray(costs, dtype=float)
        self.scoring = scoring

    @classmethod
    def from_estimator(cls, comparison: Any, *, ax: Any = None) -> ComparisonDisplay:
        """Draw a comparison.

        Parameters
        ----------
        comparison : TransferComparison
            What `sk_aft.model_selection.compare_transfer` returned.
        ax : matplotlib axes, optional
            Where to draw; default: new axes.

        Returns
        -------
        display : ComparisonDisplay
            The drawing.
        """
        return cls(**comparison.points()).plot(ax=ax)

    def plot(self, ax: Any = None) -> ComparisonDisplay:
        """Draw the points, their names and the front.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw; default: new axes.

        Returns
        -------
        display : ComparisonDisplay
            The object itself.
        """
        ax = axes_of(ax, type(self).__name__, figsize=(7.6, 4.8))
        self.ax_, self.figure_ = ax, ax.figure
        on_front = pareto_front(self.scores, self.costs)
        # A front of one point is no line.
        (self.front_,) = ax.plot(
            self.costs[on_front],
            self.scores[on_front],
            color="#9ca3af",
            linewidth=1.2,
            zorder=1,
            label="Pareto front" if len(on_front) > 1 else None,
        )
        self.errorbars_ = []
        for index, role in enumerate(self.roles):
            error = self.standard_errors[index]
            self.errorbars_.append(
                ax.errorbar(
                    self.costs[index],
                    self.scores[index],
                    yerr=None if np.isnan(error) else error,
                    markersize=7,
                    capsize=3,
                    linestyle="none",
                    label=None if role in self.roles[:index] else _MEANINGS[role],
                    **_LOOKS[role],
                )
            )
        _frame(ax, self.costs, self.scoring)
        figure = self.figure_
        while not hasattr(figure, "draw_without_rendering"):
            figure = figure.figure  # of a subfigure
        figure.draw_without_rendering()  # settles the layout, which labels depend on
        self.labels_ = self._label(ax)
        return self

    def _label(self, ax: Any) -> list[Any]:
        """Write each name at the first free place next to its point."""
        boxes = import_optional("matplotlib.transforms", extra="plot", purpose="the plot")
        errors = np.nan_to_num(self.standard_errors)
        taken = []
        for x, y, error in zip(self.costs, self.scores, errors, strict=True):
            corners = ax.transData.transform([(x, y - error), (x, y + error)])
            taken.append(boxes.Bbox(corners).padded(6))
        labels = []
        # From the right, where there are the fewest free places.
        for index in np.argsort(-self.costs, kind="stable"):
            for number, (side, vertical, offset) in enumerate(_PLACES):
                label = ax.annotate(
                    plain(self.names[index]),
                    (self.costs[index], self.scores[index]),
                    xytext=offset,
                    textcoords="offset points",
                    horizontalalignment=side,
                    verticalalignment=vertical,
                    fontsize=9,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
                    color=_LOOKS[self.roles[index]]["color"],
                )
                box = label.get_window_extent()
                is_inside = ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1
                others = taken[:index] + taken[index + 1 :]
                if is_inside and not box.count_overlaps(others):
                    break
                if number < len(_PLACES) - 1:
                    label.remove()  # if no place is free, the last one is used
            taken.append(box)
            labels.append(label)
        return labels


def pareto_front(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return the candidates that no other beats in score and cost, the cheapest first.

    Parameters
    ----------
    scores, costs : ndarray of shape (n_candidates,)
        More is better of scores, less of costs.

    Returns
    -------
    indices : ndarray of int
        Of equal candidates, the first.
    """
    order = np.lexsort((-scores, costs))
    front: list[int] = []
    for index in order:
        if not front or scores[index] > scores[front[-1]]:
            front.append(int(index))
    return np.array(front)


def _frame(ax: Any, costs: np.ndarray, scoring: str) -> None:
    """Scale and name the axes."""
    ax.set_xscale("log")
    ax.set_xlim(costs.min() / 4, costs.max() * 8)
    ax.margins(y=0.15)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("Milliseconds to predict a row, one at a time on one thread")
    ax.set_ylabel(plain(f"{scoring[:1].upper()}{scoring[1:]}, mean ± standard error of the folds"))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#e5e7eb", linewidth=0.8)
    ax.set_axisbelow(True)
    legend_above(ax, *ax.get_legend_handles_labels())
