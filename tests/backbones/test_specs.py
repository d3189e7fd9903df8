import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft.backbones import (
    CallableBackbone,
    EfficientNetLiteBackbone,
    HuggingFaceBackbone,
    SentenceTransformerBackbone,
    SklearnBackbone,
    TorchBackbone,
    resolve_backbone,
)

X = np.random.default_rng(0).normal(size=(20, 3))


class Doubler:
    def __call__(self, rows):
        return 2 * rows


@pytest.mark.parametrize(
    ("model", "kind", "name"),
    [
        ("minilm", SentenceTransformerBackbone, "minilm"),
        ("effnet-lite0", EfficientNetLiteBackbone, "effnet-lite0"),
        ("effnet-lite1", EfficientNetLiteBackbone, "effnet-lite1"),
        ("effnet-lite2", EfficientNetLiteBackbone, "effnet-lite2"),
        ("st:somebody/some-model", SentenceTransformerBackbone, "some-model"),
        ("hf:somebody/some-model", HuggingFaceBackbone, "some-model"),
        (torch.nn.Linear(3, 2), TorchBackbone, "linear"),
        (PCA(2).fit(X), SklearnBackbone, "pca"),
        (make_pipeline(StandardScaler(), PCA(2)).fit(X), SklearnBackbone, "pipeline"),
        (np.abs, CallableBackbone, "absolute"),
        (lambda rows: rows, CallableBackbone, "function"),
        (Doubler(), CallableBackbone, "Doubler"),
        (Doubler().__call__, CallableBackbone, "__call__"),
    ],
)
def test_what_may_be_a_model(model, kind, name):
    backbone = resolve_backbone(model)
    assert type(backbone) is kind
    assert backbone.name == name
    assert resolve_backbone(backbone) is backbone
    assert clone(backbone) is backbone
    assert name in repr(backbone)


@pytest.mark.parametrize("spec", ["", "minilm2", "MiniLM", "timm:vit", "st:", "hf:", ":x", "st"])
def test_an_unknown_spec_lists_the_known_ones(spec):
    with pytest.raises(ValueError, match="Unknown foundation model") as caught:
        resolve_backbone(spec)
    for known in ("'minilm'", "'effnet-lite0'", "'effnet-lite2'", "'st:NAME'", "'hf:NAME'"):
        assert known in str(caught.value)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize("model", [None, 3, ["minilm"], {"a": 1}, X])
def test_what_is_no_model_says_what_may_be_one(model):
    with pytest.raises(TypeError, match=r"Cannot use an object of type .*'minilm'.*a function"):
        resolve_backbone(model)


@pytest.mark.parametrize("model", [PCA, torch.nn.Linear, TorchBackbone, dict])
def test_a_class_is_not_an_instance(model):
    with pytest.raises(TypeError, match=f"model is the class {model.__name__}: give an instance"):
        resolve_backbone(model)
