"""The skorch callbacks of a student's training."""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import (
    BatchScoring,
    Callback,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    PrintLog,
)
from skorch.dataset import Dataset
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from sk_aft._data._batches import Batch
from sk_aft._student._inputs import named_values
from sk_aft._student._targets import Targets
from sk_aft._student._training_data import TrainingData

_MONITORED_ON_HELD_OUT_ROWS = ("valid_loss", "valid_loss_best", "valid_score")


def default_callbacks(
    *,
    n_epochs: int,
    n_steps: int,
    warmup: float,
    falls: bool,
    max_gradient_norm: float | None,
    patience: int | None,
    verbose: int,
) -> list[tuple[str, Callback]]:
    """Return named callbacks: time, learning rates, gradients, early stopping, a line per epoch.

    Parameters
    ----------
    n_epochs, n_steps : int
        Number of passes and of steps of the training.
    warmup : float
        Share of the steps in which the learning rates rise.
    falls : bool
        Whether they then fall to zero along a cosine, instead of being constant.
    max_gradient_norm : float or None
        Gradients are scaled down to this norm; None does not clip.
    patience : int or None
        Epochs without improvement after which training stops; None disables early stopping.
    verbose : int
        Whether to print a line per epoch, and a message when training stops early.

    Returns
    -------
    callbacks : list of (str, Callback)
        In the order in which they are called.
    """
    callbacks: list = [("epoch_timer", EpochTimer())]
    if warmup or falls:
        scheduler = LRScheduler(
            policy=warmup_then_cosine,
            n_steps=n_steps,
            warmup=warmup,
            falls=falls,
            last_epoch=-1,  # training that resumes starts a new cosine
            step_every="batch",
            event_name=None,
        )
        callbacks.append(("lr_scheduler", scheduler))
    if max_gradient_norm is not None:
        callbacks.append(("gradient_clipping", GradientNormClipping(max_gradient_norm)))
    if patience is not None:
        stopping = EarlyStoppingAfterWarmup(
            n_warmup=math.ceil(warmup * n_epochs),
            monitor="valid_score",
            lower_is_better=False,
            threshold_mode="abs",  # in relative mode, a negative R² would improve by falling
            patience=patience,
            load_best=True,
            sink=print if verbose else _discard,
        )
        callbacks.append(("early_stopping", stopping))
    callbacks.append(("print_log", PrintLog(sink=print_line if verbose else _discard)))
    return callbacks


