"""How a network is trained by default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingDefaults:
    """How a network is trained unless the user says otherwise.

    A network of this package has one as its class attribute ``training_defaults``.

    Parameters
    ----------
    lr : float, default=1e-3
        Learning rate of the network without its head.
    taught_lr : float or None, default=None
        The same if a teacher's predictions are targets of rows without a label; None is ``lr``.
    head_lr_factor : float, default=1.0
        Learning rate of the head, relative to ``lr``. Above 1 if only the head starts from random
        weights.
    weight_decay : float, default=0.01
        Decoupled weight decay, as in `torch.optim.AdamW`.
    warmup : float, default=0.0
        Share of the steps in which the learning rates rise from zero.
    max_gradient_norm : float or None, default=None
        Gradients are scaled down to this norm; None does not clip.
    layer_decay : float, default=1.0
        Learning rate of a layer, relative to that of the layer above it.
    n_steps : int, default=200
        Fewest steps of ``max_epochs="auto"``.
    n_epochs : int, default=50
        Fewest passes over the labelled rows of ``max_epochs="auto"``.
    """

    lr: float = 1e-3
    taught_lr: float | None = None
    head_lr_factor: float = 1.0
    weight_decay: float = 0.01
    warmup: float = 0.0
    max_gradient_norm: float | None = None
    layer_decay: float = 1.0
    n_steps: int = 200
    n_epochs: int = 50
