"""What AFTClassifier and AFTRegressor share: a skorch net that learns from foundation features."""

from __future__ import annotations

import copy
import inspect
import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNCHANGED
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, EpochTimer, LRScheduler, PrintLog
from skorch.history import History
from torch import Tensor, nn

from sk_aft._batches import Batch, Inputs, PreparedInputs, PreparedParts, RowBatches, prepare_inputs
from sk_aft._device import fitting_threads, resolve_device
from sk_aft._labels import known_targets
from sk_aft._parameters import PrefixedParameters, reject_unknown
from sk_aft._plain_modules import with_tensors, without_tensors
from sk_aft._training_data import CheckedInputs, FeatureSubset, TrainingData
from sk_aft.modules import LastLinearInput, network_for
from sk_aft.preprocessing import make_preprocessor
from sk_aft.transfer import TransferRows, make_transfer
from sk_aft.transfer._base import features_for, side_by_side

# Rows are prepared for prediction this many at a time, so that millions of images fit in memory.
_ROWS_PER_PREPARATION = 4096
_fitting = threading.RLock()
# Attributes that exist while a network is trained, or are made anew.
_NOT_SAVED = (
    *("optimizer_", "callbacks_", "device_"),
    *("_last_linear", "_has_masked_rows", "_is_training", "_example"),
    *("_feature_slices", "_column_slices", "_began_with"),
)
# What max_epochs="auto" makes at least. Few rows make few steps an epoch and would learn too
# little; more steps than these overfit noisy targets where there is no transfer.
_FEWEST_EPOCHS = 50
_FEWEST_STEPS = 200
_MONITORED_ON_HELD_OUT_ROWS = ("valid_loss", "valid_loss_best", "valid_score")
# What is built once: training that goes on keeps it.
_BUILT_ONCE = ("module", "preprocessor", "transfer")


