"""The distance between two cosine kernels, with an explicit gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sk_aft.transfer._kernels import EPSILON, largest


def cosine_kernel_distance(
    student: Tensor, foundation: Tensor, weight_logits: Tensor | None = None
) -> Tensor:
    r"""Return the root mean squared difference of the cosines between rows.

    .. math::
        R = \sqrt{\tfrac{1}{B^2} \sum_{ij} (K_{ij} - \tilde K_{ij})^2 + 10^{-8}}, \quad
        K_{ij} = G_{ij} / \sqrt{G_{ii} G_{jj}}, \quad G = X X^\top

    with X the student's features centred over the batch, and :math:`\tilde K` the same kernel of
    the foundation features times :math:`\sigma(s)`. With :math:`D = K - \tilde K`,
    :math:`S = \mathrm{diag}(G)^{-1/2}` and :math:`a_i = \sum_j D_{ij} K_{ij}`,

    .. math::
        \nabla_X R = \frac{2}{B^2 R} \, S (D - \mathrm{diag}(a)) S X, \quad
        \nabla_{s_j} R = - (1 - \sigma(s_j)) \sum_i X_{ij} (\nabla_X R)_{ij}

    (in the second gradient, X and K are those of the foundation features). Only two matrix
    products and a few elementwise passes touch (B, d) arrays; two products are the minimum.
    Autograd takes three, and about twice the time.

    Parameters
    ----------
    student : Tensor of shape (B, p)
        Features of the student.
    foundation : Tensor of shape (B, d)
        Features of the same rows.
    weight_logits : Tensor of shape (d,), optional
        s; if None, the foundation features are not weighted.

    Returns
    -------
    distance : Tensor, scalar
        At least 1e-4.
    """
    return _CosineKernelDistance.apply(student, foundation, weight_logits)


class _CosineKernelDistance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student: Tensor, foundation: Tensor, weight_logits: Tensor | None
    ) -> Tensor:
        weights = None if weight_logits is None else torch.sigmoid(weight_logits)
        side, other = _Side.of(student), _Side.of(foundation, weights)
        difference = side.kernel - other.kernel
        mean_square = torch.linalg.vector_norm(difference).square() / difference.numel()
        distance = (mean_square + EPSILON).sqrt()
        ctx.save_for_backward(difference, distance, weights)
        ctx.sides = side, other
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        difference, distance, weights = ctx.saved_tensors
        factor = 2 * outer / (distance * difference.numel())
        student, foundation, logits = None, None, None
        needs_student, needs_foundation, needs_logits = ctx.needs_input_grad
        side, other = ctx.sides
        if needs_student:
            student = _uncentred(side.gradient(difference), factor * side.factors)
        if needs_foundation or needs_logits:
            of_rows = other.gradient(difference)
            if needs_foundation:
                foundation = _uncentred(of_rows, -factor * other.factors)
            if needs_logits:
                logits = of_rows.mul_(other.rows).sum(dim=0) * (1 - weights) * -factor
        return student, foundation, logits


class _Side(NamedTuple):
    """Intermediate results for one side (student or foundation) and its cosine kernel."""

    rows: Tensor  # (B, d), features after centring, weighting and scaling
    factors: Tensor  # () or (d,), the product of weights and scale applied to the features
    kernel: Tensor  # (B, B)
    inverse: Tensor  # (B,), 1 / norm; 0 for rows of zeros
    scales: Tensor  # (B,), 1 / (norm + epsilon)

    @classmethod
    def of(cls, features: Tensor, weights: Tensor | None = None) -> _Side:
        # Cosines hardly depend on the scale, but squares could overflow or underflow.
        factor = largest(features).reciprocal()
        factors = factor if weights is None else factor * weights
        rows = torch.addcmul(-features.mean(dim=0) * factors, features, factors)
        gram = rows @ rows.T
        squares = gram.diagonal()
        # After centring, rows of features that do not vary contain only rounding error.
        size = features.shape[1] if weights is None else weights.square().sum()
        varies = squares > size * (4 * torch.finfo(features.dtype).eps) ** 2
        inverse = torch.where(varies, squares, 1).rsqrt() * varies
        scales = inverse / (1 + EPSILON * factor * inverse)
        return cls(rows, factors, gram.mul_(scales[:, None]).mul_(scales), inverse, scales)

    def gradient(self, difference: Tensor) -> Tensor:
        """Return the gradient with respect to ``rows``, up to the factor 2 / (B^2 R)."""
        own = torch.linalg.vecdot(difference, self.kernel)
        between = difference * self.scales[:, None]
        between.diagonal().sub_(own * self.inverse)
        return between.mul_(self.scales) @ self.rows


def _uncentred(gradient: Tensor, factors: Tensor) -> Tensor:
    """Return the gradient with respect to the features before centring and scaling."""
    return (gradient - gradient.mean(dim=0)) * factors
