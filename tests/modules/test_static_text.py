"""A network of static token embeddings, against a computation word by word."""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sk_aft import AFTClassifier
from sk_aft.modules import StaticText
from sk_aft.modules._static_text import WeightedBag, find_pairs, pieces_of_word, table_of_pairs

N_TOKENS = 12
PAIRS = [(1, 2), (2, 1), (4, 4), (0, 3), (11, 0)]


def batch(texts):
    lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)
    # Padding is a token that occurs, too; a batch has at least one column, as students make it.
    tokens = torch.full((len(texts), max(map(len, [*texts, [0]]))), 1)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
    return tokens, lengths


def random_bag(n_bigrams=40, seed=0, **parameters):
    generator = torch.Generator().manual_seed(seed)
    bag = WeightedBag(N_TOKENS, n_bigrams, 6, **parameters).eval()
    with torch.no_grad():
        bag.weight.normal_(generator=generator)
        bag.log_weights.normal_(generator=generator)
        bag.starts_word.copy_(torch.arange(N_TOKENS) % 3 != 2)  # 2, 5, 8 and 11 continue a word
        bag.pairs.copy_(table_of_pairs(torch.tensor(PAIRS), n_bigrams, N_TOKENS))
    return bag


@torch.no_grad()
def naive(bag, text):
    """Return the weighted sum of the vectors of a text, one token after the other."""
    words = []
    for token in text:
        if bag.starts_word[token] or not words:
            words.append([])
        words[-1].append(token)
    total = torch.zeros(bag.weight.shape[1])
    for word in words:
        for token in word:
            total += bag.weight[token] * math.exp(bag.log_weights[token]) / len(word)
    places = {int(pair): place for place, pair in enumerate(bag.pairs) if pair >= 0}
    for first, second in pairwise(text):
        place = places.get(first * bag.n_tokens + second)
        if place is not None:
            row = bag.n_tokens + place
            total += bag.weight[row] * math.exp(bag.log_weights[row])
    return total


