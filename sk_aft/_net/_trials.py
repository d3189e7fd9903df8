"""Short trainings that find out whether the transfer harms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.model_selection import train_test_split

from sk_aft._net._training import n_epochs_to_make
from sk_aft._training_data import TrainingData

if TYPE_CHECKING:
    from sk_aft._net._student_net import StudentNet

# Fewer labelled rows say nothing; more say no more, and cost time.
_FEWEST_ROWS = 200
_MOST_ROWS = 20_000
_HELD_OUT = 0.2
_SHARE_OF_EPOCHS = 0.25
_FEWEST_STEPS = 200  # a transfer takes some to be of use


def strength_that_does_not_harm(net: StudentNet, data: TrainingData, seed: int) -> float:
    """Return the default strength, a tenth of it, or 0, by what they do to held-out rows.

    Trains with the transfer and without, on four fifths of the labelled rows, for a quarter of the
    epochs, at least 200 steps if the training has as many. The default strength stays unless it
    does worse than no transfer by more than a standard error; then a tenth of it has to do at
    least as well as none. Sets ``beta_trials_``.
    """
    random = np.random.RandomState(seed)
    split = _split(data, random, stratify=is_classifier(net))
    if split is None:
        return net.beta_
    train, held_out = split
    others = np.flatnonzero(~data.is_labeled)
    if len(others) > _MOST_ROWS:
        others = np.sort(random.choice(others, _MOST_ROWS, replace=False))
    n_batches = math.ceil(data.is_labeled.sum() / net.batch_size)
    n_epochs = n_epochs_to_make(net.max_epochs, n_batches)
    n_epochs = min(n_epochs, math.ceil(max(_SHARE_OF_EPOCHS * n_epochs, _FEWEST_STEPS / n_batches)))
    trial_seed = random.randint(2**31 - 1)
    errors: dict[float, np.ndarray] = {}
    weights = np.ones(len(held_out)) if data.weights is None else data.weights[held_out]

    def harm(strength: float) -> tuple[float, float]:
        """Return by how much held-out rows get worse, and its standard error."""
        for beta in (0.0, strength):
            if beta not in errors:
                rows = data.subset(np.union1d(train, others) if beta else train)
                trial = _trial(net, beta, n_epochs)
                trial._random = np.random.RandomState(trial_seed)
                trial._train_on(rows if beta else rows.without_features(), starts=True)
                if trial.n_iter_ < n_epochs:
                    raise KeyboardInterrupt
                outputs = torch.cat(list(trial._outputs(data.rows.take(held_out))))
                errors[beta] = net._errors(outputs.numpy(), data.targets[held_out])
        difference = (errors[strength] - errors[0.0]) * weights / weights.mean()
        return difference.mean(), difference.std() / math.sqrt(len(difference))

    chosen = _chosen(net.beta_, harm)
    net.beta_trials_ = {
        beta: float(np.average(error, weights=weights)) for beta, error in sorted(errors.items())
    }
    if net.verbose:
        said = ", ".join(f"{error:.4g} at {beta:g}" for beta, error in net.beta_trials_.items())
        print(f"beta={chosen:g}: error on held-out rows in short trainings is {said}")
    return chosen


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


def _trial(net: StudentNet, beta: float, n_epochs: int) -> StudentNet:
    """Return a student that has checked the rows and learned nothing."""
    trial = clone(net)
    trial.set_params(
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
    trial.beta_ = beta
    return trial
