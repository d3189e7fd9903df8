"""The fitted student in an estimator."""

from __future__ import annotations

from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sk_aft._cascade._cascade_classifier import CascadeClassifier
from sk_aft._student._estimator import StudentEstimator


def fitted_student(estimator: Any) -> StudentEstimator:
    """Return the student that an estimator is, ends in, asks first, or has found.

    Parameters
    ----------
    estimator : AFTClassifier, AFTRegressor, Pipeline, CascadeClassifier or search
        Fitted.

    Returns
    -------
    student : AFTClassifier or AFTRegressor
        The student itself.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    TypeError
        If there is no student in it.
    """
    part = estimator
    while not isinstance(part, StudentEstimator):
        if isinstance(part, Pipeline):
            part = part.steps[-1][1]
        elif isinstance(part, FrozenEstimator):
            part = part.estimator
        elif isinstance(part, CascadeClassifier):
            check_is_fitted(part, "threshold_")
            part = part.student_
        elif hasattr(part, "cv") and hasattr(part, "refit"):
            check_is_fitted(part)
            if not hasattr(part, "best_estimator_"):
                raise TypeError(
                    f"This {type(part).__name__} has no best_estimator_, because refit=False: "
                    "set refit=True, or pass a student that you have fitted."
                )
            part = part.best_estimator_
        else:
            given = type(estimator).__name__
            leads = "has the student" if isinstance(estimator, CascadeClassifier) else "ends in"
            within = "" if part is estimator else f" that {leads} {type(part).__name__}"
            raise TypeError(
                f"estimator is a {given}{within}, expected a fitted AFTClassifier or AFTRegressor, "
                "a pipeline that ends in one, a cascade with one, or a search over one of these."
            )
    check_is_fitted(part)
    return part
