"""B-Tuning: the student matches predictions of Bayesian linear models of the teachers."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional as F

from sk_aft.metrics._logme import LogME, fit_logme
from sk_aft.transfer._base import TransferMethod, TransferRows
from sk_aft.transfer._precision import in_full_precision
from sk_aft.transfer._targets import labeled_rows, predicted_targets

_TEMPERATURE = 0.1


class BTuning(TransferMethod):
    r"""Difference between linear predictions from student and from foundation features.

    .. math::
        R = \tfrac{1}{BK} \Bigl\lVert \Phi m_\phi
            - \sum_t \pi_t \Psi_t m_t \Bigr\rVert_F^2, \quad
        \pi = \mathrm{softmax}(\mathrm{LogME}_t / 0.1)

    with :math:`\Psi_t` the features of foundation model t, and m the posterior mean weights of
    the Bayesian linear model of the K targets (one per class) with maximum evidence; LogME is
    the logarithm of this evidence. All weights are fixed before training, from the rows with
    label and features; :math:`m_\phi` is fitted on the untrained student's features of these
    rows. Learns no parameters.

    Parameters
    ----------
    n_student_features : int
        Width p of the student's features.
    n_outputs : int
        Number K of classes or targets.

    Attributes
    ----------
    student_weights : Tensor of shape (n_student_features, n_outputs)
        :math:`m_\phi`; zeros before ``fit``.
    model_weights : dict of str to float
        :math:`\pi`, the weight of each foundation model; set by ``fit``.
    default_beta : float
        beta used unless it is tuned: 10.

    References
    ----------
    You et al., "Ranking and Tuning Pre-trained Models: A New Paradigm for Exploiting Model
    Hubs", JMLR 2022, arXiv 2110.10545, section 5.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import BTuning
    >>> tuning = BTuning(n_student_features=3, n_outputs=2)
    >>> tuning(torch.ones(4, 3), torch.ones(4, 2)).item()  # not fitted: predicts 0
    1.0
    """

    default_beta = 10.0
    student_weights: Tensor

    def __init__(self, n_student_features: int, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("student_weights", torch.zeros(n_student_features, n_outputs))
        self.model_weights: dict[str, float] = {}

    @in_full_precision
    def forward(self, student: Tensor, foundation: Tensor) -> Tensor:
        """Return the mean squared difference of the predictions.

        Parameters
        ----------
        student : Tensor of shape (B, n_student_features)
            Input of the student's last linear layer.
        foundation : Tensor of shape (B, n_outputs)
            What `fit` returned for the same rows.

        Returns
        -------
        difference : Tensor, scalar
            Mean over rows and targets.
        """
        return F.mse_loss(student @ self.student_weights.to(student.dtype), foundation)

    def fit(self, rows: TransferRows) -> np.ndarray:
        """Fit the Bayesian linear models.

        Parameters
        ----------
        rows : TransferRows
            The training rows.

        Returns
        -------
        predictions : ndarray of shape (n, n_outputs), float32
            Weighted predictions of the foundation models; NaN in rows without features.
        """
        is_first_fit = not self.model_weights
        indices, targets = labeled_rows(rows)
        features = rows.features.take(indices)
        models = {
            name: _fit(features[:, columns], targets)
            for name, columns in rows.feature_slices.items()
        }
        shares = softmax([model.evidence.mean() / _TEMPERATURE for model in models.values()])
        self.model_weights = dict(zip(models, shares.tolist(), strict=True))
        weights = np.zeros((features.shape[1], targets.shape[1]))
        for name, columns in rows.feature_slices.items():
            weights[columns] = self.model_weights[name] * models[name].weights
        if is_first_fit:  # later, the student's features are no longer its initial ones
            student_weights = _fit(rows.student_features(indices), targets).weights
            self.student_weights.copy_(torch.from_numpy(student_weights))
        return predicted_targets(rows, lambda block: block @ weights, targets.shape[1])


def _fit(features: np.ndarray, targets: np.ndarray) -> LogME:
    """Fit LogME to the targets that vary; constant targets get weights of 0."""
    varies = (targets != targets[0]).any(axis=0)
    found = fit_logme(features, targets[:, varies])
    weights = np.zeros((features.shape[1], targets.shape[1]))
    weights[:, varies] = found.weights
    return LogME(found.evidence, weights)
