"""Class probabilities of a fine-tuned model, which never saw the labels of the rows it predicts."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sk_aft._data._feature_rows import StoredRows
from sk_aft._data._rows import Rows
from sk_aft._extraction._reader import Reader
from sk_aft._extraction._source import FeatureSource
from sk_aft._fine_tuning._backbone import FineTunedBackbone, LabeledRows
from sk_aft.store import row_digests
from sk_aft.transfer._pool import SMALLEST_PROBABILITY
from sk_aft.transfer._probe import ClassProbe, stratified_group_folds

_N_FOLDS = 3
_NO_RECIPE = (
    "The soft targets of this pickled FineTunedFeatureExtractor are not known: they were not "
    "computed before it was pickled, and its pickle does not hold the labelled rows that they are "
    "computed from. Read the soft_targets of any rows before you pickle it, or fit it again."
)

Folds = Sequence[tuple[np.ndarray, np.ndarray]]


class OutOfFold(NamedTuple):
    """Predictions for labelled rows by models that did not see their labels.

    Parameters
    ----------
    probabilities : ndarray of shape (n_rows, n_classes)
        NaN in rows that no fold can predict: no other row has their class.
    probe : ClassProbe
        Its penalty is the one with which the probabilities are best.
    scores : dict of str to float
        "accuracy" and "log_loss" of the predicted rows; empty if there are none.
    """

    probabilities: np.ndarray
    probe: ClassProbe
    scores: dict[str, float]


def tuning_folds(labeled: LabeledRows, n_folds: int | str, seed: int) -> Folds:
    """Return folds of the labelled rows; none if the labels are too few.

    Rows of equal content are in the same fold. There are at most as many folds as the largest
    class has rows, and none if that is fewer than three: the models of two folds would learn from
    one row of each class, and their predictions would be poor.

    Parameters
    ----------
    labeled : LabeledRows
        The rows.
    n_folds : int or "auto"
        Number of folds; "auto" is three.
    seed : int
        Seed of the folds.

    Returns
    -------
    folds : list of (train, test)
        Indices of rows to learn from and rows to predict.
    """
    wanted = _N_FOLDS if n_folds == "auto" else int(n_folds)
    largest = int(np.bincount(labeled.labels).max())
    return [] if largest < 3 else _grouped_folds(labeled, min(wanted, largest), seed)


def frozen_folds(labeled: LabeledRows, seed: int) -> Folds:
    """Return folds for a probe of the frozen model, where rows are too few for `tuning_folds`."""
    largest = int(np.bincount(labeled.labels).max())
    return _grouped_folds(labeled, min(_N_FOLDS, largest), seed)


def _grouped_folds(labeled: LabeledRows, n_folds: int, seed: int) -> Folds:
    """Return folds that do not part rows of equal content, and can predict some rows."""
    _, groups = np.unique(labeled.digests, return_inverse=True)
    n_folds = min(n_folds, int(groups.max()) + 1)
    if n_folds < 2:
        return []
    labels = labeled.labels
    return [
        (train, test)
        for train, test in stratified_group_folds(labels, groups, n_folds, seed)
        if len(np.unique(labels[train])) > 1 and np.isin(labels[test], labels[train]).any()
    ]


def out_of_fold(
    labeled: LabeledRows, folds: Folds, features: np.ndarray | Sequence[np.ndarray]
) -> OutOfFold:
    """Predict each labelled row by a probe, and a model, that was fitted on other rows.

    Parameters
    ----------
    labeled : LabeledRows
        The rows.
    folds : list of (train, test)
        Indices of rows to learn from and rows to predict.
    features : ndarray of shape (n_rows, n_features), or list of these
        Features of all rows; a list holds those of the model of each fold.

    Returns
    -------
    predictions : OutOfFold
        The predictions and their score.
    """
    probe = ClassProbe(labeled.n_classes)
    probabilities = probe.out_of_fold(features, labeled.labels, folds)
    known_mask = ~np.isnan(probabilities[:, 0])
    predicted, labels = probabilities[known_mask], labeled.labels[known_mask]
    if not len(labels):
        return OutOfFold(probabilities, probe, {})
    of_label = np.clip(predicted[np.arange(len(labels)), labels], SMALLEST_PROBABILITY, 1)
    scores = {
        "accuracy": float((predicted.argmax(axis=1) == labels).mean()),
        "log_loss": float(-np.log(of_label).mean()),
    }
    return OutOfFold(probabilities, probe, scores)


def features_of(reader: Reader, labeled: LabeledRows, source: FeatureSource) -> np.ndarray:
    """Return a model's features of labelled rows; those in the store are not computed again."""
    reading = source._replace(readers=[reader._replace(column=None, kind=labeled.rows.kind)])
    (stored,) = reading.compute(labeled.rows)
    return stored.take(np.arange(len(labeled.labels)))


