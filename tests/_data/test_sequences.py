"""Texts as sequences of tokens: padded batch by batch, similar lengths together."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from torch import nn

from sk_aft import AFTClassifier
from sk_aft._data._batches import RowBatches, bucketed
from sk_aft._data._tensors import PartTensors, SequenceTensors, to_tensors
from sk_aft.datasets import load_banking77
from sk_aft.modules import StaticText

CPU = torch.device("cpu")


def sequences(lengths):
    """Sequences whose tokens say which row they are of."""
    rows = np.empty(len(lengths), dtype=object)
    rows[:] = [np.full(length, row + 1) for row, length in enumerate(lengths)]
    return rows


class Bytes(TransformerMixin, BaseEstimator):
    """A tokenizer: bytes from 1 to 256."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        rows = np.empty(len(X), dtype=object)
        rows[:] = [np.frombuffer(text.encode(), dtype=np.uint8).astype(int) + 1 for text in X]
        return rows


class Recurrent(nn.Module):
    """Read bytes one after another."""

    def __init__(self, n_tokens, n_outputs):
        super().__init__()
        self.embedding = nn.Embedding(max(n_tokens, 257), 32, padding_idx=0)
        self.reader = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, n_outputs)
        self.shares_of_padding = []

    def forward(self, tokens, lengths):
        assert ((tokens > 0).sum(dim=1) == lengths).all()
        if self.training:
            self.shares_of_padding.append((tokens == 0).float().mean().item())
        states, _ = self.reader(self.embedding(tokens))
        features = states[torch.arange(len(lengths)), lengths - 1]
        return self.head(features), features


@pytest.mark.parametrize("indices", [slice(1, 4), np.array([3, 0, 2]), np.array([4])])
def test_rows_are_padded_to_the_longest(indices):
    lengths = np.array([3, 1, 0, 5, 2])
    taken = SequenceTensors(sequences(lengths)).take(indices, CPU)
    assert taken["lengths"].tolist() == lengths[indices].tolist()
    assert taken["tokens"].dtype == torch.int64
    assert taken["tokens"].shape == (len(lengths[indices]), lengths[indices].max())
    numbers = np.arange(5)[indices]
    for tokens, row in zip(taken["tokens"], numbers, strict=True):
        expected = [row + 1] * lengths[row] + [0] * (len(tokens) - lengths[row])
        assert tokens.tolist() == expected


def test_like_lengths_share_a_batch():
    lengths = np.random.RandomState(0).geometric(0.05, 5000)
    prepared = SequenceTensors(sequences(lengths))
    batches = RowBatches(
        prepared,
        torch.arange(5000),
        batch_size=64,
        device=CPU,
        shuffle=np.random.RandomState(0),
    )
    passes = [list(batches) for _ in range(2)]
    for batches_of_pass in passes:
        rows = torch.cat([batch.targets for batch in batches_of_pass])
        assert sorted(rows.tolist()) == list(range(5000))
        for batch in batches_of_pass:
            assert batch.inputs["tokens"][:, 0].tolist() == (batch.targets + 1).tolist()
        n_places = sum(batch.inputs["tokens"].numel() for batch in batches_of_pass)
        assert n_places < 1.5 * lengths.sum()  # without sorting, 4.7 times
        longest = [batch.inputs["tokens"].shape[1] for batch in batches_of_pass]
        assert longest != sorted(longest)  # batches come in any order
    first, second = ({frozenset(b.targets.tolist()) for b in batches} for batches in passes)
    assert len(first & second) < 5  # other rows meet


@pytest.mark.parametrize("n_rows", [5, 20, 107])
def test_bucketing_keeps_the_rows(n_rows):
    random = np.random.RandomState(0)
    order = bucketed(random.permutation(n_rows), random.randint(1, 9, n_rows), 10, random)
    assert sorted(order) == list(range(n_rows))


def test_few_rows_meet_others_at_every_pass():
    random, lengths = np.random.RandomState(0), np.arange(340)
    passes = [bucketed(random.permutation(340), lengths, 32, random) for _ in range(2)]
    first, second = ({frozenset(p[i : i + 32]) for i in range(0, 340, 32)} for p in passes)
    assert not first & second
    # The last batch, which is smaller, is no batch of the longest.
    assert lengths[passes[0][320:]].mean() < 250


