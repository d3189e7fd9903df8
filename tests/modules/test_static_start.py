"""How static embeddings start from a foundation model's embeddings of tokens and pairs."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity
from tokenizers import Tokenizer, models, pre_tokenizers

from sk_aft._data._rows import as_rows
from sk_aft.backbones import resolve_backbone
from sk_aft.modules._static_start import (
    frequency_weights,
    frequent_pairs,
    project,
    set_embeddings,
    set_vocabulary,
    starts_word,
    texts_of,
)
from sk_aft.modules._static_text import WeightedBag, find_pairs
from sk_aft.preprocessing import SubwordTokenizer

TEXTS = ["I lost my card", "my card was stolen", "what is the rate of the euro", "the card, why?"]


def arrays(texts):
    return [np.array(text, dtype=np.int64) for text in texts]


def word_pieces():
    names = ["[UNK]", "my", "card", "##s", "lost", "the"]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


# ---------------------------------------------------------------- counts


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 6), max_size=12), max_size=6),
    st.sampled_from([0, 1, 3, 100]),
)
def test_frequent_pairs_are_those_of_a_counter(texts, n_pairs):
    counter = Counter(pair for text in texts for pair in pairwise(text))
    often = [(pair, count) for pair, count in counter.items() if count > 1]
    often.sort(key=lambda one: (-one[1], one[0]))
    pairs, counts = frequent_pairs(arrays(texts), 7, n_pairs)
    assert list(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True)) == often[:n_pairs]
    assert pairs.shape == (len(counts), 2)
    assert pairs.dtype == counts.dtype == np.int64


def test_weights_fall_with_the_frequency():
    weights = frequency_weights(np.array([0, 0.001, 0.02, 0.18, 0.98]))
    np.testing.assert_allclose(weights, [1, 20 / 21, 0.5, 0.1, 0.02])


def test_the_vocabulary_of_a_bag():
    bag = WeightedBag(6, 8, 3)
    set_vocabulary(bag, arrays([[1, 2, 3], [1, 2], [5], [], [2, 3, 1]]), word_pieces())
    assert bag.starts_word.tolist() == [True, True, True, False, True, True]
    shares = np.array([0, 3, 3, 2, 0, 1]) / 9
    weights = bag.log_weights.exp().detach().numpy()
    np.testing.assert_allclose(weights[:6], 0.02 / (0.02 + shares), rtol=1e-6)
    known = {tuple(divmod(pair, 6)) for pair in bag.pairs.tolist() if pair >= 0}
    assert known == {(1, 2), (2, 3)}  # (3, 1) occurs once
    places, is_known = find_pairs(torch.tensor([[1, 2, 3, 1]]), bag.pairs, 6)
    assert is_known.tolist() == [[True, True, False]]
    of_pairs = weights[6:][places[0, :2]]
    np.testing.assert_allclose(of_pairs, 0.6 * 0.02 / (0.02 + np.array([2, 2]) / 9), rtol=1e-6)
    # Empty places have the weight of a pair that was not seen, but are never used.
    np.testing.assert_allclose(np.delete(weights[6:], places[0, :2]), 0.6, rtol=1e-6)


@pytest.mark.parametrize("texts", [[], [[]], [[], []]])
def test_a_vocabulary_without_texts(texts):
    bag = WeightedBag(6, 8, 3)
    set_vocabulary(bag, arrays(texts), None)
    assert (bag.pairs == -1).all()
    np.testing.assert_allclose(bag.log_weights.exp().detach()[:6], 1)
    assert bag.starts_word.all()


def test_words_of_the_byte_level_tokenizer():
    tokenizer = SubwordTokenizer().fit(TEXTS)
    begins = starts_word(tokenizer.tokenizer_, tokenizer.n_tokens_)
    for text in ("I lost my card", "the euro, why?", "xyz"):
        encoding = tokenizer.tokenizer_.encode(text)
        expected = [token.startswith("Ġ") for token in encoding.tokens]
        assert begins[encoding.ids].tolist() == expected
        assert sum(expected) == len(text.replace(",", " ,").replace("?", " ?").split())


# ---------------------------------------------------------------- projections


@pytest.mark.parametrize(("n_features", "width"), [(9, 4), (9, 9), (5, 8)])
def test_projections_are_those_of_a_pca_up_to_signs(n_features, width):
    random = np.random.RandomState(0)
    reference = random.randn(60, n_features) * np.arange(1, n_features + 1)
    vectors = random.randn(30, n_features)
    projected = project(vectors, reference, width)
    assert projected.shape == (30, width)
    kept = min(width, n_features)
    expected = PCA(kept, svd_solver="full").fit(reference).transform(vectors)
    np.testing.assert_allclose(np.abs(projected[:, :kept]), np.abs(expected), atol=1e-9)
    assert (projected[:, kept:] == 0).all()
    again = project(vectors.astype(np.float32), reference.astype(np.float32), width)
    np.testing.assert_allclose(again, projected, atol=1e-3)  # signs included


def test_fewer_references_than_components():
    reference = np.random.RandomState(0).randn(3, 20)
    projected = project(reference, reference, 8)
    distances = np.linalg.norm(projected[:, None] - projected, axis=2)
    expected = np.linalg.norm(reference[:, None] - reference, axis=2)
    np.testing.assert_allclose(distances, expected, atol=1e-9)


# ---------------------------------------------------------------- starts


@pytest.mark.parametrize(
    ("tokenizer", "token", "text"),
    [
        ("bytes", "Ġcard", "card"),
        ("bytes", "Ġ", ""),
        ("bytes", "Ã", ""),  # a half of a character
        ("pieces", "card", "card"),
        ("pieces", "##s", "s"),
        ("pieces", "[UNK]", "[UNK]"),
    ],
)
def test_the_text_of_a_token(tokenizer, token, text):
    fitted = word_pieces() if tokenizer == "pieces" else SubwordTokenizer().fit(TEXTS).tokenizer_
    assert texts_of(fitted, [[fitted.token_to_id(token)]])[0] == text


def test_the_text_of_a_pair():
    tokenizer = SubwordTokenizer().fit([*TEXTS, "é é"]).tokenizer_
    for text in ("my card", "card, why?", "é"):
        expected = text.replace(",", " ,").replace("?", " ?")
        assert texts_of(tokenizer, [tokenizer.encode(text).ids])[0] == expected


def letters(texts):
    """Return features of texts: how often each letter occurs, and the length."""
    return np.array(
        [[*(text.count(chr(code)) for code in range(97, 123)), len(text)] for text in texts]
    ).astype(np.float32)


def encoder_of(directory):
    backbone = resolve_backbone(f"hf:{directory}")

    def embed(texts):
        rows = as_rows(np.array(texts, dtype=object), kind="text")
        return backbone.embed(rows, batch_size=64, device=torch.device("cpu"))

    return embed


@pytest.mark.parametrize("model", ["letters", "bert"])
def test_vectors_have_the_geometry_of_the_models_features(model, encoder_directory):
    embed = letters if model == "letters" else encoder_of(encoder_directory("bert"))
    tokenizer = SubwordTokenizer().fit(TEXTS)
    bag = WeightedBag(tokenizer.n_tokens_, 50, 64)
    set_vocabulary(bag, tokenizer.transform(TEXTS), tokenizer.tokenizer_)
    asked = []

    def asking(texts):
        asked.append(list(texts))
        return embed(texts)

    set_embeddings(bag, tokenizer.tokenizer_, asking)
    (texts,) = asked  # the model runs once
    weight = bag.weight.detach().numpy()
    tokens = range(tokenizer.n_tokens_)
    of_tokens = {token: texts_of(tokenizer.tokenizer_, [[token]])[0] for token in tokens}
    read = [token for token, text in of_tokens.items() if text]
    pairs = [
        (row, divmod(int(pair), len(tokens))) for row, pair in enumerate(bag.pairs) if pair >= 0
    ]
    of_pairs = {len(tokens) + row: texts_of(tokenizer.tokenizer_, [pair])[0] for row, pair in pairs}
    of_pairs = {row: text for row, text in of_pairs.items() if text}
    assert of_pairs
    assert {"card", "my"} <= set(texts)
    assert "my card" in of_pairs.values()
    assert sorted(texts) == sorted([*(of_tokens[token] for token in read), *of_pairs.values()])

    # Centred at the mean of the tokens, and 64 components hold all 27 or 32 features.
    mean = embed([of_tokens[token] for token in read]).mean(0)
    rows = [*read, *of_pairs]
    features = embed([{**of_tokens, **of_pairs}[row] for row in rows]) - mean
    np.testing.assert_allclose(
        cosine_similarity(weight[rows]), cosine_similarity(features), atol=2e-3
    )
    assert np.sqrt((weight[read][:, : features.shape[1]] ** 2).sum() / (len(read) * 64)) == (
        pytest.approx(0.1, rel=1e-3)
    )
    unread = np.setdiff1d(np.arange(len(weight)), rows)
    assert len(unread) > 0
    assert (weight[unread] == 0).all()


def test_a_model_that_sees_no_difference():
    tokenizer = SubwordTokenizer().fit(TEXTS)
    bag = WeightedBag(tokenizer.n_tokens_, 50, 8)
    set_embeddings(bag, tokenizer.tokenizer_, lambda texts: np.ones((len(texts), 3), np.float32))
    assert (bag.weight == 0).all()
