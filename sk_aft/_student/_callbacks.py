"""The skorch callbacks of a student's training."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
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

from sk_aft._data._batches import Batch
from sk_aft._student._inputs import named_values
from sk_aft._student._targets import Targets
from sk_aft._student._training_data import TrainingData

_MONITORED_ON_HELD_OUT_ROWS = ("valid_loss", "valid_loss_best", "valid_score")


def default_callbacks(
    *, n_cosine_steps: int | None, patience: int | None, verbose: int
) -> list[tuple[str, Callback]]:
    """Return named callbacks: time, learning rate, early stopping and a line per epoch.

    Parameters
    ----------
    n_cosine_steps : int or None
        Steps after which a cosine brings the learning rates to zero; None keeps them constant.
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
    if n_cosine_steps is not None:
        scheduler = LRScheduler(
            policy=torch.optim.lr_scheduler.CosineAnnealingLR,
            T_max=n_cosine_steps,
            last_epoch=-1,  # training that resumes starts a new cosine
            step_every="batch",
            event_name=None,
        )
        callbacks.append(("lr_scheduler", scheduler))
    if patience is not None:
        stopping = EarlyStopping(
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


def has_scheduler(callbacks: Iterable[Any]) -> bool:
    """Return whether a learning rate scheduler is among the user's callbacks."""
    plain = [given[1] if isinstance(given, tuple) else given for given in callbacks]
    return any(isinstance(callback, LRScheduler) or callback is LRScheduler for callback in plain)


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


def reject_unknown_names(parameters: Iterable[str], names: list[str]) -> None:
    """Raise if a parameter ``callbacks__x`` belongs to no callback."""
    for parameter in parameters:
        # The defaults may be switched off while their parameters stay.
        if parameter.partition("__")[0] not in {*names, "lr_scheduler", "early_stopping"}:
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
