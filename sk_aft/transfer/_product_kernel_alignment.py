"""Adaptive Feature Transfer for several modalities: kernels of outer products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sk_aft.transfer._base import TransferMethod
from sk_aft.transfer._kernel_alignment import check_choice
from sk_aft.transfer._kernels import cosine_kernel, kernel_distance, product_kernel
from sk_aft.transfer._precision import at_least_float32, in_full_precision

_WEIGHTS = ("diagonal", "fixed")


class ProductKernelAlignment(TransferMethod):
    r"""Kernel alignment of the outer products of each row's modalities.

    For images with texts, :math:`\psi = \mathrm{vec}(\psi_{img} \otimes \psi_{txt})` encodes
    which properties of image and text occur together. The Gram matrix of such vectors is the
    elementwise product of the modalities' Gram matrices,

    .. math::
        G = G_{img} \odot G_{txt}, \quad
        C = G - \tfrac{1}{B} G 1 1^\top - \tfrac{1}{B} 1 1^\top G
            + \tfrac{1}{B^2} 1 1^\top G 1 1^\top, \quad
        K_{ij} = C_{ij} / \sqrt{C_{ii} C_{jj}}

    so a kernel over 1024 x 1024 products costs as much as one over 2048 features. The distance
    is that of `KernelAlignment`.

    Parameters
    ----------
    n_features : int
        Total width d of the foundation features of all modalities.
    feature_slices : mapping of str to slice, or to a list of slices
        The columns of each modality in the foundation features.
    weights : {"diagonal", "fixed"}, default="diagonal"
        - "diagonal": learn a weight :math:`\sigma(s_j)` for each column of each modality, before
          the product.
        - "fixed": learn nothing; s stays 0.

    Attributes
    ----------
    s : Tensor of shape (n_features,)
        Logits of the feature weights, initially 0.
    columns : list of list of int
        The columns of each modality.
    default_beta : float
        beta used unless it is tuned: 10.

    Notes
    -----
    Gram matrices are computed in float64 (except on Apple GPUs, which do not support it):
    centring subtracts products of similar size.

    References
    ----------
    Qiu et al., "Transferring Knowledge from Large Foundation Models to Small Downstream
    Models", ICML 2024, arXiv 2406.07337, section on multi-modal tasks.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.transfer import ProductKernelAlignment
    >>> draw = torch.Generator().manual_seed(0)
    >>> images, texts = torch.randn(8, 3, generator=draw), torch.randn(8, 2, generator=draw)
    >>> modalities = {"image": slice(0, 3), "text": slice(3, 5)}
    >>> alignment = ProductKernelAlignment(5, modalities)
    >>> foundation = torch.cat([images, texts], dim=1)
    >>> round(alignment((images, texts), foundation).item(), 4)
    0.0001
    """

    default_beta = 10.0
    accepts_pairs = True

    def __init__(
        self,
        n_features: int,
        feature_slices: Mapping[str, slice | Sequence[slice]],
        weights: str = "diagonal",
    ) -> None:
        super().__init__()
        check_choice("weights", weights, _WEIGHTS)
        self.weights = weights
        # Column indices of each modality.
        self.columns = [_columns(slices, n_features) for slices in feature_slices.values()]
        if not self.columns or not all(self.columns):
            raise ValueError(
                f"feature_slices={feature_slices!r} has a modality without columns: give a "
                'mapping such as {"image": slice(0, 512), "text": slice(512, 1024)}.'
            )
        if weights == "fixed":
            self.register_buffer("s", torch.zeros(n_features))
        else:
            self.s = nn.Parameter(torch.zeros(n_features))

    @property
    def feature_weights(self) -> Tensor:
        """Weight of each foundation feature, between 0 and 1; shape (n_features,)."""
        return torch.sigmoid(at_least_float32(self.s))

    @in_full_precision
    def forward(self, student: Tensor | tuple[Tensor, ...], foundation: Tensor) -> Tensor:
        """Return the distance between the two kernels.

        Parameters
        ----------
        student : tuple of Tensor of shape (B, p_m), or Tensor of shape (B, p)
            The student's features of each modality, compared with the same product kernel; or
            features of the whole row, compared with their cosine kernel.
        foundation : Tensor of shape (B, n_features)
            Features of the same rows.

        Returns
        -------
        distance : Tensor, scalar
            Between 1e-4 (equal kernels) and about 2.
        """
        weighted = foundation * self.feature_weights
        modalities = tuple(weighted[:, columns] for columns in self.columns)
        is_whole = not isinstance(student, tuple)
        kernel = cosine_kernel(student) if is_whole else product_kernel(student)
        return kernel_distance(kernel, product_kernel(modalities))


def _columns(slices: slice | Sequence[slice], n_features: int) -> list[int]:
    several = [slices] if isinstance(slices, slice) else slices
    return [column for one in several for column in range(n_features)[one]]
