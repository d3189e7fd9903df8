"""Short trainings that find out which transfer helps, and whether it harms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.model_selection import train_test_split

from sk_aft._batches import batches_per_epoch
from sk_aft._net._training import DivergenceError, n_epochs_to_make
from sk_aft._training_data import TrainingData

if TYPE_CHECKING:
    from sk_aft._net._student_net import StudentNet

# Fewer labelled rows say nothing; more say no more, and cost time.
_FEWEST_ROWS = 200
_MOST_ROWS = 20_000
_HELD_OUT = 0.2
_SHARE_OF_EPOCHS = 0.25
_FEWEST_STEPS = 200  # a transfer takes some to be of use


_NONE = "none"
# What transfer="auto" chooses from; of what does equally well, the first.
_CANDIDATES: dict[str, tuple[Any, float]] = {
    "aft and probe-kd": ([("aft", 10.0), ("probe-kd", 1.0)], 1.0),
    "aft": ("aft", 50.0),
    "probe-kd": ("probe-kd", 1.0),
    _NONE: ("aft", 0.0),
}


def choose_transfer(net: StudentNet, data: TrainingData, seed: int) -> None:
    """Set which transfer method is used, and its strength, by what they do to held-out rows.

    Trains with each candidate on four fifths of the labelled rows, for a quarter of the epochs, or
    as many as have 200 steps where that is more (at most all). With ``transfer="auto"`` that which
    does best is taken, unless it does worse than no transfer by more than a standard error. A
    method that was named keeps its default strength with the same exception; then a tenth of it
    has to do at least as well as none, else the strength is 0. Sets ``beta_``,
    ``_chosen_transfer``, and ``transfer_trials_`` or ``beta_trials_``.
    """
    trials = _Trials.of(net, data, seed)
    if trials is None:
        return
    if net._chooses_transfer:
        candidates = {
            name: candidate
            for name, candidate in _CANDIDATES.items()
            if "probe-kd" not in name or trials.has_unlike_targets
        }
        net.transfer_trials_ = {
            name: trials.mean_error(*candidate) for name, candidate in candidates.items()
        }
        taught = {name: error for name, error in net.transfer_trials_.items() if name != _NONE}
        best = min(taught, key=lambda name: taught[name])
        mean, standard_error = trials.harm(*candidates[best])
        if mean > standard_error:
            best = _NONE
        net._chosen_transfer, net.beta_ = candidates[best]
        chosen, tried = f"transfer={best}, beta={net.beta_:g}", net.transfer_trials_
    else:
        strength = net.beta_
        net.beta_ = _chosen(strength, lambda beta: trials.harm(net._chosen_transfer, beta))
        betas = [beta for beta in (0.0, strength / 10, strength) if trials.was_tried(beta)]
        net.beta_trials_ = {beta: trials.mean_error(net._chosen_transfer, beta) for beta in betas}
        chosen, tried = f"beta={net.beta_:g}", {f"{k:g}": v for k, v in net.beta_trials_.items()}
    if net.verbose:
        said = ", ".join(f"{error:.4g} at {name}" for name, error in tried.items())
        print(f"{chosen}: error on held-out rows in short trainings is {said}")


class _Trials:
    """Short trainings on the same rows, from the same random state, each made once."""

    def __init__(
        self,
        net: StudentNet,
        data: TrainingData,
        train: np.ndarray,
        held_out: np.ndarray,
        others: np.ndarray,
        seed: int,
    ) -> None:
        self._net, self._data = net, data
        self._train, self._held_out, self._others = train, held_out, others
        self._seed = seed
        weights = data.weights
        self._weights = np.ones(len(held_out)) if weights is None else weights[held_out]
        self._errors: dict[tuple[str, float], np.ndarray] = {}
        self._shared: dict[str, Any] = {}  # a probe of the same rows need not be fitted twice

    @classmethod
    def of(cls, net: StudentNet, data: TrainingData, seed: int) -> _Trials | None:
        """Split the rows; return None where there are too few."""
        random = np.random.RandomState(seed)
        split = _split(data, random, stratify=is_classifier(net))
        if split is None:
            return None
        others = np.flatnonzero(~data.is_labeled)
        if len(others) > _MOST_ROWS:
            others = np.sort(random.choice(others, _MOST_ROWS, replace=False))
        return cls(net, data, *split, others, random.randint(2**31 - 1))

    @property
    def has_unlike_targets(self) -> bool:
        """Whether rows to learn from have unlike targets, and features, as a probe needs."""
        return self._data.has_unlike_targets(self._train)

    def harm(self, transfer: Any, strength: float) -> tuple[float, float]:
        """Return by how much held-out rows get worse, and its standard error."""
        errors, without = self.errors(transfer, strength), self.errors(transfer, 0.0)
        if not np.isfinite(errors).all():
            return math.inf, 0.0
        if not np.isfinite(without).all():
            return -math.inf, 0.0
        difference = errors - without
        difference = difference * self._weights / self._weights.mean()
        return difference.mean(), difference.std() / math.sqrt(len(difference))

    def mean_error(self, transfer: Any, strength: float) -> float:
        """Return the mean error on held-out rows."""
        return float(np.average(self.errors(transfer, strength), weights=self._weights))

    def was_tried(self, strength: float) -> bool:
        """Whether a strength was tried."""
        return any(beta == strength for _, beta in self._errors)

    def errors(self, transfer: Any, strength: float) -> np.ndarray:
        """Return the error of every held-out row; infinite where the training diverged."""
        # Without strength, all methods are the same.
        key = (repr(transfer) if strength else "", strength)
        if key not in self._errors:
            self._errors[key] = self._trained_errors(transfer, strength)
        return self._errors[key]

    def _trained_errors(self, transfer: Any, strength: float) -> np.ndarray:
        n_epochs = self._n_epochs(strength)
        trial = _trial(self._net, transfer, strength, n_epochs)
        trial._random = np.random.RandomState(self._seed)
        trial._shared_by_trials = self._shared
        used = np.union1d(self._train, self._others) if strength else self._train
        rows = self._data.subset(used)
        diverged = np.full(len(self._held_out), math.inf)
        try:
            trial._train_on(rows if strength else rows.without_features(), starts=True)
        except DivergenceError:
            return diverged
        if trial.n_iter_ < n_epochs:
            raise KeyboardInterrupt
        outputs = torch.cat(list(trial._outputs(self._data.rows.take(self._held_out))))
        if not outputs.isfinite().all():  # the last batch was one too many
            return diverged
        return self._net._errors(outputs.numpy(), self._data.targets[self._held_out])

    def _n_epochs(self, strength: float) -> int:
        """Return a quarter of the epochs that a whole training makes, or 200 steps of it."""
        net, is_labeled = self._net, self._data.is_labeled
        seen = is_labeled if strength else is_labeled[is_labeled]
        n_batches = batches_per_epoch(seen, net.batch_size, net.unlabeled_fraction)
        n_epochs = n_epochs_to_make(net.max_epochs, n_batches)
        fewest = math.ceil(max(_SHARE_OF_EPOCHS * n_epochs, _FEWEST_STEPS / n_batches))
        return min(n_epochs, fewest)


def _chosen(strength: float, harm: Callable[[float], tuple[float, float]]) -> float:
    """Return a strength, a tenth of it, or 0, given what each does and its standard error."""
    mean, standard_error = harm(strength)
    if mean <= standard_error:
        return strength
    mean, _ = harm(strength / 10)
    return strength / 10 if mean <= 0 else 0.0


def _split(
    data: TrainingData, random: np.random.RandomState, *, stratify: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return rows to learn from and rows to judge with; None where there are too few."""
    counts = data.is_labeled if data.weights is None else data.is_labeled & (data.weights > 0)
    rows = np.flatnonzero(counts)
    if len(rows) > _MOST_ROWS:
        rows = np.sort(random.choice(rows, _MOST_ROWS, replace=False))
    if len(rows) < _FEWEST_ROWS:
        return None
    classes = data.targets[rows] if stratify else None
    if classes is not None:
        _, members = np.unique(classes, return_counts=True)
        if members.min() < 2 or len(members) > _HELD_OUT * len(rows):
            classes = None
    train, held_out = train_test_split(
        rows, test_size=_HELD_OUT, stratify=classes, random_state=random
    )
    return np.sort(train), np.sort(held_out)


def _trial(net: StudentNet, transfer: Any, beta: float, n_epochs: int) -> StudentNet:
    """Return a student that has checked the rows and learned nothing."""
    trial = clone(net)
    trial.set_params(
        transfer=transfer,
        beta=beta,
        max_epochs=n_epochs,
        callbacks=None,
        early_stopping=False,
        compile=False,
        verbose=0,
    )
    parameters = trial.get_params(deep=False)
    for name in parameters:
        if name.startswith("callbacks__") and not name.startswith("callbacks__lr_scheduler"):
            delattr(trial, name)
    vars(trial).update({k: v for k, v in vars(net).items() if k not in parameters})
    trial.beta_, trial._chosen_transfer = beta, transfer
    return trial
