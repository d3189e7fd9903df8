"""TransferDisplay: how a student's training went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from sk_aft.inspection._axes import BLUE, FRAME, GREEN, RED, axes_of, legend_above
from sk_aft.inspection._students import fitted_student

_FEW_EPOCHS = 25


class TransferDisplay:
    """The terms of a student's loss, and its validation score, by epoch.

    Use `from_estimator` to make one of a fitted student.

    Parameters
    ----------
    task_loss : array-like of shape (n_epochs,)
        Mean task loss of each epoch on the training rows.
    transfer_loss : array-like of shape (n_epochs,), optional
        Mean of the other term of the loss, which is ``beta`` times the transfer loss; NaN in epochs
        without it. None without transfer.
    valid_score : array-like of shape (n_epochs,), optional
        Score on the held-out rows after each epoch; NaN in epochs without it. None without
        ``early_stopping``.
    score_name : str, default="score"
        What the score is.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the losses.
    score_ax_ : matplotlib.axes.Axes or None
        The axes of the score, on the right side of the same area.
    figure_ : matplotlib.figure.Figure
        The figure.
    lines_ : list of matplotlib.lines.Line2D
        The task loss and, if there is a transfer, the transfer term.
    score_line_ : matplotlib.lines.Line2D or None
        The score.

    See Also
    --------
    TeacherWeightsDisplay : What counts of which teacher.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_aft import AFTClassifier, FoundationFeatureExtractor
    >>> from sk_aft.inspection import TransferDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> pipe = make_pipeline(
    ...     FoundationFeatureExtractor(PCA(2).fit(X)), AFTClassifier(max_epochs=5, random_state=0)
    ... )
    >>> display = TransferDisplay.from_estimator(pipe.fit(X, y))
    >>> len(display.lines_)
    2
    """

    def __init__(
        self,
        *,
        task_loss: Sequence[float] | np.ndarray,
        transfer_loss: Sequence[float] | np.ndarray | None = None,
        valid_score: Sequence[float] | np.ndarray | None = None,
        score_name: str = "score",
    ) -> None:
        self.task_loss = task_loss
        self.transfer_loss = transfer_loss
        self.valid_score = valid_score
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **kwargs: Any) -> TransferDisplay:
        """Draw the training of a fitted student.

        Parameters
        ----------
        estimator : AFTClassifier, AFTRegressor, Pipeline, CascadeClassifier or search
            A fitted student, a pipeline that ends in one, a cascade with one, or a search that has
            found one.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.
        **kwargs
            Options of all lines, as for `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : TransferDisplay
            The drawn display.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the student is not fitted.
        ValueError
            If the student was loaded from a folder, which does not hold its training.
        TypeError
            If there is no student in the estimator.
        """
        student = fitted_student(estimator)
        history = student.history_ or []
        if not len(history):
            raise ValueError(
                f"This {type(student).__name__} holds no history of its training: folders of "
                "save_pretrained do not store it. Pass the student that was trained, or a pickle "
                "of it."
            )
        transfer = [
            # With another beta in a later fit, beta_ would be wrong for the epochs before.
            epoch["train_loss"] - epoch["train_task_loss"]
            if "train_transfer_loss" in epoch
            else np.nan
            for epoch in history
        ]
        scores = [epoch.get("valid_score", np.nan) for epoch in history]
        display = cls(
            task_loss=np.array([epoch["train_task_loss"] for epoch in history]),
            transfer_loss=_known(transfer),
            valid_score=_known(scores),
            score_name="accuracy" if is_classifier(student) else "R²",
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> TransferDisplay:
        """Draw the terms of the loss and, if there is one, the validation score.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.
        **kwargs
            Options of all lines, as for `matplotlib.axes.Axes.plot`.

        Returns
        -------
        self : TransferDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = axes_of(ax, type(self).__name__)
        self.figure_ = self.ax_.figure
        self.score_ax_: Any = None
        self.score_line_: Any = None
        epochs = np.arange(1, len(self.task_loss) + 1)
        every = list(range(len(epochs))) if len(epochs) <= _FEW_EPOCHS else []
        markers: dict[str, Any] = {"markersize": 4, "markevery": every}
        self.lines_ = self.ax_.plot(
            epochs, self.task_loss, **{"color": BLUE, "marker": "o", **markers, **kwargs}
        )
        labels = ["task loss"]
        if self.transfer_loss is not None:
            look = {"color": RED, "marker": "s", "linestyle": "--", **markers, **kwargs}
            self.lines_ += self.ax_.plot(epochs, self.transfer_loss, **look)
            labels.append("beta * transfer loss")
        self.ax_.set(xlabel="Epoch", ylabel="Mean loss of the training rows")
        self.ax_.xaxis.get_major_locator().set_params(integer=True)
        if self.valid_score is not None:
            look = {"color": GREEN, "marker": "^", "linestyle": "-.", **markers, **kwargs}
            self._plot_score(epochs, look)
            labels.append(f"validation {self.score_name} (right)")
        legend_above(self.ax_, [*self.lines_, self.score_line_][: len(labels)], labels)
        return self

    def _plot_score(self, epochs: np.ndarray, look: dict[str, Any]) -> None:
        axes = self.ax_.twinx()
        axes.spines[["top", "left", "bottom"]].set_visible(False)
        axes.spines["right"].set_color(FRAME)
        (self.score_line_,) = axes.plot(epochs, self.valid_score, **look)
        axes.set_ylabel(f"Validation {self.score_name}")
        self.score_ax_ = axes


def _known(values: list[float]) -> np.ndarray | None:
    """Return values as an array; None if there are none."""
    array = np.array(values, dtype=float)
    return None if np.isnan(array).all() else array
