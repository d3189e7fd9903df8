"""Everything that a student overrides of skorch's training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import GradientNormClipping, LRScheduler
from skorch.history import History
from skorch.utils import TeeGenerator
from torch import Tensor

from sk_aft._data._batches import Batch
from sk_aft._data._tensors import Inputs
from sk_aft._deployment._teachers import started_from
from sk_aft._parameters import PrefixedParameters, reject_unknown
from sk_aft._runtime._processes import current_processes
from sk_aft._student import _callbacks, _components, _training
from sk_aft._student._attributes import FittedAttributes
from sk_aft._student._mixed_precision import MixedPrecision
from sk_aft.modules._parameter_groups import (
    freeze_layers,
    keep_frozen_statistics,
    parameter_groups,
    trained_parameters,
)


class SkorchHooks(FittedAttributes, PrefixedParameters, NeuralNet):
    """How skorch builds and trains a student; base class of `StudentEstimator`."""

    # Attributes that skorch reads from a net, but that are not parameters here.
    train_split = None
    iterator_train = None
    iterator_valid = None
    dataset = None
    predict_nonlinearity = None
    use_caching = "auto"
    torch_load_kwargs = None
    device: Any

    # The two states as skorch sees them.

    @property
    def initialized_(self) -> bool:
        """Whether there is a network."""
        return hasattr(self, "module_")

    @property
    def history_(self) -> History | None:
        """Losses, their terms and times of every epoch; None before ``fit``."""
        return getattr(getattr(self, "_student", None), "history", None)

    @history_.setter
    def history_(self, history: History) -> None:
        self._student.history = history

    _modules = ["module"]
    _optimizers = ["optimizer"]
    prefixes_ = [*NeuralNet.prefixes_, "module", "criterion", "transfer", "optimizer"]
    cuda_dependent_attributes_ = ["module_", "criterion_", "transfer_", "optimizer_"]

    _further_criteria: tuple[str, ...] = ()

    @property
    def _criteria(self) -> list[str]:
        transfer = ["transfer"] if hasattr(self, "transfer_") else []
        return ["criterion", *transfer, *self._further_criteria]

    @_criteria.setter
    def _criteria(self, names: list[str]) -> None:
        # A subclass may add criteria in initialize_criterion.
        self._further_criteria = tuple(set(names) - {"criterion", "transfer"})

    # Hooks of skorch: building.

    def initialize(self) -> SkorchHooks:
        """Build all parts. Only possible in a fit, whose rows determine the network's sizes."""
        if self._training is None or not self._training.is_active:
            raise RuntimeError("The network is built from its rows: call fit or partial_fit.")
        self.check_training_readiness()
        self._initialize_callbacks()
        self._initialize_module()
        self._initialize_criterion()
        self._initialize_optimizer()
        return self

    @property
    def _default_callbacks(self) -> list:
        run, given = self._training, self.callbacks or ()
        if run is None:
            return []  # they depend on the number of steps
        # The user's own replace the defaults: the effects of two schedulers would multiply.
        keeps_lr = run.plan.is_incremental or _callbacks.has_one_of(LRScheduler, given)
        keeps_norms = _callbacks.has_one_of(GradientNormClipping, given)
        return _callbacks.default_callbacks(
            n_epochs=run.schedule.n_epochs,
            n_steps=run.schedule.n_steps,
            warmup=0.0 if keeps_lr else run.schedule.warmup,
            falls=self.lr_schedule == "cosine" and not keeps_lr,
            max_gradient_norm=None if keeps_norms else run.schedule.max_gradient_norm,
            patience=self.n_iter_no_change if self.early_stopping else None,
            verbose=self._verbosity,
        )

    def initialize_callbacks(self) -> SkorchHooks:
        """Build the callbacks; raise before training if one cannot work."""
        _callbacks.reject_other_types(self.callbacks or ())
        names = [name for name, _ in self._uniquely_named_callbacks()]
        _callbacks.reject_unknown_names(self.get_params_for("callbacks"), names)
        super().initialize_callbacks()
        # It ends an epoch for the callbacks after it, so the user's come before.
        self.callbacks_ = sorted(self.callbacks_, key=lambda named: named[0] == "early_stopping")
        if not self.early_stopping:
            _callbacks.reject_idle_monitors(callback for _, callback in self.callbacks_)
        return self

    def initialize_module(self) -> SkorchHooks:
        """Build the network."""
        reject_unknown("compile", torch.compile, self.get_params_for("compile"))
        student = self._student
        takes_sparse = getattr(self.optimizer, "supports_sparse", False)
        # Callbacks that read gradients, such as GradientNormClipping, need dense ones.
        takes_sparse = takes_sparse and not self._listeners("on_grad_computed")
        takes_sparse = takes_sparse and self._run.plan.processes.count == 1
        parameters = self.get_params_for("module")
        self.module_ = _components.build_module(
            _components.network_to_build(self.module, parameters, student.inputs),
            parameters,
            sizes={**student.inputs.sizes, "n_outputs": student.n_outputs, "sparse": takes_sparse},
            device=student.device,
            made_in=self._run.users_dtype,
        )
        if self._run.start is not None:
            models = self._run.start(self.module_)
            student.started_from = started_from(self.module, parameters, student.module, models)
            self._run.start = None
        freeze_layers(self.module_)
        return self

    def initialize_criterion(self) -> SkorchHooks:
        """Build the task loss and, unless beta is 0, the transfer objective."""
        run, student = self._run, self._student
        self.criterion_ = _components.build_criterion(
            self.criterion,
            self.get_params_for("criterion"),
            is_weighted=run.is_weighted,
            device=student.device,
            made_in=run.users_dtype,
        )
        student.targets.check_criterion(student.criterion)
        if student.beta > 0 and student.transfer is None:
            self._initialize_transfer()
        return self

    def _initialize_transfer(self) -> None:
        run, student = self._run, self._student
        features = _components.penultimate_features(student.module, self.infer, run.example)
        self.transfer_ = _components.build_transfer(
            student.transfer_method,
            self.get_params_for("transfer"),
            n_features=student.n_foundation_features,
            n_student_features=features.shape[1],
            n_outputs=student.n_outputs,
            feature_slices=run.feature_slices,
            column_slices=run.column_slices,
            device=student.device,
            made_in=self._run.users_dtype,
        )

    def initialize_optimizer(self, triggered_directly: Any = None) -> SkorchHooks:
        """Build the optimizer; the transfer objective's parameters have their own learning rate."""
        student, schedule = self._student, self._run.schedule
        named = trained_parameters(student.module)
        (groups,), parameters = self.get_params_for_optimizer("optimizer", named)
        parameters = _components.optimizer_arguments(self.optimizer, parameters, schedule)
        if not getattr(self, "optimizer__param_groups", None):
            decay = parameters.get("weight_decay")
            groups = parameter_groups(student.module, schedule.lr, decay)
        self.optimizer_ = _components.build_optimizer(
            self.optimizer,
            groups,
            parameters,
            module=student.module,
            transfer=student.transfer if student.beta > 0 else None,
            transfer_lr=self.transfer_lr,
            # With infinite gradients, a fused step would be skipped for only some of the weights.
            can_fuse=self.precision != "16-mixed" and student.device.type in ("cpu", "cuda"),
        )
        self._run.precision = MixedPrecision(self.precision, student.device, self.optimizer_)
        return self

    def _initialize_module(self, reason: Any = None) -> None:
        with self._current_init_context("module"):
            self.initialize_module()

    def _initialize_criterion(self, reason: Any = None) -> None:
        with self._current_init_context("criterion"):
            self.initialize_criterion()

    def _initialize_optimizer(self, reason: Any = None) -> None:
        with self._current_init_context("optimizer"):
            self.initialize_optimizer()

    @property
    def _verbosity(self) -> int:
        """``verbose`` in the main process; the others are silent."""
        return 0 if current_processes().index else self.verbose

    # Hooks of skorch: training. Arguments and results are skorch's, except that a batch is
    # a `Batch` with inputs, targets, features and weights.

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run one pass over batches and record the mean of each term of the loss."""
        if iterator is None:
            return
        result = _training.run_batches(
            iterator,
            step_fn,
            is_training=training,
            **self._batch_callers(training, prefix),
        )
        student, processes, scores = self._student, self._run.plan.processes, {}
        if not training:
            outputs, targets = torch.cat(result.outputs), torch.cat(result.targets)
            score = student.targets.score(outputs, targets, iterator.weights)
            scores = {"valid_score": score}
        means = dict(processes.mean_of({**result.means, **scores}))
        if training:
            processes.copy_from_main(student.module.buffers())
        records: dict[str, Any] = {name: means.pop(name) for name in scores}
        for name, mean in means.items():
            self.history.record(f"{prefix}_{name}", mean)
        losses = self.history[:, f"{prefix}_loss"]
        self.history.record(f"{prefix}_loss_best", losses[-1] == min(losses))
        if training:
            lr = self._run.schedule.lr
            _training.check_convergence(self.history, student.beta, lr, self.precision)
            records["train_batch_count"] = result.n_batches
            if iterator.features is not None:
                slices = self._run.feature_slices
                records |= _training.mean_feature_weights(student.transfer, slices)
        for name, value in records.items():
            self.history.record(name, value)

    def train_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Train the student on one batch; return the terms of its loss."""
        run = self._run

        def at_gradients() -> None:
            for notify in run.gradient_listeners:
                named = TeeGenerator(self.get_all_learnable_params())
                notify(self, named_parameters=named, batch=batch, training=True)

        step = partial(self.train_step_single, batch)
        made = _training.make_step(
            run.optimizer,
            run.precision,
            step,
            processes=run.plan.processes,
            at_gradients=at_gradients,
        )
        student = self._student
        if not student.has_checked_outputs:
            student.has_checked_outputs = self._check_outputs(made["y_pred"].detach())
        return made

    def _check_outputs(self, outputs: Tensor) -> bool:
        student, is_users = self._student, not isinstance(self.module, str)
        return student.targets.check_outputs(outputs, student.criterion, is_users=is_users)

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of one batch, its terms and the gradients."""
        run, student = self._run, self._student
        self._set_training(True)
        step = _training.batch_loss(
            batch,
            run.network,
            self.infer,
            criterion=student.criterion,
            transfer=student.transfer,
            beta=student.beta,
            mean_weight=run.plan.mean_weight,
            has_untaught_rows=run.has_untaught_rows,
            mixup=self.mixup,
        )
        run.precision.backward(step["loss"])
        return step

    def validation_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the task loss of one batch of held-out rows."""
        self._set_training(False)
        with torch.no_grad():
            return _training.validation_loss(
                batch,
                self.infer,
                criterion=self._student.criterion,
                mean_weight=self._run.plan.mean_weight,
            )

    def infer(self, x: Inputs, **fit_params: Any) -> tuple[Tensor, Any]:
        """Run the network: return logits, and its features or None."""
        student = self._student
        network = None if self._training is None else self._training.network
        called = student.module
        if network is not None and self.compile and called.training:
            called = network.callable
        return _training.run_network(called, x, student.n_outputs)

    def _set_training(self, training: bool = True) -> None:
        if self.module_.training != training:
            super()._set_training(training)
            keep_frozen_statistics(self.module_)

    def _listeners(self, event: str) -> list[Callable]:
        return _callbacks.listeners([self, *dict(self.callbacks_).values()], event)

    def _batch_callers(self, training: bool, prefix: str) -> dict[str, Callable[..., None]]:
        """Return functions that notify callbacks of the beginning and the end of a batch."""
        history, encoder = self.history, self._student.targets
        begin, end = self._listeners("on_batch_begin"), self._listeners("on_batch_end")

        def at_begin(batch: Batch) -> None:
            history.new_batch()
            for notify in begin:
                notify(self, batch=_callbacks.BatchView(batch, encoder), training=training)

        def at_end(batch: Batch, step: dict[str, Tensor]) -> None:
            outputs = step["y_pred"].detach()
            history.record_batch(f"{prefix}_batch_size", len(outputs))
            view = _callbacks.BatchView(batch, encoder)
            for notify in end:
                notify(self, batch=view, training=training, **{**step, "y_pred": outputs})

        return {"at_begin": at_begin, "at_end": at_end}

    check_data = _components.unused_hook("check_data", "preprocessor=")
    get_dataset = _components.unused_hook("get_dataset", "preprocessor=")
    get_iterator = _components.unused_hook("get_iterator", "batch_size= and preprocessor=")
    get_split_datasets = _components.unused_hook("get_split_datasets", "early_stopping=")
    get_loss = _components.unused_hook("get_loss", "criterion=")
    fit_loop = _components.unused_hook("fit_loop", "callbacks=")
    get_train_step_accumulator = _components.unused_hook("get_train_step_accumulator", "train_step")
    evaluation_step = _components.unused_hook("evaluation_step", "forward_iter")
