"""TeacherPredictions: any classifier or regressor as a teacher."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator, clone


class TeacherPredictions(BaseEstimator):
    """Any classifier or regressor of scikit-learn's interface as the teacher of a student.

    Give it to a `FoundationFeatureExtractor` as ``model``. ``fit`` trains clones of the estimator
    on the labelled rows, and what they predict are the `FoundationFeatures.soft_targets` that the
    student learns from. The student alone is needed to predict.

    Parameters
    ----------
    estimator : estimator
        A classifier with ``predict_proba``, or a regressor; or a pipeline that ends with one. It
        reads the rows as they were given to the extractor: a DataFrame stays one.
    cv : int, splitter, iterable or "prefit", default=5
        How soft targets of labelled rows are made.

        - A number of folds: each labelled row is predicted by a clone that has not seen it. The
          folds are stratified by class, and rows of equal content share one. There are at most as
          many folds as the largest class has rows, and none if that is one.
        - A splitter, or (train, test) pairs, of the labelled rows; each row is in one test set.
        - "prefit": the estimator is fitted already, and is used as it is. Its predictions for rows
          that it was fitted on teach less, because it has seen their labels.
    missing_label : int, float, str or None, default=None
        Marks unknown labels in y, as in `AFTClassifier`. The estimator learns from the other rows.

    See Also
    --------
    FoundationFeatureExtractor : Adds what teachers say to the rows.
    FineTunedFeatureExtractor : Foundation models of texts or images that learn the labels.

    Notes
    -----
    Rows without a label, and new rows, are predicted by a clone that was fitted on all labelled
    rows. In cross-validation the teacher learns from the training rows of each split alone.

    Labelled rows are recognised by the content of the columns that the estimator reads, also in a
    later ``transform`` and in another container.

    Groups, such as the patient that a row belongs to, are given to the extractor's ``fit``, and are
    not split by the folds.

    Every ``fit`` of the extractor trains the estimator again. In a search over parameters of the
    student, ``Pipeline(..., memory=directory)`` trains it once for each split, and predicts once.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import HistGradientBoostingClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_aft import AFTClassifier, FoundationFeatureExtractor, TeacherPredictions
    >>> X = np.random.RandomState(0).normal(size=(120, 2))
    >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same sign", "other signs")
    >>> y[60:] = "?"  # rows without a label
    >>> teacher = TeacherPredictions(HistGradientBoostingClassifier(), missing_label="?")
    >>> student = AFTClassifier(missing_label="?", max_epochs=30, random_state=0)
    >>> pipe = make_pipeline(FoundationFeatureExtractor(teacher), student).fit(X, y)
    >>> print(pipe.predict(np.array([[1.5, 1.5], [-1.5, 1.5]])))
    ['same sign' 'other signs']
    """

    def __init__(self, estimator: Any, *, cv: Any = 5, missing_label: Any = None) -> None:
        self.estimator = estimator
        self.cv = cv
        self.missing_label = missing_label

    def __sklearn_clone__(self) -> TeacherPredictions:
        # A search clones its candidates, and an estimator that is fitted has to stay so.
        estimator = self.estimator if isinstance(self.cv, str) else clone(self.estimator)
        return type(self)(estimator, cv=self.cv, missing_label=self.missing_label)
