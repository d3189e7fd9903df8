"""skorch's callbacks that a student trains with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, EpochTimer, LRScheduler, PrintLog

if TYPE_CHECKING:
    from sk_aft._net._student_net import StudentNet

_MONITORED_ON_HELD_OUT_ROWS = ("valid_loss", "valid_loss_best", "valid_score")


def default_callbacks(net: StudentNet) -> list:
    """Return named callbacks: time, learning rate, early stopping and a line an epoch."""
    callbacks: list = [("epoch_timer", EpochTimer())]
    if net.lr_schedule == "cosine" and not net._is_incremental:
        n_steps = getattr(net, "n_steps_", 1)
        policy = torch.optim.lr_scheduler.CosineAnnealingLR
        scheduler = LRScheduler(
            policy=policy,
            T_max=n_steps,
            last_epoch=-1,  # training that goes on begins another cosine
            step_every="batch",
            event_name=None,
        )
        callbacks.append(("lr_scheduler", scheduler))
    if net.early_stopping:
        stopping = EarlyStopping(
            monitor="valid_score",
            lower_is_better=False,
            threshold_mode="abs",  # relative, a negative R² would improve by falling
            patience=net.n_iter_no_change,
            load_best=True,
            sink=print if net.verbose else _say_nothing,
        )
        callbacks.append(("early_stopping", stopping))
    callbacks.append(("print_log", PrintLog()))
    return callbacks


def reject_unknown_names(net: StudentNet) -> None:
    """Raise if a parameter ``callbacks__x`` is of no callback."""
    named = [name for name, _ in net._uniquely_named_callbacks()]
    for parameter in net.get_params_for("callbacks"):
        # The defaults may be switched off while their parameters stay.
        if parameter.partition("__")[0] not in {*named, "lr_scheduler", "early_stopping"}:
            raise ValueError(
                f"Invalid parameter callbacks__{parameter}: the callbacks are {named}."
            )


def reject_idle_monitors(net: StudentNet) -> None:
    """Raise if a callback waits for what is measured on held out rows, and there are none."""
    for _, callback in net.callbacks_:
        monitor = getattr(callback, "monitor", None)
        if not net.early_stopping and monitor in _MONITORED_ON_HELD_OUT_ROWS:
            raise ValueError(
                f"{type(callback).__name__} monitors {monitor!r}, which exists only with "
                "early_stopping=True: set this, or monitor='train_loss'."
            )


def listeners(net: StudentNet, event: str) -> list[Callable]:
    """Return the methods of the net and its callbacks that an event calls.

    Those of skorch's base classes do nothing. For an event of every batch, calling them takes as
    long as a small network does.
    """
    methods = [getattr(listener, event) for listener in (net, *dict(net.callbacks_).values())]
    idle = (getattr(NeuralNet, event), getattr(Callback, event))
    return [method for method in methods if getattr(method, "__func__", method) not in idle]


def has_stopped(callback: Any) -> bool:
    """Whether a callback is one that ended the training early."""
    return isinstance(callback, EarlyStopping) and callback.misses_ >= callback.patience


def _say_nothing(text: str) -> None:
    pass
