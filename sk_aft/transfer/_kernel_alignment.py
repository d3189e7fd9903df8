"""Adaptive Feature Transfer: aligns the student's kernel with the foundation features' kernel."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

import torch
from torch import Tensor, nn

from sk_aft.transfer._base import TransferMethod
from sk_aft.transfer._cosine_distance import cosine_kernel_distance
from sk_aft.transfer._kernels import kernel_distance, rbf_kernel
from sk_aft.transfer._precision import Linear, at_least_float32, in_full_precision

_KERNELS = ("linear", "rbf")
_WEIGHTS = ("diagonal", "fixed", "dense")


class KernelAlignment(TransferMethod):
    r"""Distance between the kernels of student and foundation features over a batch.

    With :math:`\Phi` (B, p) the student's and :math:`\Psi` (B, d) the foundation features,

    .. math::
        R = \sqrt{\tfrac{1}{B^2} \sum_{ij} (K_{ij} - \tilde K_{ij})^2 + 10^{-8}}

    where :math:`K = \hat\Phi \hat\Phi^\top` and :math:`\tilde K` is the same kernel of
    :math:`\Psi \odot \sigma(s)`. A hat means centred over the batch, column by column, with every
    row then scaled to unit norm. R is invariant to rotation and isotropic scaling of either side,
    and the widths may differ. With a projection, :math:`\Phi P` replaces :math:`\Phi`.

    Parameters
    ----------
    n_features : int
        Width d of the foundation features.
    kernel : {"linear", "rbf"}, default="linear"
        Kernel of two rows a and b of unit norm: their inner product ("linear"), or
        :math:`\exp(-\lVert a - b \rVert^2)` ("rbf").
    weights : {"diagonal", "fixed", "dense"}, default="diagonal"
        - "diagonal": learn a weight :math:`\sigma(s_j)` for each foundation feature.
        - "fixed": learn nothing; s stays 0.
        - "dense": learn a linear map, :math:`\Psi A` with A of shape (d, d).
    projection : int or None, default=None
        Width of a learned linear map P of the student's features, whose output the kernel
        compares, for example 128. None compares the features themselves, as published.
    n_student_features : int, optional
        Width p of the student's features; needed for a projection.

    Attributes
    ----------
    s : Tensor of shape (n_features,)
        Logits of the feature weights, initially 0 (weights of 0.5). Absent with "dense".
    A : Parameter of shape (n_features, n_features)
        Only with "dense": the map, initially normal with variance 1 / n_features.
    map : Linear
        Only with a projection: P of shape (n_student_features, projection), learned.
    default_beta : float
        beta used unless it is tuned: 10, as published.

    Notes
    -----
    The defaults are the published method. A projection is an extension: as in
    `KernelDistillation`, the student has to represent the foundation model's information but may
    represent other information as well.

    With the linear kernel the gradient is computed explicitly, which takes half the time of
    autograd. It cannot be differentiated again.

    Computed in float32 even under mixed precision: centred features of one batch differ in
    digits that 16-bit floats drop, and their norms may underflow. float64 stays float64.

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
    >>> round(alignment(features, features).item(), 4)  # identical: the minimum
    0.0001
    """

    default_beta = 10.0

    def __init__(
        self,
        n_features: int,
        kernel: str = "linear",
        weights: str = "diagonal",
        projection: int | None = None,
        n_student_features: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("kernel", kernel, _KERNELS)
        check_choice("weights", weights, _WEIGHTS)
        self.kernel = kernel
        self.weights = weights
        if weights == "dense":
            self.A = nn.Parameter(torch.randn(n_features, n_features) / n_features**0.5)
        elif weights == "fixed":
            self.register_buffer("s", torch.zeros(n_features))
        else:
            self.s = nn.Parameter(torch.zeros(n_features))
        is_width = isinstance(projection, Integral) and not isinstance(projection, bool)
        if not (projection is None or (is_width and projection > 0)):
            raise ValueError(
                f"projection is {projection!r}, expected a width of 1 or more or None."
            )
        self.projection = projection
        if projection is not None:
            if n_student_features is None:
                raise ValueError(f"projection={projection} needs n_student_features.")
            self.map = Linear(n_student_features, projection, bias=False)

    @property
    def feature_weights(self) -> Tensor:
        """Weight of each foundation feature, between 0 and 1; shape (n_features,).

        Raises AttributeError with ``weights="dense"``.
        """
        if self.weights == "dense":
            raise AttributeError("With weights='dense' the features have no individual weights.")
        return torch.sigmoid(at_least_float32(self.s))

    @in_full_precision
    def forward(self, student: Tensor, foundation: Tensor) -> Tensor:
        """Return the distance between the two kernels.

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
        if self.projection is not None:
            student = self.map(student)
        if self.weights == "dense":
            foundation = foundation @ self.A.to(foundation.dtype)
        if self.kernel == "rbf":
            weighted = foundation if self.weights == "dense" else foundation * self.feature_weights
            return kernel_distance(rbf_kernel(student), rbf_kernel(weighted))
        logits = None if self.weights == "dense" else at_least_float32(self.s)
        return cosine_kernel_distance(student, foundation, logits)


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise an error that lists the choices if the value is none of them."""
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name} is {value!r}, expected one of {known}.")
