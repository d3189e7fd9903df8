"""TeacherWeightsDisplay: what a student learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from sk_aft._student._estimator import StudentEstimator
from sk_aft.inspection._axes import BLUE, GREY, axes_of, plain
from sk_aft.inspection._students import fitted_student
from sk_aft.transfer._pooled_distillation import STUDENT_ROWS, STUDENT_START, pool_of

_OF_FEATURES = "feature_weight_"
_INCHES_A_CHARACTER = 0.08


class TeacherWeightsDisplay:
    """What counts of which teacher, as horizontal bars.

    Use `from_estimator` to make one of a fitted student.

    Parameters
    ----------
    weights : mapping of str to float
        Weight of each teacher, by name.
    weight_name : str, default="Weight of the teacher's predictions"
        What the weights are: the label of their axis.
    note : str, optional
        A sentence above the bars.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes.
    figure_ : matplotlib.figure.Figure
        The figure.
    bars_ : matplotlib.container.BarContainer
        A bar for each teacher, from the smallest weight to the largest, which is on top. Bars of
        what the student itself has, its rows or its start, are grey.

    See Also
    --------
    TransferDisplay : How the training went.

    Examples
    --------
    >>> from sk_aft.inspection import TeacherWeightsDisplay
    >>> display = TeacherWeightsDisplay(weights={"minilm_layer4": 0.2, "minilm": 0.6}).plot()
    >>> [float(bar.get_width()) for bar in display.bars_]
    [0.2, 0.6]
    """

    def __init__(
        self,
        *,
        weights: Mapping[str, float],
        weight_name: str = "Weight of the teacher's predictions",
        note: str | None = None,
    ) -> None:
        self.weights = weights
        self.weight_name = weight_name
        self.note = note

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Any = None, **kwargs: Any
    ) -> TeacherWeightsDisplay:
        """Draw what counts of which teacher of a fitted student.

        With "pooled-kd" these are ``teacher_weights_``, with ``teacher_score_`` above them. With
        methods that weight features, such as "aft", they are the mean weights of the features of
        each foundation model, after the last epoch.

        Parameters
        ----------
        estimator : AFTClassifier, AFTRegressor, Pipeline, CascadeClassifier or search
            A fitted student, a pipeline that ends in one, a cascade with one, or a search that has
            found one.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure, large enough for all teachers.
        **kwargs
            Options of the bars, as for `matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : TeacherWeightsDisplay
            The drawn display.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the student is not fitted.
        ValueError
            If nothing was transferred, if the transfer method weights neither teachers nor
            features, or if the student was loaded from a folder.
        TypeError
            If there is no student in the estimator.
        """
        student = fitted_student(estimator)
        pool = pool_of(getattr(student, "transfer_", None))
        if pool is not None and pool.teacher_weights:
            display = cls(
                weights=pool.teacher_weights,
                note=_quality(pool.teacher_score, is_classifier(student)),
            )
        else:
            display = cls(
                weights=_weights_of_features(student),
                weight_name="Mean weight of the model's features",
            )
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> TeacherWeightsDisplay:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure, large enough for all teachers.
        **kwargs
            Options of the bars, as for `matplotlib.axes.Axes.barh`.

        Returns
        -------
        self : TeacherWeightsDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        longest = max(map(len, self.weights), default=0)
        size = 5.2 + _INCHES_A_CHARACTER * longest, 1.2 + 0.36 * len(self.weights)
        self.ax_ = axes_of(ax, type(self).__name__, figsize=size)
        self.figure_ = self.ax_.figure
        # Reversed, because the first bar is at the bottom, and equal weights keep their order.
        ranked = sorted(reversed([*self.weights.items()]), key=lambda item: item[1])
        colors = [GREY if name in (STUDENT_ROWS, STUDENT_START) else BLUE for name, _ in ranked]
        self.bars_ = self.ax_.barh(
            np.arange(len(ranked)),
            [weight for _, weight in ranked],
            **{"color": colors, "height": 0.7, **kwargs},
        )
        self.ax_.set_yticks(np.arange(len(ranked)), [plain(name) for name, _ in ranked])
        self.ax_.bar_label(self.bars_, fmt="%.2f", padding=3)
        self.ax_.margins(x=0.12)
        self.ax_.grid(visible=False, axis="y")
        self.ax_.tick_params(axis="y", length=0)
        self.ax_.set_xlabel(self.weight_name)
        if self.note:
            self.ax_.set_title(self.note, loc="left", fontsize="small")
        return self


def _quality(score: float, is_classifier: bool) -> str:
    """Return what is known of the teachers' predictions."""
    if np.isnan(score):
        return "Teachers not judged: no class has two labelled rows"
    if is_classifier:
        return f"Together they explain {score:.0%} of the labels' entropy, out of fold"
    return f"R² of their pooled predictions, out of fold: {score:.2f}"


def _weights_of_features(student: StudentEstimator) -> dict[str, float]:
    """Return the mean weight of the features of each model."""
    method, owner = student.transfer_method_, type(student).__name__
    if method is None:
        raise ValueError(
            f"This {owner} learned from its labels alone (beta is 0), so no teacher counts. Fit it "
            "to foundation features: make_pipeline(FoundationFeatureExtractor(...), "
            f"{owner}())."
        )
    if not hasattr(student, "transfer_"):
        raise ValueError(
            f"This {owner} was loaded from a folder of save_pretrained, which does not hold the "
            "weights of teachers. Pass the student that was trained, or a pickle of it."
        )
    history: Any = student.history_
    weights = {
        name.removeprefix(_OF_FEATURES): value
        for name, value in history[-1].items()
        if name.startswith(_OF_FEATURES)
    }
    if not weights:
        raise ValueError(
            f"transfer={method!r} weights neither teachers nor features: it learns from all "
            "alike. The default, transfer='pooled-kd', weights teachers, and 'aft' features."
        )
    return weights
