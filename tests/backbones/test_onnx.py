"""Features are the same whether ONNX Runtime or PyTorch computed them."""

import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sk_aft import FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import EfficientNetLiteBackbone, resolve_backbone
from sk_aft.backbones._network import Network
from sk_aft.backbones._onnx import export_to_onnx

CPU = torch.device("cpu")
WORDS = ["card", "money", "lost", "transfer", "why", "my", "account", "exchange", "rate", "fee"]


def embed(backbone, rows, batch_size=32):
    return backbone.embed(as_rows(rows), batch_size=batch_size, device=CPU)


def network_of(backbone):
    loaded = backbone.loaded(CPU)
    return loaded[1] if isinstance(loaded, tuple) else loaded


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (200, 24, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 12))) for _ in range(1100)]


@pytest.fixture(params=["effnet", "minilm", pytest.param("hf", marks=pytest.mark.slow)])
def backbone_and_rows(request, images, texts):
    if request.param == "effnet":
        return EfficientNetLiteBackbone(image_size=32), images
    minilm = resolve_backbone("minilm")
    backbone = minilm if request.param == "minilm" else f"hf:{minilm.name_or_path}"
    return resolve_backbone(backbone), texts


def test_many_rows_run_in_onnx_runtime_with_the_same_features(backbone_and_rows, capfd):
    backbone, rows = backbone_and_rows
    before = backbone.fingerprint()
    few = embed(backbone, rows[:40])
    network = network_of(backbone)
    assert network.session is None  # not worth the export
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = embed(backbone, rows)
    assert capfd.readouterr() == ("", "")
    assert network.session is not None
    network.session, session = None, network.session
    expected = embed(backbone, rows)
    assert not np.array_equal(features, expected)  # something else computed them
    norms = np.linalg.norm(expected, axis=1)
    assert (np.linalg.norm(features - expected, axis=1) <= 1e-3 * norms).all()
    assert (
        (features * expected).sum(axis=1) > 0.9999 * np.linalg.norm(features, axis=1) * norms
    ).all()
    np.testing.assert_allclose(few, expected[:40], atol=1e-4)
    network.session = session
    for batch_size in (1, 5):
        np.testing.assert_allclose(embed(backbone, rows[:30], batch_size), few[:30], atol=1e-3)
    assert backbone.fingerprint() == before
    assert len(pickle.dumps(backbone)) < 1000
    backbone.unload()
    assert network_of(backbone).session is None


def test_rows_of_several_calls_count_together(images):
    backbone = EfficientNetLiteBackbone(image_size=32)
    for start in range(0, 200, 50):
        assert network_of(backbone).session is None or start == 150
        embed(backbone, images[start : start + 50])
    assert network_of(backbone).session is not None


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_the_extra_pytorch_goes_on(missing, monkeypatch, images):
    monkeypatch.setitem(sys.modules, missing, None)
    backbone = EfficientNetLiteBackbone(image_size=32)
    extractor = FoundationFeatureExtractor(backbone)
    assert extractor.fit_transform(images).features.shape == (200, 1280)
    stored = backbone.middle_layer, backbone.n_layers
    assert network_of(backbone).of_layers(stored).session is None


class NeverLoaded(EfficientNetLiteBackbone):
    def load(self, device):
        raise AssertionError("all rows are in the store")


def test_the_store_does_not_tell_them_apart(monkeypatch, images):
    backbone = EfficientNetLiteBackbone(image_size=32)
    features = FoundationFeatureExtractor(backbone).fit_transform(images).features
    stored = backbone.middle_layer, backbone.n_layers
    assert network_of(backbone).of_layers(stored).session is not None
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    again = FoundationFeatureExtractor(NeverLoaded(image_size=32)).fit_transform(images).features
    np.testing.assert_array_equal(again, features)


def test_threads_keep_the_order_of_the_batches():
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    X = torch.randn(101, 3)
    network = Network(module, CPU, n_rows_worth_export=1)
    network.export(101, lambda: (X[:4],))
    assert network.session is not None
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        features = np.concatenate(list(network.run((rows,) for rows in X.split(4))))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(n_threads)
    np.testing.assert_allclose(features, module(X).detach(), atol=1e-5)


class DoublesLargeBatches(nn.Module):
    def forward(self, rows):
        return rows * (2 if len(rows) > 2 else 1)


class LooksAtTheColumns(nn.Module):
    def forward(self, rows):
        return rows.sum(dim=1, keepdim=True) / rows.shape[1].__index__()


class CannotBeTraced(nn.Module):
    def forward(self, rows):
        return torch.from_numpy(np.linalg.pinv(rows.numpy())).T * torch.rand(1).item()


@pytest.mark.parametrize("module", [DoublesLargeBatches(), LooksAtTheColumns(), CannotBeTraced()])
def test_an_export_that_differs_is_not_used(module):
    X = torch.rand(8, 6)
    assert export_to_onnx(module.eval(), (X,), (0, 1)) is None
    network = Network(module, CPU, n_rows_worth_export=1, varying_axes=(0, 1))
    network.export(8, lambda: (X,))
    assert network.session is None
    assert next(network.run([(X,)])).shape[0] == 8


def test_torchs_own_attention_is_exported():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    module = nn.Sequential(layer, nn.Flatten()).eval()
    rows = torch.randn(4, 3, 8)
    session = export_to_onnx(module, (rows,), (0,))
    with torch.inference_mode():
        np.testing.assert_allclose(session((rows,)), module(rows), atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()


def test_one_row_is_no_example_of_many():
    class OfMany(nn.Module):
        def forward(self, inputs):
            return 2 * inputs if inputs.shape[0] > 1 else inputs

    assert export_to_onnx(OfMany().eval(), (torch.randn(1, 3),), (0,)) is None
    session = export_to_onnx(nn.Linear(3, 2).eval(), (torch.randn(1, 3),), (0,))
    assert session is not None
    assert session((torch.randn(7, 3),)).shape == (7, 2)


def test_the_attention_of_the_model_is_what_it_was(texts):
    backbone = resolve_backbone("minilm")
    model = backbone.loaded(CPU)[0][0].auto_model
    before = model.config._attn_implementation
    embed(backbone, texts)
    assert network_of(backbone).session is not None
    assert model.config._attn_implementation == before == "sdpa"


def test_an_unreadable_row_among_many_leaves_the_threads_as_they_were(images):
    backbone = EfficientNetLiteBackbone(image_size=32)
    embed(backbone, images)
    assert network_of(backbone).session is not None
    n_threads = torch.get_num_threads()
    with pytest.raises(ValueError, match="between 0 and 1"):
        embed(backbone, images.astype(np.float32))
    assert torch.get_num_threads() == n_threads
    assert np.isfinite(embed(backbone, images[:9])).all()
