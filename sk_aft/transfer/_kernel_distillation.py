"""Kernel distillation: matches kernels after a learned map of the student's features."""

from __future__ import annotations

from torch import Tensor

from sk_aft.transfer._base import TransferMethod
from sk_aft.transfer._cosine_distance import cosine_kernel_distance
from sk_aft.transfer._precision import Linear, in_full_precision


class KernelDistillation(TransferMethod):
    r"""Distance between the kernels of mapped student features and of foundation features.

    .. math::
        R = \sqrt{\tfrac{1}{B^2} \sum_{ij} (K_{ij} - \tilde K_{ij})^2 + 10^{-8}}

    with K the cosine kernel of the centred rows of :math:`\Phi W`, and :math:`\tilde K` that of
    :math:`\Psi`. `KernelAlignment` learns weights of the foundation features, so the student may
    leave out information that it does not need. Here it may not.

    Parameters
    ----------
    n_features : int
        Width d of the foundation features.
    n_student_features : int
        Width p of the student's features.

    Attributes
    ----------
    map : Linear
        W of shape (p, d), learned.
    default_beta : float
        beta used unless it is tuned: 10, as for `KernelAlignment`.

    References
    ----------
    He & Ozay, "Feature Kernel Distillation", ICLR 2022; as used for comparison by Qiu et
    al., ICML 2024, arXiv 2406.07337.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import KernelDistillation
    >>> distillation = KernelDistillation(n_features=4, n_student_features=2)
    >>> student = torch.randn(8, 2)
    >>> round(distillation(student, distillation.map(student)).item(), 4)
    0.0001
    """

    default_beta = 10.0

    def __init__(self, n_features: int, n_student_features: int) -> None:
        super().__init__()
        self.map = Linear(n_student_features, n_features, bias=False)

    @in_full_precision
    def forward(self, student: Tensor, foundation: Tensor) -> Tensor:
        """Return the distance between the two kernels.

        Parameters
        ----------
        student : Tensor of shape (B, n_student_features)
            Input of the student's last linear layer.
        foundation : Tensor of shape (B, n_features)
            Features of the same rows.

        Returns
        -------
        distance : Tensor, scalar
            Between 1e-4 (equal kernels) and about 2.
        """
        return cosine_kernel_distance(self.map(student), foundation)
