"""What a comparison says, in three sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sk_aft.model_selection._comparison._candidate import STUDENT, TEACHER
from sk_aft.model_selection._comparison._candidates import (
    ALONE,
    BOOSTING,
    OF_TUNED,
    TAUGHT,
)
from sk_aft.model_selection._comparison._records import Result

# A difference is clear if it is more than this many standard errors.
_CLEAR = 2
_AS_FAST = 2
# The better teacher of the third sentence makes this share fewer errors.
FEWER_ERRORS = 0.25


class Estimate(NamedTuple):
    """Mean over the folds.

    Parameters
    ----------
    mean, standard_error : float
        NaN without folds.
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Estimate:
        """Return the mean of some values and its standard error."""
        n_values = len(values)
        error = np.std(values, ddof=1) / np.sqrt(n_values) if n_values > 1 else np.nan
        return cls(float(np.mean(values)), float(error))

    @property
    def is_clear(self) -> bool:
        """Whether it differs from 0 by more than chance; never of a single value."""
        return bool(abs(self.mean) > _CLEAR * self.standard_error)

    def __str__(self) -> str:
        if np.isnan(self.standard_error):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ± {self.standard_error:.3f}"


def difference(result: Result, other: Result) -> Estimate:
    """Return by how much the score of one result is above that of another, fold by fold."""
    return Estimate.of(result.scores - other.scores)


def to_deploy(results: Sequence[Result]) -> Result:
    """Return the result to deploy: among those that score as high as the best, a fast one.

    A result scores as high if the best is not more than one standard error of the difference
    above it. Of these, the one with the highest score is chosen that takes at most twice as long
    to predict as the fastest, because times vary. Those that run a foundation model to predict
    count only if there are no others.
    """
    cheap = [one for one in results if one.role != TEACHER] or list(results)
    best = max(cheap, key=lambda one: one.scores.mean())
    as_high = [best]
    for one in cheap:
        behind = difference(best, one)
        if one is not best and behind.mean <= np.nan_to_num(behind.standard_error):
            as_high.append(one)
    least = min(one.cost.ms_per_row for one in as_high)
    fast = [one for one in as_high if one.cost.ms_per_row <= _AS_FAST * least]
    return max(fast, key=lambda one: one.scores.mean())


def expected_gains(
    results: Mapping[str, Result],
    halves: Mapping[str, np.ndarray],
    best_score: float,
    targets: np.ndarray,
    is_classification: bool,
) -> dict[str, float]:
    """Return how much the score of the taught student would rise with more of each.

    Parameters
    ----------
    results : mapping of str to Result
        The results, by name.
    halves : mapping of str to ndarray of shape (n_folds,)
        Scores of the taught student with half of the "labels", and of the "unlabelled rows".
    best_score : float
        The score of perfect predictions.
    targets : ndarray of shape (n_test_rows,)
        Targets of the test rows of all folds.
    is_classification : bool
        Whether they are classes.

    Returns
    -------
    gains : dict of str to float
        For "labels" and "unlabelled rows", the gain from twice as many, if the error falls by the
        same factor as from half of them to all. For "a better teacher", the gain from one with a
        quarter fewer errors, if the student follows it as it follows the present one.
    """
    if TAUGHT not in results:
        return {}
    student = results[TAUGHT]
    error = best_score - student.scores.mean()
    gains = {}
    for name, scores in halves.items():
        before = best_score - scores.mean()
        factor = min(error / before, 1) if before > 0 else 1.0
        gains[name] = float(error * (1 - factor))
    teacher = next((results[name] for name in ("probe", BOOSTING) if name in results), None)
    if teacher is not None and error > 0:
        followed = _share_of_errors_followed(
            student.predictions, teacher.predictions, targets, is_classification
        )
        gains["a better teacher"] = float(error * FEWER_ERRORS * followed)
    return gains


