"""Feature regression: the foundation features predict the student's, without a kernel."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sk_aft.transfer._base import TransferMethod
from sk_aft.transfer._kernels import centred
from sk_aft.transfer._precision import Linear, in_full_precision


class FeatureRegression(TransferMethod):
    r"""Error of a learned linear map from the foundation features to the student's features.

    .. math::
        R = \tfrac{1}{Bp} \lVert \bar\Phi - \overline{\Psi W} \rVert_F^2

    where a bar means centred over the batch, column by column. This is the ablation of
    `KernelAlignment` that replaces kernels with a linear map of features.

    Parameters
    ----------
    n_features : int
        Width d of the foundation features.
    n_student_features : int
        Width p of the student's features.

    Attributes
    ----------
    map : Linear
        W, learned.
    default_beta : float
        beta used unless it is tuned: 1.

    References
    ----------
    Qiu et al., "Transferring Knowledge from Large Foundation Models to Small Downstream
    Models", ICML 2024, arXiv 2406.07337, the ablation without kernel.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import FeatureRegression
    >>> regression = FeatureRegression(n_features=4, n_student_features=2)
    >>> foundation = torch.randn(8, 4)
    >>> regression(regression.map(foundation), foundation).item()
    0.0
    """

    def __init__(self, n_features: int, n_student_features: int) -> None:
        super().__init__()
        self.map = Linear(n_features, n_student_features, bias=False)

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
        return F.mse_loss(centred(student), centred(self.map(foundation)))
