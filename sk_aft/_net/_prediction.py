"""What a trained student says, of rows and of its training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from torch import Tensor

from sk_aft._labels import known_targets
from sk_aft._net._preparation import prepare
from sk_aft._prepared_inputs import Prepared
from sk_aft._rows import Rows

# Rows are prepared for prediction this many at a time, so that millions of images fit in memory.
_ROWS_PER_PREPARATION = 4096

# Calls of a small network cost more than a hundred rows of numbers do; images fill the cache.
_FEWEST_ROWS_PER_CALL = 1024


class Prediction(NeuralNet):
    """The part of `StudentNet` that predicts: ``forward_iter``, on which skorch builds the rest."""

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
        yield from self._outputs(self._check_rows(X, reset=False), training, device)

    def _outputs(self, rows: Rows, training: bool = False, device: Any = "cpu") -> Iterator[Tensor]:
        """Yield the student's outputs of checked rows."""
        self._set_training(training)
        batch_size = self.batch_size
        if rows.kind in ("numeric", "text") and not training:
            batch_size = max(batch_size, _FEWEST_ROWS_PER_CALL)
        for start in range(0, len(rows), _ROWS_PER_PREPARATION):
            prepared = prepare(self, rows.values_at(slice(start, start + _ROWS_PER_PREPARATION)))
            if prepared.lengths is not None:
                yield self._outputs_by_length(prepared).to(device)
                continue
            for first in range(0, len(prepared), batch_size):
                piece = slice(first, min(first + batch_size, len(prepared)))
                with torch.inference_mode():
                    logits, _ = self.infer(prepared.take(piece, self.device_))
                yield logits.to(device)

    @torch.inference_mode()
    def _outputs_by_length(self, prepared: Prepared) -> Tensor:
        """Return outputs in the order of the rows, of which those of like length ran together."""
        order = np.argsort(prepared.lengths, kind="stable")
        batches = np.split(order, range(self.batch_size, len(order), self.batch_size))
        try:
            logits = [self.infer(prepared.take(batch, self.device_))[0] for batch in batches]
        except IndexError as error:
            raise ValueError(
                "The network cannot look up a token that is larger than those of the training "
                "rows: give it the size of the preprocessor's vocabulary, such as "
                "module__n_tokens=30_000."
            ) from error
        return torch.cat(logits)[torch.from_numpy(np.argsort(order)).to(self.device_)]

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
