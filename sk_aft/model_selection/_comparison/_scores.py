"""Fits a candidate to the training rows of a fold and scores it, once: results are kept on disk."""

from __future__ import annotations

import io
import pickle
import pickletools
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import xxhash
from joblib import Memory
from sklearn.base import clone
from sklearn.metrics import accuracy_score, get_scorer, r2_score
from sklearn.model_selection import train_test_split

from sk_aft.model_selection._comparison._candidate import Candidate
from sk_aft.model_selection._comparison._data import ComparisonData
from sk_aft.model_selection._comparison._deployment_cost import DeploymentCost, deployment_cost
from sk_aft.store import default_store_path

ALL, HALF_THE_LABELS, HALF_THE_OTHERS = "all", "half of the labels", "half of the others"
_FOLDER = "comparisons"
_VERSIONS = ("scikit-learn", "torch", "numpy")
_MOST_ROWS_TIMED = 256
# Pickles of this protocol name each class in one instruction.
_PROTOCOL = 2


class FoldScore(NamedTuple):
    """What one fit gave.

    Parameters
    ----------
    score : float
        On the test rows of the fold.
    fit_seconds : float
        Time of the fit.
    predictions : ndarray of shape (n_test_rows,)
        Of the test rows.
    cost : DeploymentCost or None
        What it takes to serve the fitted candidate; only of the first fold.
    """

    score: float
    fit_seconds: float
    predictions: np.ndarray
    cost: DeploymentCost | None


class Scorer(NamedTuple):
    """How predictions are scored.

    Parameters
    ----------
    name : str
        What is shown, such as "accuracy".
    best : float
        The score of perfect predictions.
    score : callable or None
        ``score(estimator, X, y)``; None scores the predictions by accuracy or R².
    """

    name: str
    best: float
    score: Callable[..., float] | None


def check_scorer(scoring: Any, is_classification: bool) -> Scorer:
    """Return the scorer of ``scoring``; None is accuracy or R²."""
    if scoring is None or scoring == ("accuracy" if is_classification else "r2"):
        return Scorer("accuracy" if is_classification else "R²", 1.0, None)
    if not isinstance(scoring, str) and not callable(scoring):
        raise ValueError(
            f"scoring is {scoring!r}, expected one name of a scorer, a callable or None."
        )
    scorer = get_scorer(scoring)
    name = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
    return Scorer(name, 0.0 if getattr(scorer, "_sign", 1) < 0 else 1.0, scorer)


class FoldScores:
    """Scores of candidates on the folds of some rows.

    Parameters
    ----------
    data : ComparisonData
        The rows.
    scorer : Scorer
        How predictions are scored.
    random_state : int
        Which rows are left out for a part of them.
    """

    def __init__(self, data: ComparisonData, scorer: Scorer, random_state: int) -> None:
        self._data, self._scorer, self._random_state = data, scorer, random_state
        memory = Memory(default_store_path() / _FOLDER, verbose=0)
        # The rows are in the key.
        self._kept = memory.cache(_scored, ignore=["candidate", "data", "scorer", "random_state"])

    def is_kept(self, candidate: Candidate, fold: int, part: str = ALL) -> bool:
        """Return whether a score is on disk already."""
        arguments = self._arguments(candidate, fold, part)
        return arguments[0] is not None and self._kept.check_call_in_cache(*arguments)

    def score(self, candidate: Candidate, fold: int, part: str = ALL) -> FoldScore:
        """Fit to the training rows of a fold, or to a part of them, and score on its test rows.

        Parameters
        ----------
        candidate : Candidate
            What is fitted.
        fold : int
            Number of the fold.
        part : str, default="all"
            Which of the training rows.

        Returns
        -------
        result : FoldScore
            Read from disk if the same has been fitted before.
        """
        arguments = self._arguments(candidate, fold, part)
        return (_scored if arguments[0] is None else self._kept)(*arguments)

    def _arguments(self, candidate: Candidate, fold: int, part: str) -> tuple:
        key = _key(candidate.estimator)
        if key is not None and self._scorer.score is not None:
            of_scorer = _key(self._scorer.score)
            key = None if of_scorer is None else f"{key} {of_scorer}"
        if key is not None:
            key = f"{self._data.digest} {key} {self._random_state} {candidate.reads_unlabeled}"
        return key, fold, part, candidate, self._data, self._scorer, self._random_state


def _scored(
    key: str | None,
    fold: int,
    part: str,
    candidate: Candidate,
    data: ComparisonData,
    scorer: Scorer,
    random_state: int,
) -> FoldScore:
    train, test = data.folds[fold]
    unlabeled = data.unlabeled if candidate.reads_unlabeled else None
    if part == HALF_THE_LABELS:
        train = half_of(train, data, random_state)
    elif part == HALF_THE_OTHERS and unlabeled is not None:
        order = np.random.RandomState(random_state).permutation(unlabeled)
        unlabeled = np.sort(order[: len(unlabeled) // 2])
    X, y = data.training_rows(train, unlabeled=unlabeled)
    X_test, y_test = data.test_rows(test)
    estimator = clone(candidate.estimator)
    start = time.perf_counter()
    estimator.fit(X, y)
    seconds = time.perf_counter() - start
    predictions = np.asarray(estimator.predict(X_test))
    if scorer.score is not None:
        score = scorer.score(estimator, X_test, y_test)
    elif data.is_classification:
        score = accuracy_score(y_test, predictions)
    else:
        score = r2_score(y_test, predictions)
    cost = None
    if fold == 0 and part == ALL:
        cost = deployment_cost(estimator, data.take(data.labeled[test][:_MOST_ROWS_TIMED]))
    return FoldScore(float(score), seconds, predictions, cost)


def half_of(train: np.ndarray, data: ComparisonData, random_state: int) -> np.ndarray:
    """Return half of some labelled rows, of each class in proportion where that is possible."""
    classes = data.targets[train] if data.is_classification else None
    if classes is not None:
        values, counts = np.unique(classes, return_counts=True)
        if counts.min() < 2 or len(train) // 2 < len(values):
            classes = None
    half, _ = train_test_split(
        train, train_size=len(train) // 2, random_state=random_state, stratify=classes
    )
    return np.sort(half)


def _key(value: Any) -> str | None:
    """Return a key of an estimator or scorer; None if its code may have changed unnoticed.

    Code of installed packages changes with their versions. Other code is not in the key.
    """
    try:
        pickled = pickle.dumps(value, protocol=_PROTOCOL)
    except Exception:  # a lambda, a lock, ...: pickle raises many types
        return None
    named = [
        str(argument)
        for instruction, argument, _ in pickletools.genops(io.BytesIO(pickled))
        if instruction.name == "GLOBAL"
    ]
    roots = {name.partition(" ")[0].partition(".")[0] for name in named}
    installed = {*sys.stdlib_module_names, *packages_distributions(), "sk_aft", "copy_reg"}
    if not roots <= (installed | {"__builtin__"}) - {"__main__"}:
        return None
    versions = [f"{name} {version(name)}" for name in _VERSIONS]
    return str(joblib.hash((pickled, _own_code(), versions)))


@cache
def _own_code() -> str:
    """Return a digest of this package's code: scores of other code are not read."""
    digest = xxhash.xxh3_128()
    package = Path(__file__).parents[2]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
