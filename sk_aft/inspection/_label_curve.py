"""LabelCurveDisplay: what more labels would bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_consistent_length

from sk_aft._data._labels import (
    check_no_target_missing,
    known_targets,
    labeled_mask,
    mark_among,
)
from sk_aft._data._marks import reads_unlabeled
from sk_aft._optional import import_optional
from sk_aft.inspection._axes import COLORS, MARKERS, axes_of, legend_above, plain
from sk_aft.model_selection import LabeledFold

DEFAULT_SIZES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
# Scores whose best value is 1, so that 1 - score is an error.
_OF_ONE = (
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "d2_",
    "explained_variance",
    "f1",
    "jaccard",
    "matthews_corrcoef",
    "precision",
    "r2",
    "recall",
    "roc_auc",
    "top_k_accuracy",
)
_MOST_TICKS = 10


class LabelCurveDisplay:
    """The error of estimators against the number of labelled rows.

    Use `from_estimator` to measure one.

    Parameters
    ----------
    train_sizes : array-like of shape (n_sizes,)
        Numbers of labelled rows to train on.
    scores : array-like of shape (n_estimators, n_sizes, n_folds)
        Scores on the test rows of each fold; greater is better.
    names : sequence of str, optional
        Names of the estimators; not needed for one.
    score_name : str, default="score"
        Name of a scorer of scikit-learn. It decides what is drawn:

        - 1 - score, for scores whose best value is 1, such as "accuracy" and "r2";
        - the loss, for "neg_log_loss" and such;
        - the score itself, for all others.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes.
    figure_ : matplotlib.figure.Figure
        The figure.
    lines_ : list of matplotlib.lines.Line2D
        Mean over the folds; a line for each estimator.
    fill_between_ : list of matplotlib.collections.PolyCollection
        One standard error over the folds to each side; empty if there is one fold.

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : The same for all rows, not only labelled ones.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sk_aft.inspection import LabelCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> display = LabelCurveDisplay.from_estimator(
    ...     {"logistic": LogisticRegression(max_iter=1000), "Bayes": GaussianNB()}, X, y, cv=3
    ... )
    >>> display.train_sizes.tolist()
    [6, 12, 25, 50, 100]
    >>> display.scores.shape
    (2, 5, 3)
    """

    def __init__(
        self,
        *,
        train_sizes: Sequence[int] | np.ndarray,
        scores: Any,
        names: Sequence[str] | None = None,
        score_name: str = "score",
    ) -> None:
        self.train_sizes = train_sizes
        self.scores = scores
        self.names = names
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        train_sizes: Sequence[float] | np.ndarray = DEFAULT_SIZES,
        cv: Any = 5,
        missing_label: Any = None,
        scoring: Any = None,
        random_state: Any = None,
        n_jobs: int | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> LabelCurveDisplay:
        """Fit estimators to some of the labels, score them on held-out rows, and draw the error.

        Takes as long as a fit for each estimator, size and fold. All estimators see the same rows.
        A larger number of labels includes the smaller ones.

        Parameters
        ----------
        estimator : estimator or mapping of str to estimator
            One estimator, or several by name. Clones are fitted.
        X : array-like, list or DataFrame of n_rows rows
            Rows, as the estimators accept them.
        y : array-like of shape (n_rows,) or (n_rows, n_targets)
            Targets; rows marked by ``missing_label`` are never scored.
        train_sizes : array-like of shape (n_sizes,), default=(1/16, 1/8, 1/4, 1/2, 1)
            Numbers of labelled rows (integers), or shares of those that the smallest fold trains on
            (floats). Shares that are too small for a row of each class are left out.
        cv : int, splitter or iterable, default=5
            How the labelled rows are split, as in `sk_aft.model_selection.LabeledFold`.
        missing_label : int, float, str or None, default=None
            Marks rows without a label. It also decides what happens to a row whose label is taken
            away:

            - given: the row stays as one without a label, which asks what more labels of the same
              rows would bring. Estimators without a parameter ``missing_label`` get only the
              labelled rows.
            - None: the row is left out, which asks what more rows would bring.
        scoring : str, callable or None, default=None
            As in `sklearn.model_selection.cross_validate`; None is the estimator's ``score``.
        random_state : int, RandomState or None, default=None
            Determines which labels are kept. They are stratified by class, and there is at least
            one of each.
        n_jobs : int, optional
            Number of processes; None is 1.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.
        **kwargs
            Options of all lines, as for `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : LabelCurveDisplay
            The drawn display.

        Raises
        ------
        ValueError
            If a size or a mark cannot be used, or ``missing_label=None`` and one of more than two
            classes is -1, "-1", "", "unknown", "unlabeled" or "unlabelled", which probably marks
            rows without a label; raised before any fit.
        """
        import_optional("matplotlib", extra="plot", purpose=cls.__name__)
        by_name = dict(estimator) if isinstance(estimator, Mapping) else {"": estimator}
        if not by_name:
            raise ValueError("estimator is an empty mapping: give at least one estimator.")
        check_consistent_length(X, y)
        reads = [reads_unlabeled(one, missing_label, name) for name, one in by_name.items()]
        first = next(iter(by_name.values()))
        folds = _folds(y, cv, missing_label, is_classifier(first), check_random_state(random_state))
        sizes = _checked_sizes(train_sizes, folds)
        targets = np.asarray(y, dtype=object)
        scorers = [check_scoring(one, scoring=scoring) for one in by_name.values()]
        scores = Parallel(n_jobs=n_jobs)(
            delayed(_score)(clone(one), X, targets, fold, size, missing_label, is_reader, scorer)
            for one, is_reader, scorer in zip(by_name.values(), reads, scorers, strict=True)
            for size in sizes
            for fold in folds
        )
        display = cls(
            train_sizes=sizes,
            scores=np.reshape(scores, (len(by_name), len(sizes), len(folds))),
            names=list(map(str, by_name)) if isinstance(estimator, Mapping) else None,
            score_name=_score_name(scoring, is_classifier(first)),
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> LabelCurveDisplay:
        """Draw the mean error over the folds, with one standard error to each side.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.
        **kwargs
            Options of all lines, as for `matplotlib.axes.Axes.plot`.

        Returns
        -------
        self : LabelCurveDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If ``scores`` has another shape than ``train_sizes`` and ``names`` say.
        """
        sizes, scores = np.asarray(self.train_sizes), np.asarray(self.scores, dtype=float)
        n_names = scores.shape[:1] if self.names is None else (len(self.names),)
        if scores.ndim != 3 or scores.shape[:2] != (*n_names, len(sizes)):
            raise ValueError(
                f"scores has the shape {scores.shape}, expected (n_estimators, n_sizes, n_folds): "
                f"train_sizes has {len(sizes)} sizes, and names is {self.names}."
            )
        errors, label = _errors(scores, self.score_name)
        height = 4.0 + 0.1 * len(self.names or [])  # the legend takes some of it
        self.ax_ = axes_of(ax, type(self).__name__, figsize=(6.4, height))
        self.figure_ = self.ax_.figure
        self.ax_.set_xscale("log", base=2)
        self.lines_, self.fill_between_ = [], []
        for number, of_folds in enumerate(errors):
            mean = of_folds.mean(axis=1)
            look = {
                "color": COLORS[number % len(COLORS)],
                "marker": MARKERS[number % len(MARKERS)],
                "linestyle": "-" if number < len(COLORS) else "--",
                "markersize": 5,
                **kwargs,
            }
            (line,) = self.ax_.plot(sizes, mean, **look)
            self.lines_.append(line)
            if of_folds.shape[1] > 1:
                error = of_folds.std(axis=1, ddof=1) / np.sqrt(of_folds.shape[1])
                band = {"color": line.get_color(), "alpha": 0.15, "linewidth": 0}
                self.fill_between_.append(
                    self.ax_.fill_between(sizes, mean - error, mean + error, **band)
                )
        self.ax_.set_xticks(_ticks(sizes), [f"{size:,}" for size in _ticks(sizes)])
        self.ax_.minorticks_off()
        self.ax_.set(xlabel="Labelled rows to train on", ylabel=label)
        if self.names is not None:
            legend_above(self.ax_, self.lines_, list(map(plain, self.names)))
        return self


class _Fold(NamedTuple):
    """Labelled rows to train on, in the order in which they are taken; the others; test rows."""

    labeled: np.ndarray
    unlabeled: np.ndarray
    test: np.ndarray
    n_classes: int


def _folds(
    y: Any, cv: Any, missing_label: Any, is_classifier: bool, random: np.random.RandomState
) -> list[_Fold]:
    """Split the rows, and draw the order in which labelled rows are taken."""
    is_labeled = labeled_mask(y, missing_label)
    check_no_target_missing(y, is_labeled, missing_label)
    if not is_labeled.any():
        raise ValueError(f"All {len(is_labeled)} rows of y are missing_label={missing_label!r}.")
    known = known_targets(y, is_labeled)
    if missing_label is None and is_classifier:
        _check_no_mark(known)
    splitter = check_cv(cv, known, classifier=is_classifier)
    if missing_label is not None:
        splitter = LabeledFold(splitter, missing_label=missing_label)
    classes: np.ndarray = np.zeros(len(is_labeled), dtype=np.int64)
    is_stratified = is_classifier and type_of_target(known) in ("binary", "multiclass")
    if is_stratified:
        classes[is_labeled] = np.unique(known, return_inverse=True)[1].ravel()
    folds = []
    for train, test in splitter.split(np.zeros((len(is_labeled), 1)), y):
        labeled = train[is_labeled[train]]
        order = _stratified_order(classes[labeled], random)
        n_classes = len(np.unique(classes[labeled]))
        folds.append(_Fold(labeled[order], train[~is_labeled[train]], test, n_classes))
    return folds


def _check_no_mark(labels: np.ndarray) -> None:
    """Raise ValueError if one of more than two classes is a usual mark of unlabelled rows."""
    mark = mark_among(labels)
    if mark is not None and labels.ndim == 1 and len(set(labels.tolist())) > 2:
        raise ValueError(
            f"y holds {mark!r}, which often marks rows without a label: if it does, set "
            f"missing_label={mark!r}, also of estimators that have this parameter. If it is a "
            "class, give it another label."
        )


def _stratified_order(classes: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Return a random order of rows in which classes alternate as often as their shares say.

    It starts with a row of each class.
    """
    places: np.ndarray = np.empty(len(classes))
    for number in np.unique(classes):
        rows = random.permutation(np.flatnonzero(classes == number))
        places[rows] = (np.arange(len(rows)) + random.uniform()) / len(rows)
        places[rows[0]] -= 1
    return np.argsort(places, kind="stable")


def _checked_sizes(train_sizes: Any, folds: Sequence[_Fold]) -> np.ndarray:
    """Return numbers of labelled rows, in rising order."""
    n_rows = min(len(fold.labeled) for fold in folds)
    n_classes = max(fold.n_classes for fold in folds)
    sizes = np.asarray(train_sizes)
    if sizes.ndim != 1 or not len(sizes) or sizes.dtype.kind not in "iuf":
        raise ValueError(
            f"train_sizes is {train_sizes!r}, expected a list of numbers of rows, or of shares."
        )
    if sizes.dtype.kind == "f":
        if sizes.min() <= 0 or sizes.max() > 1:
            raise ValueError(
                f"train_sizes is {sizes.tolist()}: shares have to be above 0 and at most 1. "
                "Numbers of rows have to be integers."
            )
        sizes = np.round(sizes * n_rows).astype(np.int64)
        sizes = sizes[sizes >= n_classes]
        if not len(sizes):
            raise ValueError(
                f"All shares of train_sizes are too small: {n_rows} labelled rows are trained on, "
                f"and {n_classes} classes need a row each."
            )
    if sizes.min() < n_classes or sizes.max() > n_rows:
        raise ValueError(
            f"train_sizes is {sizes.tolist()}, expected numbers from {n_classes}, a row for each "
            f"class, to {n_rows}, the labelled rows of the smallest training fold."
        )
    return np.unique(sizes)


def _score(
    estimator: Any,
    X: Any,
    targets: np.ndarray,
    fold: _Fold,
    size: int,
    missing_label: Any,
    reads_unlabeled: bool,
    scorer: Any,
) -> float:
    """Fit an estimator to some of the labels, and score it."""
    kept = np.sort(fold.labeled[:size])
    rows, marked = kept, targets[kept]
    if reads_unlabeled:
        rows = np.concatenate([kept, fold.labeled[size:], fold.unlabeled])
        marked = targets[rows]
        marked[size:] = missing_label
    estimator.fit(_safe_indexing(X, rows), _typed(marked))
    return float(scorer(estimator, _safe_indexing(X, fold.test), _typed(targets[fold.test])))


def _typed(targets: np.ndarray) -> np.ndarray:
    """Return an object array of targets in a dtype that holds each of them unchanged."""
    return known_targets(targets, np.ones(len(targets), dtype=bool))


def _score_name(scoring: Any, is_classifier: bool) -> str:
    """Return the name of a scorer, with "neg_" in front if it is a negated loss."""
    if scoring is None:
        return "accuracy" if is_classifier else "r2"
    if isinstance(scoring, str):
        return scoring
    if hasattr(scoring, "_score_func"):
        return ("neg_" if scoring._sign < 0 else "") + scoring._score_func.__name__
    return getattr(scoring, "__name__", "score")


def _errors(scores: np.ndarray, score_name: str) -> tuple[np.ndarray, str]:
    """Return what is drawn of scores, and the label of its axis."""
    name = score_name.removesuffix("_score").replace("_", " ")
    if score_name.startswith("neg_"):
        loss = name.removeprefix("neg ")
        return -scores, loss[0].upper() + loss[1:]
    if score_name.startswith(_OF_ONE):
        return 1 - scores, "1 - R²" if name == "r2" else f"Error (1 - {name})"
    return scores, name[0].upper() + name[1:]


def _ticks(sizes: np.ndarray) -> list[int]:
    """Return the sizes that have a label, from the largest on: labels need some distance."""
    ticks: list[int] = []
    gap = np.log2(sizes.max() / sizes.min()) / _MOST_TICKS
    for size in sorted(map(int, sizes), reverse=True):
        if not ticks or np.log2(ticks[-1] / size) >= gap:
            ticks.append(size)
    return ticks[::-1]
