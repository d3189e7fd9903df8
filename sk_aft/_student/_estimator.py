"""StudentEstimator: the way from rows to a trained network, and all that overrides skorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNCHANGED
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.history import History
from skorch.utils import TeeGenerator
from torch import Tensor, nn

from sk_aft._data._batches import Batch, RowBatches
from sk_aft._data._labels import known_targets
from sk_aft._data._tensors import Inputs
from sk_aft._parameters import PrefixedParameters, reject_unknown
from sk_aft._runtime._device import resolve_device
from sk_aft._runtime._seeds import draw_seed, seeded_torch
from sk_aft._runtime._threads import fitting_threads, flushed_denormals
from sk_aft._student import _callbacks, _components, _persistence, _training
from sk_aft._student._mixed_precision import PRECISIONS, MixedPrecision
from sk_aft._student._plan import (
    TrainingPlan,
    TransferChoice,
    built_with,
    check_unchanged,
    resolve_transfer,
)
from sk_aft._student._prediction import network_outputs
from sk_aft._student._schema import check_rows
from sk_aft._student._state import (
    StudentState,
    TrainingState,
    resume_student,
    start_student,
    student_batches,
    unchanged_on_error,
)
from sk_aft._student._targets import Targets
from sk_aft._student._training import TrainedNetwork
from sk_aft._student._training_data import TrainingData, check_labeled, check_training_data
from sk_aft._student._trials import TransferTrials, choose_transfer
from sk_aft.exceptions import DivergenceError


def _kept_in(state: str, name: str, doc: str) -> Any:
    """Return a property for what skorch and users know as an attribute of the estimator."""

    def read(net: StudentEstimator) -> Any:
        value = getattr(getattr(net, state), name, None)
        if value is None:
            raise AttributeError(f"{type(net).__name__} has no {name}_ before fit.")
        return value

    def write(net: StudentEstimator, value: Any) -> None:
        setattr(getattr(net, state), name, value)

    return property(read, write, doc=doc)


class StudentEstimator(PrefixedParameters, NeuralNet):
    """A small network trained on its task and on foundation features at the same time.

    Base class of `AFTClassifier` and `AFTRegressor`, which document the parameters and say what
    targets are. Beside its parameters it holds two objects: ``_fitted``, a `StudentState`, which
    is set once a fit has succeeded and is what a pickle holds; and ``_training``, a
    `TrainingState`, which exists from the first fit on and is never saved. While a training is
    under way, callbacks see the student that is trained.
    """

    _parameter_constraints: dict = {
        "module": [StrOptions({"auto"}), nn.Module, type, callable],
        "transfer": [str, nn.Module, list, None],
        "beta": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "preprocessor": "no_validation",
        "lr": [Interval(Real, 0, None, closed="neither")],
        "transfer_lr": [Interval(Real, 0, None, closed="left")],
        "optimizer": [type, callable],
        "criterion": [type, nn.Module, callable],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr_schedule": [StrOptions({"cosine", "constant"})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "missing_label": "no_validation",
        "unlabeled_fraction": [Interval(Real, 0, 1, closed="neither")],
        "callbacks": [list, None],
        "random_state": ["random_state"],
        "device": [str, torch.device],
        "precision": [StrOptions(PRECISIONS)],
        "compile": ["boolean"],
        "verbose": ["verbose"],
    }

    # What skorch looks up on a net and this one does not offer as parameters.
    train_split = None
    iterator_train = None
    iterator_valid = None
    dataset = None
    predict_nonlinearity = None
    use_caching = "auto"
    torch_load_kwargs = None
    _modules = ["module"]
    _optimizers = ["optimizer"]
    prefixes_ = [*NeuralNet.prefixes_, "module", "criterion", "transfer", "optimizer"]

    _targets_type: type[Targets]
    _fitted: StudentState | None = None
    _training: TrainingState | None = None

    module_ = _kept_in("_student", "module", "The trained network.")
    criterion_ = _kept_in("_student", "criterion", "The task loss.")
    transfer_ = _kept_in("_student", "transfer", "The transfer objective that was used.")
    optimizer_ = _kept_in("_training", "optimizer", "The optimizer of the last training.")
    callbacks_ = _kept_in("_training", "callbacks", "The callbacks of the last training.")

    # ---- from rows to a trained network

    def _fit(
        self,
        X: Any,
        y: Any,
        features: Any,
        sample_weight: Any,
        X_unlabeled: Any = None,
        *,
        incremental: bool = False,
        classes: Any = None,
    ) -> None:
        """Do the work of ``fit`` and ``partial_fit`` for both subclasses: check, plan, train."""
        resumed = self._fitted if incremental or self.warm_start else None
        parameters = self.get_params()
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True.")
        if incremental and resumed is None and classes is None and self._targets_type.needs_classes:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if resumed is not None and self._training is not None:
            before, now = self._training.built_with, built_with(parameters)
            check_unchanged(before, now, built=resumed.built)
        data = check_training_data(
            X,
            y,
            features,
            sample_weight,
            X_unlabeled,
            targets=self._targets_type,
            classes=classes,
            known=None if resumed is None else (resumed.schema, resumed.targets),
            missing_label=self.missing_label,
            class_weight=getattr(self, "class_weight", None),
            allow_nan=not (self.preprocessor is None or isinstance(self.preprocessor, str)),
            owner=type(self).__name__,
        )
        kept = {} if resumed is None else resumed.kept_transfer
        transfer, trials = resolve_transfer(parameters, data, **kept), None
        if resumed is not None:
            self._train(data, transfer, copy.deepcopy(resumed.random), resumed, incremental)
            return
        seed = draw_seed(self.random_state)
        if self.beta == "auto" and transfer.beta > 0 and not incremental:
            transfer, trials = choose_transfer(
                data,
                transfer,
                parameters,
                self._try,
                chooses_method=self.transfer == "auto" and not self.get_params_for("transfer"),
                seed=seed,
            )
        random = np.random.RandomState(seed)
        self._train(data, transfer, random, None, incremental, trials=trials)

    def _train(
        self,
        data: TrainingData,
        transfer: TransferChoice,
        random: np.random.RandomState,
        resumed: StudentState | None,
        incremental: bool,
        *,
        trials: TransferTrials | None = None,
        shared: dict[str, Any] | None = None,
    ) -> None:
        """Plan, build and train; what was fitted before stays whole until this succeeds."""
        has_new_targets = resumed is not None and resumed.replaces_features
        if transfer.beta == 0 or (has_new_targets and not data.has_distinct_targets()):
            # Rows without a target teach nothing; a probe of this piece would know nothing.
            data = data.without_features()
        plan = TrainingPlan.of(
            self.get_params(),
            data,
            transfer,
            device=resolve_device(self.device) if resumed is None else resumed.device,
            random=random,
            split_seed=None if resumed is None else resumed.split_seed,
            is_incremental=incremental,
        )
        if resumed is None:
            student, tensors = start_student(
                data,
                plan,
                preprocessor=self.preprocessor,
                preprocessor_parameters=self.get_params_for("preprocessor"),
                keeps_integers=self.module != "auto",
                random=random,
                trials=trials,
            )
        else:
            student, tensors = resume_student(resumed, data, plan, random)
        batches, held_out = student_batches(student, data, plan, tensors)
        state = TrainingState.of(plan, student, data, batches, self.get_params())
        self._run(state, batches, held_out, resumed, shared)
        self._fitted = student

    def _run(
        self,
        state: TrainingState,
        batches: RowBatches,
        held_out: RowBatches | None,
        resumed: StudentState | None,
        shared: dict[str, Any] | None,
    ) -> None:
        """Build what is trained and run the epochs; callbacks see it from here on."""
        plan, student, former = state.plan, state.student, self._training
        optimizer = None if former is None else former.optimizer
        had_transfer = student.transfer is not None
        self._training = state
        try:
            with seeded_torch(plan.seed, plan.device), unchanged_on_error(resumed, optimizer):
                if resumed is None:
                    self.initialize()
                else:
                    self._resume(former)
                if batches.features is not None:
                    state.has_missing_features = bool(batches.features.missing_mask.any())
                    if not had_transfer or student.replaces_features:
                        batches = self._fit_transfer(batches, shared)
                with fitting_threads(student.module), flushed_denormals():
                    self._run_epochs(batches, held_out)
        except KeyboardInterrupt:
            if self._fitted is None and len(student.history):
                student.n_iter = len(student.history)
                self._fitted = student  # interrupted in its first fit: keeps what it learned
            else:
                self._training = former
            raise
        except BaseException:
            self._training = former
            raise
        finally:
            state.is_active = False
        student.n_iter = len(student.history)

    def _run_epochs(self, batches: RowBatches, held_out: RowBatches | None) -> None:
        state = self._training
        state.network = TrainedNetwork(
            state.student.module,
            state.precision,
            needs_features=state.plan.transfer.beta > 0,
            compile_parameters=self.get_params_for("compile") if self.compile else None,
            compiled=getattr(state.network, "compiled", None),
        )

        def epoch(rows: RowBatches | None, training: bool) -> None:
            prefix = "train" if training else "valid"
            step = self.train_step if training else self.validation_step
            self.run_single_epoch(rows, training, prefix, step)

        try:
            with state.precision.quiet():
                _training.train(
                    state.plan.n_epochs,
                    batches,
                    held_out,
                    epoch=epoch,
                    notify=self.notify,
                    history=self.history,
                    is_stopped=lambda: any(
                        _callbacks.has_stopped(callback) for _, callback in self.callbacks_
                    ),
                )
        finally:
            state.network.close()
        self._set_training(False)

    def _fit_transfer(self, batches: RowBatches, shared: dict[str, Any] | None) -> RowBatches:
        """Let the transfer objective look at the rows; it may replace their features."""
        plan, student = self._training.plan, self._training.student

        def student_features(indices: np.ndarray) -> np.ndarray:
            pieces = np.array_split(indices, -(-len(indices) // plan.batch_size))
            inputs = (batches.inputs.take(piece, plan.device) for piece in pieces)
            features = [self._penultimate_features(piece) for piece in inputs]
            return torch.cat(features).cpu().numpy()

        targets = _components.fit_transfer(
            student.transfer,
            batches,
            feature_slices=self._training.feature_slices,
            n_classes=student.targets.n_classes,
            student_features=student_features,
            seed=plan.seed,
            shared=shared,
        )
        student.replaces_features = targets is not None
        return batches if targets is None else batches.with_features(targets)

    def _penultimate_features(self, inputs: Inputs) -> Tensor:
        return _components.penultimate_features(self.module_, self.infer, inputs)

    def _try(
        self,
        rows: TrainingData,
        held_out: TrainingData,
        transfer: TransferChoice,
        *,
        n_epochs: int,
        seed: int,
        shared: dict[str, Any],
    ) -> np.ndarray | None:
        """Train a copy for a while; return its outputs of rows, None where it diverged."""
        trial = clone(self).set_params(
            max_epochs=n_epochs, callbacks=None, early_stopping=False, compile=False, verbose=0
        )
        for name in trial.get_params(deep=False):
            if name.startswith("callbacks__") and not name.startswith("callbacks__lr_scheduler"):
                delattr(trial, name)
        random = np.random.RandomState(seed)
        try:
            trial._train(rows, transfer, random, None, incremental=False, shared=shared)
        except DivergenceError:
            return None
        return torch.cat(list(trial._outputs(held_out.rows))).numpy()

    # ---- the states, as skorch knows them

    @property
    def _student(self) -> StudentState | None:
        """The student that is trained now; else the one that was fitted."""
        if self._training is not None and self._training.is_active:
            return self._training.student
        return self._fitted

    @property
    def _criteria(self) -> list[str]:
        has_transfer = self._student is not None and self._student.transfer is not None
        return ["criterion", "transfer"] if has_transfer else ["criterion"]

    @property
    def initialized_(self) -> bool:
        """Whether there is a network."""
        return self._student is not None and self._student.module is not None

    @property
    def history_(self) -> History | None:
        """Losses, their terms and times of every epoch; None before `fit`."""
        return None if self._student is None else self._student.history

    @history_.setter
    def history_(self, history: History) -> None:
        if self._student is not None:
            self._student.history = history

    # ---- what skorch leaves open: building

    @property
    def _default_callbacks(self) -> list:
        plan = None if self._training is None else self._training.plan
        has_cosine = self.lr_schedule == "cosine" and not (plan and plan.is_incremental)
        n_steps = 1 if plan is None else plan.n_steps
        return _callbacks.default_callbacks(
            n_cosine_steps=n_steps if has_cosine else None,
            patience=self.n_iter_no_change if self.early_stopping else None,
            verbose=self.verbose,
        )

    def initialize(self) -> StudentEstimator:
        """Build all parts; part of ``fit``, since the sizes of a network come from its rows."""
        if self._training is None or not self._training.is_active:
            raise RuntimeError(
                "The network is built from the rows: call fit, or partial_fit, in the place of "
                "initialize."
            )
        self.check_training_readiness()
        self._initialize_callbacks()
        self._initialize_module()
        self._initialize_criterion()
        self._initialize_optimizer()
        return self

    def _resume(self, former: TrainingState | None) -> None:
        """Build what training that resumes does not keep."""
        state = self._training
        self._initialize_callbacks()
        self._initialize_criterion()
        self._initialize_optimizer()
        for group in state.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # schedulers that resume ask for it
        if former is None:
            return
        state.network = former.network
        if state.plan.is_incremental and _components.same_settings(
            former.optimizer, state.optimizer
        ):
            state.optimizer.state = former.optimizer.state
            state.precision.keep(former.precision)

    def initialize_callbacks(self) -> StudentEstimator:
        """Build the callbacks; raise for what cannot work, before any training."""
        names = [name for name, _ in self._uniquely_named_callbacks()]
        _callbacks.reject_unknown_names(self.get_params_for("callbacks"), names)
        super().initialize_callbacks()
        if not self.early_stopping:
            _callbacks.reject_idle_monitors(callback for _, callback in self.callbacks_)
        return self

    def initialize_module(self) -> StudentEstimator:
        """Build the network."""
        reject_unknown("compile", torch.compile, self.get_params_for("compile"))
        student = self._training.student
        takes_sparse = getattr(self.optimizer, "supports_sparse", False)
        self.module_ = _components.build_module(
            self.module,
            self.get_params_for("module"),
            sizes={**student.inputs.sizes, "n_outputs": student.n_outputs, "sparse": takes_sparse},
            device=student.device,
        )
        return self

    def initialize_criterion(self) -> StudentEstimator:
        """Build the task loss and, unless beta is 0, the transfer objective."""
        student = self._training.student
        self.criterion_ = _components.build_criterion(
            self.criterion,
            self.get_params_for("criterion"),
            is_weighted=self._training.is_weighted,
            device=student.device,
        )
        if student.beta > 0 and student.transfer is None:
            self.initialize_transfer()
        return self

    def initialize_transfer(self) -> StudentEstimator:
        """Build the transfer objective."""
        state, student = self._training, self._training.student
        self.transfer_ = _components.build_transfer(
            student.transfer_method,
            self.get_params_for("transfer"),
            n_features=student.n_foundation_features,
            n_student_features=self._penultimate_features(state.example).shape[1],
            n_outputs=student.n_outputs,
            feature_slices=state.feature_slices,
            column_slices=state.column_slices,
            device=student.device,
        )
        return self

    def initialize_optimizer(self, triggered_directly: Any = None) -> StudentEstimator:
        """Build the optimizer; the transfer objective's parameters have their own learning rate."""
        state, student = self._training, self._training.student
        named = student.module.named_parameters()
        (groups,), parameters = self.get_params_for_optimizer("optimizer", named)
        # A fused step with infinite gradients would be left out for some of the weights only.
        can_fuse = self.precision != "fp16-mixed" and student.device.type in ("cpu", "cuda")
        self.optimizer_ = _components.build_optimizer(
            self.optimizer,
            groups,
            parameters,
            module=student.module,
            transfer=student.transfer if student.beta > 0 else None,
            transfer_lr=self.transfer_lr,
            can_fuse=can_fuse,
        )
        state.precision = MixedPrecision(self.precision, student.device, self.optimizer_)
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

    # ---- what skorch leaves open: training

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run one pass over the batches and record the mean of each term of the loss.

        Parameters
        ----------
        iterator : RowBatches or None
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
        state, student = self._training, self._training.student
        state.gradient_listeners = self._listeners("on_grad_computed")
        result = _training.run_batches(
            iterator,
            step_fn,
            history=self.history,
            is_training=training,
            at_begin=self._caller("on_batch_begin"),
            at_end=self._caller("on_batch_end"),
        )
        _training.record(self.history, prefix, result)
        if not training:
            outputs, targets = torch.cat(result.outputs), torch.cat(result.targets)
            score = student.targets.score(outputs, targets, iterator.weights)
            self.history.record("valid_score", score)
            return
        self.history.record("train_batch_count", result.n_batches)
        _training.check_convergence(
            result.means["loss"],
            epoch=len(self.history),
            lr=self.lr,
            beta=student.beta,
            precision=self.precision,
        )
        if iterator.features is not None:
            weights = _training.mean_feature_weights(student.transfer, state.feature_slices)
            for name, weight in weights.items():
                self.history.record(f"feature_weight_{name}", weight)

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
        state = self._training

        def at_gradients() -> None:
            for notify in state.gradient_listeners:
                named = TeeGenerator(self.get_all_learnable_params())
                notify(self, named_parameters=named, batch=batch, training=True)

        return _training.make_step(
            state.optimizer,
            state.precision,
            partial(self.train_step_single, batch),
            at_gradients=at_gradients,
        )

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
        state, student = self._training, self._training.student
        self._set_training(True)
        step = _training.batch_loss(
            batch,
            state.network,
            self.infer,
            criterion=student.criterion,
            transfer=student.transfer,
            beta=student.beta,
            mean_weight=state.plan.mean_weight,
            has_missing_features=state.has_missing_features,
        )
        state.precision.backward(step["loss"])
        return step

    def validation_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the task loss of one batch of the validation rows, as `train_step_single`."""
        self._set_training(False)
        with torch.no_grad():
            return _training.validation_loss(
                batch,
                self.infer,
                criterion=self.criterion_,
                mean_weight=self._training.plan.mean_weight,
            )

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
            Outputs of the student.
        features : Tensor of shape (B, p), tuple of Tensor of shape (B, p_part), or None
            The input of its last linear layer, if the student returns it; or what is multiplied
            to get it.
        """
        student = self._student
        network = None if self._training is None else self._training.network
        is_trained = network is not None and student.module.training
        module = network.callable if is_trained else student.module
        return _training.run_network(module, x, student.n_outputs)

    def _set_training(self, training: bool = True) -> None:
        if self.module_.training != training:
            super()._set_training(training)

    def _listeners(self, event: str) -> list[Callable]:
        return _callbacks.listeners([self, *dict(self.callbacks_).values()], event)

    def _caller(self, event: str) -> Callable[..., None]:
        """Return what calls all that listen to an event."""
        listeners = self._listeners(event)

        def call(**arguments: Any) -> None:
            for notify in listeners:
                notify(self, **arguments)

        return call

    # ---- what skorch leaves open: prediction

    def forward_iter(self, X: Any, training: bool = False, device: Any = "cpu") -> Iterator[Tensor]:
        """Yield the student's outputs batch by batch; never touches a foundation model.

        Parameters
        ----------
        X : FoundationFeatures or rows as for ``fit``
            Rows.
        training : bool, default=False
            Whether to run the student in training mode, dropout and all.
        device : str or torch.device, default="cpu"
            Where the outputs go.

        Yields
        ------
        logits : Tensor of shape (B, n_outputs)
            Outputs of one batch.
        """
        if self._student is None:
            check_is_fitted(self)
        rows, _ = self._check_rows(X)
        for outputs in self._outputs(rows, training):
            yield outputs.to(device)

    def _check_rows(self, X: Any) -> Any:
        return check_rows(
            X,
            self._student.schema,
            owner=type(self).__name__,
            allow_nan=not self._student.inputs.is_automatic,
        )

    def _outputs(self, rows: Any, training: bool = False) -> Iterator[Tensor]:
        """Yield the student's outputs of checked rows."""
        student = self._student
        self._set_training(training)
        return network_outputs(
            rows,
            student.inputs,
            self.infer,
            batch_size=self.batch_size,
            device=student.device,
            is_training=training,
        )

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, of a regressor R², on the rows that have a label.

        Parameters
        ----------
        X : FoundationFeatures or rows as for ``fit``
            Rows.
        y : array-like of shape (n_rows,) or (n_rows, n_outputs)
            Targets; rows marked by ``missing_label`` are left out.
        sample_weight : array-like of shape (n_rows,), optional
            Weights of the rows.

        Returns
        -------
        score : float
            At most 1.
        """
        labeled = check_labeled(y, self.missing_label)
        if not labeled.all():
            rows = np.flatnonzero(labeled)
            X, y = _safe_indexing(X, rows), known_targets(y, labeled)
            sample_weight = None if sample_weight is None else np.asarray(sample_weight)[rows]
        return super().score(X, y, sample_weight)

    # ---- attributes of a fitted student

    @property
    def preprocessor_(self) -> Any:
        """The fitted preprocessor; None where there is none."""
        return self._require().inputs.preprocessor

    @property
    def chosen_transfer_(self) -> Any:
        """The transfer method that was used, as ``transfer`` takes it."""
        chosen = self._require().transfer_method
        return list(chosen) if isinstance(chosen, list) else chosen

    @property
    def beta_(self) -> float:
        """The strength that was used."""
        return self._require().beta

    @property
    def transfer_trials_(self) -> dict[str, float]:
        """Errors in short trainings by method, where they chose it."""
        return self._trial_errors("by_method")

    @property
    def beta_trials_(self) -> dict[float, float]:
        """Errors in short trainings by strength, where they chose it."""
        return self._trial_errors("by_beta")

    @property
    def feature_weights_(self) -> np.ndarray:
        """How much each foundation feature counts, between 0 and 1; (n_foundation_features,)."""
        transfer = self._require().transfer
        if not hasattr(transfer, "feature_weights"):
            raise AttributeError(
                "feature_weights_ exists only after a fit with foundation features, beta > 0 and "
                "a transfer method that weights them."
            )
        return transfer.feature_weights.detach().cpu().numpy()

    @property
    def n_iter_(self) -> int:
        """Number of epochs run."""
        if self._fitted is None:
            raise AttributeError(f"{type(self).__name__} has no n_iter_ before fit.")
        return self._fitted.n_iter

    @property
    def loss_curve_(self) -> list[float]:
        """Mean loss of each epoch, with the transfer term; ``history_`` has the terms."""
        return self._require().history[:, "train_loss"]

    @property
    def validation_scores_(self) -> list[float] | None:
        """Score on the held out rows after each epoch; None without ``early_stopping``."""
        history = self._require().history
        scores = [epoch["valid_score"] for epoch in history if "valid_score" in epoch]
        return scores or None

    @property
    def n_features_in_(self) -> int:
        """Number of columns; only for 2-D numbers and DataFrames of several kinds of columns."""
        return self._of_schema("n_features_in")

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns, where they are strings."""
        return self._of_schema("feature_names_in")

    @property
    def device_(self) -> torch.device:
        """Where the network is."""
        return self._require().device

    def _require(self) -> StudentState:
        """Return the student; raise NotFittedError, an AttributeError, where there is none."""
        if self._student is None:
            check_is_fitted(self)
        return self._student

    def _of_schema(self, name: str) -> Any:
        value = getattr(self._require().schema, name)
        if value is None:
            raise AttributeError(f"Rows of kind {self._student.schema.kind!r} have no {name}_.")
        return value

    def _trial_errors(self, name: str) -> Any:
        errors = getattr(self._require().trials, name, None)
        if errors is None:
            raise AttributeError("There were no short trainings that chose this.")
        return errors

    # ---- saving

    def load_params(self, *args: Any, **kwargs: Any) -> None:
        """Load weights that `save_params` wrote, as skorch's Checkpoint does.

        Parameters
        ----------
        *args, **kwargs
            As of `skorch.NeuralNet.load_params`.
        """
        device = self.device
        self.device = str(self.device_)  # skorch does not know of "auto"
        try:
            super().load_params(*args, **kwargs)
        finally:
            self.device = device

    def __getstate__(self) -> dict[str, Any]:
        state = dict(BaseEstimator.__getstate__(self))
        state.pop("_training", None)
        state.pop("_fitted", None)
        if self.callbacks:
            state["callbacks"] = _persistence.without_optimizers(self.callbacks)
        state = {name: _persistence.saved_value(value) for name, value in state.items()}
        if self._student is not None:
            # A callback may save the student that is trained, between two epochs.
            student = replace(self._student, n_iter=len(self._student.history))
            state["_fitted"] = _persistence.saved_student(student)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        fitted = state.get("_fitted")
        restored = {name: _persistence.restored_value(value) for name, value in state.items()}
        if fitted is not None:
            restored["_fitted"] = _persistence.restored_student(fitted, state["device"])
        BaseEstimator.__setstate__(self, restored)

    # ---- scikit-learn

    def set_fit_request(
        self,
        *,
        features: bool | str | None = UNCHANGED,
        sample_weight: bool | str | None = UNCHANGED,
        X_unlabeled: bool | str | None = UNCHANGED,
    ) -> StudentEstimator:
        """Say which arguments of ``fit`` a pipeline, search or ensemble routes to it.

        Needs ``sklearn.set_config(enable_metadata_routing=True)``; see the chapter on metadata
        routing in scikit-learn's user guide.

        Parameters
        ----------
        features : bool, str or None
            True routes the argument, False does not, a string routes the argument of that name,
            None raises where it is given. Default: as it was.
        sample_weight, X_unlabeled : bool, str or None
            Likewise.

        Returns
        -------
        self : estimator
            The estimator itself.
        """
        requests = _changed(features=features, sample_weight=sample_weight, X_unlabeled=X_unlabeled)
        return super().set_fit_request(**requests)

    def set_partial_fit_request(
        self,
        *,
        features: bool | str | None = UNCHANGED,
        sample_weight: bool | str | None = UNCHANGED,
    ) -> StudentEstimator:
        """Say which arguments of ``partial_fit`` are routed to it, as `set_fit_request`.

        Parameters
        ----------
        features, sample_weight : bool, str or None
            As for `set_fit_request`.

        Returns
        -------
        self : estimator
            The estimator itself.
        """
        requests = _changed(features=features, sample_weight=sample_weight)
        return super().set_partial_fit_request(**requests)

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


def _changed(**requests: bool | str | None) -> dict[str, Any]:
    return {name: request for name, request in requests.items() if request != UNCHANGED}
