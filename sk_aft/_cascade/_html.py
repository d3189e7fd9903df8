"""The diagram of a fitted cascade: its fitted parts, and when the teacher is asked."""

from __future__ import annotations

from typing import Any


def visual_block(student: Any, teacher: Any, threshold: float, deferred: float) -> Any:
    """Return the box of a fitted cascade in scikit-learn's diagrams.

    Parameters
    ----------
    student, teacher : classifier
        The fitted parts.
    threshold : float
        Rows of which the student is less sure are deferred.
    deferred : float
        Share of the held-out rows that are deferred.

    Returns
    -------
    block : _VisualBlock
        The two side by side.
    """
    try:
        from sklearn.utils._repr_html.estimator import _VisualBlock
    except ImportError:  # scikit-learn 1.6
        from sklearn.utils._estimator_html_repr import _VisualBlock
    return _VisualBlock(
        "parallel",
        [student, teacher],
        names=[
            f"student_: {type(student).__name__}",
            f"teacher_: {type(teacher).__name__}, {when_asked(threshold, deferred)}",
        ],
        name_details=[str(student), str(teacher)],
    )


def when_asked(threshold: float, deferred: float) -> str:
    """Say of which rows the teacher is asked.

    Parameters
    ----------
    threshold, deferred : float
        As for `visual_block`.
    """
    if deferred in (0, 1):
        return "always asked" if deferred else "never asked"
    return f"asked below {threshold:.3g} ({100 * deferred:.1f} % of the held-out rows)"
