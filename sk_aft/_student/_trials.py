"""Short trainings that find out which transfer helps, if any."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.model_selection import train_test_split

from sk_aft._data._batches import batches_per_epoch
from sk_aft._student._plan import TransferChoice, resolve_epochs
from sk_aft._student._training_data import TrainingData

# Fewer labelled rows say nothing; more say no more, and cost time.
_FEWEST_ROWS = 200
_MOST_ROWS = 20_000
_HELD_OUT = 0.2
_SHARE_OF_EPOCHS = 0.25
_FEWEST_STEPS = 200  # a transfer takes some to be of use

_NONE = "none"
# What transfer="auto" chooses from; of what does equally well, the first.
_CANDIDATES: dict[str, TransferChoice] = {
    "aft and probe-kd": TransferChoice([("aft", 10.0), ("probe-kd", 1.0)], 1.0),
    "aft": TransferChoice("aft", 50.0),
    "probe-kd": TransferChoice("probe-kd", 1.0),
    _NONE: TransferChoice("aft", 0.0),
}


class TrialTraining(Protocol):
    """Trains a copy of the student for a while."""

    def __call__(
        self,
        rows: TrainingData,
        held_out: TrainingData,
        transfer: TransferChoice,
        *,
        n_epochs: int,
        seed: int,
        shared: dict[str, Any],
    ) -> np.ndarray | None:
        """Return outputs of the rows held out; None where the training diverged."""


class TransferTrials(NamedTuple):
    """Errors on held-out rows in the trials."""

    by_method: dict[str, float] | None
    by_beta: dict[float, float] | None


def choose_transfer(
    data: TrainingData,
    tentative: TransferChoice,
    parameters: Mapping[str, Any],
    train: TrialTraining,
    *,
    chooses_method: bool,
    seed: int,
) -> tuple[TransferChoice, TransferTrials | None]:
    """Choose a transfer method and its strength by what they do to held-out rows.

    Trains with each candidate on four fifths of the labelled rows, for a quarter of the epochs, or
    as many as have 200 steps where that is more (at most all). With ``transfer="auto"`` that which
    does best is taken, unless it does worse than no transfer by more than a standard error. A
    method that was named keeps its default strength with the same exception; then a tenth of it
    has to do at least as well as none, else the strength is 0.

    Parameters
    ----------
    data : TrainingData
        All rows.
    tentative : TransferChoice
        The method that was named and its default strength.
    parameters : mapping
        Of the estimator.
    train : callable
        Makes one trial.
    chooses_method : bool
        Whether the method is chosen, too.
    seed : int
        Determines which rows are held out, and the trials.

    Returns
    -------
    transfer : TransferChoice
        What to use.
    trials : TransferTrials or None
        Their errors; None where there are too few rows to make any.
    """
    trials = _Trials.of(data, parameters, train, seed)
    if trials is None:
        return tentative, None
    if chooses_method:
        candidates = {
            name: candidate
            for name, candidate in _CANDIDATES.items()
            if "probe-kd" not in name or trials.has_distinct_targets
        }
        errors = {name: trials.mean_error(candidate) for name, candidate in candidates.items()}
        taught = {name: error for name, error in errors.items() if name != _NONE}
        best = min(taught, key=lambda name: taught[name])
        mean, standard_error = trials.excess_error(candidates[best])
        if mean > standard_error:
            best = _NONE
        chosen, made = candidates[best], TransferTrials(errors, None)
        text, tried = f"transfer={best}, beta={chosen.beta:g}", errors
    else:
        method, beta = tentative
        chosen = TransferChoice(
            method,
            choose_beta(beta, lambda beta: trials.excess_error(TransferChoice(method, beta))),
        )
        by_beta = {
            strength: trials.mean_error(TransferChoice(method, strength))
            for strength in (0.0, beta / 10, beta)
            if trials.was_tried(strength)
        }
        made = TransferTrials(None, by_beta)
        text, tried = f"beta={chosen.beta:g}", {f"{k:g}": v for k, v in by_beta.items()}
    if parameters["verbose"]:
        results = ", ".join(f"{error:.4g} at {name}" for name, error in tried.items())
        print(f"{text}: error on held-out rows in short trainings is {results}")
    return chosen, made


def choose_beta(beta: float, excess_error: Callable[[float], tuple[float, float]]) -> float:
    """Return a strength, a tenth of it, or 0."""
    mean, standard_error = excess_error(beta)
    if mean <= standard_error:
        return beta
    mean, _ = excess_error(beta / 10)
    return beta / 10 if mean <= 0 else 0.0


class _Trials:
    """Short trainings on the same rows, from the same random state, each made once."""

    def __init__(
        self,
        data: TrainingData,
        parameters: Mapping[str, Any],
        train: TrialTraining,
        learned: np.ndarray,
        held_out: np.ndarray,
        others: np.ndarray,
        seed: int,
    ) -> None:
        self._data, self._parameters, self._train = data, parameters, train
        self._learned, self._others, self._seed = learned, others, seed
        self._held_out = data.subset(held_out)
        weights = self._held_out.weights
        self._weights = np.ones(len(held_out)) if weights is None else weights
        self._errors: dict[tuple[str, float], np.ndarray] = {}
        self._shared: dict[str, Any] = {}  # a probe of the same rows need not be fitted twice

    @classmethod
    def of(
        cls, data: TrainingData, parameters: Mapping[str, Any], train: TrialTraining, seed: int
    ) -> _Trials | None:
        """Split the rows; return None where there are too few."""
        random = np.random.RandomState(seed)
        split = _split(data, random)
        if split is None:
            return None
        others = np.flatnonzero(~data.labeled_mask)
        if len(others) > _MOST_ROWS:
            others = np.sort(random.choice(others, _MOST_ROWS, replace=False))
        return cls(data, parameters, train, *split, others, random.randint(2**31 - 1))

    @property
    def has_distinct_targets(self) -> bool:
        """Whether rows to learn from have distinct targets, and features, as a probe needs."""
        return self._data.has_distinct_targets(self._learned)

    def excess_error(self, transfer: TransferChoice) -> tuple[float, float]:
        """Return by how much held-out rows get worse, and its standard error."""
        errors = self.errors(transfer)
        without = self.errors(TransferChoice(transfer.method, 0.0))
        if not np.isfinite(errors).all():
            return math.inf, 0.0
        if not np.isfinite(without).all():
            return -math.inf, 0.0
        difference = errors - without
        difference = difference * self._weights / self._weights.mean()
        return difference.mean(), difference.std() / math.sqrt(len(difference))

    def mean_error(self, transfer: TransferChoice) -> float:
        """Return the mean error on held-out rows."""
        return float(np.average(self.errors(transfer), weights=self._weights))

    def was_tried(self, beta: float) -> bool:
        """Return whether a strength was tried."""
        return any(tried == beta for _, tried in self._errors)

    def errors(self, transfer: TransferChoice) -> np.ndarray:
        """Return the error of every held-out row; infinite where the training diverged."""
        # Without strength, all methods are the same.
        key = (repr(transfer.method) if transfer.beta else "", transfer.beta)
        if key not in self._errors:
            self._errors[key] = self._trained_errors(transfer)
        return self._errors[key]

    def _trained_errors(self, transfer: TransferChoice) -> np.ndarray:
        used = np.union1d(self._learned, self._others) if transfer.beta else self._learned
        rows = self._data.subset(used)
        outputs = self._train(
            rows if transfer.beta else rows.without_features(),
            self._held_out,
            transfer,
            n_epochs=self._n_epochs(transfer.beta),
            seed=self._seed,
            shared=self._shared,
        )
        if outputs is None or not np.isfinite(outputs).all():  # the last batch was one too many
            return np.full(len(self._held_out.rows), math.inf)
        return self._data.encoder.errors(outputs, self._held_out.targets)

    def _n_epochs(self, beta: float) -> int:
        """Return a quarter of the epochs that a whole training makes, or 200 steps of it."""
        labeled = self._data.labeled_mask
        n_labeled = int(labeled.sum())
        n_batches = batches_per_epoch(
            n_labeled,
            len(labeled) - n_labeled if beta else 0,
            batch_size=self._parameters["batch_size"],
            unlabeled_fraction=self._parameters["unlabeled_fraction"],
            drops_single_row=False,
        )
        n_epochs = resolve_epochs(self._parameters["max_epochs"], n_batches)
        fewest = math.ceil(max(_SHARE_OF_EPOCHS * n_epochs, _FEWEST_STEPS / n_batches))
        return min(n_epochs, fewest)


def _split(
    data: TrainingData, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return rows to learn from and rows to judge with; None where there are too few."""
    counts = data.labeled_mask if data.weights is None else data.labeled_mask & (data.weights > 0)
    rows = np.flatnonzero(counts)
    if len(rows) > _MOST_ROWS:
        rows = np.sort(random.choice(rows, _MOST_ROWS, replace=False))
    if len(rows) < _FEWEST_ROWS:
        return None
    classes = None if data.encoder.n_classes is None else data.targets[rows]
    if classes is not None:
        _, members = np.unique(classes, return_counts=True)
        if members.min() < 2 or len(members) > _HELD_OUT * len(rows):
            classes = None
    learned, held_out = train_test_split(
        rows, test_size=_HELD_OUT, stratify=classes, random_state=random
    )
    return np.sort(learned), np.sort(held_out)
