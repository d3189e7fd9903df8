"""A network of static token embeddings for texts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sk_aft.modules._training_defaults import TrainingDefaults

# The multipliers of two hash functions: primes, so that no table's size divides them.
_HASHES = ((1_000_003, 786_433), (393_241, 1_572_869))
# Embeddings that start from random numbers are smaller than those of a foundation model, so that
# steps of the same size change them more.
_RANDOM_SCALE = 0.02
STARTED_SCALE = 0.1
_NO_PAIR = -1
_NEARLY_NONE = 1e-12  # pieces of words of padding, whose number divides


class StaticText(nn.Module):
    """The weighted mean of a text's token embeddings, followed by a linear layer.

    Every token has one vector, whatever the words around it. This takes microseconds a text, on a
    CPU, where a transformer takes milliseconds. Frequent pairs of adjacent tokens have vectors,
    too, which keeps some of the word order.

    A student with ``module="auto"`` starts from the embeddings of a foundation model, see
    ``start``. That helps most if labels are few and texts are many, because tokens are learned from
    the texts, with and without labels: a few texts know few words.

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary, see `sk_aft.preprocessing.SubwordTokenizer`.
    n_outputs : int
        Number of classes or targets.
    n_vectors : int, default=16384
        Largest number of vectors: one for each token, the rest for frequent pairs. With the default
        width these are 2.1 million weights. A student of few texts has fewer.
    width : int, default=128
        Width of the embeddings and of the features. Wider ones were not more accurate.
    hidden_size : int, default=0
        Width of a hidden layer before the features; 0 for none. It helps if there are many rows
        without labels and at least 1,000 steps, and overfits a few labels.
    token_dropout : float, default=0.0
        Probability of dropping a token in training. Try 0.3 together with a hidden layer.
    dropout : float, default=0.0
        Probability of dropping a feature in training.
    start : "auto", "random", str or Backbone, default="auto"
        Where `AFTClassifier` and `AFTRegressor` take the embeddings from:

        - "auto": the foundation model of the pipeline if it is a text model, else "random".
          A function or a transformer of scikit-learn counts as none, because it may be costly or
          mean nothing for single words; name it to use it.
        - "minilm", "st:NAME", "hf:NAME" or a backbone: this foundation model. Prefer a name to
          a loaded model, which pickles of the student would hold.
        - "random": random numbers.
        - None: the embeddings that the network has.
    sparse : bool, default=False
        Whether the gradients of the embeddings are sparse: they hold only the tokens of a batch.
        `sk_aft.optim.RowwiseAdamW` supports that.
    head_lr_factor : float, optional
        Learning rate of the head, relative to ``lr``; default: that of ``training_defaults``.
    n_frozen_layers : int, default=0
        1 keeps the embeddings as they start, and learns the head only.

    Attributes
    ----------
    bag : WeightedBag
        From tokens to the mean of their vectors.
    norm : LayerNorm
        Normalises the mean.
    hidden : Sequential or None
        The hidden layer, which is added to the normalised mean.
    head : Linear
        From the features to the outputs; starts from zero.
    start : "auto", "random", str, Backbone or None
        None once the embeddings are set, so that the network holds no foundation model.
    training_defaults : TrainingDefaults
        How it is trained unless parameters of the student change it.

    References
    ----------
    Arora et al., "A Simple but Tough-to-Beat Baseline for Sentence Embeddings", ICLR 2017, for the
    weights.

    Tulkens and van Dongen, "Model2Vec", 2024, for embeddings of single tokens by a sentence
    encoder.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.modules import StaticText
    >>> network = StaticText(n_tokens=10, n_outputs=2)
    >>> tokens, lengths = torch.tensor([[1, 4, 9], [2, 0, 0]]), torch.tensor([3, 1])
    >>> logits, features = network(tokens, lengths)
    >>> logits.shape, features.shape
    (torch.Size([2, 2]), torch.Size([2, 128]))
    """

    training_defaults = TrainingDefaults(
        lr=1e-3, head_lr_factor=2.0, weight_decay=0.0, warmup=0.1, n_steps=500, n_epochs=5
    )

    def __init__(
        self,
        n_tokens: int,
        n_outputs: int,
        n_vectors: int = 16_384,
        width: int = 128,
        hidden_size: int = 0,
        token_dropout: float = 0.0,
        dropout: float = 0.0,
        start: Any = "auto",
        sparse: bool = False,
        head_lr_factor: float | None = None,
        n_frozen_layers: int = 0,
    ) -> None:
        super().__init__()
        if width < 1 or n_vectors < 0:
            raise ValueError(
                f"width={width} and n_vectors={n_vectors}: expected at least 1 and at least 0."
            )
        self.start = start
        self.head_lr_factor = head_lr_factor
        self.n_frozen_layers = n_frozen_layers
        self.bag = WeightedBag(n_tokens, max(n_vectors - n_tokens, 0), width, token_dropout, sparse)
        self.norm = nn.LayerNorm(width)
        self.hidden = _residual(width, hidden_size) if hidden_size else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, n_outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def layers(self) -> list[nn.Module]:
        """The layers below the head."""
        return [self.bag]

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and features of a batch of texts.

        Parameters
        ----------
        tokens : Tensor of shape (B, longest), int64
            Tokens of each text, padded at the end.
        lengths : Tensor of shape (B,), int64
            Number of tokens of each text.

        Returns
        -------
        logits : Tensor of shape (B, n_outputs)
            Scores.
        features : Tensor of shape (B, width)
            What the transfer acts on.
        """
        features = self.norm(self.bag(tokens, lengths))
        if self.hidden is not None:
            features = features + self.hidden(features)
        return self.head(self.dropout(features)), features


