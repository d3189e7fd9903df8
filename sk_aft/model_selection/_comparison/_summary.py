"""What a comparison says, in three sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t

from sk_aft.model_selection._comparison._candidate import STUDENT, TEACHER
from sk_aft.model_selection._comparison._candidates import (
    ALONE,
    OF_TUNED,
    TAUGHT,
)
from sk_aft.model_selection._comparison._records import Result

# A difference is clear if it is outside of this confidence interval of Student's t distribution.
_CONFIDENCE = 0.95
_AS_FAST = 2
_MOST_NAMED = 2
# The better teacher of the third sentence makes this share fewer errors.
FEWER_ERRORS = 0.25
_SMALLEST = 0.0005
_ROUNDING = 1e-9


class Estimate(NamedTuple):
    """Mean over the folds.

    Parameters
    ----------
    mean : float
        The mean.
    standard_error : float
        NaN of a single value.
    n_values : int
        Number of values.
    """

    mean: float
    standard_error: float
    n_values: int

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Estimate:
        """Return the mean of some values and its standard error."""
        n_values = len(values)
        error = np.std(values, ddof=1) / np.sqrt(n_values) if n_values > 1 else np.nan
        return cls(float(np.mean(values)), float(error), n_values)

    @property
    def is_clear(self) -> bool:
        """Whether it differs from 0 by more than chance.

        Never of a single value, and of values that are all the same, which tell no spread.
        """
        if self.n_values < 2 or not self.standard_error > _ROUNDING:
            return False
        quantile = t.ppf((1 + _CONFIDENCE) / 2, self.n_values - 1)
        return bool(abs(self.mean) > quantile * self.standard_error)

    def __str__(self) -> str:
        if np.isnan(self.standard_error):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ± {self.standard_error:.3f}"


def difference(result: Result, other: Result) -> Estimate:
    """Return by how much the score of one result is above that of another, fold by fold."""
    return Estimate.of(result.scores - other.scores)


def to_deploy(results: Sequence[Result]) -> Result:
    """Return the result to deploy: of those that score as high as the best, a fast one.

    Parameters
    ----------
    results : sequence of Result
        The results. Those that run a foundation model to predict count only if there are no others.

    Returns
    -------
    result : Result
        Of those that `score_as_high`, the one with the highest score that takes at most twice as
        long to predict as the fastest, because times vary. If a taught student is no better than
        the same student alone, the latter.
    """
    as_high = score_as_high(results)
    least = min(one.cost.ms_per_row for one in as_high)
    fast = [one for one in as_high if one.cost.ms_per_row <= _AS_FAST * least]
    chosen = max(fast, key=lambda one: one.scores.mean())
    alone = next((one for one in fast if one.name == ALONE), None)
    return alone if alone is not None and chosen.role == STUDENT else chosen


def score_as_high(results: Sequence[Result]) -> list[Result]:
    """Return the best result that can be deployed, and those that score as high.

    These are at most one standard error below the best: that of the difference, and that of the
    best score, so that neither the noise of a result nor that of the folds is taken for a tie.
    """
    cheap = [one for one in results if one.role != TEACHER] or list(results)
    best = max(cheap, key=lambda one: one.scores.mean())
    as_high = [best]
    for one in cheap:
        behind = difference(best, one)
        margin = min(behind.standard_error, Estimate.of(best.scores).standard_error)
        if one is not best and behind.mean <= np.nan_to_num(margin):
            as_high.append(one)
    return as_high


def expected_gains(
    results: Mapping[str, Result],
    halves: Mapping[str, np.ndarray],
    *,
    best_score: float,
    teacher: str | None,
    targets: np.ndarray,
) -> dict[str, Estimate]:
    """Return how much the score of the taught student would rise with more of each.

    Parameters
    ----------
    results : mapping of str to Result
        The results, by name.
    halves : mapping of str to ndarray of shape (n_folds,)
        Scores of the taught student with half of the "labels", and of the "unlabelled rows".
    best_score : float
        The score of perfect predictions.
    teacher : str or None
        The result that stands for the student's teacher, if targets are classes.
    targets : ndarray of shape (n_test_rows,)
        Targets of the test rows of all folds.

    Returns
    -------
    gains : dict of str to Estimate
        For "labels" and "unlabelled rows", the gain from twice as many, if the error falls by the
        same factor as from half of them to all. For "a better teacher", the gain from one with a
        quarter fewer errors, if the student repeats its errors as it does now; only of a teacher
        that is better than the student.
    """
    if TAUGHT not in results:
        return {}
    student = results[TAUGHT]
    error = best_score - student.scores.mean()
    gains = {}
    for name, scores in halves.items():
        before = best_score - scores.mean()
        factor = error / before if before > 0 else 1.0
        gains[name] = Estimate.of((student.scores - scores) * min(factor, 1.0))
    of_teacher = results.get(teacher or "")
    if of_teacher is not None and of_teacher.scores.mean() > student.scores.mean():
        followed = _share_of_errors_followed(student.predictions, of_teacher.predictions, targets)
        gains["a better teacher"] = Estimate(error * FEWER_ERRORS * followed, np.nan, 1)
    return gains


def _share_of_errors_followed(
    student: np.ndarray, teacher: np.ndarray, targets: np.ndarray
) -> float:
    """Return which share of a student's errors is there because its teacher errs."""
    wrong, misled = student != targets, teacher != targets
    if not wrong.any() or not misled.any() or misled.all():
        return 0.0
    follows = wrong[misled].mean() - wrong[~misled].mean()
    return float(np.clip(follows * misled.mean() / wrong.mean(), 0, 1))


