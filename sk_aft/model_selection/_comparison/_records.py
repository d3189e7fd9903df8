"""The scores and costs of a candidate, and the facts of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sk_aft.model_selection._comparison._candidate import Candidate
from sk_aft.model_selection._comparison._deployment_cost import DeploymentCost
from sk_aft.model_selection._comparison._scores import FoldScore


class Result(NamedTuple):
    """What the folds gave for a candidate.

    Parameters
    ----------
    name, title, role : str
        As of the candidate.
    scores : ndarray of shape (n_folds,)
        On the test rows of each fold.
    fit_seconds : float
        Median time of a fit.
    cost : DeploymentCost
        What it takes to serve it.
    predictions : ndarray of shape (n_test_rows,)
        Of the test rows of all folds, one fold after another.
    """

    name: str
    title: str
    role: str
    scores: np.ndarray
    fit_seconds: float
    cost: DeploymentCost
    predictions: np.ndarray

    @classmethod
    def of(cls, candidate: Candidate, runs: Sequence[FoldScore]) -> Result:
        """Gather the scores of a candidate on all folds."""
        (cost,) = [run.cost for run in runs if run.cost is not None]
        return cls(
            name=candidate.name,
            title=candidate.title,
            role=candidate.role,
            scores=np.array([run.score for run in runs]),
            fit_seconds=float(np.median([run.fit_seconds for run in runs])),
            cost=cost,
            predictions=np.concatenate([run.predictions for run in runs]),
        )


class Facts(NamedTuple):
    """What was compared on.

    Parameters
    ----------
    n_labeled, n_unlabeled : int
        Rows with and without a label.
    n_classes : int
        Number of classes; 0 for numbers.
    n_folds : int
        Number of folds.
    scoring : str
        Name of the score.
    teacher : str
        What taught the students.
    not_compared : list of str
        Candidates for which there was no time.
    feature_seconds, seconds : float
        Time to compute the features, and of everything.
    """

    n_labeled: int
    n_unlabeled: int
    n_classes: int
    n_folds: int
    scoring: str
    teacher: str
    not_compared: list[str]
    feature_seconds: float
    seconds: float
