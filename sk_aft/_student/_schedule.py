"""How long and at which rates a network is trained: every "auto" that depends on the network."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sk_aft._data._batches import batches_per_epoch
from sk_aft._student._plan import TrainingPlan, teaches_by_predictions
from sk_aft.modules._mixed_net import MixedNet, network_for
from sk_aft.modules._mlp import MLP
from sk_aft.modules._training_defaults import TrainingDefaults

# A user's own network on numbers is trained as long as an MLP, for the same reason.
_FEWEST_STEPS = {"numeric": 1000}
_MOST_EPOCHS_FOR_STEPS = 500


@dataclass(frozen=True)
class Schedule:
    """The steps and learning rates of one call of ``fit`` or ``partial_fit``.

    Parameters
    ----------
    lr : float
        Learning rate of the network without its head.
    n_epochs : int
        Passes over the rows.
    n_steps : int
        Number of batches in all of them.
    weight_decay : float
        The network's weight decay, unless the optimizer's parameters set it.
    warmup : float
        Share of the steps in which the learning rates rise.
    max_gradient_norm : float or None
        Gradients are scaled down to this norm; None does not clip.
    """

    lr: float
    n_epochs: int
    n_steps: int
    weight_decay: float
    warmup: float
    max_gradient_norm: float | None

    @classmethod
    def of(
        cls, parameters: Mapping[str, Any], plan: TrainingPlan, defaults: TrainingDefaults
    ) -> Schedule:
        """Resolve the parameters for the rows of a plan and a network's defaults."""
        lr = parameters.get("optimizer__lr", parameters["lr"])
        n_batches, n_labeled_batches = batches_of(plan)
        n_epochs = 1
        if not plan.is_incremental:
            n_epochs = resolve_epochs(
                parameters["max_epochs"], n_batches, n_labeled_batches, defaults
            )
        return cls(
            lr=_lr_of(plan, parameters, defaults) if lr == "auto" else lr,
            n_epochs=n_epochs,
            n_steps=n_epochs * n_batches,
            weight_decay=defaults.weight_decay,
            warmup=defaults.warmup,
            max_gradient_norm=defaults.max_gradient_norm,
        )


def _lr_of(plan: TrainingPlan, parameters: Mapping[str, Any], defaults: TrainingDefaults) -> float:
    """Return the network's own learning rate for the rows of a plan."""
    is_taught = plan.n_unlabeled and teaches_by_predictions(plan.transfer, parameters)
    if is_taught and not plan.is_incremental and defaults.taught_lr is not None:
        return defaults.taught_lr
    return defaults.lr


def batches_of(plan: TrainingPlan) -> tuple[int, int]:
    """Return the batches of a pass over all training rows, and over the labelled ones.

    A batch holds fewer labelled rows if there are unlabelled ones.
    """
    count = functools.partial(
        batches_per_epoch,
        plan.n_labeled,
        batch_size=plan.batch_size,
        unlabeled_fraction=plan.unlabeled_fraction,
        n_parts=plan.processes.count,
    )
    # One unlabelled row fits into the first batch, so only the labelled rows count.
    return count(plan.n_unlabeled), count(min(plan.n_unlabeled, 1))


def resolve_epochs(
    max_epochs: int | str, n_batches: int, n_labeled_batches: int, defaults: TrainingDefaults
) -> int:
    """Return ``max_epochs`` as a number.

    "auto" counts steps, so that passes over many unlabelled rows are fewer.

    Parameters
    ----------
    max_epochs : int or "auto"
        The estimator's parameter.
    n_batches, n_labeled_batches : int
        Batches of a pass over all rows, and over the labelled ones.
    defaults : TrainingDefaults
        Those of the network.

    Returns
    -------
    n_epochs : int
        At least 1.
    """
    if max_epochs != "auto":
        return int(max_epochs)
    n_steps = max(defaults.n_steps, defaults.n_epochs * n_labeled_batches)
    return min(math.ceil(n_steps / n_batches), _MOST_EPOCHS_FOR_STEPS)


def training_defaults_of(
    network: Any, kind: str, sizes: Mapping[str, Any] | None = None
) -> TrainingDefaults:
    """Return how a network is trained by default.

    Parameters
    ----------
    network : type, callable or nn.Module
        The class of the network, one of them, or a function that builds one.
    kind : str
        The kind of the rows, which decides for a user's own network.
    sizes : mapping, optional
        Sizes of what the network reads; numbers and categories alone are a table.

    Returns
    -------
    defaults : TrainingDefaults
        The network's own, if it has some.
    """
    network = network.func if isinstance(network, functools.partial) else network
    parts = (sizes or {}).get("parts", {}).values()
    is_mixed = network is MixedNet or isinstance(network, MixedNet)
    if is_mixed and parts and all(network_for(part) is MLP for part in parts):
        return MLP.training_defaults
    own = getattr(network, "training_defaults", None)
    if isinstance(own, TrainingDefaults):
        return own
    return TrainingDefaults(n_steps=_FEWEST_STEPS.get(kind, TrainingDefaults.n_steps))
