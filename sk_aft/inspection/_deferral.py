"""DeferralDisplay: accuracy of a cascade against the share of rows that its teacher answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from sk_aft._cascade._cascade_classifier import CascadeClassifier
from sk_aft._cascade._deferral import deferral_curve
from sk_aft._data._labels import known_targets, labeled_mask
from sk_aft._optional import import_optional

_STUDENT, _TEACHER, _CHOSEN, _RANDOM = "#3b8ec2", "#111827", "#c2410c", "#6b7280"


class DeferralDisplay:
    """Accuracy of a `sk_aft.CascadeClassifier` against the share of rows deferred.

    Make it with `from_estimator`. The curve starts at the student alone and ends at the teacher
    alone. The higher it lies above the straight line between them, the better the student knows
    which rows it gets wrong.

    Parameters
    ----------
    deferred : ndarray of shape (n_points,)
        Shares of the rows that are deferred, ascending from 0 to 1.
    accuracies : ndarray of shape (n_points,)
        Accuracy at each of them.
    chosen : int
        The point of the cascade's own threshold.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Where it was drawn.
    figure_ : matplotlib.figure.Figure
        The whole figure.
    line_ : matplotlib.lines.Line2D
        The curve.

    See Also
    --------
    sk_aft.CascadeClassifier : What it shows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sk_aft import CascadeClassifier
    >>> from sk_aft.inspection import DeferralDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> cascade = CascadeClassifier(GaussianNB(), LogisticRegression(C=0.01, max_iter=1000))
    >>> cascade = cascade.fit(X[:1000], y[:1000])
    >>> display = DeferralDisplay.from_estimator(cascade, X[1000:], y[1000:])
    >>> bool(display.accuracies[0] < display.accuracies[display.chosen])
    True
    """

    def __init__(self, deferred: np.ndarray, accuracies: np.ndarray, chosen: int) -> None:
        self.deferred = deferred
        self.accuracies = accuracies
        self.chosen = chosen

    @classmethod
    def from_estimator(
        cls, cascade: CascadeClassifier, X: Any, y: Any, *, ax: Any = None
    ) -> DeferralDisplay:
        """Measure a fitted cascade on some rows, and plot it. The teacher predicts all rows.

        Parameters
        ----------
        cascade : CascadeClassifier
            Fitted.
        X : list, array, sparse matrix, Series or DataFrame of n_rows rows
            Rows that it was not fitted to.
        y : array-like of shape (n_rows,)
            Labels. Rows without one, marked by the cascade's ``missing_label``, are left out.
        ax : matplotlib.axes.Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : DeferralDisplay
            Drawn.

        Raises
        ------
        TypeError
            If it is not a cascade.
        ImportError
            If matplotlib is missing.
        """
        if not isinstance(cascade, CascadeClassifier):
            raise TypeError(
                f"DeferralDisplay shows a sk_aft.CascadeClassifier, got {type(cascade).__name__}."
            )
        check_is_fitted(cascade, "threshold_")
        _pyplot()
        check_consistent_length(X, y)
        labeled = labeled_mask(y, cascade.missing_label)
        labels = known_targets(y, labeled)
        X, probabilities = cascade._student_probabilities(
            _safe_indexing(X, np.flatnonzero(labeled))
        )
        student_right = cascade.classes_[probabilities.argmax(axis=1)] == labels
        teacher_right = np.asarray(cascade.teacher_.predict(X)) == labels
        confidence = probabilities.max(axis=1)
        curve = deferral_curve(confidence, student_right, teacher_right)
        share = np.mean(confidence < cascade.threshold_)
        chosen = int(np.argmin(np.abs(curve.deferred - share)))
        return cls(curve.deferred, curve.accuracies, chosen).plot(ax)

    def plot(self, ax: Any = None) -> DeferralDisplay:
        """Draw accuracy against the share deferred, both in per cent.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : DeferralDisplay
            Itself, with ``ax_``, ``figure_`` and ``line_``.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        if ax is None:
            _, ax = _pyplot().subplots(layout="constrained")
        student, chosen, teacher = 100 * self.accuracies[[0, self.chosen, -1]]
        share = 100 * float(self.deferred[self.chosen])
        label = "rows deferred at random"
        ax.plot([0, 100], [student, teacher], color=_RANDOM, linestyle="--", label=label)
        label = "least sure rows deferred"
        (self.line_,) = ax.plot(
            100 * self.deferred, 100 * self.accuracies, color=_CHOSEN, label=label
        )
        for x, y, marker, color, label in [
            (0, student, "s", _STUDENT, f"student alone: {student:.1f} %"),
            (100, teacher, "D", _TEACHER, f"teacher alone: {teacher:.1f} %"),
            (share, chosen, "o", _CHOSEN, f"cascade, {share:.1f} % deferred: {chosen:.1f} %"),
        ]:
            ax.plot(x, y, marker, color=color, markersize=8, label=label, clip_on=False, zorder=3)
        ax.set(xlim=(0, 100), xlabel="Rows deferred to the teacher (%)", ylabel="Accuracy (%)")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#e5e7eb", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.legend(loc="best")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _pyplot() -> Any:
    return import_optional("matplotlib.pyplot", extra="plot", purpose="DeferralDisplay")
