"""StudentEstimator: from rows to a trained network, and back to predictions."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from torch import Tensor, nn

from sk_aft._data._batches import RowBatches
from sk_aft._data._feature_rows import ScaledRows, scales_of
from sk_aft._data._labels import known_targets
from sk_aft._data._rows import Rows
from sk_aft._deployment._methods import DeploymentMethods
from sk_aft._deployment._teachers import with_teachers
from sk_aft._features import FoundationFeatures
from sk_aft._runtime._device import check_device
from sk_aft._runtime._processes import current_processes
from sk_aft._runtime._seeds import draw_seed, seeded_torch
from sk_aft._runtime._threads import fitting_threads, flushed_denormals
from sk_aft._student import _callbacks, _components, _html, _persistence, _start, _training
from sk_aft._student._agreement import facts_of
from sk_aft._student._frozen_outputs import keep_frozen_outputs
from sk_aft._student._inputs import last_step
from sk_aft._student._mixed_precision import PRECISIONS
from sk_aft._student._mixup import check_mixup
from sk_aft._student._plan import (
    TrainingPlan,
    TransferChoice,
    built_with,
    check_unchanged,
    learns_from_all_layers,
    resolve_transfer,
    which_take,
)
from sk_aft._student._prediction import network_outputs
from sk_aft._student._schedule import Schedule, training_defaults_of
from sk_aft._student._schema import check_rows
from sk_aft._student._skorch_hooks import SkorchHooks
from sk_aft._student._state import (
    StudentState,
    TrainingState,
    resume_student,
    start_student,
    student_batches,
    tensors_of,
    tensors_of_vocabulary,
    unchanged_on_error,
)
from sk_aft._student._targets import Targets
from sk_aft._student._training_data import (
    TrainingData,
    add_soft_targets,
    add_unlabeled,
    check_has_features,
    check_labeled,
    check_training_data,
)
from sk_aft.modules._named import named_network
from sk_aft.transfer._pooled_distillation import pool_of


class StudentEstimator(DeploymentMethods, SkorchHooks):
    """A small network trained on its task and on foundation features at the same time.

    Base class of `AFTClassifier` and `AFTRegressor`, which document the parameters and define the
    targets. Besides its parameters it holds two objects:

    - ``_fitted``, a `StudentState`: set once a fit has succeeded, and saved in pickles;
    - ``_training``, a `TrainingState`: exists only for training, and is never saved.

    During training, callbacks see the student that is being trained.
    """

    _parameter_constraints: dict = {
        "module": [str, nn.Module, type, callable],
        "transfer": [str, nn.Module, list, None],
        "beta": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "preprocessor": "no_validation",
        "lr": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
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
        "mixup": [Interval(Real, 0, None, closed="left")],
        "callbacks": [list, None],
        "random_state": ["random_state"],
        "device": [str, torch.device, list, tuple],
        "precision": [StrOptions(PRECISIONS)],
        "compile": ["boolean"],
        "verbose": ["verbose"],
    }

    mixup: float

    _targets_type: type[Targets]

    # From rows to a trained network: check, plan, build, train.

    def _fit(
        self,
        X: Any,
        y: Any,
        features: Any,
        sample_weight: Any,
        X_unlabeled: Any = None,
        soft_targets: Any = None,
        *,
        incremental: bool = False,
        classes: Any = None,
    ) -> None:
        """Do the work of ``fit`` and ``partial_fit``; an error restores the former state."""
        processes = current_processes()
        with processes.ending_together():
            _components.reject_unused_hooks(type(self))
            parameters = self._settings()
            resumed = self._fitted if incremental or self.warm_start else None
            if resumed is None:
                check_device(self.device)
            built_with_module = self.get_params_for("module")
            named = named_network(self.module, built_with_module) if resumed is None else None
            if resumed is None and self.module == "auto":
                _start.resolve_start(built_with_module.get("start", _start.AUTO))
            if incremental:
                self._check_incremental(resumed, classes)
            if resumed is not None and self._training is not None:
                before, now = self._training.built_with, built_with(parameters)
                check_unchanged(before, now, built=resumed.built)
            seed = draw_seed(self.random_state) if resumed is None else None
        rows = (X, y, features, sample_weight, X_unlabeled, soft_targets)
        seed = processes.of_main(seed)
        with processes.ending_together():
            data, transfer = self._checked(*rows, parameters, resumed, incremental, classes)
            if named is not None:
                named.check_kind(data.schema.kind)
            random = (
                np.random.RandomState(seed) if resumed is None else copy.deepcopy(resumed.random)
            )
            plan = TrainingPlan.of(
                parameters,
                data,
                transfer,
                device=processes.device(self.device) if resumed is None else resumed.device,
                processes=processes,
                random=random,
                chooses_method=self.transfer == "auto" and resumed is None and not incremental,
                split_seed=None if resumed is None else resumed.split_seed,
                is_incremental=incremental,
            )
            facts = {}
            if processes.count > 1:
                facts = facts_of(parameters, data, plan, y, sample_weight, soft_targets)
        processes.check_same(facts)
        with processes.ending_together():
            if resumed is None:
                student, tensors = start_student(
                    data,
                    plan,
                    preprocessor=self.preprocessor,
                    default_preprocessor=_components.default_preprocessor(
                        named, self.module, built_with_module, data.schema.kind
                    ),
                    preprocessor_parameters=self.get_params_for("preprocessor"),
                    keeps_integers=not isinstance(self.module, str),
                    random=random,
                )
            else:
                student, tensors = resume_student(resumed, data, plan, random)
            if resumed is None and self.module == "auto":
                student.inputs.warn_of_other_images()
            if named is not None:
                inputs = student.inputs
                last = last_step(inputs.preprocessor)
                named.check_inputs(last, tensors, is_automatic=inputs.is_automatic)
            batches, held_out = student_batches(student, data, plan, tensors)
            student.teachers = with_teachers(
                student.teachers, X, features, soft_targets, student.transfer_method, student.beta
            )
            network = student.module  # a name is not looked up again: its files may be gone
            if resumed is None or not isinstance(self.module, str):
                network = _components.network_to_build(
                    self.module, built_with_module, student.inputs
                )
            defaults = training_defaults_of(network, data.rows.kind, student.inputs.sizes)
            schedule = Schedule.of(parameters, plan, defaults)
            run = TrainingState.of(plan, schedule, student, data, batches, parameters)
            if resumed is None:
                source = X._source if isinstance(X, FoundationFeatures) else None
                run.start = partial(
                    _start.start_from_foundation_model,
                    preprocessor=student.inputs.preprocessor,
                    vocabulary=partial(tensors_of_vocabulary, student.inputs, tensors, data),
                    source=source,
                    verbose=self._verbosity,
                )
        with ExitStack() as stack:
            with processes.ending_together():
                former = stack.enter_context(self._runs(run, resumed))
                self._build(former, resumes=resumed is not None)
                check_mixup(self.mixup, tensors, student.transfer if student.beta > 0 else None)
                if self.mixup == 0:  # pixels are mixed, not outputs
                    self._set_training(True)
                    with run.precision.autocast():
                        batches = keep_frozen_outputs(
                            batches,
                            student.module,
                            n_epochs=schedule.n_epochs,
                            verbose=self._verbosity,
                        )
                decides = resumed is None or resumed.transfer is None
                batches = self._scaled(batches, decides=decides)
                del tensors  # images are no longer needed if the outputs of layers are kept
                if resumed is None or resumed.transfer is None or resumed.replaces_features:
                    batches = self._fit_transfer(batches, partial(data.rows.take, plan.split.train))
            with fitting_threads(student.module), flushed_denormals():
                self._run_epochs(batches, held_out, data, given={"X": X, "y": y})
        self._fitted = student

    def _check_incremental(self, resumed: StudentState | None, classes: Any) -> None:
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True.")
        if resumed is None and classes is None and self._targets_type.needs_classes:
            raise ValueError("classes must be passed on the first call to partial_fit.")

    def _checked(
        self,
        X: Any,
        y: Any,
        features: Any,
        sample_weight: Any,
        X_unlabeled: Any,
        soft_targets: Any,
        parameters: Mapping[str, Any],
        resumed: StudentState | None,
        incremental: bool,
        classes: Any,
        *,
        all_layers: bool | None = None,
    ) -> tuple[TrainingData, TransferChoice]:
        """Return the training rows, and what is transferred."""
        owner = type(self).__name__
        kept = {} if resumed is None else resumed.kept_transfer
        if all_layers is None:
            known = kept.get("kept_method")
            chosen = {} if known is None else {"transfer": known}
            all_layers = learns_from_all_layers({**parameters, **chosen})
        allow_nan = not (self.preprocessor is None or isinstance(self.preprocessor, str))
        data = check_training_data(
            X,
            y,
            features,
            sample_weight,
            targets=self._targets_type,
            classes=classes,
            known=None if resumed is None else (resumed.schema, resumed.targets),
            missing_label=self.missing_label,
            class_weight=getattr(self, "class_weight", None),
            allow_nan=allow_nan,
            all_layers=all_layers,
            owner=owner,
        )
        takes = which_take(parameters, kept.get("kept_method"))
        if takes and not any(takes):
            check_has_features(X, self.transfer)
        data = add_soft_targets(
            data, soft_targets, X, y, takes_held=any(takes), missing_label=self.missing_label
        )
        is_taught = data.features is not None or data.soft_targets is not None
        if X_unlabeled is not None and takes and is_taught:
            data = add_unlabeled(
                data,
                X_unlabeled,
                holds_soft_targets=soft_targets is None,
                allow_nan=allow_nan,
                all_layers=all_layers,
                owner=owner,
            )
        transfer = resolve_transfer(
            parameters, data, owner=owner, is_incremental=incremental, **kept
        )
        if all_layers and transfer.method == "aft" and transfer.beta > 0:  # "auto" fell back to it
            rows = (X, y, features, sample_weight, X_unlabeled, soft_targets)
            rest = (parameters, resumed, incremental, classes)
            return self._checked(*rows, *rest, all_layers=False)
        learns_targets = resumed is not None and resumed.replaces_features
        if transfer.beta == 0 or (learns_targets and not data.can_distill()):
            # Unlabelled rows are of no use then, and a probe of a single target is useless.
            data = data.without_transfer()
        return data, transfer

    def _validate_params(self) -> None:
        try:
            super()._validate_params()
        except Exception as error:
            current_processes().tell(error)  # they wait at the beginning of their fit
            raise

    def _settings(self) -> dict[str, Any]:
        # A subclass may accept parameters as **kwargs, which get_params does not list.
        own = {name: getattr(self, name) for name in self._parameter_constraints}
        return {**own, **self.get_params()}

    @contextmanager
    def _runs(self, run: TrainingState, resumed: StudentState | None) -> Iterator[Any]:
        """Let callbacks see the student in training; restore everything if training fails.

        Only an interrupted first fit keeps the result of completed epochs.
        """
        attributes, former = dict(vars(self)), self._training
        modules, optimizer = [], None
        if resumed is not None:
            modules = self._learned_modules()
            optimizer = None if former is None else former.optimizer
        try:
            self._training = run
            plan = run.plan
            with (
                seeded_torch(plan.seed, plan.device) as run.users_dtype,
                unchanged_on_error(modules, optimizer),
            ):
                yield former
        except BaseException as error:
            is_interrupted = isinstance(error, KeyboardInterrupt)
            if is_interrupted and self._fitted is None and run.student.history:
                self._fitted = run.student
            else:
                self.__dict__.clear()
                self.__dict__.update(attributes)
            raise
        finally:
            run.is_active = False

    def _learned_modules(self) -> list[nn.Module]:
        """Return all that has weights, a transfer method that is not used now included."""
        names = [f"{name}_" for name in (*self._modules, *self._criteria)]
        modules = [getattr(self, name) for name in names if hasattr(self, name)]
        transfer = self._student.transfer
        return modules if transfer is None or "transfer" in self._criteria else [*modules, transfer]

    def _build(self, former: TrainingState | None, *, resumes: bool) -> None:
        if not resumes:
            self.initialize()
            return
        run = self._run
        self._initialize_callbacks()
        self._initialize_criterion()
        self._initialize_optimizer()
        for group in run.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # schedulers that resume need it
        if former is None:
            return
        run.network = former.network
        alike = _components.same_settings(former.optimizer, run.optimizer)
        if run.plan.is_incremental and alike:
            run.optimizer.state = former.optimizer.state
            run.precision.keep(former.precision)

    def _scaled(self, batches: RowBatches, *, decides: bool) -> RowBatches:
        """Bring the features of several models, or layers, to one scale.

        Training that resumes a transfer keeps the scale that it began with.
        """
        run, student = self._run, self._student
        if batches.features is not None and decides and len(run.feature_slices) > 1:
            scales = scales_of(batches.features, run.feature_slices, run.plan.seed)
            student.feature_scales = scales
        if batches.features is None or student.feature_scales is None:
            return batches
        return batches.with_features(ScaledRows(batches.features, student.feature_scales))

    def _fit_transfer(self, batches: RowBatches, take_rows: Callable[[], Rows]) -> RowBatches:
        """Fit the transfer objective to the rows; it may replace their features."""
        run, student = self._run, self._student
        if batches.features is None and batches.soft_targets is None:
            return batches
        targets = _components.fit_transfer(
            student.transfer,
            batches,
            module=student.module,
            infer=self.infer,
            feature_slices=run.feature_slices,
            n_classes=student.targets.n_classes,
            seed=run.plan.seed,
            take_rows=take_rows,
            # Features of a network that was trained, here or by the user, may know the labels.
            has_start=bool(student.started_from)
            and not student.history
            and (isinstance(self.module, str) or inspect.isclass(self.module)),
        )
        pool = pool_of(student.transfer)
        if self._verbosity and pool is not None:
            print(pool.summary())
        student.replaces_features = targets is not None
        if targets is None:
            return batches
        if hasattr(targets, "missing_mask"):  # a user's own may lack it
            run.has_untaught_rows = bool(targets.missing_mask.any())
        return batches.with_features(targets)

    def _run_epochs(
        self,
        batches: RowBatches,
        held_out: RowBatches | None,
        data: TrainingData,
        given: Mapping[str, Any],
    ) -> None:
        run, student, processes = self._run, self._student, self._run.plan.processes
        with processes.ending_together():
            run.network = _training.TrainedNetwork(
                student.module,
                run.precision,
                needs_features=student.beta > 0,
                compile_parameters=self.get_params_for("compile") if self.compile else None,
                compiled=getattr(run.network, "compiled", None),
            )
            run.gradient_listeners = self._listeners("on_grad_computed")
            _callbacks.reject_sparse_gradients(dict(run.callbacks).values(), student.module)
            if processes.count > 1:
                self._set_training(False)
                with torch.no_grad():
                    self.infer(run.example)  # lazy layers get their weights
        history = student.history
        learned, judged = run.plan.split
        datasets = {
            "dataset_train": _callbacks.LabeledRows(data, learned),
            "dataset_valid": None if judged is None else _callbacks.LabeledRows(data, judged),
        }

        def drop_unfinished() -> None:
            if history and "train_loss" not in history[-1]:
                del history[-1]

        processes.copy_from_main(tensors_of(self._learned_modules()))
        try:
            own_random_numbers = processes.own_random_numbers(run.plan.seed, run.plan.device)
            with run.precision.quiet(), own_random_numbers:
                _training.train(
                    run.schedule.n_epochs,
                    batches,
                    held_out,
                    epoch=self.run_single_epoch,
                    train_step=self.train_step,
                    validation_step=self.validation_step,
                    notify=self.notify,
                    datasets=datasets,
                    given=given,
                    processes=processes,
                    parameters=lambda: _training.parameters_of(run.optimizer),
                    drop_unfinished=drop_unfinished,
                    is_stopped=lambda: any(_callbacks.has_stopped(cb) for _, cb in run.callbacks),
                )
        finally:
            run.network.close()
            self._set_training(False)
        # A callback may have restored the weights of another epoch than in the main process.
        processes.copy_from_main(tensors_of(self._learned_modules()))
        with processes.ending_together(), torch.inference_mode():
            outputs, _ = self.infer(run.example)
            _training.check_outputs(outputs, student.beta, run.schedule.lr)
            self._check_outputs(outputs)  # a module may end otherwise where it does not train

    # Hooks of skorch: prediction.

    def forward_iter(self, X: Any, training: bool = False, device: Any = "cpu") -> Iterator[Tensor]:
        """Yield the student's outputs batch by batch; never touches a foundation model.

        Parameters
        ----------
        X : FoundationFeatures or rows as for ``fit``
            Rows.
        training : bool, default=False
            Whether to run the student in training mode, including dropout.
        device : str or torch.device, default="cpu"
            Where the outputs go.

        Yields
        ------
        logits : Tensor of shape (B, n_outputs)
            Outputs of one batch.
        """
        student, owner = self._student, type(self).__name__
        if student.lacks_features and isinstance(X, FoundationFeatures):
            raise ValueError(
                f"{owner} was trained on plain rows without foundation features, but these rows "
                "are from a FoundationFeatureExtractor. In fit, a step between the two "
                "(such as a sampler) made a plain table of the features. Move it before the "
                "extractor. If the rows are the same, pass X.inputs, or train with beta=0."
            )
        rows, _ = check_rows(
            X,
            student.schema,
            owner=owner,
            allow_nan=student.inputs.allows_nan,
        )
        for outputs in self._outputs(rows, training):
            yield outputs.to(device)

    def _outputs(self, rows: Rows, training: bool = False) -> Iterator[Tensor]:
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
        """Return the accuracy (for a regressor, R²) on the rows that have a label.

        Parameters
        ----------
        X : FoundationFeatures or rows as for ``fit``
            Rows.
        y : array-like of shape (n_rows,) or (n_rows, n_outputs)
            Targets; rows marked by ``missing_label`` are ignored.
        sample_weight : array-like of shape (n_rows,), optional
            Weights of the rows.

        Returns
        -------
        score : float
            At most 1.
        """
        self._targets_type.check_shape(y)
        labeled = check_labeled(y, self.missing_label)
        y = known_targets(y, labeled)
        if not labeled.all():
            warnings.warn(
                f"{len(labeled) - labeled.sum()} of {len(labeled)} rows have no label and are left "
                "out of the score. In cross-validation, cv=LabeledFold(missing_label=...) scores "
                "labelled rows only; scorers other than the default would count them as errors.",
                stacklevel=2,
            )
            rows = np.flatnonzero(labeled)
            X = _safe_indexing(X, rows)
            sample_weight = None if sample_weight is None else np.asarray(sample_weight)[rows]
        return super().score(X, y, sample_weight)

    # Saving.

    def load_params(self, *args: Any, **kwargs: Any) -> None:
        """Load weights written by ``save_params``; arguments as in `skorch.NeuralNet`."""
        device = self.device
        modules = self._learned_modules()
        optimizer = None if self._training is None else self._training.optimizer
        self.device = str(self.device_)  # skorch does not know "auto"
        try:
            with unchanged_on_error(modules, optimizer):
                super().load_params(*args, **kwargs)
        finally:
            self.device = device

    def __getstate__(self) -> dict[str, Any]:
        state = dict(BaseEstimator.__getstate__(self))
        state.pop("_training", None)
        if self.callbacks:
            state["callbacks"] = _persistence.without_optimizers(self.callbacks)
        # A callback may save the student between two epochs of its training.
        student = self._student if self.initialized_ else self._fitted
        if student is not None:
            state["_fitted"] = _persistence.saved_student(student)
        return {name: _persistence.saved_value(value) for name, value in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        restored = {name: _persistence.restored_value(value) for name, value in state.items()}
        if restored.get("_fitted") is not None:
            student = _persistence.restored_student(restored["_fitted"], restored["device"])
            restored["_fitted"] = student
        BaseEstimator.__setstate__(self, restored)

    # scikit-learn.

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags

    @available_if(lambda self: self.__sklearn_is_fitted__())
    def _sk_visual_block_(self) -> Any:
        plan = None if self._training is None else self._training.plan
        rows = None
        if plan is not None:
            is_first = not (plan.is_incremental or self.warm_start)
            rows = _html.RowCounts(plan.n_labeled, plan.n_unlabeled, is_first)
        return _html.visual_block(self, _html.two_lines(self._student, rows))

    def _get_fitted_attr_html(self, doc_link: str = "") -> Any:
        return _html.without_internals(super()._get_fitted_attr_html(doc_link))
