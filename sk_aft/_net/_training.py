"""Epochs of batches, and what one batch teaches."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.utils import TeeGenerator
from torch import Tensor, nn

from sk_aft._batches import Batch, RowBatches
from sk_aft._net._callbacks import has_stopped, listeners
from sk_aft._net._losses import task_loss, transfer_loss
from sk_aft._prepared_inputs import Inputs
from sk_aft._training_data import FeatureSubset
from sk_aft.modules import LastLinearInput

# What max_epochs="auto" makes at least. Few rows make few steps an epoch and would learn too
# little; more steps than these overfit noisy targets where there is no transfer.
_FEWEST_EPOCHS = 50
_FEWEST_STEPS = 200


class DivergenceError(ValueError):
    """The loss is no longer a number."""


def compiled(module: nn.Module, **parameters: Any) -> nn.Module:
    """Return a compiled network beside one that stays as it is."""
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        # The fits of a search would share a limit, and the later ones would not be compiled.
        parameters.setdefault("isolate_recompiles", True)
    return torch.compile(module, **parameters)


def n_epochs_to_make(max_epochs: int | str, n_batches: int) -> int:
    """Return ``max_epochs`` as a number, given how many batches an epoch has."""
    if max_epochs == "auto":
        return max(_FEWEST_EPOCHS, math.ceil(_FEWEST_STEPS / n_batches))
    return int(max_epochs)


# Attributes of a net that exist while it is trained.
OF_TRAINING = ("_last_linear", "_has_masked_rows", "_at_gradients", "_is_training")


class Training(NeuralNet):
    """The part of `StudentNet` that trains what was built: skorch's loop, batch by batch."""

    _last_linear: LastLinearInput
    _at_gradients: Sequence[Callable] = ()
    _compiled: nn.Module | None = None
    _is_training = False

    def _train(self, train: RowBatches, valid: RowBatches | None, n_epochs: int) -> None:
        datasets: dict[str, Any] = {"dataset_train": train.inputs, "dataset_valid": None}
        train.move_to_device()
        if valid is not None:
            valid.move_to_device()
            datasets["dataset_valid"] = valid.inputs
        try:
            self._is_training = True
            self._has_masked_rows = train.features is not None and train.features.has_masked_rows
            if self.beta_ > 0:
                self._last_linear = LastLinearInput(self.module_)
            self.notify("on_train_begin", X=train.inputs, y=None)
            with self._mixed_precision.quiet():
                for _ in range(n_epochs):
                    self.notify("on_epoch_begin", **datasets)
                    self.run_single_epoch(train, True, "train", self.train_step)
                    self.run_single_epoch(valid, False, "valid", self.validation_step)
                    self.notify("on_epoch_end", **datasets)
        except KeyboardInterrupt:
            # skorch's EarlyStopping stops training this way, too.
            if not any(has_stopped(callback) for _, callback in self.callbacks_):
                warnings.warn("Training interrupted by user: keeping what was learned so far.")
        finally:
            if self.history and "train_loss" not in self.history[-1]:
                del self.history[-1]  # an epoch that did not end
            if hasattr(self, "_last_linear"):
                self._last_linear.remove()
            for name in OF_TRAINING:
                self.__dict__.pop(name, None)
        self.notify("on_train_end", X=train.inputs, y=None)
        self._set_training(False)
        self.n_iter_ = len(self.history)

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run one pass over the batches and record the mean of each term of the loss.

        Parameters
        ----------
        iterator : iterable of Batch or None
            None does nothing.
        training : bool
            Whether the student learns.
        prefix : {"train", "valid"}
            What the records start with.
        step_fn : callable
            Called with each batch.
        **fit_params
            Not used; part of skorch's signature.
        """
        if iterator is None:
            return
        sums: dict[str, Tensor] = {}
        outputs, targets, n_batches = [], [], 0
        at_begin, at_end = (listeners(self, event) for event in ("on_batch_begin", "on_batch_end"))
        self._at_gradients = listeners(self, "on_grad_computed")
        for batch in iterator:
            self.history.new_batch()
            pair = (batch.inputs, batch.targets)  # what skorch's callbacks call a batch
            for notify in at_begin:
                notify(self, batch=pair, training=training)
            step = step_fn(batch)
            for notify in at_end:
                notify(self, batch=pair, training=training, **step)
            n_batches += 1
            for name, value in step.items():
                if value.ndim > 0 or (name == "task_loss" and value is step["loss"]):
                    continue
                # Added up where it is: reading each number would stall a GPU, and keeping them
                # in a list would fragment the memory between the steps.
                if name not in sums:
                    dtype = torch.float32 if value.device.type == "mps" else torch.float64
                    sums[name] = torch.zeros((), dtype=dtype, device=value.device)
                sums[name] += value.detach()
            if not training:
                outputs.append(step["y_pred"])
                targets.append(batch.targets)
        if training:
            sums.setdefault("task_loss", sums["loss"])
        for name, total in sums.items():
            self.history.record(f"{prefix}_{name}", total.item() / n_batches)
        losses = self.history[:, f"{prefix}_loss"]
        self.history.record(f"{prefix}_loss_best", losses[-1] == min(losses))
        if training:
            self.history.record("train_batch_count", n_batches)
            self._check_convergence(losses[-1])
            self._record_feature_weights(iterator.features)
        else:
            score = self._validation_score(torch.cat(outputs), torch.cat(targets), iterator.weights)
            self.history.record("valid_score", score)

    def _check_convergence(self, loss: float) -> None:
        if not np.isfinite(loss):
            self.__dict__.pop("n_iter_", None)  # nothing to predict with
            or_float32 = " Or take precision='bf16-mixed' or 'float32', which hold larger numbers."
            raise DivergenceError(
                f"The loss became {loss} in epoch {len(self.history)}: the network diverged. "
                f"Lower lr (now {self.lr}) or beta (now {self.beta_}), or scale what the "
                f"preprocessor returns.{or_float32 if self.precision == 'fp16-mixed' else ''}"
            )

    def _record_feature_weights(self, features: FeatureSubset | None) -> None:
        """Record how much the features of each model count on average."""
        weights = getattr(self.transfer_, "feature_weights", None) if self.beta_ > 0 else None
        if features is None or weights is None:
            return
        for name, columns in features.feature_slices.items():
            self.history.record(f"feature_weight_{name}", weights[columns].mean().item())

    def train_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Let one batch teach the student.

        Parameters
        ----------
        batch : Batch
            Inputs, targets, features and weights of some rows.
        **fit_params
            Not used; part of skorch's signature.

        Returns
        -------
        step : dict of Tensor
            As of `train_step_single`; of the first call, where the optimizer makes several.
        """
        steps: list[dict[str, Tensor]] = []

        def loss_and_gradients() -> Tensor:
            for group in self.optimizer_.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
            steps.append(self.train_step_single(batch))
            self._mixed_precision.unscale(self.optimizer_)
            for notify in self._at_gradients:
                named = TeeGenerator(self.get_all_learnable_params())
                notify(self, named_parameters=named, batch=batch, training=True)
            return steps[-1]["loss"]

        self._mixed_precision.step(self.optimizer_, loss_and_gradients)
        return steps[0]

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of one batch and its gradients.

        Parameters
        ----------
        batch : Batch
            Inputs, targets, features and weights of some rows.
        **fit_params
            Not used; part of skorch's signature.

        Returns
        -------
        step : dict of Tensor
            "loss" and its terms, "task_loss" and with transfer "transfer_loss"; "y_pred".
        """
        self._set_training(True)
        logits, features = self._infer_to_learn(batch)
        labeled = logits if batch.targets is None else logits[: len(batch.targets)]
        loss = task_loss(self.criterion_, labeled, batch, self._mean_weight)
        step = {"loss": loss, "task_loss": loss, "y_pred": labeled}
        if batch.features is not None:
            step["transfer_loss"] = transfer_loss(
                self.transfer_,
                features,
                batch.features,
                logits,
                has_masked_rows=self._has_masked_rows,
            )
            step["loss"] = loss + self.beta_ * step["transfer_loss"]
        self._mixed_precision.backward(step["loss"])
        return step

    def _infer_to_learn(self, batch: Batch) -> tuple[Tensor, Any]:
        """Return outputs and, for the transfer, features in float32."""
        with self._mixed_precision.autocast():
            logits, features = self.infer(batch.inputs)
        if batch.features is not None:
            if features is None:
                features = self._last_linear.take()
            else:
                self._last_linear.remove()  # need not be watched, which costs time
        if self.compile and self._compiled is None:
            # From the second batch on: watching a network is over, or part of it, by then.
            self._compiled = compiled(self.module_, **self.get_params_for("compile"))
        restored = self._mixed_precision.restored
        if isinstance(features, tuple):
            features = tuple(restored(part) for part in features)
        elif features is not None:
            features = restored(features)
        return restored(logits), features

    def validation_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the task loss of one batch of the validation rows, as `train_step_single`."""
        self._set_training(False)
        with torch.no_grad():
            logits, _ = self.infer(batch.inputs)
            return {
                "loss": task_loss(self.criterion_, logits, batch, self._mean_weight),
                "y_pred": logits,
            }

    def infer(self, x: Inputs, **fit_params: Any) -> tuple[Tensor, Any]:
        """Run the student.

        Parameters
        ----------
        x : Tensor, or dict of these or of dict
            Inputs of one batch.
        **fit_params
            Not used; part of skorch's signature.

        Returns
        -------
        logits : Tensor of shape (B, n_outputs)
            What the student says.
        features : Tensor of shape (B, p), tuple of Tensor of shape (B, p_part), or None
            The input of its last linear layer, if the student returns it; or what is multiplied
            to get it.
        """
        module = self.module_
        if self.compile and self._compiled is not None and module.training:
            module = self._compiled
        outputs = module(**x) if isinstance(x, Mapping) else module(x)
        logits, features = outputs[:2] if isinstance(outputs, tuple) else (outputs, None)
        if logits.ndim == 1 and self.n_outputs_ == 1:
            logits = logits.unsqueeze(1)
        if logits.ndim != 2 or logits.shape[1] != self.n_outputs_:
            raise ValueError(
                f"The module returned outputs of shape {tuple(logits.shape)}, expected "
                f"(n_rows, {self.n_outputs_}): one column for each class or target."
            )
        return logits, features

    def _set_training(self, training: bool = True) -> None:
        if self.module_.training != training:
            super()._set_training(training)
