"""skorch's callbacks that a student trains with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, EpochTimer, LRScheduler, PrintLog

_MONITORED_ON_HELD_OUT_ROWS = ("valid_loss", "valid_loss_best", "valid_score")


def default_callbacks(
    *, n_cosine_steps: int | None, patience: int | None, verbose: int
) -> list[tuple[str, Callback]]:
    """Return named callbacks: time, learning rate, early stopping and a line an epoch.

    Parameters
    ----------
    n_cosine_steps : int or None
        Steps after which a cosine brings the learning rates to zero; None keeps them constant.
    patience : int or None
        Epochs without improvement after which training stops; None never stops it.
    verbose : int
        Whether to say when it stops.

    Returns
    -------
    callbacks : list of (str, Callback)
        In the order in which they are called.
    """
    callbacks: list = [("epoch_timer", EpochTimer())]
    if n_cosine_steps is not None:
        scheduler = LRScheduler(
            policy=torch.optim.lr_scheduler.CosineAnnealingLR,
            T_max=n_cosine_steps,
            last_epoch=-1,  # training that resumes begins another cosine
            step_every="batch",
            event_name=None,
        )
        callbacks.append(("lr_scheduler", scheduler))
    if patience is not None:
        stopping = EarlyStopping(
            monitor="valid_score",
            lower_is_better=False,
            threshold_mode="abs",  # relative, a negative R² would improve by falling
            patience=patience,
            load_best=True,
            sink=print if verbose else _discard,
        )
        callbacks.append(("early_stopping", stopping))
    callbacks.append(("print_log", PrintLog()))
    return callbacks


def reject_unknown_names(parameters: Iterable[str], names: list[str]) -> None:
    """Raise if a parameter ``callbacks__x`` is of no callback."""
    for parameter in parameters:
        # The defaults may be switched off while their parameters stay.
        if parameter.partition("__")[0] not in {*names, "lr_scheduler", "early_stopping"}:
            raise ValueError(
                f"Invalid parameter callbacks__{parameter}: the callbacks are {names}."
            )


def reject_idle_monitors(callbacks: Iterable[Any]) -> None:
    """Raise if a callback waits for what is measured on held out rows; there are none."""
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor in _MONITORED_ON_HELD_OUT_ROWS:
            raise ValueError(
                f"{type(callback).__name__} monitors {monitor!r}, which exists only with "
                "early_stopping=True: set this, or monitor='train_loss'."
            )


def listeners(candidates: Iterable[Any], event: str) -> list[Callable]:
    """Return the methods of callbacks, or of a net, that an event has to call.

    Those of skorch's base classes do nothing. For an event of every batch, calling them takes as
    long as a small network does.
    """
    methods = [getattr(candidate, event) for candidate in candidates]
    idle = (getattr(NeuralNet, event), getattr(Callback, event))
    return [method for method in methods if getattr(method, "__func__", method) not in idle]


def has_stopped(callback: Any) -> bool:
    """Return whether a callback is one that ended the training early."""
    return isinstance(callback, EarlyStopping) and callback.misses_ >= callback.patience


def _discard(text: str) -> None:
    pass
