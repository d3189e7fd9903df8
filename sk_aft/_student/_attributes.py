"""Attributes of a fitted student."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sk_aft._student._state import StudentState, TrainingState
from sk_aft.transfer import PooledDistillation
from sk_aft.transfer._pooled_distillation import pool_of


def _part_of(state: str, name: str, doc: str) -> Any:
    """Return a property that exposes a part of a state to skorch and users."""

    def read(net: FittedAttributes) -> Any:
        value = getattr(getattr(net, state), name)
        if value is None:
            raise AttributeError(f"This {type(net).__name__} has no {name}_.")
        return value

    def write(net: FittedAttributes, value: Any) -> None:
        setattr(getattr(net, state), name, value)

    return property(read, write, doc=doc)


class FittedAttributes:
    """The states of `AFTClassifier` and `AFTRegressor`, and the attributes that expose them."""

    _fitted: StudentState | None = None
    _training: TrainingState | None = None

    beta_ = _part_of("_student", "beta", "The strength that was used.")
    module_ = _part_of("_student", "module", "The trained network.")
    criterion_ = _part_of("_student", "criterion", "The task loss.")
    optimizer_ = _part_of("_run", "optimizer", "The optimizer of the last training.")
    callbacks_ = _part_of("_run", "callbacks", "The callbacks of the last training.")

    @property
    def _student(self) -> StudentState:
        """The student in training, if there is one, else the fitted student."""
        if self._training is not None and self._training.is_active:
            return self._training.student
        if self._fitted is None:
            check_is_fitted(self)
        return self._fitted  # type: ignore[return-value]

    @property
    def _run(self) -> TrainingState:
        """The current training, or the last one."""
        if self._training is None:
            check_is_fitted(self)
            raise AttributeError(f"This {type(self).__name__} was not trained in this process.")
        return self._training

    @property
    def transfer_(self) -> Any:
        """The transfer objective that was used; absent without transfer."""
        if self._student.beta == 0 or self._student.transfer is None:
            raise AttributeError(
                "transfer_ exists only if something was transferred, and a folder of a saved "
                "student does not hold it."
            )
        return self._student.transfer

    @transfer_.setter
    def transfer_(self, transfer: Any) -> None:
        self._student.transfer = transfer

    @property
    def n_iter_(self) -> int:
        """Number of epochs run."""
        return len(self._student.history)

    @property
    def transfer_method_(self) -> Any:
        """The transfer method that was used; None without transfer."""
        method = self._student.transfer_method if self._student.beta > 0 else None
        return list(method) if isinstance(method, list) else method

    @property
    def preprocessor_(self) -> Any:
        """The fitted preprocessor, or None."""
        return self._student.inputs.preprocessor

    @property
    def feature_weights_(self) -> np.ndarray:
        """Weight of each foundation feature, between 0 and 1; (n_foundation_features,)."""
        transfer: Any = self._student.transfer
        if not hasattr(transfer, "feature_weights"):
            raise AttributeError(
                "feature_weights_ exists only after a fit with foundation features, beta > 0 and "
                "a transfer method that weights them."
            )
        return transfer.feature_weights.detach().cpu().numpy()

    @property
    def teacher_weights_(self) -> dict[str, float]:
        """Weight of each teacher, by name; only with "pooled-kd", the default transfer."""
        return dict(self._pool.teacher_weights)

    @property
    def teacher_score_(self) -> float:
        """How good the pooled teachers are out of fold, from 0 to 1; only with "pooled-kd"."""
        return self._pool.teacher_score

    @property
    def _pool(self) -> PooledDistillation:
        pool = pool_of(self._student.transfer)
        if pool is None:
            raise AttributeError(
                "teacher_weights_ and teacher_score_ exist only after a fit with "
                "transfer='pooled-kd', which 'auto' is where it can be, and beta > 0."
            )
        return pool

    @property
    def loss_curve_(self) -> list[float]:
        """Mean loss of each epoch, including the transfer term; ``history_`` has the terms."""
        return [epoch["train_loss"] for epoch in self._student.history]

    @property
    def validation_scores_(self) -> list[float] | None:
        """Score on the held-out rows after each epoch; None without ``early_stopping``."""
        history = self._student.history
        scores = [epoch["valid_score"] for epoch in history if "valid_score" in epoch]
        return scores or None

    @property
    def n_features_in_(self) -> int:
        """Number of columns; only for 2-D numbers and DataFrames of several kinds of columns."""
        return self._of_schema("n_features_in")

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns, if they are strings."""
        return self._of_schema("feature_names_in")

    @property
    def device_(self) -> torch.device:
        """Where the network is."""
        return self._student.device

    def _of_schema(self, name: str) -> Any:
        schema = self._student.schema
        value = getattr(schema, name)
        if value is None:
            raise AttributeError(f"Rows of kind {schema.kind!r} have no {name}_.")
        return value
