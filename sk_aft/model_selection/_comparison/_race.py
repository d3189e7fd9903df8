"""Runs the candidates: the cheapest first, and only those for which there is time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from joblib import effective_n_jobs
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from sk_aft.model_selection._comparison._candidate import Candidate
from sk_aft.model_selection._comparison._candidates import ALONE, TAUGHT
from sk_aft.model_selection._comparison._scores import (
    ALL,
    HALF_THE_LABELS,
    HALF_THE_OTHERS,
    FoldScore,
    FoldScores,
)
from sk_aft.model_selection._comparison._time import TimeEstimate
from sk_aft.model_selection._comparison._time_words import duration

LEARNING_CURVE = "learning curve"
# What costs less than this share of the time is not worth leaving out.
_CHEAP = 0.02
_HALVES = {"labels": HALF_THE_LABELS, "unlabelled rows": HALF_THE_OTHERS}


class Race:
    """The candidates and their scores on all folds.

    Parameters
    ----------
    scores : FoldScores
        Scores a candidate on a fold.
    candidates : sequence of Candidate
        What is compared.
    n_folds : int
        Number of folds.
    has_unlabeled : bool
        Whether there are rows without a label.
    n_jobs : int or None
        Folds that are fitted at the same time.

    Attributes
    ----------
    halves : dict of str to ndarray of shape (n_folds,)
        Scores of the taught student with half of the "labels", and of the "unlabelled rows".
    left_out : dict of str to str
        Why candidates did not take part for lack of time, by name.
    """

    def __init__(
        self,
        scores: FoldScores,
        candidates: Sequence[Candidate],
        *,
        n_folds: int,
        has_unlabeled: bool,
        n_jobs: int | None,
    ) -> None:
        self._scores, self._n_folds, self._n_jobs = scores, n_folds, n_jobs
        self._candidates = list(candidates)
        self._parts = dict(_HALVES) if has_unlabeled else {"labels": HALF_THE_LABELS}
        if self._named(TAUGHT) is None:
            self._parts = {}
        self.halves: dict[str, np.ndarray] = {}
        self.left_out: dict[str, str] = {}

    def to_fit(self) -> list[Candidate]:
        """Return the candidates with fits that are not kept from an earlier call."""
        return [
            candidate
            for candidate in self._candidates
            if self._n_missing(candidate, ALL) or (candidate.name == TAUGHT and self._of_halves())
        ]

    @property
    def names(self) -> list[str]:
        """The names of the candidates, in the order in which they run."""
        return [candidate.name for candidate in self._candidates]

    @property
    def n_fits(self) -> int:
        """The number of fits."""
        return (len(self._candidates) + len(self._parts)) * self._n_folds

    def n_kept(self) -> int:
        """Return how many fits are kept from an earlier call."""
        n_missing = sum(self._n_missing(candidate, ALL) for candidate in self._candidates)
        return self.n_fits - n_missing - self._of_halves()

    def plan(self, estimate: TimeEstimate, time_budget: float | None) -> float:
        """Order the candidates by their cost, and leave out those that do not fit the time.

        Parameters
        ----------
        estimate : TimeEstimate
            Of the candidates that `to_fit` returns.
        time_budget : float or None
            Seconds.

        Returns
        -------
        seconds : float
            The expected time of everything that is left, those of unknown time excluded.
        """
        self._candidates.sort(key=lambda one: self._rank(one, estimate))
        tuning = estimate.tuning * self._n_folds
        costs = {one.name: self._cost(one, estimate) for one in self._candidates}
        costs[LEARNING_CURVE] = estimate.fits.get(TAUGHT, 0.0) * self._of_halves()

        def total() -> float:
            shared = tuning if estimate.tuned & costs.keys() else 0.0
            return float(estimate.features + shared + np.nansum([*costs.values()]))

        def alone(name: str) -> float:
            return float(np.nan_to_num(costs[name]) + tuning * (name in estimate.tuned))

        for name in sorted(costs, key=alone, reverse=True):
            if time_budget is None or total() <= time_budget or alone(name) < _CHEAP * time_budget:
                break
            if self._may_go(name):
                self._leave_out(name, f"expected to take {duration(alone(name))}, too long")
                del costs[name]
        return total()

    def _cost(self, candidate: Candidate, estimate: TimeEstimate) -> float:
        """Return the expected seconds of the fits that are to be done, without fine-tuning."""
        return estimate.fits.get(candidate.name, 0.0) * self._n_missing(candidate, ALL)

    def _rank(self, candidate: Candidate, estimate: TimeEstimate) -> float:
        """Return where a candidate stands in the order of costs; if it is not known, last."""
        tuning = estimate.tuning * self._n_folds * (candidate.name in estimate.tuned)
        return float(np.nan_to_num(self._cost(candidate, estimate), nan=np.inf) + tuning)

    def _may_go(self, name: str) -> bool:
        """Return whether the question can be answered without a candidate."""
        return name not in (ALONE, TAUGHT) and (name == LEARNING_CURVE or len(self._candidates) > 1)

    def _leave_out(self, name: str, why: str) -> None:
        """Leave out a candidate, or the fits to half of the rows."""
        self.left_out[name] = f"{why} for the time_budget"
        if name == LEARNING_CURVE:
            self._parts = {}
        self._candidates = [one for one in self._candidates if one.name != name]

    def run(self, deadline: float, *, verbose: int) -> list[tuple[Candidate, list[FoldScore]]]:
        """Score the candidates on all folds.

        Parameters
        ----------
        deadline : float
            When to leave out what takes longer, on the clock of `time.perf_counter`.
        verbose : int
            1 shows a progress bar.

        Returns
        -------
        runs : list of (Candidate, list of FoldScore)
            The scores of those that finished.
        """
        finished = []
        with tqdm(total=self.n_fits, desc="comparing", unit="fit", disable=not verbose) as progress:
            for candidate in list(self._candidates):
                progress.set_description(candidate.name)
                runs: list[FoldScore] = []
                is_new = bool(self._n_missing(candidate, ALL))
                late = is_new and time.perf_counter() > deadline and self._may_go(candidate.name)
                for run in () if late else self._fold_scores(candidate, ALL):
                    runs.append(run)
                    progress.update()
                    left = deadline - time.perf_counter()
                    n_rounds = -(-(self._n_folds - 1) // effective_n_jobs(self._n_jobs))
                    is_slow = is_new and n_rounds * run.fit_seconds > left
                    if len(runs) == 1 and is_slow and self._may_go(candidate.name):
                        break
                if len(runs) == self._n_folds:
                    finished.append((candidate, runs))
                else:
                    self._leave_out(candidate.name, "no time was left")
                    progress.update(self._n_folds - len(runs))
            taught = self._named(TAUGHT)
            for name, part in self._parts.items():
                progress.set_description(f"half of the {name}")
                if time.perf_counter() > deadline:
                    self.left_out[LEARNING_CURVE] = "no time was left for the time_budget"
                elif taught is not None:
                    of_part = []
                    for run in self._fold_scores(taught, part):
                        of_part.append(run.score)
                        progress.update()
                    self.halves[name] = np.array(of_part)
            progress.set_description("compared")
        return finished

    def _fold_scores(self, candidate: Candidate, part: str) -> Iterator[FoldScore]:
        """Yield the scores of the folds in order, the first alone, because it may be too slow."""
        yield self._scores.score(candidate, 0, part)
        yield from Parallel(n_jobs=self._n_jobs, return_as="generator")(
            delayed(self._scores.score)(candidate, fold, part) for fold in range(1, self._n_folds)
        )

    def _named(self, name: str) -> Candidate | None:
        return next((one for one in self._candidates if one.name == name), None)

    def _n_missing(self, candidate: Candidate, part: str) -> int:
        """Return the folds for which a candidate has to be fitted."""
        folds = range(self._n_folds)
        return sum(not self._scores.is_kept(candidate, fold, part) for fold in folds)

    def _of_halves(self) -> int:
        """Return the fits of the taught student to a part of the rows that are to be done."""
        taught = self._named(TAUGHT)
        if taught is None:
            return 0
        return sum(self._n_missing(taught, part) for part in self._parts.values())
