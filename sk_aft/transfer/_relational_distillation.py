"""Relational knowledge distillation: distances and angles between rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sk_aft.transfer._base import TransferMethod
from sk_aft.transfer._kernels import centred, squared_distances, to_unit_scale
from sk_aft.transfer._precision import in_full_precision

# Angles that exist at a time: a few matrices of this many numbers fit in a processor's cache.
_ANGLES_PER_CHUNK = 2**20


class RelationalDistillation(TransferMethod):
    r"""Differences of distances between pairs and of angles in triplets of rows.

    .. math::
        R = \tfrac{1}{2} \Bigl(
            \tfrac{1}{B^2} \sum_{ij} \ell(d^\phi_{ij}, d^\psi_{ij})
            + \tfrac{2}{B^3} \sum_{ijk} \ell(\cos\angle^\phi_{jik}, \cos\angle^\psi_{jik})
        \Bigr)

    with :math:`d_{ij}` the distance of two rows divided by the mean over all pairs that are not
    equal, :math:`\angle_{jik}` the angle at row i between rows j and k (its cosine is 0 where
    two of them are equal), and :math:`\ell` the smooth L1 loss. Learns no parameters, and blind
    to rotations, shifts and scale of either side.

    Attributes
    ----------
    default_strength : float
        beta unless tuned: 50, which makes the published 25 and 50 for distances and angles.

    Notes
    -----
    Time is cubic in the batch, memory quadratic: distances and angles come from the Gram
    matrices, and the angles are taken some at a time, again in the backward pass.

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

    default_strength = 50.0

    @in_full_precision
    def forward(self, student: Tensor, foundation: Tensor) -> Tensor:
        """Return half the sum of both terms.

        Parameters
        ----------
        student : Tensor of shape (B, p)
            Input of the student's last linear layer.
        foundation : Tensor of shape (B, d)
            Features of the same rows.

        Returns
        -------
        difference : Tensor, scalar
            Not negative.
        """
        grams = [_gram(student), _gram(foundation)]
        distances = [_distances(gram) for gram in grams]
        pairs = F.smooth_l1_loss(*(_over_mean(of_pairs) for of_pairs in distances))
        inverses = [_inverse(of_pairs) for of_pairs in distances]
        return (pairs + 2 * _angle_loss(*grams, *inverses)) / 2


def _gram(features: Tensor) -> Tensor:
    scaled = to_unit_scale(centred(to_unit_scale(features)))
    return scaled @ scaled.T


def _distances(gram: Tensor) -> Tensor:
    """Return distances; those that are within rounding of zero are zero, with no gradient."""
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


def _angle_loss(
    student: Tensor, foundation: Tensor, student_inverse: Tensor, foundation_inverse: Tensor
) -> Tensor:
    """Return the mean smooth L1 loss over the cosines of all triplets."""
    n_rows = len(student)
    total = student.new_zeros(())
    for vertices in torch.arange(n_rows).split(max(1, _ANGLES_PER_CHUNK // n_rows**2)):
        start, stop = int(vertices[0]), int(vertices[-1]) + 1
        total = total + checkpoint(
            _angle_loss_at,
            *(student, foundation, student_inverse, foundation_inverse, start, stop),
            use_reentrant=False,
            preserve_rng_state=False,
        )
    return total / n_rows**3


def _angle_loss_at(
    student: Tensor,
    foundation: Tensor,
    student_inverse: Tensor,
    foundation_inverse: Tensor,
    start: int,
    stop: int,
) -> Tensor:
    return F.smooth_l1_loss(
        _cosines_at(student, student_inverse, start, stop),
        _cosines_at(foundation, foundation_inverse, start, stop),
        reduction="sum",
    )


def _cosines_at(gram: Tensor, inverse: Tensor, start: int, stop: int) -> Tensor:
    """Return the cosines of the angles at some rows between all rows, (stop - start, B, B)."""
    row, lengths = gram[start:stop], inverse[start:stop]
    square = gram.diagonal()[start:stop]
    products = gram - row[:, :, None] - row[:, None, :] + square[:, None, None]
    return products * lengths[:, :, None] * lengths[:, None, :]
