"""Factor transfer: the student predicts an autoencoder's code of the foundation features."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_aft.transfer._base import TransferMethod, TransferRows
from sk_aft.transfer._precision import Linear, in_full_precision

_SLOPE = 0.1  # of the leaky ReLUs, as published
_MAX_FACTORS = 512
_HELD_OUT = 0.1
_BATCH_SIZE = 256
_LEARNING_RATE = 3e-3
_PATIENCE = 3
_MAX_STEPS = 2000
_MIN_STEPS_PER_CHECK = 50
_IMPROVEMENT = 0.01  # relative; smaller ones do not reset the patience


class FactorTransfer(TransferMethod):
    r"""Difference between the factor of the foundation features and the student's prediction.

    .. math::
        R = \tfrac{1}{Bk} \sum_i \left\lVert \frac{g(\phi_i)}{\lVert g(\phi_i) \rVert_2}
            - \frac{e(\psi_i)}{\lVert e(\psi_i) \rVert_2} \right\rVert_1

    The encoder e is one half of an autoencoder of the foundation features. It is trained
    before the student, on the training rows only, with early stopping on a held-out tenth of
    them, and then frozen. The translator g has three layers and is learned with the student.

    Parameters
    ----------
    n_features : int
        Width d of the foundation features.
    n_student_features : int
        Width p of the student's features.
    n_factors : int, optional
        Width k of the factor. Default: half of d, as published, but at most 512.

    Attributes
    ----------
    encoder : Sequential
        e, frozen. Its input is standardised: features minus their mean, divided by their scale.
    translator : Sequential
        g, learned.
    default_beta : float
        beta used unless it is tuned: 50.

    References
    ----------
    Kim et al., "Paraphrasing Complex Network: Network Compression via Factor Transfer",
    NeurIPS 2018, arXiv 1802.04977.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import FactorTransfer
    >>> factor_transfer = FactorTransfer(n_features=8, n_student_features=2)
    >>> factor_transfer.encode(torch.randn(5, 8)).shape
    torch.Size([5, 4])
    """

    default_beta = 50.0
    mean: Tensor
    scale: Tensor

    def __init__(
        self, n_features: int, n_student_features: int, n_factors: int | None = None
    ) -> None:
        super().__init__()
        width = n_factors or max(1, min(n_features // 2, _MAX_FACTORS))
        self.encoder = _perceptron(n_features, width, width).requires_grad_(False)
        self.translator = _perceptron(n_student_features, width, width, width)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(()))

    def encode(self, foundation: Tensor) -> Tensor:
        """Return the factor of foundation features, (B, n_factors)."""
        return self.encoder(self._standardised(foundation))

    @in_full_precision
    def forward(self, student: Tensor, foundation: Tensor) -> Tensor:
        """Return the mean absolute difference.

        Parameters
        ----------
        student : Tensor of shape (B, n_student_features)
            Input of the student's last linear layer.
        foundation : Tensor of shape (B, n_features)
            Features of the same rows.

        Returns
        -------
        difference : Tensor, scalar
            Mean over rows and factors.
        """
        predicted, factor = self.translator(student), self.encode(foundation)
        return F.l1_loss(F.normalize(predicted, eps=1e-8), F.normalize(factor, eps=1e-8))

    def fit(self, rows: TransferRows) -> None:
        """Train the autoencoder.

        Parameters
        ----------
        rows : TransferRows
            The training rows; those without features are ignored.
        """
        random = np.random.default_rng(rows.seed)
        indices = random.permutation(np.flatnonzero(rows.known_mask))
        n_held_out = int(np.ceil(_HELD_OUT * len(indices)))
        held_out, train = np.sort(indices[:n_held_out]), indices[n_held_out:]
        if not len(train):
            return  # at most one row: none is left to train on
        self._fit_scale(rows, train)
        # The decoder mirrors the encoder.
        n_factors, n_features = self.encoder[0].weight.shape
        decoder = _perceptron(n_factors, n_factors, n_features).to(self.mean.device)
        best, misses, n_steps = np.inf, 0, 0
        best_encoder = copy.deepcopy(self.encoder.state_dict())
        self.encoder.requires_grad_(True)
        optimizer = torch.optim.Adam(
            [*self.encoder.parameters(), *decoder.parameters()], lr=_LEARNING_RATE
        )
        with torch.enable_grad():
            while misses < _PATIENCE and n_steps < _MAX_STEPS:
                checked = n_steps
                while n_steps < checked + _MIN_STEPS_PER_CHECK:
                    for batch in self._batches(rows, random.permutation(train)):
                        optimizer.zero_grad()
                        F.mse_loss(decoder(self.encoder(batch)), batch).backward()
                        optimizer.step()
                        n_steps += 1
                error = self._error(decoder, rows, held_out)
                misses += 1
                if error < best * (1 - _IMPROVEMENT):
                    best, best_encoder = error, copy.deepcopy(self.encoder.state_dict())
                    misses = 0
        self.encoder.load_state_dict(best_encoder)
        self.encoder.requires_grad_(False).zero_grad()

    def _standardised(self, foundation: Tensor) -> Tensor:
        return (foundation - self.mean.to(foundation.dtype)) / self.scale.to(foundation.dtype)

    def _fit_scale(self, rows: TransferRows, train: np.ndarray) -> None:
        total, squares = 0.0, 0.0
        for indices in _split(train):
            batch = np.asarray(rows.features.take(indices), dtype=np.float64)
            total, squares = total + batch.sum(axis=0), squares + (batch**2).sum(axis=0)
        mean = total / len(train)
        variance = np.mean(squares / len(train) - mean**2)
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.fill_(float(np.sqrt(max(variance, 0.0))) or 1.0)

    def _batches(self, rows: TransferRows, indices: np.ndarray) -> Iterator[Tensor]:
        for batch in _split(indices):
            # Sorted, as a store reads rows faster in its own order, and the order within a batch
            # does not matter.
            features = np.asarray(rows.features.take(np.sort(batch)), dtype=np.float32)
            yield self._standardised(torch.from_numpy(features).to(self.mean.device))

    @torch.no_grad()
    def _error(self, decoder: nn.Module, rows: TransferRows, indices: np.ndarray) -> float:
        errors = [
            F.mse_loss(decoder(self.encoder(batch)), batch).item() * len(batch)
            for batch in self._batches(rows, indices)
        ]
        return sum(errors) / len(indices)


def _perceptron(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [Linear(width, following), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers[:-1])


def _split(indices: np.ndarray) -> list[np.ndarray]:
    return np.split(indices, range(_BATCH_SIZE, len(indices), _BATCH_SIZE))
