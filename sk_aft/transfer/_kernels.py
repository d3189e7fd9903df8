"""Kernels over the rows of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8


def centred(features: Tensor) -> Tensor:
    """Return features minus their mean over the batch, column by column."""
    return features - features.mean(dim=0)


def unit_rows(features: Tensor) -> Tensor:
    """Return centred features with every row scaled to unit norm."""
    features = centred(features)
    # The gradient of the norm at zero is zero, so rows of zeros have finite gradients.
    norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (norms + EPSILON)


def cosine_kernel(features: Tensor) -> Tensor:
    """Return the cosines between rows after centring, (B, B)."""
    unit = unit_rows(features)
    return unit @ unit.T


def rbf_kernel(features: Tensor) -> Tensor:
    """Return exp(-squared distance) between rows after centring and scaling, (B, B)."""
    unit = unit_rows(features)
    return torch.exp(-squared_distances(unit @ unit.T))


def squared_distances(gram: Tensor) -> Tensor:
    """Return the squared distances between rows, from their Gram matrix."""
    squares = gram.diagonal()
    return (squares[:, None] + squares[None, :] - 2 * gram).clamp_min(0)


def product_kernel(modalities: tuple[Tensor, ...]) -> Tensor:
    """Return the cosine kernel of each row's outer product over modalities, (B, B).

    The Gram matrix of the outer products is the elementwise product of the modalities' Gram
    matrices, so the outer products are never materialised.
    """
    precise = modalities[0].dtype if modalities[0].device.type == "mps" else torch.float64
    gram = _gram(modalities[0], precise)
    for features in modalities[1:]:
        gram = gram * _gram(features, precise)
    means = gram.mean(dim=1)
    means = means - means.mean() / 2
    kernel = (gram - means[:, None]).sub_(means)
    squares = kernel.diagonal()
    # Rows equal to the mean contain only rounding error after centring, of either precision.
    noise = torch.maximum(
        64 * torch.finfo(precise).eps * gram.detach().diagonal().max(),
        8 * torch.finfo(modalities[0].dtype).eps * squares.detach().mean(),
    )
    varies = squares > noise
    scales = torch.where(varies, squares, 1).rsqrt() * varies
    return (kernel * scales[:, None]).mul(scales).to(modalities[0].dtype)


def _gram(features: Tensor, precise: torch.dtype) -> Tensor:
    """Return the Gram matrix of features, up to a factor, with enough precision to centre it.

    Centring subtracts products of similar size, so they are added up in float64: the products of
    the centred features, for which float32 is enough, plus those with the mean.
    """
    # Scaled so that squares neither overflow nor underflow. Cosines do not depend on the scale,
    # so it is a constant for the gradient.
    scale = largest(features).reciprocal()
    mean = features.mean(dim=0) * scale
    rows = torch.addcmul(-mean, features, scale)
    with_mean = (rows @ mean + (mean @ mean) / 2).to(precise)
    return ((rows @ rows.T).to(precise) + with_mean[:, None]).add_(with_mean)


def to_unit_scale(features: Tensor) -> Tensor:
    """Divide by the largest absolute value, so that squares neither overflow nor underflow.

    For functions that are invariant to scale: their gradient is correct although the divisor is
    treated as a constant.
    """
    return features / largest(features)


def largest(features: Tensor) -> Tensor:
    """Return the largest absolute value, at least 1e-30; a constant for the gradient."""
    least, most = torch.aminmax(features.detach())  # far faster than the infinity norm
    return torch.maximum(-least, most).clamp_min(1e-30)


def kernel_distance(kernel: Tensor, other: Tensor) -> Tensor:
    """Return the root mean squared difference of two kernels, at least 1e-4."""
    return ((kernel - other).square().mean() + EPSILON).sqrt()
