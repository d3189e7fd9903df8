"""A bilinear layer that computes no outer products."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BilinearHead(nn.Module):
    r"""Outputs that depend on the interaction of two modalities' features.

    .. math::
        o_k = \phi_1^\top W_k \phi_2 + a_k^\top \phi_1 + b_k^\top \phi_2 + c_k

    is linear in the outer product of :math:`\phi_1` and :math:`\phi_2`. Use it as the last layer
    of a network whose transfer is `sk_aft.transfer.ProductKernelAlignment`. The form is computed
    without materialising the (B, n_first, n_second) outer products: apart from the weights, the
    largest tensor has n_outputs * B * n_second entries.

    Parameters
    ----------
    n_first : int
        Width of the first features.
    n_second : int
        Width of the second features.
    n_outputs : int
        Number of classes or targets.

    Attributes
    ----------
    weight : Parameter of shape (n_outputs, n_first, n_second)
        W, initially 0: the head starts as a linear layer and learns the products that the task
        needs.
    linear : torch.nn.Linear
        The linear terms, over the concatenated features.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import BilinearHead
    >>> head = BilinearHead(1024, 512, 3)
    >>> head(torch.zeros(2, 1024), torch.zeros(2, 512)).shape
    torch.Size([2, 3])
    """

    def __init__(self, n_first: int, n_second: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_outputs, n_first, n_second))
        self.linear = nn.Linear(n_first + n_second, n_outputs)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return outputs (B, n_outputs) of features (B, n_first) and (B, n_second)."""
        projected = first @ self.weight  # (n_outputs, B, n_second)
        products = torch.einsum("kbm,bm->bk", projected, second)
        return products + self.linear(torch.cat([first, second], dim=1))
