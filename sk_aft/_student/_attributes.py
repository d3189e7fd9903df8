"""What a fitted student shows of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sk_aft._student._state import StudentState


class FittedAttributes:
    """The attributes of `AFTClassifier` and `AFTRegressor` that only read what was fitted."""

    @property
    def _student(self) -> StudentState:
        """The student; NotFittedError, which is an AttributeError, where there is none."""
        raise NotImplementedError

    @property
    def n_iter_(self) -> int:
        """Number of epochs run."""
        return self._student.n_iter

    @property
    def chosen_transfer_(self) -> Any:
        """The transfer method that was used, as ``transfer`` takes it."""
        chosen = self._student.transfer_method
        return list(chosen) if isinstance(chosen, list) else chosen

    @property
    def transfer_trials_(self) -> dict[str, float]:
        """Errors in short trainings by method, where they chose it."""
        return self._trial_errors("by_method")

    @property
    def beta_trials_(self) -> dict[float, float]:
        """Errors in short trainings by strength, where they chose it."""
        return self._trial_errors("by_beta")

    @property
    def preprocessor_(self) -> Any:
        """The fitted preprocessor; None where there is none."""
        return self._student.inputs.preprocessor

    @property
    def feature_weights_(self) -> np.ndarray:
        """How much each foundation feature counts, between 0 and 1; (n_foundation_features,)."""
        transfer: Any = self._student.transfer
        if not hasattr(transfer, "feature_weights"):
            raise AttributeError(
                "feature_weights_ exists only after a fit with foundation features, beta > 0 and "
                "a transfer method that weights them."
            )
        return transfer.feature_weights.detach().cpu().numpy()

    @property
    def loss_curve_(self) -> list[float]:
        """Mean loss of each epoch, with the transfer term; ``history_`` has the terms."""
        return self._student.history[:, "train_loss"]

    @property
    def validation_scores_(self) -> list[float] | None:
        """Score on the held out rows after each epoch; None without ``early_stopping``."""
        history = self._student.history
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
        return self._student.device

    def _of_schema(self, name: str) -> Any:
        schema = self._student.schema
        value = getattr(schema, name)
        if value is None:
            raise AttributeError(f"Rows of kind {schema.kind!r} have no {name}_.")
        return value

    def _trial_errors(self, name: str) -> Any:
        errors = getattr(self._student.trials, name, None)
        if errors is None:
            raise AttributeError("There were no short trainings that chose this.")
        return errors
