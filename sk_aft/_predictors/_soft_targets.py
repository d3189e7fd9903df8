"""Soft targets of predictors: out of fold for labelled rows, plain for all others."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, StratifiedKFold, check_cv
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing
from torch import nn
from tqdm.auto import tqdm

from sk_aft._data._feature_rows import StoredRows
from sk_aft._data._rows import Rows
from sk_aft._data._soft_targets import aligned
from sk_aft._predictors._labels import PREFIT, Labels, check_teachers
from sk_aft._predictors._predictor import Predictor, content_keys, learns_classes, output_of
from sk_aft._predictors._teacher_predictions import TeacherPredictions
from sk_aft.backbones import Backbone
from sk_aft.transfer._pool import OF_NUMBERS, OF_PROBABILITIES
from sk_aft.transfer._probe import Folds, stratified_group_folds


class PredictorTargets:
    """What one predictor says of rows.

    Parameters
    ----------
    predictor : Predictor
        Fitted on all labelled rows, or by the user.
    keys : list of bytes
        The content of the labelled rows.
    of_labeled : ndarray of shape (n_labeled, n_outputs), or None
        Their predictions out of fold, NaN for none. None if they are predicted like other rows.
    """

    def __init__(
        self, predictor: Predictor, keys: Sequence[bytes], of_labeled: np.ndarray | None
    ) -> None:
        self.predictor = predictor
        self.classes = predictor.classes
        self._of_labeled = of_labeled
        self._row_of = {} if of_labeled is None else {key: row for row, key in enumerate(keys)}

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
        numbers = np.array([self._row_of.get(key, -1) for key in content_keys(rows)])
        shape = len(rows), self._of_labeled.shape[1]
        predictions: np.ndarray = np.full(shape, np.nan, np.float32)
        predictions[numbers >= 0] = self._of_labeled[numbers[numbers >= 0]]
        others = np.flatnonzero((numbers < 0) & ~rows.missing_mask)
        if len(others):
            predictions[others] = self.predictor.predict(rows.take(others))
        return predictions


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
            self.classes = np.unique(np.concatenate(labels))
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
    column: Any

    @property
    def is_fitted(self) -> bool:
        """Whether it is used as it is."""
        return isinstance(self.predictions.cv, str)  # checked by `check_teachers`


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
            teachers.append(Teacher(model, column))
        elif is_predictor(model):
            teachers.append(Teacher(TeacherPredictions(model, cv=PREFIT), column))
            fitted.append(type(model).__name__)
    check_teachers([teacher.predictions for teacher in teachers])
    for name in fitted:
        warnings.warn(
            f"The fitted {name} may have seen the rows that it now teaches, and what it says of "
            f"these is too sure. TeacherPredictions({name}(...)) fits it here, and predicts "
            "labelled rows out of fold. If it has not seen them, "
            "TeacherPredictions(model, cv='prefit') says so.",
            stacklevel=2,
        )
    return teachers


def fit_teachers(
    teachers: Sequence[Teacher], rows: Rows, y: Any, groups: Any, *, verbose: int
) -> PredictorTargets | PooledTargets:
    """Fit teachers on the labelled rows, and return what they say of any rows.

    Parameters
    ----------
    teachers : sequence of Teacher
        At least one; checked by `check_teachers`.
    rows : Rows
        All rows, as the extractor reads them.
    y : array-like of shape (n_rows,) or (n_rows, n_outputs), or None
        Targets; None if all teachers are fitted already.
    groups : array-like of shape (n_rows,), or None
        Groups that folds do not part.
    verbose : int
        1 shows a progress bar.

    Returns
    -------
    soft_targets : PredictorTargets or PooledTargets
        A `SoftTargetSource`.
    """
    sources = []
    labels = None
    for teacher in teachers:
        estimator = teacher.predictions.estimator
        if teacher.is_fitted:
            sources.append(PredictorTargets(Predictor(estimator, teacher.column), (), None))
            continue
        labels = Labels.of(y, groups, len(rows), teacher.predictions)
        sources.append(_fitted(teacher, rows.take(labels.indices), labels, verbose))
    if len(sources) == 1:
        return sources[0]
    if labels is None:
        return PooledTargets(sources, rows[:0], None)
    return PooledTargets(sources, rows.take(labels.indices), labels.targets)


def _fitted(teacher: Teacher, rows: Rows, labels: Labels, verbose: int) -> PredictorTargets:
    """Fit one clone on each fold, and one on all labelled rows."""
    estimator, targets = teacher.predictions.estimator, labels.targets
    values = Predictor(estimator, teacher.column).read(rows)
    keys = content_keys(rows)
    folds = _folds(teacher.predictions, labels, keys)
    classes = np.unique(targets) if learns_classes(estimator) else None
    width = targets.reshape(len(targets), -1).shape[1] if classes is None else len(classes)
    of_labeled: np.ndarray = np.full((len(targets), width), np.nan, np.float32)
    name = type(estimator).__name__
    with tqdm(total=len(folds) + 1, desc=name, unit="fit", disable=not verbose) as progress:
        for train, test in folds:
            one = clone(estimator).fit(_safe_indexing(values, train), targets[train])
            predictions = output_of(one)(_safe_indexing(values, test))
            if classes is not None:
                predictions = aligned(predictions, np.asarray(one.classes_), classes)
                predictions[~np.isin(targets[test], targets[train])] = np.nan
            of_labeled[test] = predictions
            progress.update()
        fitted = clone(estimator).fit(values, targets)
        progress.update()
    return PredictorTargets(Predictor(fitted, teacher.column), keys, of_labeled)


def _folds(teacher: TeacherPredictions, labels: Labels, keys: Sequence[bytes]) -> Folds:
    """Return folds of the labelled rows; none if they are too few."""
    targets, cv = labels.targets, teacher.cv
    stratifies = learns_classes(teacher.estimator)
    if not isinstance(cv, (int, np.integer)):
        splitter = check_cv(cv, targets, classifier=stratifies)
        return _checked(list(splitter.split(keys, targets, labels.groups)), len(targets))
    groups = keys if labels.groups is None else labels.groups
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    n_groups = int(numbers.max()) + 1
    classes = np.unique(targets, return_inverse=True)[1] if stratifies else None
    most = n_groups if classes is None else min(n_groups, int(np.bincount(classes).max()))
    n_folds = min(int(cv), most)
    if n_folds < 2:
        return []
    if classes is None:
        splitter = GroupKFold(n_folds, shuffle=True, random_state=0)
        return list(splitter.split(numbers, groups=numbers))
    if n_groups < len(targets):
        folds = stratified_group_folds(classes, numbers, n_folds, 0)
    else:
        with warnings.catch_warnings():
            # A class with fewer rows than folds is absent from some of them.
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            splitter = StratifiedKFold(n_folds, shuffle=True, random_state=0)
            folds = list(splitter.split(numbers, classes))
    return [(train, test) for train, test in folds if len(test) and len(set(classes[train])) > 1]


def _checked(folds: Folds, n_rows: int) -> Folds:
    """Raise ValueError unless each labelled row is in one test set."""
    counts = np.bincount(np.concatenate([test for _, test in folds]), minlength=n_rows)
    if len(counts) == n_rows and (counts == 1).all():
        return folds
    row = int(np.flatnonzero(counts != 1)[0])
    raise ValueError(
        f"cv of TeacherPredictions has labelled row {row} in {counts[row]} test sets, expected "
        "each of the labelled rows in one: use a number of folds, or a splitter such as KFold."
    )