def summarise(
    results: Sequence[Result],
    gains: Mapping[str, Estimate],
    *,
    scoring: str,
    n_unlabeled: int,
    not_compared: Sequence[str] = (),
) -> str:
    """Return whether transfer pays, what to deploy, and what would help most.

    Parameters
    ----------
    results : sequence of Result
        The results.
    gains : mapping of str to Estimate
        As returned by `expected_gains`.
    scoring : str
        Name of the score.
    n_unlabeled : int
        How many rows have no label.
    not_compared : sequence of str
        Candidates for which there was no time.

    Returns
    -------
    summary : str
        At most three sentences, one a line.
    """
    by_name = {result.name: result for result in results}
    lines = [
        _whether_it_pays(by_name, scoring),
        _what_to_deploy(results, by_name, not_compared),
        _what_would_help(gains, scoring, n_unlabeled),
    ]
    return "\n".join(line for line in lines if line)


def _whether_it_pays(results: Mapping[str, Result], scoring: str) -> str:
    best = _better_taught(results)
    if best is None or ALONE not in results:
        return ""
    gain = difference(best, results[ALONE])
    verdict = "Transfer does not clearly pay"
    if gain.is_clear:
        verdict = "Transfer pays" if gain.mean > 0 else "Transfer hurts"
    against = f"{gain._replace(mean=abs(gain.mean))} {'above' if gain.mean > 0 else 'below'}"
    if abs(gain.mean) < _SMALLEST:
        against = f"the same (± {gain.standard_error:.3f}) as"
    return (
        f"{verdict}: the {scoring} of “{best.title}” is {Estimate.of(best.scores)}, {against} "
        "that of the same student alone."
    )


def _better_taught(results: Mapping[str, Result]) -> Result | None:
    taught = [results[name] for name in (TAUGHT, OF_TUNED) if name in results]
    return max(taught, key=lambda one: one.scores.mean(), default=None)


def _what_to_deploy(
    results: Sequence[Result], by_name: Mapping[str, Result], not_compared: Sequence[str]
) -> str:
    chosen = to_deploy(results)
    cost = f"{chosen.cost.megabytes:.3g} MB, {chosen.cost.ms_per_row:.2g} ms a row"
    is_taught = chosen.role == STUDENT and chosen.name != ALONE
    taught = _better_taught(by_name)
    if taught is not None and not is_taught:
        above = difference(taught, chosen)
        word = "only " if above.mean > 0 else ""
        direction = "more" if above.mean > 0 else "less"
        text = (
            f"Do not distil: deploy “{chosen.title}” ({cost}), because “{taught.title}” scores "
            f"{word}{above._replace(mean=abs(above.mean))} {direction}"
        )
    else:
        text = f"Deploy “{chosen.title}” ({cost})"
        alike = [f"“{one.title}”" for one in score_as_high(results) if one is not chosen]
        if alike:
            more = " and others" if len(alike) > _MOST_NAMED else ""
            text += f", which is as accurate as {', '.join(alike[:_MOST_NAMED])}{more}, and fast"
        elif (
            chosen is taught
            and ALONE in by_name
            and not difference(taught, by_name[ALONE]).is_clear
        ):
            text += ": its gain over the same student alone may be chance"
    expensive = [one for one in results if one.role == TEACHER and one is not chosen]
    if expensive:
        best = max(expensive, key=lambda one: one.scores.mean())
        above = difference(best, chosen)
        if above.is_clear and above.mean > 0:
            ratio = best.cost.ms_per_row / chosen.cost.ms_per_row
            text += f"; “{best.title}” scores {above} more, at {ratio:.0f} times the time a row"
    if not_compared:
        text += f" (not compared, for lack of time: {', '.join(not_compared)})"
    return text + "."


def _what_would_help(gains: Mapping[str, Estimate], scoring: str, n_unlabeled: int) -> str:
    if not gains:
        return "What would help most was not estimated."
    more = {
        "labels": "twice the labels",
        "unlabelled rows": "twice the unlabelled rows",
        "a better teacher": f"a teacher with {FEWER_ERRORS:.0%} fewer errors",
    }
    first, *others = sorted(gains, key=lambda name: -gains[name].mean)
    untried = "" if n_unlabeled else "; rows without labels were not tried"
    error = np.nan_to_num(gains[first].standard_error)
    if gains[first].mean < max(error, _SMALLEST):
        listed = " nor ".join(more[name] for name in gains)
        neither = "neither " if others else "not even "
        return f"By extrapolation, {neither}{listed} would clearly help{untried}."
    listed = "".join(
        f", {more[name]} {f'by {gains[name]}' if gains[name].mean > _SMALLEST else 'not at all'}"
        for name in others
    )
    head = f"{first[0].upper()}{first[1:]} would help most: by extrapolation, "
    return (
        f"{head if others else 'By extrapolation, '}{more[first]} would raise the {scoring} of "
        f"the taught student by {gains[first]}{listed}{untried}."
    )
