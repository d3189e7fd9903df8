"""A bag of n-gram embeddings for texts."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sk_aft.modules._training_defaults import TrainingDefaults


class TextBag(nn.Module):
    """The normalised sum of a text's n-gram embeddings, followed by a linear layer.

    It is much faster than networks that read a text in order, and hard to beat with the usual
    number of labels. A text costs one addition per n-gram and one small matrix product. It learns
    well thanks to the weights of `sk_aft.preprocessing.NgramTokenizer` and the step sizes of
    `sk_aft.optim.RowwiseAdamW`.

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary, see `sk_aft.preprocessing.NgramTokenizer`.
    n_outputs : int
        Number of classes or targets.
    width : int, default=128
        Width of the embeddings and of the features.
    token_dropout : float, default=0.0
        Probability of dropping a token in training, so that the network does not rely on any
        single token. Try 0.3 without transfer.
    dropout : float, default=0.0
        Probability of dropping a feature in training.
    sparse : bool, default=False
        Whether the embedding gradients are sparse: they hold only the tokens of a batch.
        `sk_aft.optim.RowwiseAdamW` supports that.

    Attributes
    ----------
    embedding : EmbeddingBag
        The vector of each token.
    norm : LayerNorm
        Normalises the sum of a text's vectors.
    head : Linear
        From the features to the outputs.
    training_defaults : TrainingDefaults
        How it is trained unless parameters of the student change it.

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
            What the transfer acts on.
        """
        features = self.norm(self._bag(indices, offsets, weights))
        return self.head(self.dropout(features)), features

    def _bag(self, indices: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        if not self.training:
            return self.embedding(indices, offsets, per_sample_weights=weights)
        weights = F.dropout(weights, self.token_dropout)
        if not self.sparse:
            return self.embedding(indices, offsets, per_sample_weights=weights)
        # One gradient for each distinct token of the batch, not for each occurrence.
        tokens, places = indices.unique(return_inverse=True)
        rows = F.embedding(tokens, self.embedding.weight, sparse=True)
        return F.embedding_bag(places, rows, offsets, mode="sum", per_sample_weights=weights)