class EarlyStoppingAfterWarmup(EarlyStopping):
    """skorch's EarlyStopping, which ignores the first epochs.

    The steps of the warm-up are small, so that its scores tell little of the training.

    Parameters
    ----------
    n_warmup : int, default=0
        Number of epochs to ignore.
    **kwargs
        Arguments of `skorch.callbacks.EarlyStopping`.
    """

    def __init__(self, n_warmup: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_warmup = n_warmup

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Start counting."""
        super().on_train_begin(net, **kwargs)
        self._n_epochs = 0

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Compare the score of an epoch after the warm-up with the best one."""
        self._n_epochs += 1
        if self._n_epochs > self.n_warmup:
            super().on_epoch_end(net, **kwargs)


def warmup_then_cosine(
    optimizer: torch.optim.Optimizer,
    *,
    n_steps: int,
    warmup: float,
    falls: bool,
    last_epoch: int = -1,
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a scheduler under which learning rates rise linearly, and then fall along a cosine.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer.
    n_steps : int
        Number of steps.
    warmup : float
        Share of the steps in which the rates rise.
    falls : bool
        Whether they then fall to zero, instead of being constant.
    last_epoch : int, default=-1
        Number of the last step; -1 starts.

    Returns
    -------
    scheduler : torch.optim.lr_scheduler.LRScheduler
        A step of it follows each step of the optimizer.
    """
    n_rising = min(round(warmup * n_steps), n_steps - 1)
    if falls and not n_rising:
        return CosineAnnealingLR(optimizer, T_max=n_steps, last_epoch=last_epoch)

    def factor(step: int) -> float:
        if step < n_rising:
            return (step + 1) / (n_rising + 1)
        fallen = (step - n_rising) / (n_steps - n_rising) if falls else 0.0
        return (1 + math.cos(math.pi * fallen)) / 2

    return LambdaLR(optimizer, factor, last_epoch=last_epoch)


class LabeledRows(Dataset):
    """The labelled rows among some training rows, as callbacks see them.

    Parameters
    ----------
    data : TrainingData
        The training's rows and targets.
    indices : ndarray
        Some of the rows.
    """

    def __init__(self, data: TrainingData, indices: np.ndarray) -> None:
        self._data, self._indices = data, indices[data.labeled_mask[indices]]

    @cached_property
    def X(self) -> Any:
        """The rows, as ``predict`` accepts them."""
        return named_values(self._data.rows.take(self._indices), self._data.schema)

    @cached_property
    def y(self) -> np.ndarray:
        """Their labels or numbers, as they were passed to ``fit``."""
        return self._data.encoder.original(self._data.targets[self._indices])

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        X = self.X.iloc[index] if hasattr(self.X, "iloc") else self.X[index]
        return X, self.y[index]


class BatchView(Sequence):
    """A batch as callbacks unpack it: its inputs, and its targets as they were passed to ``fit``.

    Targets are read only when they are used, because reading them stalls a GPU.

    Parameters
    ----------
    batch : Batch
        The batch.
    encoder : Targets
        Encodes the targets.
    """

    def __init__(self, batch: Batch, encoder: Targets) -> None:
        self._batch, self._encoder = batch, encoder

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        if index in (0, -2):
            return self._batch.inputs
        if index in (1, -1):
            targets = self._batch.targets
            return None if targets is None else self._encoder.original(targets.cpu().numpy())
        raise IndexError(index)


def print_line(text: str) -> None:
    """Print, with colours only on a terminal."""
    is_terminal = getattr(sys.stdout, "isatty", bool)()  # a replacement of stdout may lack it
    print(text if is_terminal else re.sub(r"\x1b\[[0-9;]*m", "", text))


def has_one_of(kind: type[Callback], callbacks: Iterable[Any]) -> bool:
    """Return whether a callback of a kind is among the user's callbacks."""
    plain = [given[1] if isinstance(given, tuple) else given for given in callbacks]
    return any(isinstance(callback, kind) or callback is kind for callback in plain)


def reject_other_types(callbacks: Iterable[Any]) -> None:
    """Raise if an item of the callbacks is not a callback."""
    for given in callbacks:
        callback = given[1] if isinstance(given, tuple) and len(given) == 2 else given
        is_class = isinstance(callback, type) and issubclass(callback, Callback)
        if not (is_class or isinstance(callback, Callback)):
            raise TypeError(
                f"callbacks holds {given!r}: expected callbacks of skorch, their classes, or pairs "
                "of a name and one of these."
            )


def reject_sparse_gradients(callbacks: Iterable[Any], module: nn.Module) -> None:
    """Raise if a callback clips sparse gradients, which torch cannot do."""
    is_clipped = any(isinstance(callback, GradientNormClipping) for callback in callbacks)
    sparse = [name for name, layer in module.named_modules() if getattr(layer, "sparse", False)]
    if is_clipped and sparse:
        raise ValueError(
            f"GradientNormClipping cannot clip the sparse gradients of the layer {sparse[0]!r}: "
            "build the network with sparse=False; a training that resumes has to start again."
        )


def reject_unknown_names(parameters: Mapping[str, Any], names: list[str]) -> None:
    """Raise if a parameter ``callbacks__x`` belongs to no callback."""
    # The defaults may be switched off while their parameters stay.
    optional = {"lr_scheduler", "early_stopping"}
    for parameter, value in parameters.items():
        is_left_out = parameter == "gradient_clipping" and value is None
        if parameter.partition("__")[0] not in {*names, *optional} and not is_left_out:
            raise ValueError(
                f"Invalid parameter callbacks__{parameter}: the callbacks are {names}."
            )


def reject_idle_monitors(callbacks: Iterable[Any]) -> None:
    """Raise or warn if a callback monitors a score on held-out rows, when there are none."""
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor in _MONITORED_ON_HELD_OUT_ROWS:
            raise ValueError(
                f"{type(callback).__name__} monitors {monitor!r}, which exists only with "
                "early_stopping=True: set this, or monitor='train_loss'."
            )
        if isinstance(callback, (EpochScoring, BatchScoring)) and not callback.on_train:
            warnings.warn(
                f"{type(callback).__name__}({callback.scoring!r}) scores held-out rows, and there "
                "are none: set early_stopping=True, or on_train=True for the training rows.",
                stacklevel=2,
            )


def listeners(candidates: Iterable[Any], event: str) -> list[Callable]:
    """Return the methods of callbacks, or of a net, to call for an event.

    Those of skorch's base classes do nothing, and are left out: if called for every batch, they
    take as long as a small network.
    """
    methods = [getattr(candidate, event) for candidate in candidates]
    idle = (getattr(NeuralNet, event), getattr(Callback, event))
    return [method for method in methods if getattr(method, "__func__", method) not in idle]


def has_stopped(callback: Any) -> bool:
    """Return whether a callback has ended the training early."""
    return isinstance(callback, EarlyStopping) and callback.misses_ >= callback.patience


def _discard(text: str) -> None:
    pass
