"""A bag of n-gram embeddings for texts."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class TextBag(nn.Module):
    """Embeddings of a text's n-grams, added up, then a small residual network.

    Much cheaper than anything that reads a text in order, and hard to beat with few labels: a
    text costs as many additions as it has n-grams, and two small matrix products.

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary, see `sk_aft.preprocessing.NgramTokenizer`.
    n_outputs : int
        Number of classes or targets.
    width : int, default=128
        Width of the embeddings and of the features.
    token_dropout : float, default=0.5
        Probability of leaving a token out in training: the network learns not to rely on any
        single one, which few texts hold.
    dropout : float, default=0.0
        Probability of dropping a hidden value in training.
    sparse : bool, default=False
        Whether gradients of the embeddings hold the rows of a batch only, which
        `sk_aft.optim.RowwiseAdamW` takes.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import TextBag
    >>> bag = TextBag(n_tokens=10, n_outputs=2)
    >>> tokens, offsets = torch.tensor([1, 4, 9]), torch.tensor([0, 1])  # texts of 1 and 2 tokens
    >>> logits, features = bag(tokens, offsets, weights=torch.ones(3))
    >>> logits.shape, features.shape
    (torch.Size([2, 2]), torch.Size([2, 128]))
    """

    def __init__(
        self,
        n_tokens: int,
        n_outputs: int,
        width: int = 128,
        token_dropout: float = 0.5,
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.token_dropout = token_dropout
        self.sparse = sparse
        self.embedding = nn.EmbeddingBag(n_tokens, width, mode="sum")
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.project = nn.Linear(width, width)
        self.head = nn.Linear(width, n_outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, indices: Tensor, offsets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and features of a batch of texts.

        Parameters
        ----------
        indices : Tensor of shape (n_tokens_in_batch,), int64
            Tokens of all texts, one text after the other.
        offsets : Tensor of shape (B,), int64
            Where each text starts in ``indices``.
        weights : Tensor of shape (n_tokens_in_batch,)
            How much each token counts.

        Returns
        -------
        logits : Tensor of shape (B, n_outputs)
            Scores.
        features : Tensor of shape (B, width)
            What the transfer acts on, taken before the last GELU, which would keep them from
            being negative and so from pointing away from each other.
        """
        bag = self.norm(self._bag(indices, offsets, weights))
        bag = bag + F.gelu(self.hidden(self.dropout(bag)))
        features = self.project(self.dropout(bag))
        return self.head(F.gelu(features)), features

    def _bag(self, indices: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        if not self.training:
            return self.embedding(indices, offsets, per_sample_weights=weights)
        weights = F.dropout(weights, self.token_dropout)
        if not self.sparse:
            return self.embedding(indices, offsets, per_sample_weights=weights)
        # One gradient for each token of the batch, not for each time that it occurs.
        tokens, places = indices.unique(return_inverse=True)
        rows = F.embedding(tokens, self.embedding.weight, sparse=True)
        return F.embedding_bag(places, rows, offsets, mode="sum", per_sample_weights=weights)