def tuned_out_of_fold(
    labeled: LabeledRows,
    folds: Folds,
    source: FeatureSource,
    tune: Callable[[LabeledRows, str], FineTunedBackbone],
) -> OutOfFold:
    """Fine-tune a model on each fold's training rows, and predict the others.

    Parameters
    ----------
    labeled : LabeledRows
        The rows.
    folds : list of (train, test)
        Indices of rows to learn from and rows to predict.
    source : FeatureSource
        How models are run, and where features are kept.
    tune : callable
        Returns the model that learns from some rows, given the name of the fold.

    Returns
    -------
    predictions : OutOfFold
        The predictions and their score.
    """
    matrices = []
    for number, (train, _) in enumerate(folds, start=1):
        backbone = tune(labeled.subset(train), f"-fold-{number}-of-{len(folds)}")
        matrices.append(features_of(Reader(backbone), labeled, source))
        backbone.forget()
    return out_of_fold(labeled, folds, matrices)


class TunedSoftTargets:
    """Class probabilities of a model: out of fold for labelled rows, by a probe for others.

    They are computed when they are first needed. Until then a pickle holds what they are computed
    from, the labelled rows among them; `without_recipe` leaves it out.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The labels.
    reader : Reader
        The part of the rows that the model reads.
    labeled : LabeledRows
        What the model learned from.
    predict_labeled : callable
        Returns `OutOfFold` of the labelled rows. Called once.
    features : callable
        Returns the final model's features of the labelled rows, for the probe.
    """

    def __init__(
        self,
        classes: np.ndarray,
        reader: Reader,
        labeled: LabeledRows,
        predict_labeled: Callable[[], OutOfFold],
        features: Callable[[], np.ndarray],
    ) -> None:
        self.classes = classes
        self._column, self._kind = reader.column, labeled.rows.kind
        self._row_of = {digest: row for row, digest in enumerate(labeled.digests.tolist())}
        self._recipe: _Recipe | None = _Recipe(predict_labeled, features, labeled.labels)
        self._fitted: _Fitted | None = None
        self._lock = threading.Lock()

    def without_recipe(self) -> TunedSoftTargets:
        """Return what can predict rows only if that was computed before."""
        other = copy.copy(self)
        other._recipe = None
        return other

    def fit(self) -> _Fitted:
        """Predict the labelled rows, and fit the probe; done once, by the first thread."""
        with self._lock:
            if self._fitted is None:
                if self._recipe is None:
                    raise RuntimeError(_NO_RECIPE)
                predictions = self._recipe.predict_labeled()
                probe = predictions.probe.fit(self._recipe.features(), self._recipe.labels)
                self._fitted = _Fitted(probe, predictions.probabilities.astype(np.float32))
                self._recipe = None
            return self._fitted

    def compute(self, rows: Rows, parts: Sequence[StoredRows]) -> np.ndarray:
        """Return the probabilities of rows.

        Parameters
        ----------
        rows : Rows
            Rows as the extractor reads them.
        parts : sequence of StoredRows
            The model's features of these rows.

        Returns
        -------
        probabilities : ndarray of shape (n_rows, n_classes), float32
            NaN in rows without features, and in labelled rows that no fold can predict.

        Raises
        ------
        RuntimeError
            If they come from a pickle that has no recipe, and were not computed before.
        """
        fitted = self.fit()
        shape = len(rows), len(self.classes)
        probabilities: np.ndarray = np.full(shape, np.nan, dtype=np.float32)
        known = np.flatnonzero(~parts[0].missing_mask)
        if len(known):
            probabilities[known] = fitted.probe.predict(parts[0].take(known))
        read = Reader(None, self._column, self._kind).rows(rows)  # type: ignore[arg-type]
        digests = row_digests(read, on_error=lambda row, error: None)
        for row, digest in enumerate(digests):
            number = self._row_of.get(digest.hex())
            if number is not None:
                probabilities[row] = fitted.of_labeled[number]
        return probabilities

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())


class _Recipe(NamedTuple):
    predict_labeled: Callable[[], OutOfFold]
    features: Callable[[], np.ndarray]
    labels: np.ndarray


class _Fitted(NamedTuple):
    probe: ClassProbe
    of_labeled: np.ndarray
