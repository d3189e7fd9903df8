"""Distillation of a linear probe: its predictions are soft targets of the student's."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from sk_aft.transfer._base import TransferMethod, TransferRows
from sk_aft.transfer._precision import in_full_precision
from sk_aft.transfer._probe import ClassProbe, RidgeProbe, default_folds
from sk_aft.transfer._targets import labeled_rows, predicted_targets


class ProbeDistillation(TransferMethod):
    r"""Difference between the student's predictions and those of a probe of the features.

    .. math::
        R = \tfrac{T^2}{B} \sum_i \mathrm{KL}\bigl(
            \mathrm{softmax}(\tfrac{1}{T} \log q_i) \,\big\Vert\,
            \mathrm{softmax}(\tfrac{1}{T} f(x_i)) \bigr)

    with f(x) the student's logits and q the class probabilities of a logistic regression on
    the standardised foundation features. Of a labelled row they are those of a probe that has
    not seen its label (out of fold): one that has would repeat it, and say nothing about what
    the features know. Of other rows they are those of a probe fitted on all labelled rows.

    For regression q is what a ridge regression predicts, and R the mean squared difference.

    Parameters
    ----------
    temperature : float, default=1.0
        T. Larger ones have the student learn the probe's doubts, too.

    Attributes
    ----------
    default_beta : float
        beta unless tuned: 1.

    Notes
    -----
    A row that is the only one of its class keeps its label.

    References
    ----------
    Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import ProbeDistillation
    >>> probabilities = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    >>> features = torch.zeros(2, 3)
    >>> abs(ProbeDistillation()(features, probabilities, probabilities.log()).item()) < 1e-6
    True
    """

    uses_logits = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}, expected a number above 0.")
        self.temperature = temperature
        self.is_regression = False

    @in_full_precision
    def forward(self, student: Tensor, foundation: Tensor, logits: Tensor) -> Tensor:
        """Return the mean divergence, or for regression the mean squared difference.

        Parameters
        ----------
        student : Tensor of shape (B, p)
            Not used.
        foundation : Tensor of shape (B, n_outputs)
            What `fit` returned of the same rows.
        logits : Tensor of shape (B, n_outputs)
            What the student says.

        Returns
        -------
        difference : Tensor, scalar
            Not negative.
        """
        if self.is_regression:
            return F.mse_loss(logits, foundation)
        sharpened = foundation ** (1 / self.temperature)
        targets = sharpened / sharpened.sum(dim=1, keepdim=True)
        said = F.log_softmax(logits / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(said, targets, reduction="batchmean")

    def fit(self, rows: TransferRows) -> np.ndarray:
        """Fit the probes.

        Parameters
        ----------
        rows : TransferRows
            The training rows.

        Returns
        -------
        targets : ndarray of shape (n, n_outputs), float32
            Class probabilities, or predictions; NaN in rows without features.
        """
        self.is_regression = rows.n_classes is None
        if "probe" not in rows.shared:
            rows.shared["probe"] = self._predictions(rows)
        return rows.shared["probe"]

    def _predictions(self, rows: TransferRows) -> np.ndarray:
        labeled, matrix = labeled_rows(rows)
        features, targets = rows.features.take(labeled), rows.targets[labeled]
        probe = RidgeProbe() if rows.n_classes is None else ClassProbe(rows.n_classes)
        folds = default_folds(targets, stratify=rows.n_classes is not None, seed=rows.seed)
        of_labeled = probe.out_of_fold(features, targets, folds)
        others = rows.known_mask & ~rows.labeled_mask
        if others.any():
            probe.fit(features, targets)
        predictions = predicted_targets(rows, probe.predict, matrix.shape[1], others)
        predictions[labeled] = of_labeled
        return predictions