class StudentNet(CheckedInputs, PrefixedParameters, NeuralNet):
    """A small network trained on its task and on foundation features at the same time.

    Base class of `AFTClassifier` and `AFTRegressor`, which document the parameters. Fills the
    places that skorch leaves open: ``initialize_*`` build the student, the loss, the transfer
    objective and the optimizer; ``train_step_single`` adds up the loss; ``infer`` runs the
    student. Parameters are handled as scikit-learn does.
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
        "verbose": ["verbose"],
    }

    # What skorch looks up on a net and this one does not offer as parameters.
    train_split = None
    iterator_train = None
    iterator_valid = None
    dataset = None
    predict_nonlinearity = None
    compile = False
    use_caching = "auto"
    torch_load_kwargs = None
    history_ = None
    initialized_ = False

    _is_training = False
    _is_incremental = False
    _split_seed: int | None = None
    _replaces_features = False
    _began_with: dict[str, Any] | None = None

    # Set by fit.
    rows_kind_: str
    n_outputs_: int
    beta_: float
    device_: torch.device
    preprocessor_: Any
    inputs_dtype_: Any
    device: Any
    module_sizes_: dict[str, Any]
    module_: nn.Module
    transfer_: nn.Module

    # ---------------------------------------------------------------- training

    def _learn(
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
        """Do the work of ``fit`` and ``partial_fit`` for both subclasses."""
        starts = not (self.__sklearn_is_fitted__() and (incremental or self.warm_start))
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True.")
        if starts:
            self._forget()
            if incremental and classes is None and is_classifier(self):
                raise ValueError("classes must be passed on the first call to partial_fit.")
        self._check_what_is_kept()
        data = self._check_training_data(
            X, y, features, sample_weight, X_unlabeled, reset=starts, classes=classes
        )
        if starts:
            self.device_ = resolve_device(self.device)
            self._random = np.random.RandomState(_draw_seed(self.random_state))
        self._is_incremental = incremental
        seed = self._random.randint(2**31 - 1)
        train, valid = self._make_batches(data, reset=starts)
        with _seeded_torch(seed, self.device_):
            is_new = not hasattr(self, "transfer_")
            self._example = train.inputs.take(slice(0, 2), self.device_)
            if starts:
                self.initialize()
            else:
                self._go_on()
            del self._example
            if self.beta_ > 0 and (is_new or self._replaces_features):
                self._prepare_transfer(train, seed)
            with fitting_threads(self.module_):
                self._train(train, valid, 1 if incremental else self._n_epochs(train))

    def _check_what_is_kept(self) -> None:
        """Raise if a parameter of what is built already is not what it was built with."""
        parameters = {
            name: value
            for name, value in self.get_params().items()
            if name.partition("__")[0] in _BUILT_ONCE
        }
        # A pickle holds what was built and no longer what with.
        former = self._began_with or parameters
        for name in sorted({*former, *parameters}):
            part = name.partition("__")[0]
            if hasattr(self, f"{part}_") and not _are_same(former.get(name), parameters.get(name)):
                raise ValueError(
                    f"{name} differs from what the training began with, and training that goes on "
                    f"keeps its {part}: set {name} back, or start anew with fit and "
                    "warm_start=False."
                )
        self._began_with = parameters

    def _go_on(self) -> None:
        """Initialise what a training that goes on does not keep."""
        self._initialize_callbacks()
        self._initialize_criterion()
        former: Any = vars(self).get("optimizer_")
        self._initialize_optimizer()
        for group in self.optimizer_.param_groups:
            group.setdefault("initial_lr", group["lr"])  # schedulers that go on ask for it
        if self._is_incremental and _are_alike(former, self.optimizer_):
            self.optimizer_.state = former.state

    def _forget(self) -> None:
        """Drop what an earlier fit learned, so that nothing of it survives into this one."""
        parameters = self.get_params(deep=False)
        learned = [
            name
            for name in vars(self)
            if name.endswith("_") and not name.startswith("_") and name not in parameters
        ]
        for name in learned:
            delattr(self, name)
        for name in ("_modules", "_criteria", "_optimizers"):
            self.__dict__.pop(name, None)

    def _make_batches(
        self, data: TrainingData, *, reset: bool
    ) -> tuple[RowBatches, RowBatches | None]:
        """Split, preprocess and batch the rows; set what ``initialize`` has to know of them."""
        train = np.arange(len(data.rows))
        valid = None
        if self.early_stopping:
            labeled = np.flatnonzero(data.is_labeled)
            valid = labeled[self._held_out(data.targets[labeled], reset=reset)]
            train = np.setdiff1d(train, valid)
            valid_weights = None if data.weights is None else data.weights[valid]
            if valid_weights is not None and not valid_weights.any():
                raise ValueError(
                    "All rows held out for early stopping have sample_weight 0, so there is no "
                    "validation score: raise validation_fraction, or set early_stopping=False."
                )
            self._check_validation(data.targets[valid], valid_weights)
        if data.weights is not None and not data.weights[train].any():
            raise ValueError(
                "All rows to learn from have weight 0, of sample_weight and class_weight together."
            )
        if reset:
            parameters = self.get_params_for("preprocessor")
            self.inputs_dtype_ = None
            self.preprocessor_ = make_preprocessor(self.preprocessor, data.rows.kind, **parameters)
            if self.preprocessor_ is not None:
                self.preprocessor_.fit(self._named(data.rows.values_at(train)))
        inputs = self._prepare(data.rows.values_at(train))
        if reset:
            self.inputs_dtype_ = inputs.dtype
            self.module_sizes_ = {**inputs.sizes, "n_outputs": self.n_outputs_}
        # Pieces weigh what they weigh; of rows that are all there, only the proportions count.
        self._mean_weight = 1.0
        if data.weights is not None and not self._is_incremental:
            labeled = train[data.is_labeled[train]]
            self._mean_weight = float(data.weights[labeled].mean())
        subset = None if data.features is None else FeatureSubset(data.features, train)
        if subset is not None:
            self.n_foundation_features_ = subset.shape[1]
            self._feature_slices = subset.feature_slices
            self._column_slices = subset.column_slices
        batches = RowBatches(
            inputs,
            torch.from_numpy(data.targets[train]),
            features=subset,
            weights=None if data.weights is None else torch.from_numpy(data.weights[train]).float(),
            batch_size=self.batch_size,
            device=self.device_,
            shuffle=self._random,
            is_labeled=data.is_labeled[train],
            unlabeled_fraction=self.unlabeled_fraction,
        )
        self.n_steps_ = self._n_epochs(batches) * len(batches)
        if valid is None:
            return batches, None
        weights = None if data.weights is None else torch.from_numpy(data.weights[valid]).float()
        return batches, RowBatches(
            self._prepare(data.rows.values_at(valid)),
            torch.from_numpy(data.targets[valid]),
            weights=weights,
            batch_size=self.batch_size,
            device=self.device_,
        )

    def _n_epochs(self, batches: RowBatches) -> int:
        if self.max_epochs == "auto":
            return max(_FEWEST_EPOCHS, math.ceil(_FEWEST_STEPS / len(batches)))
        return self.max_epochs

    def _held_out(self, targets: np.ndarray, *, reset: bool) -> np.ndarray:
        """Return which of the labelled rows judge the training."""
        if reset or self._split_seed is None:
            # Kept: rows that were learned from would be no judges of a training that goes on.
            self._split_seed = self._random.randint(2**31 - 1)
        _, valid = train_test_split(
            np.arange(len(targets)),
            test_size=self.validation_fraction,
            stratify=self._stratify(targets),
            random_state=self._split_seed,
        )
        return np.sort(valid)

    def _prepare(self, values: Any) -> PreparedInputs | PreparedParts:
        if self.preprocessor_ is not None:
            values = self.preprocessor_.transform(self._named(values))
        elif self.rows_kind_ in ("text", "frame"):
            what = "texts need" if self.rows_kind_ == "text" else "columns of several kinds need"
            raise ValueError(f"preprocessor=None, but {what} one that turns them into numbers.")
        integers = self.module != "auto"  # an own network may look tokens up
        return prepare_inputs(values, integers=integers, dtype=self.inputs_dtype_)

    def _named(self, values: Any) -> Any:
        """Give an own preprocessor a frame where the rows came as one."""
        names = getattr(self, "feature_names_in_", None)
        if self.rows_kind_ == "frame" or names is None or isinstance(self.preprocessor, str):
            return values
        if find_spec("pandas") is None:
            return values
        import pandas

        return pandas.DataFrame(values, columns=names)

    def _train(self, train: RowBatches, valid: RowBatches | None, n_epochs: int) -> None:
        last_linear = LastLinearInput(self.module_)
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
            if not any(_has_stopped(callback) for _, callback in self.callbacks_):
                warnings.warn("Training interrupted by user: keeping what was learned so far.")
        finally:
            if self.history and "train_loss" not in self.history[-1]:
                del self.history[-1]  # an epoch that did not end
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
        for batch in iterator:
            self.history.new_batch()
            pair = (batch.inputs, batch.targets)  # what skorch's callbacks call a batch
            self.notify("on_batch_begin", batch=pair, training=training)
            step = step_fn(batch)
            self.notify("on_batch_end", batch=pair, training=training, **step)
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
            "loss", and its terms "task_loss" and, with transfer, "transfer_loss"; "y_pred".
        """
        self._set_training(True)
        logits, features = self.infer(batch.inputs)
        labeled = logits if batch.targets is None else logits[: len(batch.targets)]
        task_loss = self._task_loss(labeled, batch)
        step = {"loss": task_loss, "task_loss": task_loss, "y_pred": labeled}
        if batch.features is not None:
            if features is None:
                features = self._last_linear.take()
            step["transfer_loss"] = self._transfer_loss(features, batch.features, logits)
            step["loss"] = task_loss + self.beta_ * step["transfer_loss"]
        step["loss"].backward()
        return step

    def validation_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the task loss of one batch of the validation rows, as `train_step_single`."""
        self._set_training(False)
        with torch.no_grad():
            logits, _ = self.infer(batch.inputs)
            return {"loss": self._task_loss(logits, batch), "y_pred": logits}

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

    def _transfer_loss(self, student: Any, foundation: Tensor, logits: Tensor) -> Tensor:
        student = features_for(self.transfer_, student)
        if self._has_masked_rows:
            known = ~foundation.isnan().any(dim=1)
            if known.sum() < 2:
                return 0.0 * logits.sum()
            foundation, logits = foundation[known], logits[known]
            is_whole = isinstance(student, Tensor)
            student = student[known] if is_whole else tuple(part[known] for part in student)
        if getattr(self.transfer_, "uses_logits", False):
            return self.transfer_(student, foundation, logits)
        return self.transfer_(student, foundation)

    def _task_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        losses = self.criterion_(logits, batch.targets)
        if losses.ndim == 0:
            if batch.weights is not None:
                raise ValueError(
                    "The criterion returns one number for the batch, so rows cannot be weighted: "
                    "give a criterion that takes reduction='none'."
                )
            return losses
        if losses.ndim > 1:
            losses = losses.flatten(1).mean(dim=1)
        if batch.weights is None:
            return losses.sum() / len(losses)
        # Relative to all rows, not to the batch: a row counts alike whatever rows it is with.
        return (losses * batch.weights).sum() / (len(losses) * self._mean_weight)

    # ---------------------------------------------------------------- skorch's places to fill

    @property
    def _default_callbacks(self) -> list:
        callbacks: list = [("epoch_timer", EpochTimer())]
        if self.lr_schedule == "cosine" and not self._is_incremental:
            n_steps = getattr(self, "n_steps_", 1)
            policy = torch.optim.lr_scheduler.CosineAnnealingLR
            scheduler = LRScheduler(
                policy=policy,
                T_max=n_steps,
                last_epoch=-1,  # training that goes on begins another cosine
                step_every="batch",
                event_name=None,
            )
            callbacks.append(("lr_scheduler", scheduler))
        if self.early_stopping:
            stopping = EarlyStopping(
                monitor="valid_score",
                lower_is_better=False,
                threshold_mode="abs",  # relative, a negative R² would improve by falling
                patience=self.n_iter_no_change,
                load_best=True,
                sink=print if self.verbose else _say_nothing,
            )
            callbacks.append(("early_stopping", stopping))
        callbacks.append(("print_log", PrintLog()))
        return callbacks

    def initialize_callbacks(self) -> StudentNet:
        """Build the callbacks; raise for what cannot work, before any training."""
        named = [name for name, _ in self._uniquely_named_callbacks()]
        for parameter in self.get_params_for("callbacks"):
            # The defaults may be switched off while their parameters stay.
            if parameter.partition("__")[0] not in {*named, "lr_scheduler", "early_stopping"}:
                raise ValueError(
                    f"Invalid parameter callbacks__{parameter}: the callbacks are {named}."
                )
        super().initialize_callbacks()
        for _, callback in self.callbacks_:
            monitor = getattr(callback, "monitor", None)
            if not self.early_stopping and monitor in _MONITORED_ON_HELD_OUT_ROWS:
                raise ValueError(
                    f"{type(callback).__name__} monitors {monitor!r}, which exists only with "
                    "early_stopping=True: set this, or monitor='train_loss'."
                )
        return self

    def initialize_module(self) -> StudentNet:
        """Build the student."""
        parameters = self.get_params_for("module")
        build = network_for(self.module_sizes_) if self.module == "auto" else self.module
        reject_unknown("module", build, parameters)
        if isinstance(build, nn.Module):
            # The estimator's parameter stays as it was given.
            self.module_ = copy.deepcopy(build).to(self.device_)
            return self
        accepted = inspect.signature(build).parameters
        known = {**self.module_sizes_, "sparse": getattr(self.optimizer, "supports_sparse", False)}
        sizes = {name: size for name, size in known.items() if name in accepted}
        self.module_ = build(**{**sizes, **parameters}).to(self.device_)
        return self

    def initialize_criterion(self) -> StudentNet:
        """Build the task loss and, unless beta is 0, the transfer objective."""
        parameters = self.get_params_for("criterion")
        reject_unknown("criterion", self.criterion, parameters)
        if isinstance(self.criterion, nn.Module):
            self.criterion_ = copy.deepcopy(self.criterion).to(self.device_)
            if hasattr(self.criterion_, "reduction"):
                self.criterion_.reduction = "none"
        else:
            if "reduction" in inspect.signature(self.criterion).parameters:
                parameters.setdefault("reduction", "none")
            self.criterion_ = self.criterion(**parameters).to(self.device_)
        if self.beta_ > 0 and not hasattr(self, "transfer_"):
            self.initialize_transfer()
        return self

    def initialize_transfer(self) -> StudentNet:
        """Build the transfer objective."""
        parameters = self.get_params_for("transfer")
        transfer = make_transfer(
            self.transfer,
            self.n_foundation_features_,
            n_student_features=self._student_features(self._example).shape[1],
            n_outputs=self.n_outputs_,
            feature_slices=self._feature_slices,
            column_slices=self._column_slices,
            **parameters,
        )
        self.transfer_ = copy.deepcopy(transfer).to(self.device_)
        return self

    def _prepare_transfer(self, train: RowBatches, seed: int) -> None:
        """Let the transfer objective look at the rows; it may replace their features."""
        prepare = getattr(self.transfer_, "prepare", None)
        if prepare is None:
            return

        def student_features(rows: np.ndarray) -> np.ndarray:
            pieces = [
                self._student_features(train.inputs.take(piece, self.device_)).cpu().numpy()
                for piece in np.array_split(rows, -(-len(rows) // self.batch_size))
            ]
            return np.concatenate(pieces)

        targets = prepare(
            TransferRows(
                features=train.features,
                targets=np.asarray(train.targets),
                is_labeled=train.is_labeled,
                is_known=~train.features.is_masked,
                feature_slices=train.features.feature_slices,
                n_classes=self.n_outputs_ if is_classifier(self) else None,
                student_features=student_features,
                seed=seed,
            )
        )
        self._replaces_features = targets is not None
        if targets is not None:
            train.features = train.features.replaced_by(targets)

    def _student_features(self, inputs: Inputs) -> Tensor:
        """Return the student's features of some rows, as they are before training."""
        last_linear = LastLinearInput(self.module_)
        was_training = self.module_.training
        self.module_.eval()
        try:
            with torch.no_grad():
                _, features = self.infer(inputs)
                return last_linear.take() if features is None else side_by_side(features)
        finally:
            last_linear.remove()
            self.module_.train(was_training)

    def initialize_optimizer(self, triggered_directly: Any = None) -> StudentNet:
        """Build the optimizer; the transfer objective's parameters have their own learning rate."""
        named = self.module_.named_parameters()
        (groups,), parameters = self.get_params_for_optimizer("optimizer", named)
        reject_unknown("optimizer", self.optimizer, parameters)
        learned = list(self.transfer_.parameters()) if self.beta_ > 0 else []
        if learned:
            groups.append({"params": learned, "lr": self.transfer_lr, "weight_decay": 0.0})
        takes_sparse = getattr(self.optimizer, "supports_sparse", False)
        has_sparse = any(getattr(layer, "sparse", False) for layer in self.module_.modules())
        can_fuse = "fused" in inspect.signature(self.optimizer).parameters
        can_fuse = can_fuse and (takes_sparse or not has_sparse)
        if can_fuse and "foreach" not in parameters and self.device_.type in ("cpu", "cuda"):
            # One kernel a step: half the time of a step where embeddings are large.
            parameters.setdefault("fused", True)
        self.optimizer_ = self.optimizer(groups, **parameters)
        return self

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

    def _initialize_module(self, reason: Any = None) -> None:
        with self._current_init_context("module"):
            self.initialize_module()

    def _initialize_criterion(self, reason: Any = None) -> None:
        with self._current_init_context("criterion"):
            self.initialize_criterion()

    def _initialize_optimizer(self, reason: Any = None) -> None:
        with self._current_init_context("optimizer"):
            self.initialize_optimizer()

    def _initialize_virtual_params(self) -> None:
        self.virtual_params_: dict = {}

    def _set_training(self, training: bool = True) -> None:
        if self.module_.training != training:
            super()._set_training(training)

    # ---------------------------------------------------------------- prediction

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
        if not self._is_training:  # callbacks may predict
            check_is_fitted(self)
        rows = self._check_rows(X, reset=False)
        self._set_training(training)
        for start in range(0, len(rows), _ROWS_PER_PREPARATION):
            prepared = self._prepare(rows.values_at(slice(start, start + _ROWS_PER_PREPARATION)))
            for batch in RowBatches(prepared, batch_size=self.batch_size, device=self.device_):
                with torch.inference_mode():
                    logits, _ = self.infer(batch.inputs)
                yield logits.to(device)

    @property
    def feature_weights_(self) -> np.ndarray:
        """How much each foundation feature counts, between 0 and 1; (n_foundation_features,)."""
        check_is_fitted(self, "module_")
        if not hasattr(vars(self).get("transfer_"), "feature_weights"):
            raise AttributeError(
                "feature_weights_ exists only after a fit with foundation features, beta > 0 and "
                "a transfer method that weights them."
            )
        return self.transfer_.feature_weights.detach().cpu().numpy()

    @property
    def loss_curve_(self) -> list[float]:
        """Mean loss of each epoch, with the transfer term; ``history_`` has the terms."""
        check_is_fitted(self)
        return self.history[:, "train_loss"]

    @property
    def validation_scores_(self) -> list[float] | None:
        """Score on the held out rows after each epoch; None without ``early_stopping``."""
        check_is_fitted(self)
        scores = [epoch["valid_score"] for epoch in self.history if "valid_score" in epoch]
        return scores or None

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
        labeled = self._check_labeled(y)
        if not labeled.all():
            rows = np.flatnonzero(labeled)
            X, y = _safe_indexing(X, rows), known_targets(y, labeled)
            sample_weight = None if sample_weight is None else np.asarray(sample_weight)[rows]
        return super().score(X, y, sample_weight)

    # ---------------------------------------------------------------- scikit-learn's contract

    def set_fit_request(
        self,
        *,
        features: bool | str | None = UNCHANGED,
        sample_weight: bool | str | None = UNCHANGED,
        X_unlabeled: bool | str | None = UNCHANGED,
    ) -> StudentNet:
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
    ) -> StudentNet:
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
        return hasattr(self, "n_iter_")

    def __getstate__(self) -> dict[str, Any]:
        # What is needed to predict and to go on, in types that need no pickle to be read. The
        # optimizer's state would be as big as two more networks.
        state = dict(BaseEstimator.__getstate__(self))
        if self._is_training:  # saved by a callback, between two epochs
            state["n_iter_"] = len(self.history)
        for name in _NOT_SAVED:
            state.pop(name, None)
        if self.callbacks:
            state["callbacks"] = [_without_scheduler(callback) for callback in self.callbacks]
        if "history_" in state:
            state["history_"] = list(state["history_"])
        return {name: _saved(value) for name, value in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        restored = {name: _restored(value) for name, value in state.items()}
        BaseEstimator.__setstate__(self, restored)
        if hasattr(self, "module_"):
            self.history_ = History(self.history_ or [])
            self.device_ = _available(self.device)
            for name in ("module_", "criterion_", "transfer_"):
                if isinstance(vars(self).get(name), nn.Module):
                    vars(self)[name].to(self.device_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


def _are_alike(one: Any, other: Any) -> bool:
    """Whether two optimizers differ in their learning rates at most."""
    if type(one) is not type(other):
        return False
    names = {*one.defaults, *other.defaults} - {"lr"}
    return all(one.defaults.get(name) == other.defaults.get(name) for name in names)


def _are_same(one: Any, other: Any) -> bool:
    return one is other or np.array_equal(one, other)


def _changed(**requests: bool | str | None) -> dict[str, Any]:
    return {name: request for name, request in requests.items() if request != UNCHANGED}


def _draw_seed(random_state: Any) -> int:
    return check_random_state(random_state).randint(2**31 - 1)


@contextmanager
def _seeded_torch(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch and put its global random state back afterwards.

    All threads share that state, so one of them fits at a time.
    """
    devices = [device] if device.type == "cuda" else []
    with _fitting, torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":  # this one only: others' states are not put back
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield


def _has_stopped(callback: Any) -> bool:
    return isinstance(callback, EarlyStopping) and callback.misses_ >= callback.patience


def _say_nothing(text: str) -> None:
    pass


def _without_scheduler(callback: Any) -> Any:
    """Return a callback without the optimizer that a scheduler of torch holds."""
    if isinstance(callback, tuple):
        return (callback[0], _without_scheduler(callback[1]))
    if getattr(callback, "lr_scheduler_", None) is None or isinstance(callback, type):
        return callback
    callback = copy.copy(callback)
    callback.lr_scheduler_ = None
    return callback


def _saved(value: Any) -> Any:
    return without_tensors(value) if isinstance(value, nn.Module) else value


def _restored(value: Any) -> Any:
    return with_tensors(value) if isinstance(value, nn.Module) else value


def _available(device: Any) -> torch.device:
    """Return the device to use in this process, which may lack the one that was trained on."""
    try:
        return resolve_device(device)
    except ValueError:
        return torch.device("cpu")


def _reset_after_fork() -> None:
    global _fitting
    _fitting = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
