"""Distillation of predictions: given soft targets, or those of a linear probe."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from sk_aft.transfer._base import TransferMethod, TransferRows
from sk_aft.transfer._precision import in_full_precision
from sk_aft.transfer._probe import default_folds, equal_rows, trained_probe
from sk_aft.transfer._targets import labeled_rows, predicted_targets


class ProbeDistillation(TransferMethod):
    r"""Difference between the student's predictions and soft targets.

    Soft targets are those given by ``soft_targets`` of the student's `fit` or by a
    `FoundationFeatures`; otherwise the predictions of a probe of the foundation features. There
    is no probe of rows that hold soft targets, even if all of these are absent: such features come
    from a model that has seen the labels.

    .. math::
        R = \tfrac{T^2}{B} \sum_i \mathrm{KL}\bigl(
            \mathrm{softmax}(\tfrac{1}{T} \log q_i) \,\big\Vert\,
            \mathrm{softmax}(\tfrac{1}{T} f(x_i)) \bigr)

    with f(x) the student's logits and q the soft targets. Rows whose soft targets are NaN do not
    contribute. Without soft targets, q is the class probabilities of a logistic regression on
    the standardised foundation features. For labelled rows, q is predicted out of fold: a probe
    fitted on a row would reproduce its label rather than the information in the features. For
    the other rows, q is predicted by a probe fitted on all labelled rows.

    For regression, q is given, or the prediction of a ridge regression, and R is the mean squared
    difference.

    Parameters
    ----------
    temperature : float, default=1.0
        T. Larger values give more weight to the probabilities of unlikely classes.

    Attributes
    ----------
    default_beta : float
        beta used unless it is tuned: 1.

    Notes
    -----
    A row that is the only one of its class has its one-hot label as the target of a probe.

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
    has_soft_targets = True
    takes_soft_targets = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}, expected a number above 0.")
        self.temperature = temperature
        self._is_regression = False

    @in_full_precision
    def forward(self, student: Tensor, foundation: Tensor, logits: Tensor) -> Tensor:
        """Return the mean divergence or, for regression, the mean squared difference.

        Parameters
        ----------
        student : Tensor of shape (B, p)
            Not used.
        foundation : Tensor of shape (B, n_outputs)
            What `fit` returned for the same rows.
        logits : Tensor of shape (B, n_outputs)
            The student's logits, or predictions of a regressor.

        Returns
        -------
        difference : Tensor, scalar
            At least 0.
        """
        if self._is_regression:
            return F.mse_loss(logits, foundation)
        sharpened = foundation ** (1 / self.temperature)
        targets = sharpened / sharpened.sum(dim=1, keepdim=True)
        log_predictions = F.log_softmax(logits / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(log_predictions, targets, reduction="batchmean")

    def fit(self, rows: TransferRows) -> np.ndarray:
        """Return the soft targets; if there are none, fit the probes and return their predictions.

        Parameters
        ----------
        rows : TransferRows
            The training rows.

        Returns
        -------
        targets : ndarray of shape (n, n_outputs), float32
            Class probabilities, or predictions of the regression; NaN in rows without soft
            targets, or without features.
        """
        self._is_regression = rows.n_classes is None
        if rows.soft_targets is not None:
            return rows.soft_targets
        indices, matrix = labeled_rows(rows)
        features, targets = rows.features.take(indices), rows.targets[indices]
        folds = default_folds(
            targets,
            stratify=rows.n_classes is not None,
            seed=rows.seed,
            groups=equal_rows(features),
        )
        others = rows.known_mask & ~rows.labeled_mask
        out_of_fold, probe = trained_probe(
            features, targets, folds, n_classes=rows.n_classes, predicts=bool(others.any())
        )
        # Nothing predicts the only row of a class.
        out_of_fold = np.where(np.isnan(out_of_fold), matrix, out_of_fold)
        predictions = predicted_targets(rows, probe.predict, matrix.shape[1], others)
        predictions[indices] = out_of_fold
        return predictions
