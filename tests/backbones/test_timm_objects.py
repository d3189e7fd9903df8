"""Models of timm that the user has built, as foundation models."""

import copy
import pickle

import numpy as np
import pytest
import torch

timm = pytest.importorskip("timm")

from sk_aft import FoundationFeatureExtractor  # noqa: E402
from sk_aft._data._rows import as_rows  # noqa: E402
from sk_aft.backbones import TorchBackbone, resolve_backbone  # noqa: E402
from sk_aft.backbones._timm_objects import TimmObject  # noqa: E402
from sk_aft.store import model_digest  # noqa: E402

CPU = torch.device("cpu")


def build(name="test_resnet", **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=3, **arguments)


def features(model, images):
    return FoundationFeatureExtractor(model, cache=None).fit_transform(images).features


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_resnet", {}),
        ("test_convnext", {}),
        ("test_vit", {}),
        ("test_vit", {"img_size": 64}),
        ("test_efficientnet", {"in_chans": 1}),
        ("levit_128s", {}),
    ],
)
def test_a_model_has_the_features_and_layers_of_its_directory(
    name, arguments, tmp_path, photographs
):
    model = build(name, **arguments)
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    saved, built = resolve_backbone(f"timm:{tmp_path}"), resolve_backbone(model)
    assert type(built) is TimmObject
    assert (built.name, built.n_layers, built.n_features_out) == (
        name,
        saved.n_layers,
        saved.n_features_out,
    )
    model.train()
    rows = as_rows(photographs)
    expected = saved.embed(rows, batch_size=4, device=CPU)
    np.testing.assert_allclose(built.embed(rows, batch_size=2, device=CPU), expected, atol=1e-5)
    layers = range(saved.n_layers + 1)
    maps = [each.embed_layers(rows, layers, batch_size=4, device=CPU) for each in (built, saved)]
    np.testing.assert_allclose(*maps, atol=1e-5)
    assert [built.layer_width(layer) for layer in layers[:-1]] == [
        saved.layer_width(layer) for layer in layers[:-1]
    ]
    assert model.training


def test_weights_preprocessing_and_pooling_are_its_identity(photographs):
    def digest(model):
        return model_digest(resolve_backbone(model).fingerprint())

    model = build("test_vit")
    assert resolve_backbone(model).is_persistent
    assert (
        digest(model) == digest(copy.deepcopy(model)) == digest(pickle.loads(pickle.dumps(model)))
    )
    others = [copy.deepcopy(model) for _ in range(3)]
    with torch.no_grad():
        others[0].norm.weight += 1
    others[1].pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.2, 0.3)}
    others[2].global_pool = "avg"
    assert len({digest(each) for each in (model, *others)}) == 4
    found = [features(each, photographs) for each in (model, *others)]
    for other in found[1:]:
        assert np.abs(other - found[0]).max() > 1e-3


def test_its_features_are_stored_and_follow_its_weights(photographs, tmp_path):
    model = build()
    extractor = FoundationFeatureExtractor(model, cache=tmp_path, layers="auto")
    first = extractor.fit_transform(photographs).features
    again = FoundationFeatureExtractor(copy.deepcopy(model), cache=tmp_path, layers="auto")
    np.testing.assert_array_equal(again.fit_transform(photographs).features, first)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    assert np.abs(extractor.fit_transform(photographs).features - first).max() > 1e-4


def test_a_model_of_half_precision_has_nearly_the_same_features(photographs):
    expected = features(build(), photographs)
    model = build().bfloat16()
    np.testing.assert_allclose(features(model, photographs), expected, atol=0.1)
    assert next(model.parameters()).dtype is torch.bfloat16


def test_users_subclasses_and_wrapped_models_run_as_they_are(photographs):
    class Own(type(build())):
        pass

    own = build()
    own.__class__ = Own
    assert type(resolve_backbone(own)) is TorchBackbone
    assert features(TorchBackbone(build()), photographs).shape == (len(photographs), 3)


def test_a_model_without_pooling_is_refused_before_any_row(photographs):
    model = build(global_pool="")
    with pytest.raises(ValueError, match=r"returns \(1, 96, \d+, \d+\) for one image"):
        FoundationFeatureExtractor(model).fit(photographs)
