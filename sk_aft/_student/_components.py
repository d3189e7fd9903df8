"""The network, its loss, the transfer objective and the optimizer, built from parameters."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sk_aft._data._batches import RowBatches
from sk_aft._data._feature_rows import StoredRows
from sk_aft._data._rows import Rows
from sk_aft._data._tensors import Inputs
from sk_aft._parameters import reject_unknown
from sk_aft._student._inputs import StudentInputs
from sk_aft._student._linear_columns import linear_columns
from sk_aft._student._losses import has_plain_mean
from sk_aft._student._schedule import Schedule
from sk_aft.modules import (
    EfficientNetLite,
    PenultimateFeatures,
    PretrainedImage,
    ResNet,
    StaticText,
    TransformerText,
    network_for,
)
from sk_aft.modules._named import NamedNetwork, image_resizer, named_network
from sk_aft.transfer import TransferRows, make_transfer
from sk_aft.transfer._base import concatenate
from sk_aft.transfer._pooled_distillation import STUDENT_ROWS, STUDENT_START

# Former names of methods that the user's own transfer methods may still define.
_FORMER_NAMES = {"prepare": "fit", "default_strength": "default_beta"}

# Where parameters belong that do not fit the network; by the value of ``module``.
_NETWORKS = {
    "module='auto' on texts": StaticText,
    "module='minilm' and other names": TransformerText,
    "module='auto' on grey and RGB images between 0 and 1": EfficientNetLite,
    "module='timm:NAME'": PretrainedImage,
    "module=ResNet": ResNet,
}

# Methods of skorch that are not called.
_UNUSED_HOOKS: dict[str, Any] = {}

# Runs the network: from inputs to logits, and features or None.
Infer = Callable[[Inputs], tuple[Tensor, Any]]


def unused_hook(name: str, instead: str) -> Any:
    """Return a replacement for a method of skorch that a student's training does not call."""

    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f"{type(self).__name__} does not use skorch's {name}: see {instead}."
        )

    hook.__doc__ = f"Not used: see {instead}."
    hook.__name__ = name
    _UNUSED_HOOKS[name] = hook
    return hook


def reject_unused_hooks(estimator: type) -> None:
    """Raise if a subclass overrides a method of skorch that training does not call."""
    for name, hook in _UNUSED_HOOKS.items():
        if getattr(estimator, name) is not hook:
            raise TypeError(f"{estimator.__name__}.{name} has no effect. {hook.__doc__}")


def network_to_build(module: Any, parameters: Mapping[str, Any], inputs: StudentInputs) -> Any:
    """Return the class, function or instance from which the network is built."""
    if named := named_network(module, parameters):
        return named.build
    if not isinstance(module, str):
        return module
    return EfficientNetLite if inputs.are_pictures else network_for(inputs.sizes)


def default_preprocessor(
    named: NamedNetwork | None, module: Any, parameters: Mapping[str, Any], kind: str
) -> Callable[..., Any] | None:
    """Return what makes the automatic preprocessor; None is the one of the kind of the rows."""
    if named is not None:
        return named.make_preprocessor
    return image_resizer(module, parameters) if kind == "image" else None


def build_module(
    build: Any,
    parameters: Mapping[str, Any],
    *,
    sizes: Mapping[str, Any],
    device: torch.device,
    made_in: torch.dtype,
) -> nn.Module:
    """Build the network; ``made_in`` is torch's default dtype, as the user has set it."""
    reject_unknown("module", build, parameters, others=_NETWORKS)
    if isinstance(build, nn.Module):
        return _copied(build, device, made_in)
    accepted = inspect.signature(build).parameters
    known = {name: size for name, size in sizes.items() if name in accepted}
    missing = [
        name
        for name, parameter in accepted.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in (*known, *parameters)
    ]
    if missing:
        found = {name: size for name, size in sizes.items() if name != "sparse"}
        raise TypeError(
            f"{getattr(build, '__name__', build)} needs {missing}: set module__{missing[0]}, or "
            f"use the names of what is filled in from the data: {found}."
        )
    return build(**{**known, **parameters}).to(device)


