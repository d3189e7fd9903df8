"""Ranks foundation models by how useful they are for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, check_consistent_length

from sk_aft._data._labels import known_targets, labeled_mask
from sk_aft._data._soft_targets import aligned
from sk_aft._extractor import FoundationFeatureExtractor
from sk_aft._fine_tuned_extractor import FineTunedFeatureExtractor
from sk_aft._predictors._teacher_predictions import TeacherPredictions
from sk_aft.metrics import logme_score
from sk_aft.metrics._logme import is_classification, target_matrix
from sk_aft.model_selection._model_speed import rows_per_second
from sk_aft.transfer._probe import ClassProbe, Folds, RidgeProbe


def rank_foundation_models(
    models: Sequence[Any],
    X: Any,
    y: Any,
    *,
    cv: Any = 5,
    cache: Any = "auto",
    task: str = "auto",
    device: str = "auto",
    missing_label: Any = None,
    groups: Any = None,
) -> Any:
    """Compare how useful foundation models are for a task, and how fast they are.

    The better a linear probe of a model's features predicts the task, the more a small network
    gains from them. So try the first model of the ranking first.

    Parameters
    ----------
    models : list
        Foundation models as for `FoundationFeatureExtractor`; an item that is a list or a mapping
        of columns is one candidate whose features are concatenated. An item that is a
        `FineTunedFeatureExtractor` is fine-tuned, and keeps its own cache and device. Of
        `TeacherPredictions` and fitted predictors, the predictions are scored.
    X : list, array, Series or DataFrame of n_rows rows
        Training rows; some thousand of them are enough.
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Their classes or numbers.
    cv : int, splitter or iterable, default=5
        Folds of the probe, as in scikit-learn.
    cache : "auto", path-like, FeatureStore or None, default="auto"
        Where features are kept, as for `FoundationFeatureExtractor`. Later training can use them.
    task : {"auto", "classification", "regression"}, default="auto"
        Type of y. "auto" decides as scikit-learn does, which treats integers as classes.
    device : str, default="auto"
        Where the models run.
    missing_label : int, float, str or None, default=None
        Marks unknown labels in y, as in `AFTClassifier`; such rows are left out.
    groups : array-like of shape (n_rows,), optional
        Groups of rows, for ``cv`` and for the folds of `TeacherPredictions`.

    Returns
    -------
    ranking : pandas.DataFrame
        A row for each model, the best probe first, with the columns

        - model: its name,
        - logme: `sk_aft.metrics.logme_score` of its features; NaN of fine-tuned ones, which have
          seen the labels, and of predictors, which have no features,
        - score, standard_error: mean over the folds, and its standard error, of the accuracy of a
          logistic regression (R² of a ridge regression) on the standardised features. Of a
          fine-tuned model or a predictor, it is that of its soft targets, which are out of fold:
          neither the model nor the regression has seen the label of the row. A fitted predictor
          may have,
        - n_features: number of features; 0 of a predictor,
        - rows_per_second: how fast it embeds rows on this machine, measured without the cache,
        - licence: of the weights, as far as files on this machine say; else None.

    Raises
    ------
    ImportError
        If pandas is not installed; the message names the pip command.
    ValueError
        If ``models`` is empty, or y has fewer than two classes.

    Notes
    -----
    The penalty of the logistic regression is the one with the lowest cross-entropy over all
    folds together, so the accuracies of all models are slightly optimistic.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_aft.model_selection import rank_foundation_models
    >>> def letters(texts):
    ...     return np.array([[text.count(letter) for letter in "abc"] for text in texts])
    >>> def lengths(texts):
    ...     return np.array([[len(text)] for text in texts])
    >>> texts = ["ab", "aab", "cb", "cc"] * 5
    >>> ranking = rank_foundation_models([lengths, letters], texts, [0, 0, 1, 1] * 5)
    >>> ranking["model"].tolist()
    ['letters', 'lengths']
    """
    pandas = _pandas()
    if isinstance(models, str) or not len(models):
        raise ValueError(f"models is {models!r}, expected a list of foundation models.")
    check_consistent_length(X, y)
    labeled = labeled_mask(y, missing_label)
    if not labeled.all():
        X, y = _safe_indexing(X, np.flatnonzero(labeled)), known_targets(y, labeled)
        groups = None if groups is None else np.asarray(groups)[labeled]
    targets = _Targets(y, task)
    folds = targets.folds(cv, groups)
    extractors = [_candidate(model, cache, device) for model in models]
    for extractor in extractors:
        _check_candidate(extractor)  # before the first of them runs
    names: list[str] = []
    ranking = []
    for extractor in extractors:
        is_tuned = isinstance(extractor, FineTunedFeatureExtractor)
        rows = extractor.fit_transform(X, y, **({} if is_tuned else {"groups": groups}))
        features = np.asarray(rows.features)
        if is_tuned or not features.shape[1]:
            logme = np.nan
            scores = targets.scores(rows.soft_targets, rows.soft_target_classes, folds)
        else:
            logme = logme_score(features, targets.values, task=targets.task)
            scores = targets.probe_scores(features, folds)
        names.append(_name(extractor) + ("-tuned" if is_tuned else ""))
        ranking.append(
            {
                "model": _distinct(names),
                "logme": logme,
                "score": np.mean(scores),
                "standard_error": np.std(scores, ddof=1) / np.sqrt(len(scores)),
                "n_features": features.shape[1],
                "rows_per_second": rows_per_second(extractor, X),
                "licence": _licence(extractor),
            }
        )
        for backbone in extractor.backbones_:
            backbone.unload()
    frame = pandas.DataFrame(ranking)
    return frame.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            f"pandas is needed for rank_foundation_models but could not be imported ({error}). "
            "Install it with: pip install pandas"
        ) from error
    return pandas


class _Targets:
    """Classes or numbers, and the scores of their probes."""

    def __init__(self, y: Any, task: str) -> None:
        self._is_classification = is_classification(y, task)
        self._classes = np.unique(y) if self._is_classification else None
        self.task = "classification" if self._is_classification else "regression"
        self.values = target_matrix(y, self.task)
        if self._is_classification:
            self._n_classes = self.values.shape[1]
            self.values = self.values.argmax(axis=1)

    def folds(self, cv: Any, groups: Any) -> Folds:
        splitter = check_cv(cv, self.values, classifier=self._is_classification)
        return list(splitter.split(np.zeros(len(self.values)), self.values, groups))

    def probe_scores(self, features: np.ndarray, folds: Folds) -> list[float]:
        """Return the accuracy or R² of each fold."""
        if not self._is_classification:
            predictions = RidgeProbe().out_of_fold(features, self.values, folds)
            return [r2_score(self.values[test], predictions[test]) for _, test in folds]
        probabilities = ClassProbe(self._n_classes).out_of_fold(features, self.values, folds)
        return self.scores(probabilities, self._classes, folds)

    def scores(
        self, predictions: np.ndarray, classes: np.ndarray | None, folds: Folds
    ) -> list[float]:
        """Return the accuracy, or R², of out-of-fold predictions in each fold."""
        if (classes is None) is self._is_classification:
            kind = "classes" if self._is_classification else "numbers"
            raise ValueError(f"y holds {kind}, and a model among models predicts none of these.")
        if self._classes is None or classes is None:
            return [r2_score(self.values[test], predictions[test]) for _, test in folds]
        probabilities = aligned(predictions, classes, self._classes)
        is_known = ~np.isnan(probabilities).any(axis=1)
        is_right = is_known & (probabilities.argmax(axis=1) == self.values)
        scores = []
        for train, test in folds:
            # For a class that is absent from the other folds, the probe just returns the label.
            is_seen = np.isin(self.values[test], self.values[train])
            scores.append(float((is_right[test] & is_seen).mean()))
        return scores


def _candidate(model: Any, cache: Any, device: str) -> FoundationFeatureExtractor:
    """Return the extractor of a candidate, for rows of which each has a label."""
    if isinstance(model, FineTunedFeatureExtractor):
        return clone(model).set_params(missing_label=None)
    return FoundationFeatureExtractor(_of_labeled(model), cache=cache, device=device)


def _check_candidate(extractor: FoundationFeatureExtractor) -> None:
    """Raise if there is no such model, or if a candidate has features and predictions."""
    readers, teachers = extractor._resolved()
    if readers and teachers:
        names = [reader.backbone.name for reader in readers]
        names += [type(teacher.predictions.estimator).__name__ for teacher in teachers]
        raise ValueError(
            f"A candidate holds models with features and predictors, {names}: a probe scores "
            "features, and predictions are scored as they are. Make them two candidates."
        )


def _of_labeled(model: Any) -> Any:
    """Return a candidate for rows of which each has a label."""
    if isinstance(model, list):
        return [_of_labeled(one) for one in model]
    if isinstance(model, Mapping):
        return {column: _of_labeled(one) for column, one in model.items()}
    if not isinstance(model, TeacherPredictions):
        return model
    return TeacherPredictions(model.estimator, cv=model.cv)


def _name(extractor: FoundationFeatureExtractor) -> str:
    estimators = [teacher.predictions.estimator for teacher in extractor._teachers]
    lasts = [getattr(estimator, "steps", [(None, estimator)])[-1][1] for estimator in estimators]
    names = [type(estimator).__name__.lower() for estimator in lasts]
    return "+".join([*extractor.feature_slices_, *names])


def _licence(extractor: FoundationFeatureExtractor) -> str | None:
    """Return the licences of the models, None if one is not known."""
    licences = [backbone.original.licence for backbone in extractor.backbones_]
    known = [licence for licence in licences if licence is not None]
    return ", ".join(dict.fromkeys(known)) if known and len(known) == len(licences) else None


def _distinct(names: list[str]) -> str:
    """Return the last name, with a number if it has occurred before."""
    count = names.count(names[-1])
    return names[-1] if count == 1 else f"{names[-1]}-{count}"
