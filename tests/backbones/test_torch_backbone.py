import functools
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sk_aft import FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import TorchBackbone
from sk_aft.store import FeatureStore, model_digest

CPU = torch.device("cpu")
X = np.random.default_rng(0).normal(size=(10, 3))


def embed(backbone, rows, batch_size=4):
    return backbone.embed(as_rows(rows), batch_size=batch_size, device=CPU)


def key(backbone):
    return model_digest(backbone.fingerprint())


def linear(seed=0, n_inputs=3):
    torch.manual_seed(seed)
    return nn.Linear(n_inputs, 2)


class Pooled(nn.Module):
    """Mean of each channel."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


def letters(text):
    return torch.tensor([float(text.count(letter)) for letter in "abc"])


def test_numbers_reach_the_module_as_float32():
    module = linear()
    with torch.no_grad():
        expected = module(torch.tensor(X, dtype=torch.float32)).numpy()
    for rows in (X, X.tolist(), np.float32(X)):
        features = embed(TorchBackbone(module), rows)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: x / 255,
        lambda x: np.moveaxis(x, 3, 1),
        lambda x: [Image.fromarray(image) for image in x],
    ],
    ids=["uint8", "float", "NCHW", "PIL"],
)
def test_images_reach_the_module_channels_first_between_0_and_1(photographs, form):
    features = embed(TorchBackbone(Pooled()), form(photographs))
    np.testing.assert_allclose(features, photographs.mean(axis=(1, 2)) / 255, rtol=1e-4)


def test_grey_images_have_one_channel(photographs):
    grey = photographs[..., 0]
    features = embed(TorchBackbone(Pooled()), grey)
    np.testing.assert_allclose(features[:, 0], grey.mean(axis=(1, 2)) / 255, rtol=1e-4)


def test_preprocess_gets_one_row_and_returns_a_tensor(photographs):
    seen = []

    def remember(row):
        seen.append(row)
        return torch.ones(3)

    backbone = TorchBackbone(linear(), preprocess=remember)
    for rows in (["a text", "another"], X[:2], photographs[:2], photographs[:2] / 255):
        assert embed(backbone, rows).shape == (2, 2)
    assert seen[:2] == ["a text", "another"]
    np.testing.assert_array_equal(seen[2], X[0])
    assert isinstance(seen[4], Image.Image)
    np.testing.assert_array_equal(np.asarray(seen[4]), photographs[0])
    assert isinstance(seen[6], torch.Tensor)


def test_texts_need_a_preprocess():
    texts = ["abc", "aab", ""]
    features = embed(TorchBackbone(linear(), preprocess=letters), texts)
    with torch.no_grad():
        expected = linear()(torch.stack([letters(text) for text in texts]))
    np.testing.assert_allclose(features, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"given texts but no preprocessing: use TorchBackbone"):
        embed(TorchBackbone(linear()), texts)


def test_runs_in_evaluation_mode_and_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 2))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for training in (True, False):
        module.train(training)
        first, second = (embed(TorchBackbone(module), X) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert module.training is training
        assert all(layer.training is training for layer in module)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert {parameter.device for parameter in module.parameters()} == {CPU}


class Slow(nn.Module):
    """Waits for a moment."""

    def forward(self, rows):
        time.sleep(0.02)
        return rows


def test_threads_share_a_module_in_training_mode():
    module = nn.Sequential(Slow(), nn.Dropout(0.5), nn.Linear(3, 2)).train()
    backbone = TorchBackbone(module)
    expected = embed(backbone, X)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda n_rows: embed(backbone, X[:n_rows]), [3, 6, 10]))
    for features in found:
        np.testing.assert_allclose(features, expected[: len(features)], atol=1e-6)
    assert module.training


def test_layers_that_were_frozen_stay_so():
    """As in fine-tuning: the batch normalisation of a pre-trained network in evaluation mode."""
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    module[0].eval()
    embed(TorchBackbone(module), X)
    assert module.training
    assert not module[0].training


def test_leaves_the_module_as_it_was_when_it_fails():
    module = nn.Linear(7, 2).train()
    with pytest.raises(RuntimeError):
        embed(TorchBackbone(module), X)
    assert module.training


def test_the_batch_size_changes_neither_features_nor_keys():
    backbone = TorchBackbone(linear())
    before = key(backbone)
    for batch_size in (1, 3, 100):
        np.testing.assert_allclose(
            embed(backbone, X, batch_size), embed(backbone, X), rtol=1e-4, atol=1e-6
        )
    assert key(backbone) == before


def test_keys_follow_the_weights():
    module = linear()
    before = key(TorchBackbone(module))
    assert key(TorchBackbone(linear())) == before
    assert key(TorchBackbone(linear(seed=1))) != before
    with torch.no_grad():
        module.bias[0] += 1e-6
    assert key(TorchBackbone(module)) != before
    assert key(TorchBackbone(linear().to(torch.bfloat16))) != before


def test_training_the_module_makes_new_rows():
    module = linear()
    extractor = FoundationFeatureExtractor(module)
    before = np.array(extractor.fit_transform(X))
    with torch.no_grad():
        module.weight.mul_(2)
        module.bias.mul_(2)
    np.testing.assert_allclose(extractor.fit_transform(X), 2 * before, rtol=1e-5)


def test_keys_follow_buffers_and_architecture():
    weights = linear().state_dict()
    sequences = [nn.Sequential(linear(), activation) for activation in (nn.ReLU(), nn.GELU())]
    for sequence in sequences:
        sequence[0].load_state_dict(weights)
    normed = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    normed[1].running_mean += 1
    keys = {key(TorchBackbone(module)) for module in (linear(), *sequences, *normed)}
    assert len(keys) == 5


class Holder(nn.Module):
    """What it holds is neither a weight nor in its repr."""

    def __init__(self, held, name="held"):
        super().__init__()
        self.name = name
        setattr(self, name, held)

    def forward(self, rows):
        held = getattr(self, self.name)
        if isinstance(held, dict):
            held = held["exponent"]
        return held(rows) if callable(held) else rows**held


def with_buffer(value):
    module = Holder(None)
    del module.held
    module.register_buffer("held", torch.tensor(value), persistent=False)
    return module


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Holder(2), Holder(3)),
        (Holder(np.float64(2)), Holder(np.float64(3))),
        (Holder(2, "_held"), Holder(3, "_held")),
        (Holder(torch.square), Holder(torch.exp)),
        (Holder(lambda x: x**2), Holder(lambda x: x**3)),
        (Holder(torch.tensor(2)), Holder(torch.tensor(3))),
        (Holder({"exponent": 2}), Holder({"exponent": 3})),
        (with_buffer(2), with_buffer(3)),
    ],
    ids=["number", "NumPy", "private", "function", "lambda", "tensor", "dict", "buffer"],
)
def test_keys_follow_whatever_a_module_holds(first, second):
    for module in (first, second):
        rows = FoundationFeatureExtractor(module).fit_transform(X)
        with torch.no_grad():
            expected = module(torch.tensor(X, dtype=torch.float32))
        np.testing.assert_allclose(rows, expected, rtol=1e-4)


def doubling():
    class Scale(nn.Module):
        def forward(self, rows):
            return 2 * rows

    return Scale


def tripling():
    class Scale(nn.Module):
        def forward(self, rows):
            return 3 * rows

    return Scale


def test_an_edited_class_is_another_model():
    """As in a notebook: the same name and weights, another forward."""
    for make, factor in ((doubling, 2), (tripling, 3)):
        edited = make()
        edited.__qualname__ = "Scale"
        rows = FoundationFeatureExtractor(edited()).fit_transform(X)
        np.testing.assert_allclose(rows, factor * X, rtol=1e-5)


def test_a_preprocess_without_a_name_is_trusted_in_its_process_only(cache):
    bare = TorchBackbone(linear(), preprocess=letters)
    named = TorchBackbone(linear(), preprocess=letters, fingerprint="letters v1")
    renamed = TorchBackbone(linear(), preprocess=letters, fingerprint="letters v2")
    other = TorchBackbone(linear(), preprocess=lambda text: letters(text))
    assert [b.is_persistent for b in (bare, named, renamed, other)] == [False, True, True, False]
    assert len({key(backbone) for backbone in (bare, named, renamed, other)}) == 4
    assert key(bare) == key(TorchBackbone(linear(), preprocess=letters))
    FoundationFeatureExtractor(bare).fit_transform(["abc", "b"])
    assert not cache.exists()
    FoundationFeatureExtractor(named).fit_transform(["abc", "b"])
    assert FeatureStore(cache).stats()["rows"] == 2


def test_modules_in_other_precision():
    features = embed(
        TorchBackbone(linear().bfloat16(), preprocess=lambda row: torch.tensor(row).bfloat16()), X
    )
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, embed(TorchBackbone(linear()), X), atol=0.05)


@pytest.mark.parametrize(
    ("module", "got"),
    [
        (nn.Identity(), r"torch.Size\(\[4, 3, 64, 64\]\)"),
        (nn.LSTM(64, 2), "tuple"),
        (nn.Flatten(0), r"torch.Size\(\[49152\]\)"),
    ],
)
def test_a_module_has_to_return_rows(module, got, photographs):
    if isinstance(module, nn.LSTM):
        module = nn.Sequential(nn.Flatten(1, 2), module)
    with pytest.raises(ValueError, match=rf"returned {got}, expected a tensor of shape"):
        embed(TorchBackbone(module), photographs)


class OneRow(nn.Module):
    def forward(self, rows):
        return rows.mean(dim=0, keepdim=True)


def test_a_module_has_to_return_a_row_a_row():
    with pytest.raises(ValueError, match="rows"):
        FoundationFeatureExtractor(OneRow()).fit_transform(X)


def test_can_be_pickled_with_its_module_and_preprocess():
    backbone = TorchBackbone(linear(), preprocess=letters)
    copy = pickle.loads(pickle.dumps(backbone))
    assert key(copy) == key(backbone)
    np.testing.assert_array_equal(embed(copy, ["abc"]), embed(backbone, ["abc"]))


def test_a_module_without_weights_is_a_model(photographs):
    rows = FoundationFeatureExtractor(Pooled()).fit_transform(photographs)
    np.testing.assert_allclose(rows, photographs.mean(axis=(1, 2)) / 255, rtol=1e-4)


def holding(value):
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.fill_(1)
        module.bias.fill_(0)
    module.held = value
    return TorchBackbone(module)


def test_what_a_layer_holds_is_part_of_the_key():
    arrays = [np.zeros((100, 100)) for _ in range(2)]
    arrays[1][50, 50] = 1
    values = [
        *arrays,
        functools.partial(torch.nn.functional.leaky_relu, negative_slope=0.1),
        functools.partial(torch.nn.functional.leaky_relu, negative_slope=0.5),
        {"a": [1, arrays[0]]},
        {"a": [1, arrays[1]]},
        torch.float32,
    ]
    backbones = [holding(value) for value in values]
    assert all(backbone.is_persistent for backbone in backbones)
    assert len({key(backbone) for backbone in backbones}) == len(values)
    assert key(holding(arrays[1].copy())) == key(backbones[1])


@pytest.mark.parametrize("value", [threading.Lock(), functools.partial(len), [lambda x: x]])
def test_what_cannot_be_told_apart_lives_as_long_as_the_process(value):
    expected = isinstance(value, functools.partial)
    assert holding(value).is_persistent == expected
