"""Small networks by name, as arguments of `AFTClassifier` and `AFTRegressor`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion, make_union
from torch import Tensor, nn

from sk_aft.modules import MixedNet, ResNet, SparseBag


class TokenSequences(TransformerMixin, BaseEstimator):
    """Texts as sequences of word pieces, learned from the training texts.

    Parameters
    ----------
    n_tokens : int, default=8000
        Size of the vocabulary at most.
    max_length : int, default=48
        Longer texts are cut.
    """

    def __init__(self, n_tokens: int = 8000, max_length: int = 48) -> None:
        self.n_tokens = n_tokens
        self.max_length = max_length

    def fit(self, X: Any, y: Any = None) -> TokenSequences:
        """Learn the vocabulary; 0 is kept for what fills up a batch."""
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

        self.tokenizer_ = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        self.tokenizer_.normalizer = normalizers.BertNormalizer()
        self.tokenizer_.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.n_tokens, special_tokens=["[PAD]", "[UNK]"], show_progress=False
        )
        self.tokenizer_.train_from_iterator(list(X), trainer)
        self.tokenizer_.enable_truncation(self.max_length)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return an array of arrays of token numbers."""
        encoded = self.tokenizer_.encode_batch(list(X))
        sequences = np.empty(len(encoded), dtype=object)
        sequences[:] = [np.array(one.ids or [1]) for one in encoded]
        return sequences


class Transformer(nn.Module):
    """A small transformer encoder (Vaswani et al. 2017) whose last states are averaged.

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary.
    n_outputs : int
        Number of classes or targets.
    width, n_layers, max_length, dropout
        As usual.
    """

    def __init__(
        self,
        n_tokens: int,
        n_outputs: int,
        width: int = 64,
        n_layers: int = 2,
        max_length: int = 48,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, width, padding_idx=0)
        self.positions = nn.Embedding(max_length, width)
        nn.init.normal_(self.embedding.weight, std=0.1)
        nn.init.normal_(self.positions.weight, std=0.1)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and features of (B, longest) tokens."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        is_padding = places >= lengths[:, None]
        states = self.embedding(tokens) + self.positions(places)
        states = self.encoder(states, src_key_padding_mask=is_padding)
        kept = (~is_padding).unsqueeze(-1)
        mean = (states * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
        features = self.norm(mean)
        return self.head(features), features


def tfidf() -> FeatureUnion:
    """Return words, pairs of words and pieces of words."""
    return make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"),
        TfidfVectorizer(ngram_range=(3, 4), sublinear_tf=True, analyzer="char_wb"),
    )


# Half the time on CPUs that have bfloat16; used for every method.
_RESNET: dict[str, Any] = {
    "module": ResNet,
    "module__flip": True,
    "precision": "bf16-mixed",
    "lr": 3e-3,
}
_LARGER: dict[str, Any] = {**_RESNET, "module__widths": (32, 64, 128)}
_AS_IT_IS: dict[str, Any] = {"module__max_shift": 0.0, "module__flip": False}

_STUDENTS: dict[str, dict[str, Any]] = {
    # The lines in the results are those of version 0.1, whose network read n-grams of its own.
    "bag of n-grams": {"module": SparseBag, "preprocessor": tfidf()},
    "static": {},
    "transformer": {
        "module": Transformer,
        "preprocessor": TokenSequences(),
        "module__n_tokens": 8000,
        "lr": 3e-3,
    },
    "ResNet 78k": _RESNET,
    "ResNet 309k": _LARGER,
    "ResNet 78k, not augmented": {**_RESNET, **_AS_IT_IS},
    "image and text, bilinear": {"module": MixedNet},
    "image and text, concatenated": {"module": MixedNet, "module__head": "concatenation"},
    "image": {},
    "text": {},
}
_OF_DATA: dict[str, dict[str, Any]] = {"chest_xray": {"preprocessor__size": 48}}


def student_settings(name: str, data: str) -> dict[str, Any]:
    """Return the arguments of a student of a data set; the learning rate is where trials start."""
    return {"lr": 1e-3, **_STUDENTS[name], **_OF_DATA.get(data, {})}
