"""Feature distillation: the student's features predict the foundation features."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sk_aft.transfer._base import TransferMethod
from sk_aft.transfer._precision import Linear, in_full_precision


class FeatureDistillation(TransferMethod):
    r"""Error of a learned linear map from the student's features to the foundation features.

    .. math::
        R = \tfrac{1}{Bd} \lVert \Phi W + 1 b^\top - \Psi \rVert_F^2

    Unlike `KernelAlignment`, it penalises all information in the foundation features that is
    absent from the student's, whether or not the task needs it.

    Parameters
    ----------
    n_features : int
        Width d of the foundation features.
    n_student_features : int
        Width p of the student's features.

    Attributes
    ----------
    map : Linear
        W and b, learned.
    default_beta : float
        beta used unless it is tuned: 1. Foundation features whose variance is far from 1 need
        another value.

    References
    ----------
    Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531; Romero et
    al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550, equation 3.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import FeatureDistillation
    >>> distillation = FeatureDistillation(n_features=4, n_student_features=2)
    >>> student = torch.randn(8, 2)
    >>> distillation(student, distillation.map(student)).item()
    0.0
    """

    def __init__(self, n_features: int, n_student_features: int) -> None:
        super().__init__()
        self.map = Linear(n_student_features, n_features)

    @in_full_precision
    def forward(self, student: Tensor, foundation: Tensor) -> Tensor:
        """Return the mean squared error.

        Parameters
        ----------
        student : Tensor of shape (B, n_student_features)
            Input of the student's last linear layer.
        foundation : Tensor of shape (B, n_features)
            Features of the same rows.

        Returns
        -------
        error : Tensor, scalar
            Mean over rows and columns.
        """
        return F.mse_loss(self.map(student), foundation)
