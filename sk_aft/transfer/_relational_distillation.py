"""Relational knowledge distillation: distances and angles between rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sk_aft.transfer._base import TransferMethod
from sk_aft.transfer._kernels import centred, squared_distances, to_unit_scale
from sk_aft.transfer._precision import in_full_precision

# Angles computed at once: a few matrices of this size fit in a processor's cache.
_ANGLES_PER_CHUNK = 2**18


class RelationalDistillation(TransferMethod):
    r"""Differences in the distances of pairs and the angles of triplets of rows.

    .. math::
        R = \tfrac{1}{2} \Bigl(
            \tfrac{1}{B^2} \sum_{ij} \ell(d^\phi_{ij}, d^\psi_{ij})
            + \tfrac{2}{B^3} \sum_{ijk} \ell(\cos\angle^\phi_{jik}, \cos\angle^\psi_{jik})
        \Bigr)

    with :math:`d_{ij}` the distance between two rows divided by the mean over all pairs of unequal
    rows, :math:`\angle_{jik}` the angle at row i between rows j and k (its cosine is 0 where row i
    equals row j or k), and :math:`\ell` the smooth L1 loss. R is invariant to rotation, translation
    and scaling of either side. Learns no parameters.

    Attributes
    ----------
    default_beta : float
        beta used unless it is tuned: 50, which gives the published weights, 25 for distances and
        50 for angles.

    Notes
    -----
    Time is cubic in the batch size. Memory is quadratic: distances and angles are computed from
    Gram matrices, and angles in chunks. The foundation features get no gradient.

    References
    ----------
    Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import RelationalDistillation
    >>> square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> RelationalDistillation()(3 * square, square).item() < 1e-6
    True
    """

    default_beta = 50.0

    @in_full_precision
    def forward(self, student: Tensor, foundation: Tensor) -> Tensor:
        """Return half the sum of the two terms.

        Parameters
        ----------
        student : Tensor of shape (B, p)
            Input of the student's last linear layer.
        foundation : Tensor of shape (B, d)
            Features of the same rows.

        Returns
        -------
        difference : Tensor, scalar
            At least 0.
        """
        gram, other_gram = _gram(student), _gram(foundation.detach())
        distances, others = _distances(gram), _distances(other_gram)
        pairs = F.smooth_l1_loss(_over_mean(distances), _over_mean(others))
        angles = _AngleLoss.apply(gram, _inverse(distances), other_gram, _inverse(others))
        return (pairs + 2 * angles) / 2


def _gram(features: Tensor) -> Tensor:
    scaled = to_unit_scale(centred(to_unit_scale(features)))
    return scaled @ scaled.T


def _distances(gram: Tensor) -> Tensor:
    """Return distances; those within rounding error of zero are zero, without a gradient."""
    squares = squared_distances(gram)
    lengths = gram.detach().diagonal()
    noise = 8 * torch.finfo(gram.dtype).eps * (lengths[:, None] + lengths[None, :])
    differs = squares > noise
    return torch.where(differs, squares, 1).sqrt() * differs


def _over_mean(distances: Tensor) -> Tensor:
    n_pairs = (distances > 0).sum().clamp_min(1)
    mean = distances.sum() / n_pairs
    return distances / torch.where(mean > 0, mean, 1)


def _inverse(distances: Tensor) -> Tensor:
    differs = distances > 0
    return differs / torch.where(differs, distances, 1)


class _AngleLoss(torch.autograd.Function):
    """Mean smooth L1 loss over the cosines of all triplets, from Gram matrices and 1 / distances.

    The gradient is computed together with the value, in chunks of angles: storing what a separate
    backward pass needs would take memory cubic in the batch size.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, inverse: Tensor, foundation: Tensor, other_inverse: Tensor
    ) -> Tensor:
        n_rows = len(student)
        learned = [student.detach().requires_grad_(), inverse.detach().requires_grad_()]
        needs_gradients = any(ctx.needs_input_grad)
        gradients = [torch.zeros_like(tensor) for tensor in learned]
        total = student.new_zeros(())
        n_vertices = max(1, _ANGLES_PER_CHUNK // n_rows**2)
        for start in range(0, n_rows, n_vertices):
            vertices = slice(start, start + n_vertices)
            target = _cosines_at(vertices, foundation, other_inverse)
            with torch.set_grad_enabled(needs_gradients):
                loss = F.smooth_l1_loss(_cosines_at(vertices, *learned), target, reduction="sum")
            total += loss.detach()
            if needs_gradients:
                for gradient, more in zip(
                    gradients, torch.autograd.grad(loss, learned), strict=True
                ):
                    gradient += more
        ctx.save_for_backward(*(gradient / n_rows**3 for gradient in gradients))
        return total / n_rows**3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return (*(outer * gradient for gradient in ctx.saved_tensors), None, None)


def _cosines_at(vertices: slice, gram: Tensor, inverse: Tensor) -> Tensor:
    """Return the cosines of the angles with a vertex in the slice, (n_vertices, B, B)."""
    row, lengths = gram[vertices], inverse[vertices]
    square = gram.diagonal()[vertices]
    products = gram - row[:, :, None] - row[:, None, :] + square[:, None, None]
    return products * lengths[:, :, None] * lengths[:, None, :]
