"""The estimators of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

RIVAL, STUDENT, TEACHER, ADDED = "rival", "student", "teacher", "added"


@dataclass(frozen=True)
class Candidate:
    """One estimator of a comparison.

    Parameters
    ----------
    name : str
        What users type, such as "tf-idf".
    title : str
        What is shown, such as "TF-IDF + logistic regression".
    estimator : estimator
        Unfitted, from raw rows to targets.
    role : {"rival", "student", "teacher", "added"}
        A "teacher" runs a foundation model to predict; a "rival" and a "student" do not.
    reads_unlabeled : bool, default=False
        Whether it is also fitted to the rows without a label, which are marked in y.
    """

    name: str
    title: str
    estimator: Any
    role: str
    reads_unlabeled: bool = False


class Lineup(NamedTuple):
    """What takes part in a comparison.

    Parameters
    ----------
    candidates : list of Candidate
        In the order in which they were asked for.
    left_out : dict of str to str
        Why an automatic candidate cannot take part, by its name.
    """

    candidates: list[Candidate]
    left_out: dict[str, str]
