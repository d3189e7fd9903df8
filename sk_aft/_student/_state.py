"""What was fitted: the state of a student, beside its parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from skorch.history import History
from torch import nn

from sk_aft._student._inputs import StudentInputs
from sk_aft._student._schema import RowSchema
from sk_aft._student._targets import Targets


@dataclass(eq=False)
class StudentState:
    """A student: all that predicting, saving and resuming need.

    Parameters
    ----------
    schema : RowSchema
        What its rows are.
    targets : Targets
        What encodes and decodes its targets.
    inputs : StudentInputs
        Its fitted preprocessor.
    device : torch.device
        Where the network is.
    random : RandomState
        Draws batches; continued by training that resumes.
    split_seed : int or None
        Of the validation split, which training that resumes keeps: rows that were learned from
        could not judge it.
    transfer_method : str, nn.Module, list or None
        The transfer method that was used.
    beta : float
        Its strength.
    n_foundation_features : int or None
        Width of the foundation features, once there was a transfer.
    replaces_features : bool
        Whether the transfer method learns from targets of its own instead of the features.
    trials : TransferTrials or None
        What short trainings said, where they were made.
    module, criterion, transfer : nn.Module or None
        The network, its loss and the transfer objective.
    history : History
        Of all epochs.
    n_iter : int
        Number of epochs.
    """

    schema: RowSchema
    targets: Targets
    inputs: StudentInputs
    device: Any
    random: np.random.RandomState
    split_seed: int | None
    transfer_method: Any
    beta: float
    n_foundation_features: int | None = None
    replaces_features: bool = False
    trials: Any = None
    module: nn.Module | None = None
    criterion: nn.Module | None = None
    transfer: nn.Module | None = None
    history: History = field(default_factory=History)
    n_iter: int = 0

    @property
    def n_outputs(self) -> int:
        """Number of classes or targets."""
        return self.targets.n_outputs


@contextmanager
def unchanged_on_error(student: StudentState | None, optimizer: Any) -> Iterator[None]:
    """Put the weights of a student, and an optimizer's moments, back if its training fails.

    Parameters
    ----------
    student : StudentState or None
        What is trained further; None does nothing.
    optimizer : Optimizer or None
        Its optimizer.
    """
    if student is None:
        yield
        return
    modules = [
        module
        for module in (student.module, student.criterion, student.transfer)
        if module is not None
    ]
    weights = [copy.deepcopy(module.state_dict()) for module in modules]
    # Keyed by the parameters themselves, which are not copied.
    moments = {
        parameter: copy.deepcopy(values)
        for parameter, values in getattr(optimizer, "state", {}).items()
    }
    try:
        yield
    except BaseException:
        for module, former in zip(modules, weights, strict=True):
            module.load_state_dict(former)
        if optimizer is not None:
            optimizer.state.clear()
            optimizer.state.update(moments)
        raise
