"""A network for sparse rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_aft.modules._static_text import weighted_sum
from sk_aft.modules._training_defaults import TrainingDefaults


class SparseBag(nn.Module):
    """A linear layer for sparse rows, a normalisation and another linear layer.

    It reads the output of preprocessors such as scikit-learn's ``TfidfVectorizer``. A row costs one
    addition per number that is not zero, and one small matrix product.

    Parameters
    ----------
    n_tokens : int
        Number of columns.
    n_outputs : int
        Number of classes or targets.
    width : int, default=128
        Width of the features.
    token_dropout : float, default=0.0
        Probability of dropping a number of a row in training.
    dropout : float, default=0.0
        Probability of dropping a feature in training.
    sparse : bool, default=False
        Whether the gradients of the first layer are sparse: they hold only the columns that occur
        in a batch. `sk_aft.optim.RowwiseAdamW` supports that.

    Attributes
    ----------
    embedding : EmbeddingBag
        The weights of each column.
    norm : LayerNorm
        Normalises the sum.
    head : Linear
        From the features to the outputs.
    training_defaults : TrainingDefaults
        How it is trained unless parameters of the student change it.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import SparseBag
    >>> bag = SparseBag(n_tokens=10, n_outputs=2)
    >>> columns, offsets = torch.tensor([1, 4, 9]), torch.tensor([0, 1])  # rows of 1 and 2 numbers
    >>> logits, features = bag(columns, offsets, weights=torch.ones(3))
    >>> logits.shape, features.shape
    (torch.Size([2, 2]), torch.Size([2, 128]))
    """

    training_defaults = TrainingDefaults()

    def __init__(
        self,
        n_tokens: int,
        n_outputs: int,
        width: int = 128,
        token_dropout: float = 0.0,
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.token_dropout = token_dropout
        self.sparse = sparse
        self.embedding = nn.EmbeddingBag(n_tokens, width, mode="sum")
        nn.init.normal_(self.embedding.weight, std=0.01)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, indices: Tensor, offsets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and features of a batch of rows.

        Parameters
        ----------
        indices : Tensor of shape (n_numbers,), int64
            Columns of the numbers of all rows, one row after the other.
        offsets : Tensor of shape (B,), int64
            Where each row starts in ``indices``.
        weights : Tensor of shape (n_numbers,)
            The numbers.

        Returns
        -------
        logits : Tensor of shape (B, n_outputs)
            Scores.
        features : Tensor of shape (B, width)
            What the transfer acts on.
        """
        features = self.norm(self._bag(indices, offsets, weights))
        return self.head(self.dropout(features)), features

    def _bag(self, indices: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():  # all rows are padded to one length
            padded = (offsets.shape[0], -1)
            table = self.embedding.weight
            return weighted_sum(table, indices.reshape(padded), weights.reshape(padded))
        if not self.training:
            return self.embedding(indices, offsets, per_sample_weights=weights)
        weights = F.dropout(weights, self.token_dropout)
        if not self.sparse:
            return self.embedding(indices, offsets, per_sample_weights=weights)
        # One gradient for each distinct column of the batch, not for each occurrence.
        tokens, places = indices.unique(return_inverse=True)
        rows = F.embedding(tokens, self.embedding.weight, sparse=True)
        return F.embedding_bag(places, rows, offsets, mode="sum", per_sample_weights=weights)
