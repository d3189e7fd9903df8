"""Ranks foundation models by how useful they are for a task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import check_cv
from sklearn.utils import check_consistent_length

from sk_aft._extractor import FoundationFeatureExtractor
from sk_aft._fine_tuned_extractor import FineTunedFeatureExtractor
from sk_aft._runtime._device import resolve_device
from sk_aft.metrics import logme_score
from sk_aft.metrics._logme import is_classification, target_matrix
from sk_aft.transfer._probe import ClassProbe, Folds, RidgeProbe

_ROWS_TIMED = 64
_ROWS_TO_WARM_UP = 2
_SECONDS_TIMED = 0.2


def rank_foundation_models(
    models: Sequence[Any],
    X: Any,
    y: Any,
    *,
    cv: Any = 5,
    cache: Any = "auto",
    task: str = "auto",
    device: str = "auto",
) -> Any:
    """Compare how useful foundation models are for a task, and how fast they are.

    The better a linear probe of a model's features predicts the task, the more a small network
    gains from them. So try the first model of the ranking first.

    Parameters
    ----------
    models : list
        Foundation models as for `FoundationFeatureExtractor`; an item that is a list or a mapping
        of columns is one candidate whose features are concatenated. An item that is a
        `FineTunedFeatureExtractor` is fine-tuned, and keeps its own cache and device.
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

    Returns
    -------
    ranking : pandas.DataFrame
        A row for each model, the best probe first, with the columns

        - model: its name,
        - logme: `sk_aft.metrics.logme_score` of its features; NaN of fine-tuned ones, which have
          seen the labels,
        - probe_score, probe_std: mean and standard deviation over the folds of the accuracy of a
          logistic regression (R² of a ridge regression) on the standardised features. Of a
          fine-tuned model, it is the accuracy of its soft targets, which are out of fold: neither
          the model nor the regression has seen the label of the row,
        - n_features: number of features,
        - rows_per_second: how fast it embeds rows on this machine, measured without the cache.

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
    targets = _Targets(y, task)
    check_consistent_length(X, targets.values)
    folds = targets.folds(cv)
    names: list[str] = []
    ranking = []
    for model in models:
        is_tuned = isinstance(model, FineTunedFeatureExtractor)
        if is_tuned:
            extractor = clone(model)
        else:
            extractor = FoundationFeatureExtractor(model, cache=cache, device=device)
        rows = extractor.fit_transform(X, y)
        features = np.asarray(rows.features)
        if is_tuned:
            logme, scores = np.nan, targets.scores(rows.soft_targets, folds)
        else:
            logme = logme_score(features, targets.values, task=targets.task)
            scores = targets.probe_scores(features, folds)
        names.append("+".join(extractor.feature_slices_) + ("-tuned" if is_tuned else ""))
        ranking.append(
            {
                "model": _distinct(names),
                "logme": logme,
                "probe_score": np.mean(scores),
                "probe_std": np.std(scores),
                "n_features": features.shape[1],
                "rows_per_second": _rows_per_second(extractor, X),
            }
        )
        for backbone in extractor.backbones_:
            backbone.unload()
    frame = pandas.DataFrame(ranking)
    return frame.sort_values("probe_score", ascending=False, kind="stable", ignore_index=True)


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
        self.task = "classification" if self._is_classification else "regression"
        self.values = target_matrix(y, self.task)
        if self._is_classification:
            self._n_classes = self.values.shape[1]
            self.values = self.values.argmax(axis=1)

    def folds(self, cv: Any) -> Folds:
        splitter = check_cv(cv, self.values, classifier=self._is_classification)
        return list(splitter.split(np.zeros(len(self.values)), self.values))

    def probe_scores(self, features: np.ndarray, folds: Folds) -> list[float]:
        """Return the accuracy or R² of each fold."""
        if not self._is_classification:
            predictions = RidgeProbe().out_of_fold(features, self.values, folds)
            return [r2_score(self.values[test], predictions[test]) for _, test in folds]
        probabilities = ClassProbe(self._n_classes).out_of_fold(features, self.values, folds)
        return self.scores(probabilities, folds)

    def scores(self, probabilities: np.ndarray, folds: Folds) -> list[float]:
        """Return the accuracy of out-of-fold probabilities in each fold."""
        is_known = ~np.isnan(probabilities).any(axis=1)
        is_right = is_known & (probabilities.argmax(axis=1) == self.values)
        scores = []
        for train, test in folds:
            # For a class that is absent from the other folds, the probe just returns the label.
            is_seen = np.isin(self.values[test], self.values[train])
            scores.append(float((is_right[test] & is_seen).mean()))
        return scores


def _distinct(names: list[str]) -> str:
    """Return the last name, with a number if it has occurred before."""
    count = names.count(names[-1])
    return names[-1] if count == 1 else f"{names[-1]}-{count}"


def _rows_per_second(extractor: FoundationFeatureExtractor, X: Any) -> float:
    """Run a candidate's models to measure how many rows per second they embed."""
    seconds_per_row = 0.0
    device = resolve_device(extractor.device)
    read = extractor._check_rows(X, reset=False).read
    for reader in extractor._readers:
        backbone, rows = reader.backbone, reader.rows(read)
        sample = np.linspace(0, len(rows) - 1, min(_ROWS_TIMED, len(rows))).astype(np.int64)
        backbone.embed(
            rows.take(sample[:_ROWS_TO_WARM_UP]), batch_size=backbone.batch_size, device=device
        )
        n_rows, start, seconds = 0, time.perf_counter(), 0.0
        while seconds < _SECONDS_TIMED:
            backbone.embed(rows.take(sample), batch_size=backbone.batch_size, device=device)
            n_rows += len(sample)
            seconds = time.perf_counter() - start
        seconds_per_row += seconds / n_rows
    return 1 / seconds_per_row