class Ragged(Bytes):
    """As one would write it, which makes a matrix of texts that are of one length."""

    def transform(self, X):
        return np.array([row.tolist() for row in super().transform(X)], dtype=object)


class MeanEmbedding(nn.Module):
    def __init__(self, n_tokens, n_outputs):
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, 8, padding_idx=0)
        self.head = nn.Linear(8, n_outputs)

    def forward(self, tokens, lengths):
        features = self.embedding(tokens).sum(dim=1) / lengths.clamp_min(1)[:, None]
        return self.head(features), features


def test_sequences_of_one_length_are_sequences():
    texts = ["abc", "ab", "b", "cab"] * 5
    student = AFTClassifier(MeanEmbedding, preprocessor=Ragged(), beta=0, max_epochs=2)
    student.fit(texts, [0, 1, 1, 0] * 5)
    together = student.predict_proba(texts[:4])
    for row, text in enumerate(texts[:4]):
        np.testing.assert_allclose(student.predict_proba([text])[0], together[row], atol=1e-6)


def test_tokens_that_training_did_not_have():
    student = AFTClassifier(MeanEmbedding, preprocessor=Bytes(), beta=0, max_epochs=2)
    student.fit(["abc", "ab", "b"] * 5, [0, 1, 1] * 5)
    with pytest.raises(ValueError, match="larger than those of the training rows"):
        student.predict(["z", "ab"])
    student.set_params(module__n_tokens=257).fit(["abc", "ab", "b"] * 5, [0, 1, 1] * 5)
    assert student.predict(["z", "ab"]).shape == (2,)


def test_rows_of_different_lengths_have_to_be_sequences():
    with pytest.raises(ValueError, match=r"rows of different lengths. If they are sequences"):
        to_tensors([[1, 2], [3]])


def test_students_learn_from_sequences():
    bunch = load_banking77()
    keep = np.flatnonzero(np.isin(bunch.target, np.unique(bunch.target)[:2]))[::2]
    texts = [bunch.data[row][:30] for row in keep]
    labels = np.asarray(bunch.target)[keep]
    features = np.random.RandomState(0).normal(size=(len(texts), 8)).astype(np.float32)
    student = AFTClassifier(
        Recurrent,
        preprocessor=Bytes(),
        beta=1,
        max_epochs=12,
        batch_size=16,
        lr=5e-3,
        random_state=0,
    ).fit(texts, labels, features=features)
    assert student.score(texts, labels) > 0.6
    together = student.predict_proba(texts)
    alone = np.concatenate([student.predict_proba([text]) for text in texts[:20]])
    np.testing.assert_allclose(together[:20], alone, atol=1e-5)  # the order is that of the rows
    again = clone(student).fit(texts, labels, features=features)
    assert again.loss_curve_ == student.loss_curve_


def test_sequences_may_be_a_part():
    lengths = np.random.RandomState(0).randint(1, 50, 400)
    parts = {"text": sequences(lengths), "numbers": np.arange(400)[:, None]}
    prepared = to_tensors(parts)
    assert isinstance(prepared, PartTensors)
    batches = list(
        RowBatches(prepared, batch_size=20, device=CPU, shuffle=np.random.RandomState(0))
    )
    for batch in batches:
        tokens, numbers = batch.inputs["text"]["tokens"], batch.inputs["numbers"]
        assert tokens[:, 0].tolist() == (numbers[:, 0] + 1).tolist()  # of one row
    n_places = sum(batch.inputs["text"]["tokens"].numel() for batch in batches)
    assert n_places < 1.3 * lengths.sum()  # without sorting, 1.9 times
    assert to_tensors({"numbers": np.ones((2, 4))}).lengths is None


@pytest.mark.parametrize("row", [np.array([0.5]), np.array([-1]), np.ones((2, 2), int)])
def test_rows_have_to_be_token_numbers(row):
    rows = sequences([2, 3])
    rows[1] = row
    with pytest.raises(ValueError, match="returned for row 1 an array of dtype"):
        to_tensors(rows)


def test_sequences_of_the_users_preprocessor_are_read_by_static_embeddings():
    student = AFTClassifier(beta=0, preprocessor=Bytes(), random_state=0)
    student.fit(["a", "b", "a b", "b b"], [0, 1, 0, 1])
    assert isinstance(student.module_, StaticText)
    assert student.predict(["a a", "b"]).tolist() == [0, 1]
