"""StudentNet: the parameters of a student, and its way from rows to a trained network."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNCHANGED
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from torch import nn

from sk_aft._net._building import Building
from sk_aft._net._going_on import check_what_is_kept, forget, go_on
from sk_aft._net._mixed_precision import PRECISIONS
from sk_aft._net._prediction import Prediction
from sk_aft._net._preparation import training_batches
from sk_aft._net._saving import restore, saved_state
from sk_aft._net._training import Training, n_epochs_to_make
from sk_aft._net._transfer import prepare_transfer
from sk_aft._net._trials import choose_transfer
from sk_aft._parameters import PrefixedParameters
from sk_aft._runtime._device import resolve_device
from sk_aft._runtime._seeds import draw_seed, seeded_torch
from sk_aft._runtime._threads import fitting_threads, flushed_denormals
from sk_aft._training_data import CheckedInputs, TrainingData


class StudentNet(CheckedInputs, PrefixedParameters, Building, Training, Prediction, NeuralNet):
    """A small network trained on its task and on foundation features at the same time.

    Base class of `AFTClassifier` and `AFTRegressor`, which document the parameters and say what
    targets are. The places that skorch leaves open are filled by three base classes: `Building`
    has ``initialize_*`` for the student, the loss, the transfer objective and the optimizer;
    `Training` has ``train_step_single``, which adds up the loss, and ``infer``, which runs the
    student; `Prediction` has ``forward_iter``. Parameters are handled as scikit-learn does.
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
    history_ = None
    initialized_ = False

    _is_incremental = False
    _is_weighted = False
    _split_seed: int | None = None
    _replaces_features = False
    _began_with: dict[str, Any] | None = None
    _shared_by_trials: dict[str, Any] | None = None

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
            forget(self)
            if incremental and classes is None and is_classifier(self):
                raise ValueError("classes must be passed on the first call to partial_fit.")
        check_what_is_kept(self)
        data = self._check_training_data(
            X, y, features, sample_weight, X_unlabeled, reset=starts, classes=classes
        )
        self._is_incremental = incremental
        if not starts:
            if self._replaces_features and self.beta_ > 0 and not data.has_unlike_targets():
                data = data.without_features()  # a probe of this piece would know nothing
            self._train_on(data, starts=False)
            return
        self.device_ = resolve_device(self.device)
        seed = draw_seed(self.random_state)
        if self.beta == "auto" and self.beta_ > 0 and not incremental:
            choose_transfer(self, data, seed)
            data = data if self.beta_ > 0 else data.without_features()
        self._random = np.random.RandomState(seed)
        self._train_on(data, starts=True)

    def _train_on(self, data: TrainingData, *, starts: bool) -> None:
        """Train on checked rows, from the beginning or going on."""
        seed = self._random.randint(2**31 - 1)
        train, valid = training_batches(self, data, reset=starts)
        n_epochs = n_epochs_to_make(self.max_epochs, len(train))
        self.n_steps_ = n_epochs * len(train)
        with seeded_torch(seed, self.device_):
            is_new = not hasattr(self, "transfer_")
            self._example = train.inputs.take(slice(0, 2), self.device_)
            if starts:
                self.initialize()
            else:
                go_on(self)
            del self._example
            has_features = self.beta_ > 0 and data.features is not None
            if has_features and (is_new or self._replaces_features):
                prepare_transfer(self, train, seed)
            with fitting_threads(self.module_), flushed_denormals():
                self._train(train, valid, 1 if self._is_incremental else n_epochs)

    @property
    def chosen_transfer_(self) -> Any:
        """The transfer method that was used, as ``transfer`` takes it."""
        check_is_fitted(self)
        chosen = self._chosen_transfer
        return list(chosen) if isinstance(chosen, list) else chosen

    @property
    def _chooses_transfer(self) -> bool:
        """Whether `fit` chooses the transfer method: where nothing is said of it."""
        is_left_open = self.transfer == "auto" and self.beta == "auto"
        return is_left_open and not self.get_params_for("transfer")

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
        return saved_state(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        restore(self, state)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


def _changed(**requests: bool | str | None) -> dict[str, Any]:
    return {name: request for name, request in requests.items() if request != UNCHANGED}
