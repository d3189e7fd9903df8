import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from sk_aft import FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import HuggingFaceBackbone, SentenceTransformerBackbone
from sk_aft.backbones._tokens import (
    InGroupsOfLength,
    _batches_of_similar_length,
    embed_texts,
    take_tokens,
    token_network,
)

CPU = torch.device("cpu")


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=60),
    st.integers(1, 20),
    st.sampled_from([None, 64, 256]),
)
def test_batches_are_bounded_and_hold_every_row_once(lengths, batch_size, budget):
    lengths = np.array(lengths)
    batches = list(_batches_of_similar_length(lengths, batch_size, budget))
    rows = np.concatenate(batches)
    assert sorted(rows) == list(range(len(lengths)))
    assert (np.diff(lengths[rows]) <= 0).all()
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert budget is None or len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


class SumOfTokens(torch.nn.Module):
    """Sees every token that is not padding, and how many columns there are."""

    def forward(self, tokens, mask):
        n_columns = torch.full((len(tokens),), tokens.shape[1])
        return torch.stack([(tokens * mask).sum(1), n_columns], dim=1).float()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_cut_off_on_either_side(side):
    def tokenize(texts):
        width = max(map(len, texts))
        ids = torch.full((len(texts), width), 7)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            place = slice(0, len(text)) if side == "right" else slice(width - len(text), width)
            ids[row, place] = torch.tensor([int(letter) for letter in text], dtype=torch.int64)
            mask[row, place] = 1
        return {"input_ids": ids, "attention_mask": mask}

    texts = ["123", "", "99999", "4"]
    network = token_network(SumOfTokens(), CPU)
    features = embed_texts(network, tokenize, texts, batch_size=1)
    np.testing.assert_array_equal(features, [[6, 3], [0, 1], [45, 5], [4, 1]])


@pytest.mark.parametrize("side", ["left", "right"])
def test_groups_of_similar_length_have_less_padding(side):
    lengths = torch.randperm(20, generator=torch.Generator().manual_seed(0)) + 1
    places = torch.arange(30) if side == "right" else torch.arange(29, -1, -1)
    mask = (places < lengths[:, None]).long()
    tokens = {"input_ids": torch.full((20, 30), 2), "attention_mask": mask}
    inputs = take_tokens(tokens)(np.arange(20))
    sums, widths = InGroupsOfLength(SumOfTokens())(*inputs).T.tolist()
    assert sums == (2 * lengths).tolist()
    assert set(widths) == {8, 16, 20}  # 8 texts each, of 1 to 8, 9 to 16 and 17 to 20 tokens
    assert (torch.tensor(widths) >= lengths).all()


def test_other_models_are_encoded_by_their_own_library(tmp_path):
    directory = tmp_path / "first token"
    shutil.copytree(SentenceTransformerBackbone.minilm().name_or_path, directory)
    config = directory / "1_Pooling" / "config.json"
    settings = json.loads(config.read_text())
    settings["pooling_mode_mean_tokens"] = False
    settings["pooling_mode_cls_token"] = True
    config.write_text(json.dumps(settings))
    backbone = SentenceTransformerBackbone(str(directory))
    texts = ["a text", "and a longer one"]
    features = backbone.embed(as_rows(texts), batch_size=4, device=CPU)
    assert backbone.loaded(CPU)[1] is None
    expected = SentenceTransformer(str(directory), device="cpu").encode(texts)
    np.testing.assert_allclose(features, expected, atol=1e-6)


# ---------------------------------------------------------------- texts that are too long


def words(n_words):
    return " ".join(["card"] * n_words)


@pytest.mark.parametrize("name", ["minilm", "hf", "object"])
def test_one_warning_counts_the_texts_that_are_too_long(name):
    """256 tokens, of which two are the beginning and the end of the text."""
    directory = SentenceTransformerBackbone.minilm().name_or_path
    model = {
        "minilm": lambda: "minilm",
        "hf": lambda: f"hf:{directory}",
        "object": lambda: SentenceTransformer(directory, device="cpu"),
    }[name]()
    texts = [words(254), words(255), *(f"text {i}" for i in range(9)), words(3000)]
    extractor = FoundationFeatureExtractor(model, batch_size=1)  # commits several times
    with pytest.warns(UserWarning, match="longer than 256 tokens") as caught:
        extractor.fit_transform(texts)
    (warning,) = caught
    assert "2 of 12 texts" in str(warning.message)
    assert "Split them into shorter rows, or " in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor.fit_transform(texts)  # all in the store
        extractor.fit_transform([words(254), "short"])


def test_a_model_that_reads_more_does_not_warn():
    directory = SentenceTransformerBackbone.minilm().name_or_path
    model = SentenceTransformer(directory, device="cpu")
    model.max_seq_length = 512
    reader = HuggingFaceBackbone(directory, max_length=512)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for longer in (model, reader):
            FoundationFeatureExtractor(longer).fit_transform([words(500), "short"])
