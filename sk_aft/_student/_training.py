"""Training: epochs, batches and steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch.history import History
from torch import Tensor, nn

from sk_aft._data._batches import Batch, RowBatches
from sk_aft._data._tensors import Inputs
from sk_aft._runtime._dtype import float32_by_default
from sk_aft._runtime._processes import Processes, StoppedElsewhere
from sk_aft._student._components import Infer
from sk_aft._student._losses import task_loss, transfer_loss
from sk_aft._student._mixed_precision import MixedPrecision
from sk_aft._student._mixup import mix
from sk_aft.exceptions import DivergenceError
from sk_aft.modules import PenultimateFeatures

# The output of a step: "loss", its terms, and "y_pred".
Step = dict[str, Tensor]


class TrainedNetwork:
    """A network as training runs it: in its precision, possibly compiled and with hooks.

    Parameters
    ----------
    module : nn.Module
        The network.
    precision : MixedPrecision
        Precision in which it is run.
    needs_features : bool
        Whether hooks have to record its features, in case it does not return them.
    compile_parameters : mapping or None
        Arguments of `torch.compile`; None does not compile.
    compiled : nn.Module, optional
        The network compiled by an earlier training.
    """

    def __init__(
        self,
        module: nn.Module,
        precision: MixedPrecision,
        *,
        needs_features: bool,
        compile_parameters: Mapping[str, Any] | None,
        compiled: nn.Module | None = None,
    ) -> None:
        self._module = module
        self._precision = precision
        self._penultimate = PenultimateFeatures(module) if needs_features else None
        self._compile_parameters = compile_parameters
        self.compiled = None if compile_parameters is None else compiled

    @property
    def callable(self) -> nn.Module:
        """The network that is called: the compiled one, once there is one."""
        return self._module if self.compiled is None else self.compiled

    def run(self, infer: Infer, inputs: Inputs, *, wants_features: bool) -> tuple[Tensor, Any]:
        """Return outputs and, if requested, features, both in float32."""
        with self._precision.autocast():
            logits, features = infer(inputs)
        if wants_features and self._penultimate is not None:
            if features is None:
                features = self._penultimate.take()
            else:
                self._penultimate.remove()  # hooks are not needed, and cost time
        if self._compile_parameters is not None and self.compiled is None:
            # From the second batch on: by then, hooks are removed, or stay and are compiled too.
            self.compiled = _compiled(self._module, self._compile_parameters)
        restored = self._precision.restored
        if isinstance(features, tuple):
            features = tuple(restored(part) for part in features)
        elif features is not None:
            features = restored(features)
        return restored(logits), features

    def close(self) -> None:
        """Remove the hooks from the network."""
        if self._penultimate is not None:
            self._penultimate.remove()


class EpochResult(NamedTuple):
    """The results of one pass over batches."""

    means: dict[str, float]
    n_batches: int
    outputs: list[Tensor]
    targets: list[Tensor]


def train(
    n_epochs: int,
    batches: RowBatches,
    held_out: RowBatches | None,
    *,
    epoch: Callable[..., None],
    train_step: Callable[[Batch], Step],
    validation_step: Callable[[Batch], Step],
    notify: Callable[..., None],
    datasets: Mapping[str, Any],
    given: Mapping[str, Any],
    processes: Processes,
    parameters: Callable[[], list[Tensor]],
    drop_unfinished: Callable[[], None],
    is_stopped: Callable[[], bool],
) -> None:
    """Run the epochs, and call the callbacks as ``skorch.NeuralNet.fit_loop`` does.

    Callbacks get ``datasets`` at the start and end of every epoch, and ``given`` at the start and
    end of the training. KeyboardInterrupt is raised at the end, unless a callback raised it to stop
    the training, as skorch's EarlyStopping does. ``parameters`` returns those that are trained.
    """
    interruption = None
    with processes.ending_together():
        batches.move_to_device()
        if held_out is not None:
            held_out.move_to_device()
        notify("on_train_begin", **given)
    try:
        with processes.ending_steps_together(parameters):
            for _ in range(n_epochs):
                notify("on_epoch_begin", **datasets)
                epoch(batches, True, "train", train_step)
                epoch(held_out, False, "valid", validation_step)
                notify("on_epoch_end", **datasets)
                processes.agree_to_go_on()
    except StoppedElsewhere:
        pass
    except KeyboardInterrupt as error:
        interruption = None if is_stopped() else error
    finally:
        drop_unfinished()
    with processes.ending_together():
        notify("on_train_end", **given)
        if interruption is not None:
            raise interruption


def run_batches(
    batches: Iterable[Batch],
    step: Callable[[Batch], Step],
    *,
    is_training: bool,
    at_begin: Callable[[Batch], None],
    at_end: Callable[[Batch, Step], None],
) -> EpochResult:
    """Run a step on each batch."""
    sums: dict[str, Tensor] = {}
    outputs, targets, n_batches = [], [], 0
    for batch in batches:
        at_begin(batch)
        terms = step(batch)
        at_end(batch, terms)
        n_batches += 1
        for name, value in terms.items():
            if value.ndim > 0 or (name == "task_loss" and value is terms["loss"]):
                continue
            # Summed on the device: reading each number would stall a GPU, and keeping them
            # in a list would fragment the memory between the steps.
            if name not in sums:
                dtype = torch.float32 if value.device.type == "mps" else torch.float64
                sums[name] = torch.zeros((), dtype=dtype, device=value.device)
            sums[name] += value.detach()
        if not is_training:
            outputs.append(terms["y_pred"])
            targets.append(batch.targets)
    if is_training:
        sums.setdefault("task_loss", sums["loss"])
    means = {name: total.item() / n_batches for name, total in sums.items()}
    return EpochResult(means, n_batches, outputs, targets)


def check_convergence(history: History, beta: float, lr: float, precision: str) -> None:
    """Raise `DivergenceError` if the loss of the last epoch is infinite or NaN."""
    loss, epoch = history[-1]["train_loss"], len(history)
    if np.isfinite(loss):
        return
    or_float32 = " Or use precision='bf16-mixed' or 'float32', which hold larger numbers."
    raise DivergenceError(
        f"The loss became {loss} in epoch {epoch}: the network diverged. "
        f"Lower lr (now {lr}) or beta (now {beta}), or scale the output of the "
        f"preprocessor.{or_float32 if precision == '16-mixed' else ''}"
    )


def check_outputs(outputs: Tensor, beta: float, lr: float) -> None:
    """Raise `DivergenceError` if a trained network's outputs are infinite or NaN.

    The loss of the last step is computed before the weights change for the last time.
    """
    if not outputs.isfinite().all():
        raise DivergenceError(
            "The outputs became infinite or NaN in the last step: the network diverged. Lower lr "
            f"(now {lr}) or beta (now {beta}), or scale the output of the preprocessor."
        )


def mean_feature_weights(
    transfer: nn.Module | None, feature_slices: Mapping[str, slice]
) -> dict[str, float]:
    """Return the mean weight of the features of each model, if they have weights."""
    weights = getattr(transfer, "feature_weights", None)
    if weights is None:
        return {}
    return {
        f"feature_weight_{name}": weights[columns].mean().item()
        for name, columns in feature_slices.items()
    }


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the parameters that an optimizer changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def make_step(
    optimizer: torch.optim.Optimizer,
    precision: MixedPrecision,
    loss_and_gradients: Callable[[], Step],
    *,
    processes: Processes,
    at_gradients: Callable[[], None],
) -> Step:
    """Run one step of the optimizer."""
    steps: list[Step] = []

    def closure() -> Tensor:
        parameters = parameters_of(optimizer)
        for parameter in parameters:
            parameter.grad = None
        steps.append(loss_and_gradients())
        # Before infinite ones are looked for, so that all processes find the same.
        loss = processes.average_gradients(parameters, steps[-1]["loss"])
        precision.unscale(optimizer)
        at_gradients()
        return loss

    precision.step(optimizer, closure)
    return steps[0]


def batch_loss(
    batch: Batch,
    network: TrainedNetwork,
    infer: Infer,
    *,
    criterion: nn.Module,
    transfer: nn.Module | None,
    beta: float,
    mean_weight: float,
    has_untaught_rows: bool,
    mixup: float = 0.0,
) -> Step:
    """Compute "loss", its terms "task_loss" and "transfer_loss", and "y_pred" of one batch."""
    mixed = mix(batch, mixup) if mixup else None
    batch = batch if mixed is None else mixed.batch
    learns_features = batch.features is not None
    logits, features = network.run(infer, batch.inputs, wants_features=learns_features)
    labeled = logits if batch.targets is None else logits[: len(batch.targets)]
    loss = task_loss(criterion, labeled, batch, mean_weight)
    if mixed is not None:
        of_partners = task_loss(criterion, labeled, mixed.partners, mean_weight)
        loss = mixed.share * loss + (1 - mixed.share) * of_partners
    step = {"loss": loss, "task_loss": loss, "y_pred": labeled}
    if transfer is not None and batch.features is not None:
        step["transfer_loss"] = transfer_loss(
            transfer, features, batch.features, logits, has_untaught_rows=has_untaught_rows
        )
        step["loss"] = loss + beta * step["transfer_loss"]
    return step


def validation_loss(
    batch: Batch, infer: Infer, *, criterion: nn.Module, mean_weight: float
) -> Step:
    """Compute the task loss of one held-out batch."""
    logits, _ = infer(batch.inputs)
    return {"loss": task_loss(criterion, logits, batch, mean_weight), "y_pred": logits}


def run_network(network: nn.Module, inputs: Inputs, n_outputs: int) -> tuple[Tensor, Any]:
    """Run a network; raise if the shape of its outputs does not match the targets."""
    with float32_by_default():
        outputs = network(**inputs) if isinstance(inputs, Mapping) else network(inputs)
    logits, features = outputs[:2] if isinstance(outputs, (tuple, list)) else (outputs, None)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"The module returned a {type(outputs).__name__}, expected a tensor of outputs "
            f"(n_rows, {n_outputs}), or a tuple of it and the features."
        )
    if logits.ndim == 1 and n_outputs == 1:
        logits = logits.unsqueeze(1)
    if logits.ndim != 2 or logits.shape[1] != n_outputs:
        raise ValueError(
            f"The module returned outputs of shape {tuple(logits.shape)}, expected "
            f"(n_rows, {n_outputs}): one column for each class or target."
        )
    return logits, features


def _compiled(module: nn.Module, parameters: Mapping[str, Any]) -> nn.Module:
    """Return a compiled version of a network, which itself stays unchanged."""
    isolates = "isolate_recompiles" in inspect.signature(torch.compile).parameters
    # Otherwise the fits of a search share a limit on compilations, and later ones exceed it.
    preset = {"isolate_recompiles": True} if isolates else {}
    return torch.compile(module, **{**preset, **parameters})
