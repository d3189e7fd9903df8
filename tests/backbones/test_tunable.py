"""Every kind of model that can be fine-tuned: what is trained, and that it predicts afterwards."""

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer

from sk_aft import FineTunedFeatureExtractor, FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft._fine_tuning._training import trained_weights
from sk_aft.backbones import EfficientNetLiteBackbone, resolve_backbone

TEXTS = ["I lost my card", "my card", "the exchange rate of the euro", "the rate changed"] * 3
LABELS = [0, 0, 1, 1] * 3
NEW = ["", "why", "what is my card", "the rate of the card was changed yesterday"]
CPU = torch.device("cpu")


def tuned(model, **parameters):
    defaults = {"objective": "linear", "n_steps": 3, "lr": 1e-3, "cache": None}
    return FineTunedFeatureExtractor(model, **{**defaults, **parameters}).fit(TEXTS, LABELS)


MODELS = {
    "hf:bert": lambda directory: f"hf:{directory('bert')}",
    "hf:distilbert": lambda directory: f"hf:{directory('distilbert')}",
    "hf:modernbert": lambda directory: f"hf:{directory('modernbert')}",
    "hf:gpt2": lambda directory: f"hf:{directory('gpt2')}",
    "hf:t5": lambda directory: f"hf:{directory('t5')}",
    "st:bert": lambda directory: f"st:{directory('bert')}",
    "SentenceTransformer": lambda directory: SentenceTransformer(directory("bert"), device="cpu"),
    "transformers": lambda directory: transformers.AutoModel.from_pretrained(directory("bert")),
    "classifier": lambda directory: transformers.AutoModelForSequenceClassification.from_pretrained(
        directory("bert")
    ),
    "pipeline": lambda directory: transformers.pipeline(
        "feature-extraction", model=directory("bert")
    ),
}


@pytest.mark.parametrize("objective", ["linear", "pairs"])
@pytest.mark.parametrize("name", sorted({*MODELS} - {"hf:gpt2", "hf:t5"}))  # cannot pad here
def test_text_models(name, objective, encoder_directory):
    model = MODELS[name](encoder_directory)
    extractor = tuned(model, objective=objective)
    features = np.asarray(extractor.transform(NEW))
    frozen = np.asarray(FoundationFeatureExtractor(model, cache=None).fit_transform(NEW))
    assert features.shape == frozen.shape == (4, 32)
    assert np.isfinite(features).all()
    assert 1e-4 < np.abs(features - frozen).max() < 5
    # A text's features do not depend on its batch.
    np.testing.assert_allclose(extractor.transform(NEW[::-1])[::-1], features, atol=1e-5)


def test_groups_of_length_change_neither_features_nor_gradients(encoder_directory):
    base = resolve_backbone(f"hf:{encoder_directory('bert')}")
    model = base.tunable_copy().tunable(CPU)
    texts = ["", *TEXTS[:9], "card " * 20]
    inputs = model.read(as_rows(texts))(np.arange(11))
    weights = list(trained_weights(model).values())

    def run(module):
        features = module(*inputs)
        return features, torch.autograd.grad(features.square().sum(), weights, allow_unused=True)

    features, gradients = run(model.module)
    expected, expected_gradients = run(model.module.module)  # all texts at once
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    for found, right in zip(gradients, expected_gradients, strict=True):
        assert (found is None) == (right is None)
        if found is not None:
            torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_trained_and_embeddings_are_not(name, encoder_directory):
    base = resolve_backbone(MODELS[name](encoder_directory))
    copy = base.tunable_copy()
    model = copy.tunable(CPU)
    assert len(model.layers) == 1 + 3
    names = set(trained_weights(model))
    assert names
    assert not any("embed" in name or "wte" in name or "wpe" in name for name in names)
    inside = [id(weight) for layer in model.layers[1:] for weight in layer.parameters()]
    frozen = {id(weight) for weight in model.layers[0].parameters()}
    assert set(inside) - frozen == {id(weight) for weight in trained_weights(model).values()}


@pytest.mark.parametrize("name", ["hf:bert", "st:bert", "SentenceTransformer", "transformers"])
def test_tokens_are_read_as_they_are_for_features(name, encoder_directory):
    """The network that is trained computes the features that ``embed`` returns."""
    from sk_aft._data._rows import as_rows

    copy = resolve_backbone(MODELS[name](encoder_directory)).tunable_copy()
    rows = as_rows(NEW, kind="text")
    model = copy.tunable(CPU)
    with torch.no_grad():
        found = model.module(*model.read(rows)(np.arange(4)))
    np.testing.assert_allclose(found, copy.embed(rows, batch_size=4, device=CPU), atol=1e-5)


def test_images_learn_from_the_last_block_on():
    copy = EfficientNetLiteBackbone(0, image_size=32).tunable_copy()
    model = copy.tunable(CPU)
    names = set(trained_weights(model))
    assert any("_conv_head" in name for name in names)
    assert not any("_conv_stem" in name or "_blocks.0." in name for name in names)


def bright_squares(n, seed=0):
    rng = np.random.RandomState(seed)
    images = rng.randint(0, 100, (n, 16, 16)).astype(np.uint8)
    images[::2, 4:12, 4:12] += 100
    return images


def test_exported_weights_are_the_tuned_ones(cache):
    """From 150 images on the features are computed by ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    images, labels = bright_squares(16), np.arange(16) % 2
    extractor = FineTunedFeatureExtractor(
        EfficientNetLiteBackbone(0, image_size=32),
        objective="linear",
        n_steps=4,
        lr=1e-3,
        cache=None,
    ).fit(images, labels)
    many = bright_squares(200, seed=1)
    in_torch = np.asarray(extractor.transform(many[:20]))
    exported = np.asarray(extractor.transform(many))[:20]
    frozen = FoundationFeatureExtractor(EfficientNetLiteBackbone(0, image_size=32), cache=None)
    difference = np.abs(in_torch - np.asarray(frozen.fit_transform(many[:20]))).max()
    np.testing.assert_allclose(exported, in_torch, atol=1e-3)
    assert difference > 0.05
    targets = extractor.transform(many).soft_targets
    assert (targets.argmax(axis=1) == np.arange(200) % 2).mean() > 0.9


def test_minilm_takes_a_step():
    extractor = tuned("minilm", n_steps=2, lr=1e-4)
    features = np.asarray(extractor.transform(NEW))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    frozen = np.asarray(FoundationFeatureExtractor("minilm", cache=None).fit_transform(NEW))
    assert 1e-4 < np.abs(features - frozen).max() < 0.5
