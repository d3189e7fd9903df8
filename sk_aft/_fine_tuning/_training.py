"""Fine-tuning a foundation model on labelled rows."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sk_aft._data._rows import Rows
from sk_aft._fine_tuning._objectives import OBJECTIVES
from sk_aft._runtime._progress import seconds_between_updates
from sk_aft._runtime._threads import flushed_denormals
from sk_aft.backbones._tunable import TakeTensors, TunableModel
from sk_aft.exceptions import DivergenceError

_HEAD_LR = 1e-2
_WEIGHT_DECAY = 0.01
_WARM_UP = 0.1  # of the steps
_UNFROZEN_AT = 0.5  # part of the steps after which all layers are trained
_ROWS_FOR_SCALE = 256
# The first checkpoint is early, the others so rare that writing takes a fiftieth of the time.
_SECONDS_TO_CHECKPOINT = 0.25
_TIMES_A_CHECKPOINT = 50


class TuningSettings(NamedTuple):
    """What is done with a foundation model, besides the rows and labels.

    Parameters
    ----------
    objective : {"linear", "pairs"}
        What is optimised.
    n_steps : int
        Number of batches.
    lr : float
        Learning rate of the layers.
    seed : int
        Seed of the batches.
    is_reproducible : bool, default=True
        Whether the seed was given. A model whose seed was drawn is not found again.
    """

    objective: str
    n_steps: int
    lr: float
    seed: int
    is_reproducible: bool = True


def fine_tune(
    model: TunableModel,
    rows: Rows,
    labels: np.ndarray,
    n_classes: int,
    settings: TuningSettings,
    *,
    name: str,
    device: torch.device,
    verbose: int = 0,
    checkpoint: Path | None = None,
) -> None:
    """Train a foundation model in place.

    Dropout is off, and batch normalisation uses the statistics of the frozen model, so the result
    depends on the seed of the batches alone.

    Parameters
    ----------
    model : TunableModel
        The model.
    rows : Rows
        Rows with labels.
    labels : ndarray of shape (n_rows,), int64
        Class numbers.
    n_classes : int
        Number of classes.
    settings : TuningSettings
        What is done.
    name : str
        Name of the model, for the progress bar and messages.
    device : torch.device
        Device of the model.
    verbose : int, default=0
        1 shows a progress bar with the time left.
    checkpoint : Path, optional
        File that keeps the state, written now and then. Training that is interrupted resumes
        there. If it cannot be written, a warning says so, and training goes on. Whoever keeps the
        trained weights removes it afterwards.

    Raises
    ------
    DivergenceError
        If the loss or the features become infinite or NaN.
    """
    objective = OBJECTIVES[settings.objective]
    random = np.random.RandomState(settings.seed)
    batches = objective.draw(labels, settings.n_steps, random)
    take = model.read(rows)
    module = model.module.eval()
    parameters = trained_weights(model)
    for weight in module.parameters():
        weight.requires_grad_(False)
    run = _Run(model, parameters, settings, device)
    if objective.has_head:
        run.add_head(n_classes, _scale(module, take, len(labels), device))
    start = run.restore(checkpoint)
    clock = _CheckpointClock()
    progress = tqdm(
        total=settings.n_steps,
        initial=start,
        desc=f"{name}: fine-tuning",
        unit="step",
        disable=not verbose,
        position=0,  # in the line of the bar of rows, which waits meanwhile
        mininterval=seconds_between_updates(),
    )
    targets = torch.as_tensor(labels, device=device)
    with progress, flushed_denormals(), torch.enable_grad():
        for step in range(start, settings.n_steps):
            batch = batches[step]
            loss = run.step(step, take(batch), targets[batch])
            if not math.isfinite(loss):
                raise DivergenceError(
                    f"The loss became {loss} when model {name!r} was fine-tuned, in step {step} of "
                    f"{settings.n_steps}: use a smaller lr than {settings.lr:g}."
                )
            progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
            progress.update()
            if checkpoint and clock.is_due:
                try:
                    with clock.saving():
                        run.save(checkpoint, step + 1)
                except (OSError, RuntimeError) as error:  # torch raises both if a disk is full
                    warnings.warn(
                        f"The unfinished training of model {name!r} cannot be kept in "
                        f"{checkpoint.parent} ({error}): if it is interrupted, it starts again.",
                        stacklevel=2,
                    )
                    checkpoint = None
        if not run.is_finite(take(batches[-1])):
            raise DivergenceError(
                f"Features became infinite or NaN when model {name!r} was fine-tuned for "
                f"{settings.n_steps} steps: use a smaller lr than {settings.lr:g}."
            )


class _CheckpointClock:
    """Says when to write a checkpoint: large ones, or those on slow disks, more rarely."""

    def __init__(self) -> None:
        self._due_at = time.monotonic() + _SECONDS_TO_CHECKPOINT

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._due_at

    @contextmanager
    def saving(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        ended = time.monotonic()
        self._due_at = ended + max(_SECONDS_TO_CHECKPOINT, _TIMES_A_CHECKPOINT * (ended - started))


def trained_weights(model: TunableModel) -> dict[str, nn.Parameter]:
    """Return the weights that fine-tuning changes, by name: all but those of frozen layers."""
    frozen = {
        weight for layer in model.layers[: model.n_frozen_layers] for weight in layer.parameters()
    }
    return {
        name: weight for name, weight in model.module.named_parameters() if weight not in frozen
    }


def fit_to(model: TunableModel, values: dict[str, Tensor]) -> bool:
    """Return whether values have the names and shapes of the weights that fine-tuning changes."""
    shapes = {name: weight.shape for name, weight in trained_weights(model).items()}
    return shapes == {name: value.shape for name, value in values.items()}


class _Run:
    """The state of a training: weights, head and optimizer."""

    def __init__(
        self,
        model: TunableModel,
        weights: dict[str, nn.Parameter],
        settings: TuningSettings,
        device: torch.device,
    ) -> None:
        self._model = model
        self._weights = weights
        self._settings = settings
        self._device = device
        self._objective = OBJECTIVES[settings.objective]
        self._head: nn.Linear | None = None
        matrices = [weight for weight in weights.values() if weight.ndim > 1]
        others = [weight for weight in weights.values() if weight.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "lr": settings.lr, "weight_decay": _WEIGHT_DECAY},
            {"params": others, "lr": settings.lr, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        # One kernel for all weights takes a tenth of the time of a kernel for each.
        can_fuse = device.type in ("cpu", "cuda")
        self._optimizer = torch.optim.AdamW(groups, fused=can_fuse)

    def add_head(self, n_classes: int, scale: Tensor) -> None:
        """Add a linear layer, which predicts nothing at first."""
        # Its usual weights would be drawn from the user's random state.
        shape = {"device": self._device, "dtype": scale.dtype}
        self._head = nn.utils.skip_init(nn.Linear, len(scale), n_classes, **shape)
        nn.init.zeros_(self._head.weight)
        nn.init.zeros_(self._head.bias)
        self._scale = scale
        self._optimizer.add_param_group(
            {"params": list(self._head.parameters()), "lr": _HEAD_LR, "weight_decay": 0.0}
        )

    def step(self, step: int, inputs: tuple[Tensor, ...], labels: Tensor) -> float:
        """Train on one batch; return its loss."""
        self._unfreeze(step)
        outputs = self._features(inputs)
        if self._head is not None:
            outputs = self._head(outputs / self._scale)
        loss = self._objective.loss(outputs, labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with _at_rate(self._optimizer, _rate(step, self._settings.n_steps)):
            self._optimizer.step()
        return loss.item()

    @torch.no_grad()
    def is_finite(self, inputs: tuple[Tensor, ...]) -> bool:
        """Return whether the model's features of a batch are finite."""
        return bool(self._features(inputs).isfinite().all())

    def _features(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return self._model.module(*(tensor.to(self._device) for tensor in inputs))

    def _unfreeze(self, step: int) -> None:
        """Let the weights of the last layers change; later those of the others, too."""
        layers, n_frozen = self._model.layers, self._model.n_frozen_layers
        n_trained = len(layers) - n_frozen
        if self._model.unfreezes:
            part = step / max(1, self._settings.n_steps * _UNFROZEN_AT)
            n_trained = min(n_trained, 1 + int(part * n_trained))
        waiting = {
            weight for layer in layers[: len(layers) - n_trained] for weight in layer.parameters()
        }
        for weight in self._weights.values():
            weight.requires_grad_(weight not in waiting)

    def save(self, path: Path, step: int) -> None:
        """Write the state to a file that is complete or absent."""
        path.parent.mkdir(parents=True, exist_ok=True)  # the model may have been removed meanwhile
        written = path.with_suffix(".tmp")
        state = {
            "step": step,
            "weights": {name: weight.detach() for name, weight in self._weights.items()},
            "head": {} if self._head is None else self._head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        try:
            torch.save(state, written)
            written.replace(path)
        except BaseException:
            written.unlink(missing_ok=True)  # the disk may be full
            raise

    def restore(self, path: Path | None) -> int:
        """Return the number of steps done; a file that cannot be read is ignored."""
        if path is None or not path.exists():
            return 0
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            step = int(state["step"])
            if not fit_to(self._model, state["weights"]):
                raise ValueError("The weights are those of another network.")
            self._optimizer.load_state_dict(state["optimizer"])
            if self._head is not None:
                self._head.load_state_dict(state["head"])
            set_weights(self._weights, state["weights"])
        except Exception:  # torch raises many types for a damaged file
            path.unlink(missing_ok=True)
            return 0
        return step


@torch.no_grad()
def set_weights(weights: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    """Copy values into weights of the same names."""
    for name, weight in weights.items():
        weight.copy_(values[name])


@torch.no_grad()
def _scale(module: nn.Module, take: TakeTensors, n_rows: int, device: torch.device) -> Tensor:
    """Return the root mean square of all features, (n_features,), so that one rate suits all."""
    some = np.unique(np.linspace(0, n_rows - 1, min(n_rows, _ROWS_FOR_SCALE)).astype(np.int64))
    pieces = np.array_split(some, -(-len(some) // 32))
    features = torch.cat(
        [module(*(tensor.to(device) for tensor in take(piece))) for piece in pieces]
    )
    size = features.square().mean().sqrt().clamp(min=1e-6)
    return size.expand(features.shape[1]).clone()


def _rate(step: int, n_steps: int) -> float:
    """Return the learning rate relative to its largest: a warm-up, then half a cosine."""
    n_warm_up = max(1, round(_WARM_UP * n_steps))
    if step < n_warm_up:
        return (step + 1) / n_warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - n_warm_up) / max(1, n_steps - n_warm_up)))


@contextmanager
def _at_rate(optimizer: torch.optim.Optimizer, rate: float) -> Iterator[None]:
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, lr in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = lr * rate
    try:
        yield
    finally:
        for group, lr in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = lr
