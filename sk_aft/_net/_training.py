"""Epochs of batches, and what one batch teaches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.utils import TeeGenerator
from torch import Tensor

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


def n_epochs_to_make(max_epochs: int | str, n_batches: int) -> int:
    """Return ``max_epochs`` as a number, given how many batches an epoch has."""
    if max_epochs == "auto":
        return max(_FEWEST_EPOCHS, math.ceil(_FEWEST_STEPS / n_batches))
    return int(max_epochs)


class Training(NeuralNet):
    """The part of `StudentNet` that trains what was built: skorch's loop, batch by batch."""

    def _train(self, train: RowBatches, valid: RowBatches | None, n_epochs: int) -> None:
        last_linear = LastLinearInput(self.module_) if self.beta_ > 0 else None
        self._last_linear = last_linear
        self._is_training = True
        self._has_masked_rows = train.features is not None and train.features.has_masked_rows
        datasets = {
            "dataset_train": train.inputs,
            "dataset_valid": None if valid is None else valid.inputs,
        }
        self.notify("on_train_begin", X=train.inputs, y=None)
        try:
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
            if last_linear is not None:
                last_linear.remove()
            del self._last_linear, self._has_masked_rows, self._is_training
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
                if value.ndim == 0:
                    # Added up where it is: reading each number would stall a GPU, and keeping
                    # them in a list would fragment the memory between the steps.
                    if name not in sums:
                        sums[name] = torch.zeros((), dtype=torch.float64, device=value.device)
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
            raise ValueError(
                f"The loss became {loss} in epoch {len(self.history)}: the network diverged. "
                f"Lower lr (now {self.lr}) or beta (now {self.beta_}), or scale what the "
                "preprocessor returns."
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
            for notify in self._at_gradients:
                named = TeeGenerator(self.get_all_learnable_params())
                notify(self, named_parameters=named, batch=batch, training=True)
            return steps[-1]["loss"]

        self.optimizer_.step(loss_and_gradients)
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
            "loss"; with transfer its terms "task_loss" and "transfer_loss"; "y_pred".
        """
        self._set_training(True)
        logits, features = self.infer(batch.inputs)
        labeled = logits if batch.targets is None else logits[: len(batch.targets)]
        loss = task_loss(self.criterion_, labeled, batch, self._mean_weight)
        step = {"loss": loss, "y_pred": labeled}
        if batch.features is not None:
            if features is None:
                features = self._last_linear.take()
            else:
                self._last_linear.remove()  # need not be watched, which costs time
            step["transfer_loss"] = transfer_loss(
                self.transfer_,
                features,
                batch.features,
                logits,
                has_masked_rows=self._has_masked_rows,
            )
            step["task_loss"] = loss
            step["loss"] = loss + self.beta_ * step["transfer_loss"]
        step["loss"].backward()
        return step

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
        outputs = self.module_(**x) if isinstance(x, Mapping) else self.module_(x)
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
