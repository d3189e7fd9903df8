"""Adaptive Feature Transfer: the student's kernel follows that of weighted foundation features."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sk_aft.transfer._base import TransferMethod
from sk_aft.transfer._cosine_distance import cosine_kernel_distance
from sk_aft.transfer._kernels import kernel_distance, rbf_kernel
from sk_aft.transfer._precision import Linear, at_least_float32, in_full_precision

_KERNELS = ("linear", "rbf")
_DEFAULT_WIDTH = 128
_WEIGHTS = ("diagonal", "published", "fixed", "dense")


class KernelAlignment(TransferMethod):
    r"""Distance between the kernels of student and foundation features over a batch.

    With :math:`\Phi` (B, p) the student's and :math:`\Psi` (B, d) the foundation features,

    .. math::
        R = \sqrt{\tfrac{1}{B^2} \sum_{ij} (K_{ij} - \tilde K_{ij})^2 + 10^{-8}}

    where :math:`K = \hat\Phi \hat\Phi^\top` and :math:`\tilde K` is the same of
    :math:`\Psi \odot \sigma(s)`; a hat means centred over the batch column by column, then every
    row scaled to unit norm. Blind to rotations and isotropic scaling of either side, so the
    widths may differ. With a projection, :math:`\Phi P` takes the place of :math:`\Phi`.

    Parameters
    ----------
    n_features : int
        Width d of the foundation features.
    kernel : {"linear", "rbf"}, default="linear"
        What compares two rows that are centred and of unit norm: their product, or
        :math:`\exp(-\lVert a - b \rVert^2)`.
    weights : {"diagonal", "published", "fixed", "dense"}, default="diagonal"
        What is learned of the foundation features: a weight :math:`\sigma(s_j)` for each
        ("diagonal"; "published" is the same, and has no projection unless one is asked for),
        nothing ("fixed": s stays 0), or a linear map, :math:`\Psi A` with A of shape (d, d)
        ("dense").
    projection : int, None or "auto", default="auto"
        Width of a learned linear map P of the student's features that the kernel is taken of, as
        in `KernelDistillation`. The student then has to hold what the foundation model knows,
        but may hold other things beside it, which keeps the transfer from harming where the
        foundation model knows less of the task than the rows tell. None compares the features
        themselves, as published. "auto" is 128 for ``kernel="linear", weights="diagonal"`` if
        ``n_student_features`` is given, else None.
    n_student_features : int, optional
        Width p of the student's features; needed for a projection.

    Attributes
    ----------
    s : Tensor of shape (n_features,)
        Logits of the feature weights, initially 0 (weights of 0.5). Not with "dense".
    A : Parameter of shape (n_features, n_features)
        With "dense": the map, initially normal of variance 1 / n_features.
    map : Linear
        With a projection: P of shape (n_student_features, projection), learned.
    default_beta : float
        beta unless tuned: 10, as published.

    Notes
    -----
    With the linear kernel the gradient is written out, which takes half the time, and has no
    gradient of its own.

    Computed in float32 whatever the precision around it: centred features of one batch differ
    in the digits that 16-bit floats drop, and their norms may underflow. float64 stays float64.

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

    default_beta = 10.0

    def __init__(
        self,
        n_features: int,
        kernel: str = "linear",
        weights: str = "diagonal",
        projection: int | str | None = "auto",
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
        if projection == "auto":
            is_default = kernel == "linear" and weights == "diagonal"
            projection = _DEFAULT_WIDTH if is_default and n_student_features else None
        elif isinstance(projection, str):
            raise ValueError(f"projection is {projection!r}, expected a width, None or 'auto'.")
        self.projection = projection
        if projection is not None:
            if n_student_features is None:
                raise ValueError(f"projection={projection} needs to know n_student_features.")
            self.map = Linear(n_student_features, projection, bias=False)

    @property
    def feature_weights(self) -> Tensor:
        """How much each foundation feature counts, between 0 and 1; shape (n_features,).

        There is none with ``weights="dense"``.
        """
        if self.weights == "dense":
            raise AttributeError("A dense map mixes the features: none has a weight of its own.")
        return torch.sigmoid(at_least_float32(self.s))

    @in_full_precision
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
    """Raise if a parameter is none of its choices, which are listed."""
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name} is {value!r}, expected one of {known}.")
