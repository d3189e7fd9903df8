"""The two states besides the parameters: the fitted student, and a training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from skorch.history import History
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sk_aft._data._batches import RowBatches
from sk_aft._data._tensors import Inputs, InputTensors
from sk_aft._data._texts import TRUNCATION
from sk_aft._student._inputs import StudentInputs, make_batches
from sk_aft._student._plan import TrainingPlan, built_with
from sk_aft._student._schedule import Schedule
from sk_aft._student._schema import RowSchema
from sk_aft._student._targets import Targets
from sk_aft._student._training_data import TrainingData


@dataclass(eq=False)
class StudentState:
    """A student: all that predicting, saving and resuming need.

    Parameters
    ----------
    schema : RowSchema
        The kind and columns of its rows.
    targets : Targets
        Encodes and decodes its targets.
    inputs : StudentInputs
        Its fitted preprocessor.
    device : torch.device
        Where the network is.
    random : RandomState
        Draws batches; continued by training that resumes.
    split_seed : int or None
        Seed of the validation split. Training that resumes keeps the split, because rows that
        were trained on cannot validate it.
    transfer_method : str, nn.Module, list or None
        The transfer method; training that resumes keeps it once there is a transfer objective.
    beta : float
        Its strength; 0 without transfer.
    n_foundation_features : int or None
        Number of foundation features, once there was a transfer.
    feature_scales : ndarray of shape (n_foundation_features,), or None
        What features are multiplied by if several models or layers are side by side.
    replaces_features : bool
        Whether the transfer method uses its own targets instead of the features.
    lacks_features : bool
        Whether a transfer was requested, but no foundation features or soft targets were given.
    has_checked_outputs : bool
        Whether outputs were checked, for example for probabilities.
    module, criterion, transfer : nn.Module or None
        The network, its loss and the transfer objective.
    history : History
        Losses and scores of all epochs.
    teachers : list of dict
        What it learned from; see `sk_aft._deployment._teachers`.
    started_from : dict or None
        The model whose weights or vectors its network started from, in the same form.
    """

    schema: RowSchema
    targets: Targets
    inputs: StudentInputs
    device: Any  # torch.device; None in a pickle
    random: np.random.RandomState
    split_seed: int | None
    transfer_method: Any
    beta: float
    n_foundation_features: Any = None
    feature_scales: Any = None
    replaces_features: bool = False
    lacks_features: bool = False
    has_checked_outputs: bool = False
    module: Any = None
    criterion: Any = None
    transfer: Any = None
    history: History = field(default_factory=History)
    teachers: list[dict[str, Any]] = field(default_factory=list)
    started_from: dict[str, Any] | None = None

    @property
    def kept_transfer(self) -> dict[str, Any]:
        """The parts of the transfer that training keeps on resuming; see `resolve_transfer`."""
        return {
            "kept_method": None if self.transfer is None else self.transfer_method,
            "kept_width": self.n_foundation_features,
        }

    @property
    def built(self) -> set[str]:
        """The existing parts, which training that resumes keeps."""
        transfer = set() if self.transfer is None else {"transfer"}
        return {"module", "preprocessor", *transfer}

    @property
    def n_outputs(self) -> int:
        """Number of classes or targets."""
        return self.targets.n_outputs


@dataclass(eq=False)
class TrainingState:
    """What exists only to train a student, and is not saved.

    Parameters
    ----------
    plan : TrainingPlan
        What it is trained on.
    schedule : Schedule
        How long and at which rates it is trained.
    student : StudentState
        The student.
    built_with : mapping
        Parameters that the network, the preprocessor and the transfer were built with.
    example : Inputs
        Some rows, from which the width of the student's features is found.
    is_weighted : bool
        Whether rows have weights in the task loss.
    feature_slices, column_slices : mapping or None
        Which foundation features belong to which model, and to which column.
    users_dtype : torch.dtype
        torch's default dtype as the user has set it; it is float32 during training.
    has_untaught_rows : bool
        Whether some of the rows have no foundation features, or no soft targets.
    network : TrainedNetwork
        The network as it is run in training.
    precision : MixedPrecision
        Precision in which it is run.
    optimizer : Optimizer
        Optimizer of the network and the transfer objective.
    callbacks : list of (str, Callback)
        Callbacks of skorch.
    gradient_listeners : list of callable
        Methods of the callbacks that read gradients.
    is_active : bool
        Whether training is under way.
    start : callable or None
        Sets what a network that was just built starts from, and returns the models; None if
        training resumes.
    """

    plan: TrainingPlan
    schedule: Schedule
    student: StudentState
    built_with: Mapping[str, Any]
    example: Inputs
    is_weighted: bool
    feature_slices: Mapping[str, slice]
    column_slices: Mapping[Any, slice]
    users_dtype: torch.dtype = torch.float32
    has_untaught_rows: bool = False
    network: Any = None
    precision: Any = None
    optimizer: Any = None
    callbacks: Any = None
    gradient_listeners: list[Callable] = field(default_factory=list)
    is_active: bool = True
    start: Callable[[nn.Module], list[Any]] | None = None

    @classmethod
    def of(
        cls,
        plan: TrainingPlan,
        schedule: Schedule,
        student: StudentState,
        data: TrainingData,
        batches: RowBatches,
        parameters: Mapping[str, Any],
    ) -> TrainingState:
        """Return the state of a training before anything is built."""
        return cls(
            plan,
            schedule,
            student,
            built_with(parameters),
            # A copy: a view would keep the whole training set alive.
            example=batches.inputs.take(np.arange(min(8, len(batches.inputs))), plan.device),
            is_weighted=data.weights is not None,
            feature_slices=data.feature_slices,
            column_slices=data.column_slices,
            has_untaught_rows=batches.has_untaught_rows,
        )


def start_student(
    data: TrainingData,
    plan: TrainingPlan,
    *,
    preprocessor: Any,
    default_preprocessor: Callable[..., Any] | None,
    preprocessor_parameters: dict[str, Any],
    keeps_integers: bool,
    random: np.random.RandomState,
) -> tuple[StudentState, InputTensors]:
    """Return a student without a network, with a preprocessor fitted to the training rows."""
    rows = data.rows.take(plan.split.train)
    inputs = StudentInputs.fit(
        rows if data.left_out is None else rows.concat(data.left_out),
        data.schema,
        preprocessor=preprocessor,
        default=default_preprocessor,
        parameters=preprocessor_parameters,
        keeps_integers=keeps_integers,
    )
    tensors = inputs.transform(rows)
    inputs = inputs.with_sizes(tensors)
    student = StudentState(
        schema=data.schema,
        targets=data.encoder,
        inputs=inputs,
        device=plan.device,
        random=random,
        split_seed=plan.split_seed,
        transfer_method=plan.transfer.method,
        beta=plan.transfer.beta,
        lacks_features=plan.transfer.lacks_features,
        n_foundation_features=None if data.features is None else data.features.shape[1],
    )
    return student, tensors


def tensors_of_vocabulary(
    inputs: StudentInputs, tensors: InputTensors, data: TrainingData
) -> list[InputTensors]:
    """Return the rows that the preprocessor was fitted to, given those to learn from."""
    if data.left_out is None:
        return [tensors]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", TRUNCATION)
        return [tensors, inputs.transform(data.left_out)]


def resume_student(
    former: StudentState, data: TrainingData, plan: TrainingPlan, random: np.random.RandomState
) -> tuple[StudentState, InputTensors]:
    """Return a student that shares the network of a former one, and the training rows."""
    width = former.n_foundation_features if data.features is None else data.features.shape[1]
    student = replace(
        former,
        random=random,
        split_seed=plan.split_seed,
        transfer_method=plan.transfer.method,
        beta=plan.transfer.beta,
        lacks_features=plan.transfer.lacks_features,
        n_foundation_features=width,
        history=History(former.history),
    )
    return student, former.inputs.transform(data.rows.take(plan.split.train))


def student_batches(
    student: StudentState, data: TrainingData, plan: TrainingPlan, tensors: InputTensors
) -> tuple[RowBatches, RowBatches | None]:
    """Return batches of the training rows, and of the held-out rows or None."""
    train, held_out = plan.split
    batches = make_batches(
        data,
        tensors,
        train,
        batch_size=plan.batch_size,
        device=plan.device,
        unlabeled_fraction=plan.unlabeled_fraction,
        shuffle=student.random,
        part=plan.processes.index,
        n_parts=plan.processes.count,
    )
    if held_out is None:
        return batches, None
    with warnings.catch_warnings():
        # Already warned for the training rows.
        warnings.filterwarnings("ignore", TRUNCATION)
        others = student.inputs.transform(data.rows.take(held_out))
    return batches, make_batches(
        data, others, held_out, batch_size=plan.batch_size, device=plan.device
    )


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return all weights and buffers that exist."""
    return [
        tensor
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
        if not is_lazy(tensor)
    ]


@contextmanager
def unchanged_on_error(modules: Iterable[nn.Module], optimizer: Any) -> Iterator[None]:
    """Restore weights, buffers and an optimizer's moments if the block fails."""
    tensors = [(tensor, tensor.detach().clone()) for tensor in tensors_of(modules)]
    # Keyed by the parameters themselves, which are not copied.
    moments = {
        parameter: {name: _copied(value) for name, value in values.items()}
        for parameter, values in getattr(optimizer, "state", {}).items()
    }
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, former in tensors:
                tensor.copy_(former)
        if optimizer is not None:
            optimizer.state.clear()
            optimizer.state.update(moments)
        raise


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)
