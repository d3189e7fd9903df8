"""Soft targets of predictors: out of fold for labelled rows, plain for all others."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing
from torch import nn
from tqdm.auto import tqdm

from sk_aft._data._feature_rows import StoredRows
from sk_aft._data._rows import Rows
from sk_aft._data._soft_targets import aligned
from sk_aft._predictors._content import content_keys, means_of_equal
from sk_aft._predictors._labels import PREFIT, Labels, check_teachers, folds_of, name_of
from sk_aft._predictors._predictor import CLASSES, Part, Predictor, output_of, what_is_learned
from sk_aft._predictors._teacher_predictions import TeacherPredictions
from sk_aft.backbones import Backbone
from sk_aft.transfer._pool import OF_NUMBERS, OF_PROBABILITIES
from sk_aft.transfer._probe import Folds


class PredictorTargets:
    """What one predictor says of rows.

    Parameters
    ----------
    predictor : Predictor
        Fitted on all labelled rows, or by the user.
    lesson : Lesson, optional
        The labelled rows that it was fitted to.
    of_labeled : ndarray of shape (n_labeled, n_outputs), optional
        Their predictions out of fold, NaN for none. Default: they are predicted like other rows.
    """

    def __init__(
        self,
        predictor: Predictor,
        lesson: Lesson | None = None,
        of_labeled: np.ndarray | None = None,
    ) -> None:
        self.predictor = predictor
        self.classes = predictor.classes
        self._of_labeled = of_labeled
        self._row_of: dict[bytes, int] = {}
        self._row_of_rounded: dict[bytes, int] = {}
        if lesson is not None:
            self._row_of = {key: row for row, key in enumerate(lesson.keys)}
            rounded = self._keys(lesson.rows, np.float32)
            self._row_of_rounded = {key: row for row, key in enumerate(rounded)}

    @property
    def predictors(self) -> list[Predictor]:
        """The predictor, as of several."""
        return [self.predictor]

    @property
    def is_out_of_fold(self) -> bool:
        """Whether labelled rows are predicted by models that have not seen them."""
        return self._of_labeled is not None

    def compute(self, rows: Rows, parts: Sequence[StoredRows]) -> np.ndarray:
        """Return the predictions of rows; see `SoftTargetSource.compute`."""
        del parts
        if self._of_labeled is None:
            return self.predictor.predict(rows)
        numbers = self._numbers_of(rows)
        shape = len(rows), self._of_labeled.shape[1]
        predictions: np.ndarray = np.full(shape, np.nan, self._of_labeled.dtype)
        predictions[numbers >= 0] = self._of_labeled[numbers[numbers >= 0]]
        others = np.flatnonzero(numbers < 0)
        if len(others):
            predictions[others] = self.predictor.predict(rows.take(others))
        return predictions

    def _numbers_of(self, rows: Rows) -> np.ndarray:
        """Return which labelled row each row is, -1 for none."""
        numbers = np.array([self._row_of.get(key, -1) for key in self._keys(rows)])
        others = np.flatnonzero(numbers < 0)
        if len(others):  # float32 of rows that were float64
            keys = self._keys(rows.take(others), np.float32)
            numbers[others] = [self._row_of_rounded.get(key, -1) for key in keys]
        return numbers

    def _keys(self, rows: Rows, dtype: Any = float) -> list[bytes]:
        return content_keys(rows, self.predictor.part.columns, dtype)


class PooledTargets:
    """The pooled predictions of several predictors.

    Weights are those with which the predictions of labelled rows are best; all are equal if a
    predictor may have seen these rows.

    Parameters
    ----------
    sources : sequence of PredictorTargets
        What each predictor says.
    rows : Rows
        The labelled rows.
    targets : ndarray of shape (n_labeled,) or (n_labeled, n_outputs), or None
        Their labels or numbers; None if all predictors were fitted by the user.
    """

    def __init__(self, sources: Sequence[PredictorTargets], rows: Rows, targets: Any) -> None:
        self._sources = sources
        self.classes: np.ndarray | None = None
        self._mean: Any = 0.0
        self._scale: Any = 1.0
        labels = [source.classes for source in sources if source.classes is not None]
        if labels:
            self.classes = _union(labels)
            targets = None if targets is None else np.searchsorted(self.classes, targets)
        elif targets is not None:
            scaler = StandardScaler().set_output(transform="default")
            targets = scaler.fit_transform(np.reshape(targets, (len(targets), -1)))
            self._mean, self._scale = scaler.mean_, scaler.scale_
        self.weights = np.full(len(sources), 1 / len(sources))
        if all(source.is_out_of_fold for source in sources):
            every = self._of_each(rows)
            self.weights = self._pooling.find_weights(every, targets, np.ones(len(targets)))

    @property
    def predictors(self) -> list[Predictor]:
        """The predictors, in their order."""
        return [source.predictor for source in self._sources]

    @property
    def _pooling(self) -> Any:
        return OF_NUMBERS if self.classes is None else OF_PROBABILITIES

    def compute(self, rows: Rows, parts: Sequence[StoredRows]) -> np.ndarray:
        """Return the pooled predictions of rows; see `SoftTargetSource.compute`."""
        del parts
        pooled = self._pooling.pool(self._of_each(rows), self.weights)
        return pooled if self.classes is not None else pooled * self._scale + self._mean

    def _of_each(self, rows: Rows) -> list[np.ndarray]:
        """Return the predictions of each source, of the same classes or standardised."""
        return [self._comparable(source, source.compute(rows, ())) for source in self._sources]

    def _comparable(self, source: PredictorTargets, predictions: np.ndarray) -> np.ndarray:
        if self.classes is None:
            return ((predictions - self._mean) / self._scale).astype(np.float32)
        assert source.classes is not None
        return aligned(predictions, source.classes, self.classes)


class Teacher(NamedTuple):
    """A predictor that teaches, and what it reads."""

    predictions: TeacherPredictions
    part: Part

    @property
    def is_fitted(self) -> bool:
        """Whether it is used as it is."""
        return isinstance(self.predictions.cv, str)  # checked by `check_teachers`


class Lesson(NamedTuple):
    """A teacher and the labelled rows that it will be fitted to; nothing is fitted yet.

    Parameters
    ----------
    teacher : Teacher
        The predictor.
    rows : Rows
        The labelled rows; those that are missing are left out.
    keys : list of bytes
        The content of each of them.
    labels : Labels or None
        Their targets; None if the predictor is fitted already.
    folds : list of (train, test)
        Which rows predict which; none if they are too few.
    """

    teacher: Teacher
    rows: Rows
    keys: list[bytes]
    labels: Labels | None
    folds: Folds

    @classmethod
    def of(cls, teacher: Teacher, rows: Rows, y: Any, groups: Any) -> Lesson:
        """Check the targets, and split the rows into folds."""
        if teacher.is_fitted:
            return cls(teacher, rows[:0], [], None, [])
        labels = Labels.of(y, groups, len(rows), teacher.predictions)
        missing_mask = teacher.part.recognised(rows).missing_mask[labels.indices]
        labels = labels.take(np.flatnonzero(~missing_mask))
        rows = rows.take(labels.indices)
        keys = content_keys(rows, teacher.part.columns)
        return cls(teacher, rows, keys, labels, folds_of(teacher.predictions, labels, keys))

    def fit(self, *, verbose: int) -> PredictorTargets:
        """Fit one clone on each fold, and one on all labelled rows."""
        part, estimator = self.teacher.part, self.teacher.predictions.estimator
        if self.labels is None:
            return PredictorTargets(Predictor(estimator, part))
        targets, values = self.labels.targets, part.read(self.rows)
        is_classifier = what_is_learned(estimator) == CLASSES
        classes = np.unique(targets) if is_classifier else None
        width = targets.reshape(len(targets), -1).shape[1] if classes is None else len(classes)
        dtype = np.float64 if classes is None else np.float32
        of_labeled: np.ndarray = np.full((len(targets), width), np.nan, dtype)
        name = type(estimator).__name__
        with tqdm(total=len(self.folds) + 1, desc=name, unit="fit", disable=not verbose) as bar:
            for train, test in self.folds:
                one = self._fitted(_safe_indexing(values, train), targets[train])
                predictions = output_of(one)(_safe_indexing(values, test))
                if classes is not None:
                    predictions = aligned(predictions, np.asarray(one.classes_), classes)
                    predictions[~np.isin(targets[test], targets[train])] = np.nan
                of_labeled[test] = predictions
                bar.update()
            predictor = Predictor(self._fitted(values, targets), part)
            bar.update()
        return PredictorTargets(predictor, self, means_of_equal(of_labeled, self.keys))

    def _fitted(self, values: Any, targets: np.ndarray) -> Any:
        teacher = self.teacher.predictions
        try:
            return clone(teacher.estimator).fit(values, targets)
        except (TypeError, ValueError) as error:
            advice = (
                " Convert columns of texts to categories, with X[column].astype('category')."
                if "could not convert string" in str(error)
                else ""
            )
            raise ValueError(f"{name_of(teacher)} cannot be fitted: {error}{advice}") from error


def is_predictor(model: Any) -> bool:
    """Return whether a model teaches by its predictions; it has no features then."""
    if isinstance(model, TeacherPredictions):
        return True
    is_other = isinstance(model, (str, type, nn.Module, Backbone)) or callable(model)
    return hasattr(model, "predict") and not hasattr(model, "transform") and not is_other


def teachers_among(models: Iterable[tuple[Any, Any]]) -> list[Teacher]:
    """Return the teachers among pairs of a column and a model, checked; warn of fitted ones.

    Raises
    ------
    TypeError, ValueError, sklearn.exceptions.NotFittedError
        If one of them cannot teach; see `check_teachers`.
    """
    teachers, fitted = [], []
    for column, model in models:
        if isinstance(model, TeacherPredictions):
            teachers.append(Teacher(model, Part(column)))
        elif is_predictor(model):
            teachers.append(Teacher(TeacherPredictions(model, cv=PREFIT), Part(column)))
            fitted.append(type(model).__name__)
    check_teachers([teacher.predictions for teacher in teachers])
    for name in fitted:
        warnings.warn(
            f"The fitted {name} may have seen the rows that it now teaches; its predictions for "
            f"them are overconfident. TeacherPredictions({name}(...)) fits it here, and predicts "
            "labelled rows out of fold. If it has not seen them, "
            "TeacherPredictions(model, cv='prefit') says so.",
            stacklevel=5,
        )
    return teachers


def fitted_teachers(
    lessons: Sequence[Lesson], *, verbose: int
) -> PredictorTargets | PooledTargets | None:
    """Fit teachers, and return what they say of any rows; None without teachers.

    Parameters
    ----------
    lessons : sequence of Lesson
        The teachers with their rows.
    verbose : int
        1 shows a progress bar.

    Returns
    -------
    soft_targets : PredictorTargets, PooledTargets or None
        A `SoftTargetSource`.
    """
    sources = [lesson.fit(verbose=verbose) for lesson in lessons]
    if len(sources) < 2:
        return sources[0] if sources else None
    fitted = [lesson for lesson in lessons if lesson.labels is not None]
    if not fitted:
        return PooledTargets(sources, lessons[0].rows, None)
    assert fitted[0].labels is not None
    return PooledTargets(sources, fitted[0].rows, fitted[0].labels.targets)


def _union(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Return all classes of several predictors, sorted."""
    if len({one.dtype.kind in "US" for one in labels}) > 1:
        raise ValueError(
            "Some teachers predict texts as classes and others numbers, "
            f"{[one.tolist()[:3] for one in labels]}: fit all of them to the same labels."
        )
    return np.unique(np.concatenate(labels))
