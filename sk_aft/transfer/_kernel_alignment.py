"""Adaptive Feature Transfer: the student's kernel follows that of weighted foundation features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_EPSILON = 1e-8


class KernelAlignment(nn.Module):
    r"""Distance between the kernels of student and foundation features over a batch.

    With :math:`\Phi` (B, p) the student's and :math:`\Psi` (B, d) the foundation features,

    .. math::
        R = \sqrt{\tfrac{1}{B^2} \sum_{ij} (K_{ij} - \tilde K_{ij})^2 + 10^{-8}}

    where :math:`K = \hat\Phi \hat\Phi^\top` and :math:`\tilde K` is the same of
    :math:`\Psi \odot \sigma(s)`; a hat means centred over the batch column by column, then every
    row scaled to unit norm. Blind to rotations and isotropic scaling of either side, so no
    projection is learned and the widths may differ.

    Parameters
    ----------
    n_features : int
        Width d of the foundation features.

    Attributes
    ----------
    s : Parameter of shape (n_features,)
        Logits of the feature weights, initially 0 (weights of 0.5).
    default_strength : float
        beta unless tuned: 10, as published.

    Notes
    -----
    Computed in float32 whatever the precision around it: centred features of one batch differ
    in the digits that 16-bit floats drop, and their norms may underflow.

    References
    ----------
    Qiu et al., "Transferring Knowledge from Large Foundation Models to Small Downstream
    Models", ICML 2024, arXiv 2406.07337, equations 5 to 8.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import KernelAlignment
    >>> features = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    >>> alignment = KernelAlignment(4)
    >>> round(alignment(features, features).item(), 4)  # identical: nothing to learn
    0.0001
    """

    default_strength = 10.0

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(n_features))

    @property
    def feature_weights(self) -> Tensor:
        """How much each foundation feature counts, between 0 and 1; shape (n_features,)."""
        return torch.sigmoid(self.s.float())

    def forward(self, student: Tensor, foundation: Tensor) -> Tensor:
        """Return the distance of the two kernels.

        Parameters
        ----------
        student : Tensor of shape (B, p)
            Input of the student's last linear layer.
        foundation : Tensor of shape (B, n_features)
            Features of the same rows.

        Returns
        -------
        distance : Tensor, scalar, float32
            Between 1e-4 (equal kernels) and about 2.
        """
        with torch.autocast(student.device.type, enabled=False):
            weighted = foundation.float() * self.feature_weights
            difference = _cosine_kernel(student.float()) - _cosine_kernel(weighted)
            return (difference.square().mean() + _EPSILON).sqrt()


def _cosine_kernel(features: Tensor) -> Tensor:
    centred = features - features.mean(dim=0)
    # The norm's gradient at zero is zero, so rows without variation do no harm.
    norms = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    unit = centred / (norms + _EPSILON)
    return unit @ unit.T