def _copied(module: nn.Module, device: torch.device, made_in: torch.dtype) -> nn.Module:
    """Return a copy, so that the estimator's parameter does not change.

    Under ``torch.set_default_dtype(torch.float64)`` a module is float64 by accident, but its inputs
    are float32. Otherwise float64 is intended.
    """
    return _as_float32(copy.deepcopy(module), made_in).to(device)


def _as_float32(module: nn.Module, made_in: torch.dtype) -> nn.Module:
    return module if made_in == torch.float32 else module.float()


def build_criterion(
    criterion: Any,
    parameters: Mapping[str, Any],
    *,
    is_weighted: bool,
    device: torch.device,
    made_in: torch.dtype,
) -> nn.Module:
    """Build the task loss; it returns a number for each row, unless a mean is sufficient."""
    reject_unknown("criterion", criterion, parameters)
    if isinstance(criterion, nn.Module):
        built = _copied(criterion, device, made_in)
        if hasattr(built, "reduction"):
            built.reduction = "none"
    else:
        takes_reduction = "reduction" in inspect.signature(criterion).parameters
        preset = {"reduction": "none"} if takes_reduction else {}
        built = _as_float32(criterion(**{**preset, **parameters}), made_in).to(device)
    leaves_rows = getattr(built, "reduction", None) == "none"
    if leaves_rows and not is_weighted and has_plain_mean(built):
        built.reduction = "mean"  # two operations fewer than a mean of the rows' losses
    return built


def build_transfer(
    method: Any,
    parameters: Mapping[str, Any],
    *,
    n_features: Any,  # None if there are only soft targets
    n_student_features: int,
    n_outputs: int,
    feature_slices: Mapping[str, slice],
    column_slices: Mapping[Any, slice],
    device: torch.device,
    made_in: torch.dtype,
) -> nn.Module:
    """Build the transfer objective; the arguments are those of `make_transfer`."""
    transfer: Any = make_transfer(
        method,
        n_features,
        n_student_features=n_student_features,
        n_outputs=n_outputs,
        feature_slices=feature_slices,
        column_slices=column_slices,
        **parameters,
    )
    for part in (transfer, *getattr(transfer, "methods", ())):
        for former, name in _FORMER_NAMES.items():
            if hasattr(part, former):
                raise TypeError(
                    f"{type(part).__name__}.{former} has no effect: since 0.2 its name is "
                    f"{name}. Rename it."
                )
    return _copied(transfer, device, made_in)


def optimizer_arguments(
    optimizer: Any, parameters: Mapping[str, Any], schedule: Schedule
) -> dict[str, Any]:
    """Return the arguments of the optimizer: the user's, completed by those of the network."""
    # In other optimizers, weight decay is the gradient of a penalty, and has other useful values.
    kind = getattr(optimizer, "func", optimizer)  # of functools.partial
    is_decoupled = inspect.isclass(kind) and issubclass(kind, torch.optim.AdamW)
    is_set = "weight_decay" in getattr(optimizer, "keywords", {})
    decay = {"weight_decay": schedule.weight_decay} if is_decoupled and not is_set else {}
    return {**decay, **parameters, "lr": schedule.lr}


