"""Fits a candidate to the training rows of a fold and scores it, once: results are kept on disk."""

from __future__ import annotations

import io
import pickle
import pickletools
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import xxhash
from joblib import Memory
from sklearn.base import clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import accuracy_score, get_scorer, r2_score

from sk_aft.model_selection._comparison._candidate import ADDED, Candidate, Lineup
from sk_aft.model_selection._comparison._data import ComparisonData
from sk_aft.model_selection._comparison._deployment_cost import DeploymentCost, deployment_cost
from sk_aft.store import default_store_path
from sk_aft.transfer._teacher_memory import forget_teachers

ALL, HALF_THE_LABELS, HALF_THE_OTHERS = "all", "half of the labels", "half of the others"
_FOLDER = "comparisons"
_VERSIONS = ("scikit-learn", "torch", "numpy")
_MOST_ROWS_TIMED = 256
_OF_PYTHON = {*sys.stdlib_module_names, "__builtin__", "copy_reg"} - {"__main__"}
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


def check_scorer(scoring: Any, data: ComparisonData) -> Scorer:
    """Return the scorer of ``scoring``; None is accuracy or R².

    Raises
    ------
    ValueError
        If it cannot score the targets of a fold.
    """
    is_classification = data.is_classification
    if scoring is None or scoring == ("accuracy" if is_classification else "r2"):
        return Scorer("accuracy" if is_classification else "R²", 1.0, None)
    if not isinstance(scoring, str) and not callable(scoring):
        raise ValueError(
            f"scoring is {scoring!r}, expected one name of a scorer, a callable or None."
        )
    scorer = get_scorer(scoring)
    name = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
    dummy = DummyClassifier(strategy="prior") if is_classification else DummyRegressor()
    for number, (train, test) in enumerate(data.folds):
        dummy.fit(np.zeros((len(train), 1)), data.targets[train])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                score = scorer(dummy, np.zeros((len(test), 1)), data.targets[test])
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(_cannot_score(name, number, str(error), data)) from error
        if np.isnan(score):
            raise ValueError(_cannot_score(name, number, "it is not defined for these rows", data))
    return Scorer(name, 0.0 if getattr(scorer, "_sign", 1) < 0 else 1.0, scorer)


def _cannot_score(name: str, fold: int, why: str, data: ComparisonData) -> str:
    n_classes = len(np.unique(data.targets))
    several = data.is_classification and n_classes > 2 and name in ("f1", "precision", "recall")
    hint = f" With {n_classes} classes, use {name}_macro." if several else ""
    return f"scoring={name!r} cannot score the test rows of fold {fold}: {why}{hint}"


def lacks_method(scorer: Scorer, estimator: Any) -> str | None:
    """Return the method of an estimator that a scorer needs and that it lacks, if there is one."""
    needed = getattr(scorer.score, "_response_method", "predict")
    names = [needed] if isinstance(needed, str) else list(needed)
    return None if any(hasattr(estimator, name) for name in names) else names[0]


def with_methods(lineup: Lineup, scorer: Scorer) -> Lineup:
    """Return a lineup without the rivals that a scorer cannot score.

    Raises
    ------
    ValueError
        If it cannot score an estimator of the user's.
    """
    candidates, left_out = [], dict(lineup.left_out)
    for candidate in lineup.candidates:
        method = lacks_method(scorer, candidate.estimator)
        if method is None:
            candidates.append(candidate)
            continue
        why = f"it has no {method}, which scoring={scorer.name!r} needs"
        if candidate.role == ADDED:
            raise ValueError(f"The candidate {candidate.name!r} cannot be scored: {why}.")
        left_out[candidate.name] = why
    if not candidates:
        raise ValueError(f"No candidate is left to score: {left_out}.")
    return Lineup(candidates, left_out)


class FoldScores:
    """Scores of candidates on the folds of some rows.

    Parameters
    ----------
    data : ComparisonData
        The rows.
    scorer : Scorer
        How predictions are scored.
    candidates : sequence of Candidate
        What will be scored.
    fingerprints : sequence of dict
        Of the foundation models that the candidates name.
    random_state : int
        Which rows are left out for a part of them.
    """

    def __init__(
        self,
        data: ComparisonData,
        scorer: Scorer,
        candidates: Sequence[Candidate],
        *,
        fingerprints: Sequence[Any],
        random_state: int,
    ) -> None:
        self._data, self._scorer, self._random_state = data, scorer, random_state
        # Here and not in workers, whose copies of an estimator have other pickles.
        context = (data.digest, list(fingerprints), random_state)
        of_scorer = "" if scorer.score is None else _key(scorer.score)
        self._keys: dict[str, str | None] = {}
        for candidate in candidates:
            key = None if of_scorer is None else _key(candidate.estimator)
            content = (context, of_scorer, key, candidate.reads_unlabeled)
            self._keys[candidate.name] = None if key is None else str(joblib.hash(content))
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
        key = self._keys[candidate.name]
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
        train = data.part_of(train, 0.5, random_state)
    elif part == HALF_THE_OTHERS and unlabeled is not None:
        order = np.random.RandomState(random_state).permutation(unlabeled)
        unlabeled = np.sort(order[: len(unlabeled) // 2])
    X, y = data.training_rows(train, unlabeled=unlabeled)
    X_test, y_test = data.test_rows(test)
    with naming(candidate.name, f"in fold {fold}"):
        estimator = clone(candidate.estimator)
        forget_teachers()  # what another candidate trained is no time of this one
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
        if np.isnan(score):
            raise ValueError(f"{scorer.name} is NaN")
        cost = None
        if fold == 0 and part == ALL:
            cost = deployment_cost(estimator, data.take(data.labeled[test][:_MOST_ROWS_TIMED]))
    return FoldScore(float(score), seconds, predictions, cost)


@contextmanager
def naming(name: str, where: str) -> Iterator[None]:
    """Name the candidate in an error of its own."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"The candidate {name!r} failed {where}: {error}") from error


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
    roots -= {*_OF_PYTHON, "sk_aft"}
    if not roots <= {*_distributions()}:
        return None
    packages = {package for root in roots for package in _distributions()[root]}
    versions = [f"{name} {version(name)}" for name in sorted({*packages, *_VERSIONS})]
    return str(joblib.hash((pickled, _own_code(), versions)))


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


@cache
def _own_code() -> str:
    """Return a digest of this package's code: scores of other code are not read."""
    digest = xxhash.xxh3_128()
    package = Path(__file__).parents[2]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