texts = st.lists(st.lists(st.integers(0, N_TOKENS - 1), max_size=9), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(texts, st.sampled_from([0, 1, 40]))
def test_the_bag_is_the_sum_over_tokens_and_pairs(texts, n_bigrams):
    bag = random_bag(n_bigrams)
    expected = torch.stack([naive(bag, text) for text in texts])
    torch.testing.assert_close(bag(*batch(texts)), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(texts)
def test_padding_does_not_change_the_outputs(texts):
    network = random_network()
    together = network(*batch(texts))
    for row, text in enumerate(texts):
        for output, whole in zip(network(*batch([text])), together, strict=True):
            torch.testing.assert_close(output[0], whole[row], atol=1e-5, rtol=1e-5)


def random_network(**parameters):
    torch.manual_seed(0)
    network = StaticText(N_TOKENS, 3, n_vectors=N_TOKENS + 40, width=6, **parameters)
    network.bag.load_state_dict(random_bag().state_dict())
    nn.init.normal_(network.head.weight)
    nn.init.normal_(network.head.bias)
    return network.eval()


@pytest.mark.parametrize("hidden_size", [0, 5])
def test_logits_and_features(hidden_size):
    network = random_network(hidden_size=hidden_size)
    inputs = batch([[1, 2, 5], [], [4, 4]])
    logits, features = network(*inputs)
    expected = network.norm(network.bag(*inputs))
    if hidden_size:
        inner, outer = network.hidden[0], network.hidden[2]
        expected = expected + outer(nn.functional.gelu(inner(expected)))
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(logits, features @ network.head.weight.T + network.head.bias)


def test_outputs_start_at_zero():
    logits, features = StaticText(10, 3, width=5)(*batch([[1, 2], [3]]))
    assert torch.equal(logits, torch.zeros(2, 3))
    assert not torch.equal(features[0], features[1])


def test_a_text_without_tokens_has_outputs_and_gradients():
    network = random_network().train()
    for inputs in (batch([[], []]), batch([[], [1, 2]])):
        logits, features = network(*inputs)
        torch.testing.assert_close(features[0], network.norm.bias)
        logits.square().sum().backward()
        assert all(torch.isfinite(weight.grad).all() for weight in network.parameters())


@pytest.mark.parametrize("n_bigrams", [0, 40])
def test_sparse_gradients_are_the_dense_ones(n_bigrams):
    gradients = []
    for sparse in (True, False):
        bag = random_bag(n_bigrams, sparse=sparse).train()
        bag(*batch([[1, 2, 5, 1], [4, 4, 4], []])).square().sum().backward()
        gradients.append(bag.weight.grad)
        torch.testing.assert_close(bag.log_weights.grad, gradients_of_weights(n_bigrams))
    assert gradients[0].is_sparse
    assert not gradients[1].is_sparse
    torch.testing.assert_close(gradients[0].to_dense(), gradients[1])


def test_sparse_gradients_hold_each_vector_of_the_batch_once():
    bag = random_bag(sparse=True).train()
    bag(*batch([[1, 2, 5, 1], [4, 4, 4], []])).sum().backward()
    pairs = [bag.pairs.tolist().index(first * N_TOKENS + second) for first, second in PAIRS]
    # Neither padding nor pairs without a vector: only 1, 2, 4, 5, (1, 2) and (4, 4).
    expected = [1, 2, 4, 5, *sorted([N_TOKENS + pairs[0], N_TOKENS + pairs[2]])]
    assert bag.weight.grad._indices()[0].tolist() == expected


def test_a_batch_without_tokens_has_an_empty_sparse_gradient():
    bag = random_bag(sparse=True).train()
    sums = bag(*batch([[], []]))
    sums.sum().backward()
    assert not sums.any()
    assert not bag.log_weights.grad.any()
    assert bag.weight.grad._nnz() == 0


def test_dropped_tokens_have_no_sparse_gradient():
    bags = [random_bag(sparse=sparse, token_dropout=0.5).train() for sparse in (True, False)]
    for bag in bags:
        torch.manual_seed(0)
        bag(*batch([[1, 2, 5, 1, 7, 8, 9, 10], [4, 4, 4]])).square().sum().backward()
    sparse, dense = bags
    torch.testing.assert_close(sparse.weight.grad.to_dense(), dense.weight.grad)
    torch.testing.assert_close(sparse.log_weights.grad, dense.log_weights.grad)
    assert sparse.weight.grad._nnz() == dense.weight.grad.any(dim=1).sum()


def test_a_compiled_network_has_the_same_sparse_gradients():
    inputs = batch([[1, 2, 5, 1], [4, 4, 4], []])
    plain, compiled = (random_bag(sparse=True).train() for _ in range(2))
    plain(*inputs).square().sum().backward()
    torch.compile(compiled, backend="eager")(*inputs).square().sum().backward()
    assert compiled.weight.grad.is_sparse
    torch.testing.assert_close(compiled.weight.grad.to_dense(), plain.weight.grad.to_dense())
    torch.testing.assert_close(compiled.log_weights.grad, plain.log_weights.grad)


def gradients_of_weights(n_bigrams):
    bag = random_bag(n_bigrams)
    total = sum(naive_with_gradients(bag, text).square().sum() for text in ([1, 2, 5, 1], [4] * 3))
    total.backward()
    return bag.log_weights.grad


def naive_with_gradients(bag, text):
    counts = dict.fromkeys(range(len(bag.weight)), 0.0)
    is_token = torch.ones(1, len(text))
    pieces = pieces_of_word(bag.starts_word[torch.tensor([text])], is_token)[0].tolist()
    for token, n_pieces in zip(text, pieces, strict=True):
        counts[token] += 1 / n_pieces
    places = {int(pair): place for place, pair in enumerate(bag.pairs) if pair >= 0}
    for first, second in pairwise(text):
        if (place := places.get(first * bag.n_tokens + second)) is not None:
            counts[bag.n_tokens + place] += 1
    return (torch.tensor(list(counts.values())) * bag.log_weights.exp()) @ bag.weight


def test_the_pieces_of_a_word_share_its_weight():
    starts_word = torch.tensor([[1, 0, 0, 1, 1, 0], [0, 1, 1, 1, 1, 1]]).bool()
    is_token = torch.tensor([[1.0, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])
    n_pieces = pieces_of_word(starts_word, is_token)
    assert n_pieces[0].tolist() == [3, 3, 3, 1, 2, 2]
    assert n_pieces[1, :2].tolist() == [1, 1]
    assert n_pieces.min() > 0


# ---------------------------------------------------------------- the table of pairs

pairs = st.lists(
    st.tuples(st.integers(0, 8191), st.integers(0, 8191)), unique=True, min_size=1, max_size=60
)


@settings(max_examples=150, deadline=None)
@given(pairs, st.sampled_from([1, 2, 7, 64, 8192]))
def test_pairs_are_found_where_they_are(pairs, n_bigrams):
    n_tokens = 8192
    table = table_of_pairs(torch.tensor(pairs), n_bigrams, n_tokens)
    known = {int(pair): place for place, pair in enumerate(table) if pair >= 0}
    assert len(table) == n_bigrams
    assert set(known) <= {first * n_tokens + second for first, second in pairs}
    assert pairs[0][0] * n_tokens + pairs[0][1] in known  # the most frequent finds a place
    others = [(second, first) for first, second in pairs]
    for first, second in [*pairs, *others, (0, 0), (8191, 8191)]:
        places, is_known = find_pairs(torch.tensor([[first, second]]), table, n_tokens)
        assert is_known.item() == (first * n_tokens + second in known)
        if is_known:
            assert places.item() == known[first * n_tokens + second]
        assert 0 <= places.item() < n_bigrams


def test_most_pairs_find_a_place_in_a_table_that_is_half_empty():
    random = np.random.RandomState(0)
    pairs = np.unique(random.randint(0, 8192, (4096, 2)), axis=0)
    table = table_of_pairs(torch.from_numpy(random.permutation(pairs)), 8192, 8192)
    assert (table >= 0).sum() > 0.85 * len(pairs)


def test_a_table_without_places():
    assert table_of_pairs(torch.tensor([[1, 2]]), 0, 5).tolist() == []
    assert table_of_pairs(torch.empty(0, 2, dtype=torch.int64), 3, 5).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("n_vectors", [1, 5, 6, 100])
def test_vectors_beyond_those_of_the_tokens_are_of_pairs(n_vectors):
    network = StaticText(5, 2, n_vectors=n_vectors, width=4)
    assert len(network.bag.weight) == max(n_vectors, 5)
    assert len(network.bag.pairs) == max(n_vectors - 5, 0)
    assert network(*batch([[0, 4, 1], [2]]))[1].shape == (2, 4)


# ---------------------------------------------------------------- sizes and training


@pytest.mark.parametrize("n_tokens", [300, 8192])
def test_the_default_has_at_most_2_2_million_weights(n_tokens):
    network = StaticText(n_tokens, 77)
    assert sum(weight.numel() for weight in network.parameters()) <= 2.2e6


def test_tokens_are_dropped_in_training_only():
    bag = random_bag(token_dropout=0.5)
    inputs = batch([[1, 3, 4, 6, 7, 9]] * 400)
    whole = bag(*inputs)
    torch.testing.assert_close(whole, whole[:1].expand(400, -1))
    torch.manual_seed(0)
    dropped = bag.train()(*inputs)
    assert len(dropped.unique(dim=0)) > 50
    spread = dropped.std(0) / 20  # of the mean
    assert ((dropped.mean(0) - whole[0]).abs() < 4 * spread).all()


def test_features_are_dropped_in_training_only():
    network = random_network(dropout=0.5)
    inputs = batch([[1, 2, 5]])
    assert torch.equal(network(*inputs)[0], network(*inputs)[0])
    network.train()
    assert not torch.equal(network(*inputs)[0], network(*inputs)[0])
    assert torch.equal(network(*inputs)[1], network(*inputs)[1])


def test_all_weights_are_trained():
    network = random_network(hidden_size=4)
    network(*batch([[1, 2, 5], [4, 4]]))[0].square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in network.parameters())


def test_a_pickle_is_the_same_network():
    network = random_network(hidden_size=4)
    inputs = batch([[1, 2, 5], [4, 4], []])
    copy = pickle.loads(pickle.dumps(network))
    for ours, theirs in zip(copy(*inputs), network(*inputs), strict=True):
        assert torch.equal(ours, theirs)


TEXTS = ["my card is lost", "the card was stolen", "what is a pin", "what is a fee"] * 5
LABELS = np.array([0, 0, 1, 1] * 5)


@pytest.mark.parametrize("n_frozen_layers", [0, 1])
def test_frozen_embeddings_stay_as_they_start(n_frozen_layers):
    few, many = (
        AFTClassifier(
            beta=0, max_epochs=n_epochs, random_state=0, module__n_frozen_layers=n_frozen_layers
        ).fit(TEXTS, LABELS)
        for n_epochs in (1, 20)
    )
    one, other = few.module_, many.module_
    weights = zip(one.bag.parameters(), other.bag.parameters(), strict=True)
    is_same = [torch.equal(a, b) for a, b in weights]
    assert is_same == [n_frozen_layers == 1] * 2
    assert not torch.equal(one.head.weight, other.head.weight)
    assert many.score(TEXTS, LABELS) == 1


def test_a_hidden_layer_and_dropout_are_parameters_of_a_student():
    student = AFTClassifier(
        beta=0,
        max_epochs=30,
        random_state=0,
        module__hidden_size=16,
        module__width=24,
        module__token_dropout=0.3,
        module__n_vectors=400,
    ).fit(TEXTS, LABELS)
    assert student.module_.hidden[0].weight.shape == (16, 24)
    n_vectors, width = student.module_.bag.weight.shape
    assert n_vectors <= 400
    assert width == 24
    assert student.module_.bag.token_dropout == 0.3
    assert student.score(TEXTS, LABELS) == 1
