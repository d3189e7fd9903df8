"""A weighted sum of transfer objectives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from sk_aft._data._feature_rows import ConcatenatedRows
from sk_aft.transfer._base import TransferMethod, TransferRows, student_features_for


class Combination(TransferMethod):
    r"""Weighted sum of transfer objectives, :math:`R = \sum_i \beta_i R_i`.

    Parameters
    ----------
    parts : sequence of (nn.Module, float)
        Objectives and their beta. A part with beta 0 is neither fitted nor computed.

    Attributes
    ----------
    methods : ModuleList
        The objectives.
    betas : list of float
        Their beta.
    default_beta : float
        beta used unless it is tuned: 1, so that each part has exactly the beta given.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import Combination, KernelAlignment, RelationalDistillation
    >>> both = Combination([(KernelAlignment(4), 10.0), (RelationalDistillation(), 50.0)])
    >>> features = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    >>> round(both(features, features).item(), 4)
    0.001
    """

    uses_logits = True
    accepts_pairs = True

    def __init__(self, parts: Sequence[tuple[nn.Module, float]]) -> None:
        super().__init__()
        for _, beta in parts:
            if beta < 0:
                raise ValueError(f"A part has beta={beta}, expected a number of at least 0.")
        self.methods = nn.ModuleList(method for method, _ in parts)
        self.betas = [float(beta) for _, beta in parts]
        # For each active part, its columns in what `fit` returned.
        self._columns: list[slice] | None = None

    @property
    def has_soft_targets(self) -> bool:  # type: ignore[override]
        """Whether all parts learn predictions."""
        return all(getattr(method, "has_soft_targets", False) for method, _ in self._active())

    @property
    def takes_soft_targets(self) -> bool:  # type: ignore[override]
        """Whether no part needs features if the rows have soft targets."""
        return all(getattr(method, "takes_soft_targets", False) for method, _ in self._active())

    @property
    def feature_weights(self) -> Tensor:
        """Weight of each foundation feature in the first part that has feature weights."""
        for method, _ in self._active():
            if hasattr(method, "feature_weights"):
                return method.feature_weights
        raise AttributeError("No part of the combination has feature weights.")

    def forward(self, student: Any, foundation: Tensor, logits: Tensor | None = None) -> Tensor:
        """Return the weighted sum.

        Parameters
        ----------
        student : Tensor of shape (B, p)
            Input of the student's last linear layer.
        foundation : Tensor of shape (B, d)
            Features of the same rows, or what `fit` returned for them.
        logits : Tensor of shape (B, n_outputs)
            The student's logits, for parts with ``uses_logits``.

        Returns
        -------
        total : Tensor, scalar
            Sum over the parts.
        """
        total = foundation.new_zeros(())
        for method, beta, own in self.parts_of(foundation):
            extra = (logits,) if getattr(method, "uses_logits", False) else ()
            total = total + beta * method(student_features_for(method, student), own, *extra)
        return total

    def parts_of(self, foundation: Tensor) -> Iterator[tuple[nn.Module, float, Tensor]]:
        """Yield each active part, its beta, and its columns of what ``forward`` receives.

        Parameters
        ----------
        foundation : Tensor of shape (B, d)
            Features, or what `fit` returned.

        Yields
        ------
        part : tuple of nn.Module, float and Tensor
            The objective, its beta, and its input of shape (B, d_part).
        """
        active = self._active()
        columns = self._columns or [slice(None)] * len(active)
        for (method, beta), own in zip(active, columns, strict=True):
            yield method, beta, foundation[:, own]

    def fit(self, rows: TransferRows) -> ConcatenatedRows | None:
        """Fit the parts.

        Parameters
        ----------
        rows : TransferRows
            The training rows.

        Returns
        -------
        targets : ConcatenatedRows or None
            The features, if any part takes them, followed by the targets of the other parts.
            None if all parts take the features.
        """
        fitted = [
            method.fit(rows) if hasattr(method, "fit") else None for method, _ in self._active()
        ]
        self._columns = None
        if all(targets is None for targets in fitted):
            return None
        takes_features = any(targets is None for targets in fitted)
        pieces = [rows.features] if takes_features else []
        width = rows.features.shape[1] if takes_features else 0
        of_features = slice(0, width)
        self._columns = []
        for targets in fitted:
            if targets is None:
                self._columns.append(of_features)
            else:
                pieces.append(targets)
                self._columns.append(slice(width, width + targets.shape[1]))
                width += targets.shape[1]
        return ConcatenatedRows(pieces, axis=1)

    def _active(self) -> list[tuple[Any, float]]:
        pairs = zip(self.methods, self.betas, strict=True)
        return [(method, beta) for method, beta in pairs if beta > 0]