def build_optimizer(
    optimizer: Any,
    groups: list[dict[str, Any]],
    parameters: Mapping[str, Any],
    *,
    module: nn.Module,
    transfer: nn.Module | None,
    transfer_lr: float,
    can_fuse: bool,
) -> torch.optim.Optimizer:
    """Build the optimizer."""
    reject_unknown("optimizer", optimizer, parameters)
    learned = [] if transfer is None else list(transfer.parameters())
    kind = getattr(optimizer, "func", optimizer)  # of functools.partial
    is_lbfgs = inspect.isclass(kind) and issubclass(kind, torch.optim.LBFGS)
    if is_lbfgs and len(groups) > 1:
        raise ValueError(
            f"LBFGS trains one group of parameters, but {type(module).__name__} is trained with "
            f"{len(groups)} groups, which differ in learning rate or weight decay: use another "
            "optimizer."
        )
    if is_lbfgs and learned:
        raise ValueError(
            "LBFGS trains one group of parameters, but this transfer method has parameters of its "
            "own with the learning rate transfer_lr: use another optimizer, or a method without "
            "parameters, such as transfer='probe-kd' or 'aft-fixed'."
        )
    if learned:
        groups = [*groups, {"params": learned, "lr": transfer_lr, "weight_decay": 0.0}]
    takes_sparse = getattr(optimizer, "supports_sparse", False)
    has_sparse = any(getattr(layer, "sparse", False) for layer in module.modules())
    can_fuse = can_fuse and "fused" in inspect.signature(optimizer).parameters
    can_fuse = can_fuse and (takes_sparse or not has_sparse)
    preset = {"fused": True} if can_fuse and "foreach" not in parameters else {}
    # A fused step is one kernel, which halves the time of a step if embeddings are large.
    return optimizer(groups, **{**preset, **parameters})


def same_settings(one: Any, other: Any) -> bool:
    """Return whether two optimizers differ at most in their learning rates."""
    if type(one) is not type(other):
        return False
    names = {*one.defaults, *other.defaults} - {"lr"}
    return all(one.defaults.get(name) == other.defaults.get(name) for name in names)


def fit_transfer(
    transfer: nn.Module,
    batches: RowBatches,
    *,
    module: nn.Module,
    infer: Infer,
    feature_slices: Mapping[str, slice],
    n_classes: int | None,
    seed: int,
    take_rows: Callable[[], Rows],
    has_start: bool,
) -> Any:
    """Fit the transfer objective to the rows before the first step.

    ``take_rows`` returns the rows of the batches. ``has_start`` says whether the network's features
    are those of a foundation model, because it starts from one and is not trained yet.
    """
    fit = getattr(transfer, "fit", None)
    if fit is None:
        return None

    def student_features(indices: np.ndarray) -> np.ndarray:
        pieces = np.array_split(indices, -(-len(indices) // batches.batch_size))
        inputs = (batches.inputs.take(piece, batches.device) for piece in pieces)
        features = [penultimate_features(module, infer, piece) for piece in inputs]
        return np.concatenate([piece.cpu().numpy() for piece in features])

    def student_columns() -> dict[str, np.ndarray]:
        columns, start = linear_columns(take_rows(), seed), None
        if has_start:
            start = student_features(np.arange(len(batches.inputs)))
            start /= start.std() or 1.0
        named = {STUDENT_ROWS: columns, STUDENT_START: start}
        return {name: part for name, part in named.items() if part is not None}

    features: Any = batches.features
    # Labels of rows with weight 0 are ignored; unlabelled rows have weight 0, too.
    labeled = batches.labeled_mask if batches.weights is None else batches.weights.numpy() > 0
    rows = TransferRows(
        features=features,
        targets=np.asarray(batches.targets),
        labeled_mask=labeled,
        known_mask=(
            np.zeros(len(labeled), dtype=bool) if features is None else ~features.missing_mask
        ),
        feature_slices=feature_slices,
        n_classes=n_classes,
        student_features=student_features,
        seed=seed,
        soft_targets=batches.soft_targets,
        weights=None if batches.weights is None else batches.weights.numpy(),
        student_columns=student_columns,
    )
    targets = fit(rows)
    if targets is None and features is None:
        raise ValueError(
            f"{type(transfer).__name__}.fit returned None, so its forward takes foundation "
            "features, and there are none: return the soft targets, or give features=F."
        )
    return StoredRows.of_array(targets) if isinstance(targets, np.ndarray) else targets


def penultimate_features(module: nn.Module, infer: Infer, inputs: Inputs) -> Tensor:
    """Return the current input of the network's last linear layer for some rows."""
    penultimate = PenultimateFeatures(module)
    modes = [(part, part.training) for part in module.modules()]  # some may be frozen
    module.eval()
    try:
        with torch.no_grad():
            _, features = infer(inputs)
            return penultimate.take() if features is None else concatenate(features)
    finally:
        penultimate.remove()
        for part, is_training in modes:
            part.training = is_training