def _share_of_errors_followed(
    student: np.ndarray, teacher: np.ndarray, targets: np.ndarray, is_classification: bool
) -> float:
    """Return which share of a student's error is there because its teacher errs."""
    if is_classification:
        wrong, misled = student != targets, teacher != targets
        if not wrong.any() or not misled.any() or misled.all():
            return 0.0
        follows = wrong[misled].mean() - wrong[~misled].mean()
        return float(np.clip(follows * misled.mean() / wrong.mean(), 0, 1))
    error, of_teacher = student - targets, teacher - targets
    if not error.std() or not of_teacher.std():
        return 0.0
    return float(max(np.corrcoef(error, of_teacher)[0, 1], 0) ** 2)


def summarise(
    results: Sequence[Result], gains: Mapping[str, float], scoring: str, n_unlabeled: int
) -> str:
    """Return whether transfer pays, what to deploy, and what would help most.

    Parameters
    ----------
    results : sequence of Result
        The results.
    gains : mapping of str to float
        As returned by `expected_gains`.
    scoring : str
        Name of the score.
    n_unlabeled : int
        How many rows have no label.

    Returns
    -------
    summary : str
        At most three sentences, one a line.
    """
    by_name = {result.name: result for result in results}
    lines = [_whether_it_pays(by_name, scoring), _what_to_deploy(results, by_name, scoring)]
    if gains:
        lines.append(_what_would_help(gains, scoring, n_unlabeled))
    return "\n".join(line for line in lines if line)


def _whether_it_pays(results: Mapping[str, Result], scoring: str) -> str:
    taught = [results[name] for name in (TAUGHT, OF_TUNED) if name in results]
    if not taught or ALONE not in results:
        return ""
    best = max(taught, key=lambda one: one.scores.mean())
    gain = difference(best, results[ALONE])
    verdict = "Transfer does not clearly pay"
    if gain.is_clear:
        verdict = "Transfer pays" if gain.mean > 0 else "Transfer hurts"
    direction = "above" if gain.mean >= 0 else "below"
    size = Estimate(abs(gain.mean), gain.standard_error)
    return (
        f"{verdict}: the {scoring} of “{best.title}” is {Estimate.of(best.scores)}, {size} "
        f"{direction} that of the same student alone."
    )


def _what_to_deploy(results: Sequence[Result], by_name: Mapping[str, Result], scoring: str) -> str:
    chosen = to_deploy(results)
    cost = f"{chosen.cost.megabytes:.2g} MB, {chosen.cost.ms_per_row:.2g} ms a row"
    is_taught = chosen.role == STUDENT and chosen.name != ALONE
    taught = [by_name[name] for name in (TAUGHT, OF_TUNED) if name in by_name]
    text = f"Deploy “{chosen.title}” ({cost})"
    if taught and not is_taught:
        best = max(taught, key=lambda one: one.scores.mean())
        behind = difference(best, chosen)
        text = (
            f"Do not distil: deploy “{chosen.title}” ({cost}), because “{best.title}” scores "
            f"{abs(behind.mean):.3f} {'more' if behind.mean > 0 else 'less'} "
            f"(± {behind.standard_error:.3f})"
        )
    dear = [one for one in results if one.role == TEACHER and one is not chosen]
    if dear:
        best = max(dear, key=lambda one: one.scores.mean())
        above = difference(best, chosen)
        if above.is_clear and above.mean > 0:
            ratio = best.cost.ms_per_row / chosen.cost.ms_per_row
            text += (
                f"; “{best.title}” scores {above.mean:.3f} ± {above.standard_error:.3f} more, at "
                f"{ratio:.0f} times the time a row"
            )
    return text + "."


def _what_would_help(gains: Mapping[str, float], scoring: str, n_unlabeled: int) -> str:
    more = {
        "labels": "twice the labels",
        "unlabelled rows": "twice the unlabelled rows",
        "a better teacher": f"a teacher with {FEWER_ERRORS:.0%} fewer errors",
    }
    first, *others = sorted(gains, key=lambda name: -gains[name])
    listed = "".join(f", {more[name]} by {gains[name]:.3f}" for name in others)
    untried = "; rows without labels were not tried" if not n_unlabeled else ""
    head = first[0].upper() + first[1:]
    if gains[first] < 0.0005:
        return f"By extrapolation, neither more labels nor a better teacher would help{untried}."
    return (
        f"{head} would help most: by extrapolation, {more[first]} would raise the {scoring} of "
        f"the taught student by {gains[first]:.3f}{listed}{untried}."
    )