class WeightedBag(nn.Module):
    """The weighted sum of the vectors of a text's tokens, and of pairs of adjacent tokens.

    The pieces of a word share the weight of one word. Pairs are looked up in a hash table with two
    possible places each, by integer arithmetic on the tokens; pairs that it does not hold are
    ignored.

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary.
    n_bigrams : int
        Size of the table of pairs.
    width : int
        Width of the vectors.
    token_dropout : float, default=0.0
        Probability of dropping a token or a pair in training.
    sparse : bool, default=False
        Whether the gradients of the vectors are sparse.

    Attributes
    ----------
    weight : Parameter of shape (n_tokens + n_bigrams, width)
        The vectors of the tokens, then those of the pairs.
    log_weights : Parameter of shape (n_tokens + n_bigrams,)
        Logarithm of the learned weight of each token and pair.
    starts_word : Tensor of shape (n_tokens,), bool
        Whether a token is the first piece of a word.
    pairs : Tensor of shape (n_bigrams,), int64
        The pair at each place of the table, as ``first * n_tokens + second``; -1 for none.
    """

    is_light = True  # little work for each of its weights, see `fitting_threads`
    starts_word: Tensor
    pairs: Tensor

    def __init__(
        self,
        n_tokens: int,
        n_bigrams: int,
        width: int,
        token_dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self.token_dropout = token_dropout
        self.sparse = sparse
        self.weight = nn.Parameter(torch.empty(n_tokens + n_bigrams, width))
        nn.init.normal_(self.weight, std=_RANDOM_SCALE)
        self.log_weights = nn.Parameter(torch.zeros(n_tokens + n_bigrams))
        self.register_buffer("starts_word", torch.ones(n_tokens, dtype=torch.bool))
        self.register_buffer("pairs", torch.full((n_bigrams,), _NO_PAIR))

    def keep_pairs(self, n_bigrams: int) -> None:
        """Make the table of pairs smaller; it is empty then."""
        n_vectors = self.n_tokens + n_bigrams
        self.weight = nn.Parameter(self.weight.detach()[:n_vectors].clone())
        self.log_weights = nn.Parameter(self.log_weights.detach()[:n_vectors].clone())
        self.pairs = self.pairs.new_full((n_bigrams,), _NO_PAIR)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the weighted sums, (B, width), of (B, longest) tokens."""
        # A call for one text is mostly the overhead of its operations, so they are few.
        is_token = (torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]).float()
        indices, weights = tokens, is_token / pieces_of_word(self.starts_word[tokens], is_token)
        if len(self.pairs):
            places, is_known = find_pairs(tokens, self.pairs, self.n_tokens)
            indices = torch.cat([tokens, self.n_tokens + places], dim=1)
            weights = torch.cat([weights, is_known * is_token[:, 1:]], dim=1)
        if self.training and self.sparse:
            weights = F.dropout(weights, self.token_dropout)
            return sum_of_rows(self.weight, self.log_weights, indices, weights)
        weights = weights * self.log_weights[indices].exp()
        if self.training:
            weights = F.dropout(weights, self.token_dropout)
        if torch.onnx.is_in_onnx_export():
            return weighted_sum(self.weight, indices, weights)
        return F.embedding_bag(indices, self.weight, mode="sum", per_sample_weights=weights)


class _SumOfRows(torch.autograd.Function):
    """See `sum_of_rows`."""

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, log_weights: Tensor, indices: Tensor, shares: Tensor
    ) -> Tensor:
        is_read = shares != 0  # most of a batch is padding, and pairs that have no vector
        n_rows, rows = is_read.sum(dim=1), indices[is_read]
        weights = shares[is_read] * log_weights[rows].exp()
        ctx.save_for_backward(vectors, log_weights, rows, weights, n_rows)
        starts = n_rows.cumsum(0) - n_rows
        return F.embedding_bag(rows, vectors, starts, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        vectors, log_weights, rows, weights, n_rows = ctx.saved_tensors
        # The gradient of a vector is the sum over the texts that it is in, which is a bag, too.
        ordered, order = rows.sort(stable=True)
        distinct, n_texts = ordered.unique_consecutive(return_counts=True)
        of_vectors = F.embedding_bag(
            torch.repeat_interleave(n_rows)[order],
            gradients,
            n_texts.cumsum(0) - n_texts,
            mode="sum",
            per_sample_weights=weights[order],
        )
        of_weights = torch.zeros_like(log_weights)
        # A vector times e^w: the derivative by w is the product with that by the vector.
        of_weights[distinct] = (vectors[distinct] * of_vectors).sum(dim=1)
        sparse = torch.sparse_coo_tensor(
            distinct[None],
            of_vectors,
            vectors.shape,
            check_invariants=False,  # torch warns unless it is set
        )
        return sparse, of_weights, None, None


@torch.compiler.disable
def sum_of_rows(vectors: Tensor, log_weights: Tensor, indices: Tensor, shares: Tensor) -> Tensor:
    """Return weighted sums of vectors, whose gradients are sparse.

    They are those of ``weighted_sum(vectors, indices, shares * log_weights[indices].exp())``, with
    one gradient for each vector of the batch, whatever the number of its occurrences.

    Parameters
    ----------
    vectors : Tensor of shape (n_vectors, width)
        The vectors; their gradient is sparse.
    log_weights : Tensor of shape (n_vectors,)
        Logarithms of their weights; their gradient is dense.
    indices : Tensor of shape (B, longest), int64
        Which vectors.
    shares : Tensor of shape (B, longest)
        Further weights, which have no gradient; vectors of share 0 are not read.

    Returns
    -------
    sums : Tensor of shape (B, width)
        The weighted sums.
    """
    sums: Tensor = _SumOfRows.apply(vectors, log_weights, indices, shares)
    return sums


def weighted_sum(vectors: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Return what ``embedding_bag`` does, in operations that ONNX has.

    Parameters
    ----------
    vectors : Tensor of shape (n_tokens, width)
        The vectors.
    indices, weights : Tensor of shape (B, longest)
        Which vectors, and their weights.

    Returns
    -------
    sums : Tensor of shape (B, width)
        The weighted sums.
    """
    return (F.embedding(indices, vectors) * weights.unsqueeze(2)).sum(dim=1)


def pieces_of_word(starts_word: Tensor, is_token: Tensor) -> Tensor:
    """Return for each token the number of pieces of its word.

    Parameters
    ----------
    starts_word : Tensor of shape (B, longest), bool
        Whether a token is the first piece of a word.
    is_token : Tensor of shape (B, longest)
        1 for tokens, 0 for padding.

    Returns
    -------
    n_pieces : Tensor of shape (B, longest)
        At least 1 for tokens, and above 0 for padding.
    """
    word = starts_word.cumsum(dim=1, dtype=torch.int64)
    n_pieces = is_token.new_full((word.shape[0], word.shape[1] + 1), _NEARLY_NONE)
    return n_pieces.scatter_add_(1, word, is_token).gather(1, word)


def find_pairs(tokens: Tensor, pairs: Tensor, n_tokens: int) -> tuple[Tensor, Tensor]:
    """Return the places of adjacent tokens in a table of pairs.

    Parameters
    ----------
    tokens : Tensor of shape (B, longest), int64
        Tokens.
    pairs : Tensor of shape (n_bigrams,), int64
        The table, see `table_of_pairs`.
    n_tokens : int
        Size of the vocabulary.

    Returns
    -------
    places : Tensor of shape (B, longest - 1), int64
        Where each pair is in the table.
    is_known : Tensor of shape (B, longest - 1), bool
        Whether it is there.
    """
    first, second = tokens[:, :-1], tokens[:, 1:]
    pair = first * n_tokens + second
    one, other = ((first * a).add_(second, alpha=b).remainder_(len(pairs)) for a, b in _HASHES)
    places = torch.where(pairs[one] == pair, one, other)
    return places, pairs[places] == pair


def table_of_pairs(pairs: Tensor, n_bigrams: int, n_tokens: int) -> Tensor:
    """Return a hash table of token pairs, in which each is at one of two places.

    Parameters
    ----------
    pairs : Tensor of shape (n_pairs, 2), int64
        Pairs of tokens, the most frequent first; a pair is left out if both places are taken.
    n_bigrams : int
        Size of the table.
    n_tokens : int
        Size of the vocabulary.

    Returns
    -------
    table : Tensor of shape (n_bigrams,), int64
        ``first * n_tokens + second``; -1 where there is none.
    """
    table = [_NO_PAIR] * n_bigrams
    for first, second in pairs.tolist() if n_bigrams else ():
        for a, b in _HASHES:
            place = (first * a + second * b) % n_bigrams
            if table[place] == _NO_PAIR:
                table[place] = first * n_tokens + second
                break
    return torch.tensor(table, dtype=torch.int64)


def _residual(width: int, hidden_size: int) -> nn.Sequential:
    """Return a hidden layer, whose output is small before training."""
    inner, outer = nn.Linear(width, hidden_size), nn.Linear(hidden_size, width)
    nn.init.normal_(inner.weight, std=1 / math.sqrt(width))
    nn.init.normal_(outer.weight, std=0.3 / math.sqrt(hidden_size))
    nn.init.zeros_(inner.bias)
    nn.init.zeros_(outer.bias)
    return nn.Sequential(inner, nn.GELU(), outer)
