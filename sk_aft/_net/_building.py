"""The student, its losses and its optimizer are built from the parameters."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from skorch import NeuralNet
from torch import nn

from sk_aft._net._callbacks import default_callbacks, reject_idle_monitors, reject_unknown_names
from sk_aft._net._losses import has_plain_mean
from sk_aft._net._mixed_precision import MixedPrecision
from sk_aft._net._transfer import build_transfer
from sk_aft._parameters import reject_unknown
from sk_aft.modules import network_for


class Building(NeuralNet):
    """The part of `StudentNet` that builds: ``initialize_*``, which skorch calls by these names."""

    device: Any
    _compiled: nn.Module | None = None
    _mixed_precision: MixedPrecision

    @property
    def _default_callbacks(self) -> list:
        return default_callbacks(self)

    def initialize_callbacks(self) -> Building:
        """Build the callbacks; raise for what cannot work, before any training."""
        reject_unknown_names(self)
        super().initialize_callbacks()
        reject_idle_monitors(self)
        return self

    def initialize_module(self) -> Building:
        """Build the student."""
        parameters = self.get_params_for("module")
        self._compiled = None
        build = network_for(self.module_sizes_) if self.module == "auto" else self.module
        reject_unknown("module", build, parameters)
        reject_unknown("compile", torch.compile, self.get_params_for("compile"))
        if isinstance(build, nn.Module):
            # The estimator's parameter stays as it was given.
            self.module_ = copy.deepcopy(build).to(self.device_)
            return self
        accepted = inspect.signature(build).parameters
        known = {**self.module_sizes_, "sparse": getattr(self.optimizer, "supports_sparse", False)}
        sizes = {name: size for name, size in known.items() if name in accepted}
        self.module_ = build(**{**sizes, **parameters}).to(self.device_)
        return self

    def initialize_criterion(self) -> Building:
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
        leaves_rows = getattr(self.criterion_, "reduction", None) == "none"
        if leaves_rows and not self._is_weighted and has_plain_mean(self.criterion_):
            self.criterion_.reduction = "mean"  # two operations less than the mean of what is left
        if self.beta_ > 0 and not hasattr(self, "transfer_"):
            self.initialize_transfer()
        return self

    def initialize_transfer(self) -> Building:
        """Build the transfer objective."""
        self.transfer_ = build_transfer(self)
        return self

    def initialize_optimizer(self, triggered_directly: Any = None) -> Building:
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
        # A fused step with infinite gradients would be left out for some of the weights only.
        can_fuse = can_fuse and self.precision != "fp16-mixed"
        if can_fuse and "foreach" not in parameters and self.device_.type in ("cpu", "cuda"):
            # One kernel a step: half the time of a step where embeddings are large.
            parameters.setdefault("fused", True)
        self.optimizer_ = self.optimizer(groups, **parameters)
        self._mixed_precision = MixedPrecision(self.precision, self.device_, self.optimizer_)
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
