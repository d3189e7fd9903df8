"""CascadeClassifier: a student answers the rows it is sure of, a teacher the others."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, _fit_context, clone
from sklearn.utils import _safe_indexing, get_tags, indexable
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _num_samples, check_is_fitted, column_or_1d

from sk_aft._cascade._deferral import deferral_curve, fit_temperature, scaled
from sk_aft._cascade._html import visual_block
from sk_aft._cascade._members import (
    HeldOut,
    Targets,
    aligned,
    check_fitted,
    check_member,
    check_teacher_knows_no_more,
    first,
    fit_and_predict,
    fit_member,
    held_out,
)
from sk_aft._cascade._splits import held_out_splits, known_labels
from sk_aft._data._labels import warn_of_mark

_INPUTS_OF_BOTH = (
    *("one_d_array", "two_d_array", "three_d_array", "sparse", "categorical", "string", "dict"),
    *("allow_nan", "pairwise"),
)


_FEWEST_HELD_OUT = 100


def _teacher_has_probabilities(cascade: CascadeClassifier) -> bool:
    teacher = getattr(cascade, "teacher_", cascade.teacher_pipeline)
    return hasattr(teacher, "predict_proba")


class CascadeClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A student that asks its teacher about the rows it is not sure of.

    The student predicts every row. If its highest probability is below `threshold_`, the row is
    deferred: the teacher predicts it instead. The threshold is found on held-out rows. It is the
    most accurate one that defers at most ``max_deferred`` of them; if the teacher does not help,
    nothing is deferred.

    Parameters
    ----------
    student : classifier
        Has ``predict_proba``: an `AFTClassifier`, a Pipeline that ends in one, or any other
        classifier of raw rows. With ``cv="prefit"`` also a student of `sk_aft.serving.load`.
    teacher_pipeline : classifier
        Predicts the same rows, more accurately and more slowly: a foundation model with a linear
        probe, for example. Without ``predict_proba`` the cascade has none either.
    max_deferred : float, default=0.1
        Highest share of the held-out rows that may be deferred, from 0 to 1. Rows like them are
        deferred at about the same rate.
    cv : int, float, splitter, iterable or "prefit", default=None
        Where the held-out rows come from. Both classifiers are fitted once for each split.

        - None or an integer: stratified folds; None makes 5.
        - A float between 0 and 1: one stratified split that holds out this share.
        - A splitter or an iterable of splits: as in scikit-learn. With unlabelled rows, its
          indices count only the labelled ones, as in `sk_aft.model_selection.LabeledFold`.
        - "prefit": both are fitted already and used as they are. `fit` needs rows that neither
          was trained on.
    refit : bool, default=True
        Whether both are fitted again to all rows afterwards. False saves that and needs a single
        split. Without effect for ``cv="prefit"``.
    calibrate : bool, default=True
        Whether the student's probabilities are scaled by a temperature with the lowest log loss
        of the held-out rows. It does not change the student's answers.
    missing_label : int, float, str or None, default=None
        Marks unknown labels in y, as in `AFTClassifier`. Such rows are never held out. Those of
        ``student`` and ``teacher_pipeline`` that have the same ``missing_label`` are trained on
        them, too; the others get the labelled rows only.
    store_cv_results : bool, default=False
        Whether to keep what each threshold gives on the held-out rows.
    n_jobs : int or None, default=None
        Number of splits to fit at the same time, as in scikit-learn.
    random_state : int, RandomState or None, default=None
        Determines the split if ``cv`` is a float.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    student_ : classifier
        The fitted student.
    teacher_ : classifier
        The fitted teacher.
    threshold_ : float
        Rows with a lower highest probability are deferred; 0 defers none, infinity all.
    temperature_ : float
        By which the logarithms of the student's probabilities are divided: above 1 it was too
        sure of itself. From 0.1 to 100; 1 without ``calibrate``.
    deferred_fraction_ : float
        Share of the held-out rows that are deferred.
    cv_results_ : dict of str to ndarray of shape (n_thresholds,)
        "thresholds", and for each the share of the held-out rows that it defers,
        "deferred_fractions", and the accuracy on all of them, "scores". From none deferred to
        all. Only with ``store_cv_results``.
    n_features_in_ : int
        Number of columns; only if the student has it.
    feature_names_in_ : ndarray of str
        Names of the columns; only if the student has them.

    Notes
    -----
    Rows are samples. The student runs once for every row, the teacher only for deferred rows; it
    does not run at all if there are none.

    The student's answer is the class with the highest probability. That is also its ``predict``,
    except for a few classifiers such as ``SVC(probability=True)``.

    `clone`, and so a search or cross-validation, makes unfitted copies of classifiers. Wrap fitted
    ones in `sklearn.frozen.FrozenEstimator` to keep them; those of `sk_aft.serving.load` need no
    wrapper.

    See Also
    --------
    sk_aft.inspection.DeferralDisplay : Plots accuracy against the share deferred.
    sklearn.model_selection.TunedThresholdClassifierCV : Finds a threshold of one classifier.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sk_aft import CascadeClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> cascade = CascadeClassifier(GaussianNB(), LogisticRegression(C=0.01, max_iter=1000))
    >>> cascade = cascade.fit(X[:1000], y[:1000])
    >>> bool(cascade.score(X[1000:], y[1000:]) > cascade.student_.score(X[1000:], y[1000:]))
    True
    >>> bool(0 < cascade.defers(X[1000:]).mean() < 0.2)
    True
    """

    _parameter_constraints: dict = {
        "student": [HasMethods(["predict"])],
        "teacher_pipeline": [HasMethods(["predict"])],
        "max_deferred": [Interval(Real, 0, 1, closed="both")],
        "cv": [
            "cv_object",
            StrOptions({"prefit"}),
            Interval(RealNotInt, 0, 1, closed="neither"),
        ],
        "refit": ["boolean"],
        "calibrate": ["boolean"],
        "missing_label": [Real, str, None],
        "store_cv_results": ["boolean"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        student: Any,
        teacher_pipeline: Any,
        max_deferred: float = 0.1,
        *,
        cv: Any = None,
        refit: bool = True,
        calibrate: bool = True,
        missing_label: Any = None,
        store_cv_results: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.student = student
        self.teacher_pipeline = teacher_pipeline
        self.max_deferred = max_deferred
        self.cv = cv
        self.refit = refit
        self.calibrate = calibrate
        self.missing_label = missing_label
        self.store_cv_results = store_cv_results
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any) -> CascadeClassifier:
        """Fit the student and the teacher, and find the threshold.

        Parameters
        ----------
        X : list, array, sparse matrix, Series or DataFrame of n_rows rows
            Rows that both read.
        y : array-like of shape (n_rows,)
            Labels.

        Returns
        -------
        self : CascadeClassifier
            The fitted cascade.

        Raises
        ------
        ValueError
            If a classifier cannot be used, there are too few labels, or what is fitted already
            does not fit together; raised before any training.
        """
        for name, member in self._members().items():
            check_member(name, member, self.cv, self.missing_label)
        X, y = _checked_rows(X, y)
        if isinstance(self.cv, str):
            classes, rows, student, teacher = self._predict_prefit(X, y)
        else:
            classes, rows, student, teacher = self._fit_members(X, y)
        self.classes_, self.student_, self.teacher_ = classes, student, teacher
        self._choose(rows)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of each row; ask the teacher for deferred rows.

        Parameters
        ----------
        X : list, array, sparse matrix, Series or DataFrame of n_rows rows
            Rows.

        Returns
        -------
        labels : ndarray of shape (n_rows,)
            Labels.
        """
        X, probabilities = self._student_probabilities(X)
        labels = self.classes_[probabilities.argmax(axis=1)]
        deferred = np.flatnonzero(self._are_unsure(probabilities))
        if len(deferred):
            labels[deferred] = self.teacher_.predict(_safe_indexing(X, deferred))
        return labels

    @available_if(_teacher_has_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class; of deferred rows, the teacher's.

        Parameters
        ----------
        X : list, array, sparse matrix, Series or DataFrame of n_rows rows
            Rows.

        Returns
        -------
        probabilities : ndarray of shape (n_rows, n_classes)
            In the order of ``classes_``; 0 for classes that the teacher does not know.
        """
        X, probabilities = self._student_probabilities(X)
        deferred = np.flatnonzero(self._are_unsure(probabilities))
        if len(deferred):
            theirs = self.teacher_.predict_proba(_safe_indexing(X, deferred))
            probabilities[deferred] = aligned(theirs, self.teacher_.classes_, self.classes_)
        return probabilities

    def defers(self, X: Any) -> np.ndarray:
        """Return which rows the teacher would be asked about; does not run the teacher.

        Parameters
        ----------
        X : list, array, sparse matrix, Series or DataFrame of n_rows rows
            Rows.

        Returns
        -------
        deferred : ndarray of shape (n_rows,), bool
            True where the student is not sure enough.
        """
        return self._are_unsure(self._student_probabilities(X)[1])

    @property
    def n_features_in_(self) -> int:
        """Number of columns; only if the student has it."""
        return self.student_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns; only if the student has them."""
        return self.student_.feature_names_in_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # A student of sk_aft.serving.load has no tags.
        theirs = [get_tags(m) for m in self._members().values() if hasattr(m, "__sklearn_tags__")]
        for name in _INPUTS_OF_BOTH if theirs else ():
            setattr(tags.input_tags, name, all(getattr(t.input_tags, name) for t in theirs))
        tags.non_deterministic = any(t.non_deterministic for t in theirs)
        return tags

    @available_if(lambda self: hasattr(self, "threshold_"))
    def _sk_visual_block_(self) -> Any:
        return visual_block(self.student_, self.teacher_, self.threshold_, self.deferred_fraction_)

    def _members(self) -> dict[str, Any]:
        return {"student": self.student, "teacher_pipeline": self.teacher_pipeline}

    def _predict_prefit(self, X: Any, y: Any) -> tuple[np.ndarray, HeldOut, Any, Any]:
        """Return the classes, what both say of rows that neither has seen, and both."""
        for name, member in self._members().items():
            check_fitted(name, member)
        classes = np.unique(self.student.classes_)
        check_teacher_knows_no_more(classes, self.teacher_pipeline.classes_)
        labeled, known = known_labels(y, self.missing_label)
        unknown = sorted(set(known.tolist()) - set(classes.tolist()), key=str)
        if unknown:
            raise ValueError(
                f"y holds labels that the fitted student does not know: {first(unknown)}. It "
                f"knows {first(classes)}."
            )
        targets = Targets.of(classes, known, labeled, y)
        rows = np.flatnonzero(labeled)
        _warn_of_few(len(rows))
        members = self.student, self.teacher_pipeline
        return (classes, held_out(*members, X, targets, rows), *members)

    def _fit_members(self, X: Any, y: Any) -> tuple[np.ndarray, HeldOut, Any, Any]:
        """Return the classes, what copies of both say of held-out rows, and both fitted."""
        labeled, known = known_labels(y, self.missing_label)
        classes = np.unique(known)
        if len(classes) < 2:
            (only,) = classes.tolist()
            raise ValueError(f"y holds one class, {only!r}: a classifier needs at least two.")
        warn_of_mark(classes, type(self).__name__)
        splits = held_out_splits(
            self.cv, X, y, known, missing_label=self.missing_label, random_state=self.random_state
        )
        if not self.refit and len(splits) > 1:
            raise ValueError(
                f"refit=False needs a single split, and cv={self.cv} makes {len(splits)}: hold "
                "out a share, such as cv=0.2, or set refit=True."
            )
        _warn_of_few(sum(len(test) for _, test in splits))
        targets = Targets.of(classes, known, labeled, y)
        members = [clone(member) for member in self._members().values()]
        if not self.refit:
            ((train, test),) = splits
            student, teacher = (fit_member(member, X, targets, train) for member in members)
            return classes, held_out(student, teacher, X, targets, test), student, teacher
        pieces = Parallel(n_jobs=self.n_jobs)(
            delayed(fit_and_predict)(*map(clone, members), X, targets, train, test)
            for train, test in splits
        )
        rows = HeldOut(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))
        every_row = np.arange(len(labeled))
        student, teacher = (fit_member(member, X, targets, every_row) for member in members)
        return classes, rows, student, teacher

    def _choose(self, rows: HeldOut) -> None:
        """Set the temperature and the threshold."""
        self.temperature_ = 1.0
        if self.calibrate:
            self.temperature_ = fit_temperature(rows.probabilities, rows.codes, rows.known)
        probabilities = scaled(rows.probabilities, self.temperature_, rows.known)
        student_right = probabilities.argmax(axis=1) == rows.codes
        curve = deferral_curve(probabilities.max(axis=1), student_right, rows.teacher_right)
        point = curve.best(self.max_deferred)
        self.threshold_, self.deferred_fraction_ = point.threshold, point.deferred
        self.__dict__.pop("cv_results_", None)
        if self.store_cv_results:
            self.cv_results_ = {
                "thresholds": curve.thresholds,
                "deferred_fractions": curve.deferred,
                "scores": curve.accuracies,
            }

    def _student_probabilities(self, X: Any) -> tuple[Any, np.ndarray]:
        """Return rows that can be indexed, and the student's probabilities, (n_rows, n_classes)."""
        check_is_fitted(self, "threshold_")
        (X,) = indexable(X)
        theirs = self.student_.predict_proba(X)
        if len(theirs) != _num_samples(X):
            raise ValueError(
                f"The student has {len(theirs)} predictions for {_num_samples(X)} rows: put one "
                "row in a list."
            )
        theirs = scaled(np.asarray(theirs), self.temperature_)
        return X, aligned(theirs, self.student_.classes_, self.classes_)

    def _are_unsure(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities.max(axis=1) < self.threshold_


def _warn_of_few(n_rows: int) -> None:
    """Warn the caller of `fit` if there are few held-out rows."""
    if n_rows < _FEWEST_HELD_OUT:
        warnings.warn(
            "The threshold of a cascade is found on held-out rows, and there are only "
            f"{n_rows}, so it is imprecise. Hold out at least {_FEWEST_HELD_OUT}, better several "
            "hundred: label more rows, or set cv to a number of folds, such as cv=5, which holds "
            "out each labelled row once.",
            stacklevel=5,
        )


def _checked_rows(X: Any, y: Any) -> tuple[Any, Any]:
    """Return rows and labels that can be indexed."""
    if y is None:
        raise ValueError(
            "CascadeClassifier requires y to be passed, but the target y is None: the threshold is "
            "found by labels."
        )
    X, y = indexable(X, y)
    return X, column_or_1d(y, warn=True) if getattr(y, "ndim", 1) == 2 else y
