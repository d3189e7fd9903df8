import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sk_aft.modules import MLP, PenultimateFeatures, ResNet, SparseBag


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def text_batch(texts):
    """Indices, offsets and weights of lists of (token, weight) pairs."""
    tokens = [pair for text in texts for pair in text]
    starts = np.cumsum([0, *map(len, texts)])[:-1]
    indices = torch.tensor([token for token, _ in tokens], dtype=torch.int64)
    weights = torch.tensor([weight for _, weight in tokens], dtype=torch.float32)
    return {"indices": indices, "offsets": torch.tensor(starts), "weights": weights}


def build(name):
    torch.manual_seed(0)
    if name == "mlp":
        return MLP(4, 3, hidden_sizes=(8, 6)), {"inputs": torch.randn(5, 4)}, 6
    if name == "resnet":
        return ResNet(3, 3, widths=(4, 8)), {"inputs": torch.rand(5, 3, 9, 7)}, 8
    texts = [[(1, 0.5), (2, 0.5)], [(0, 1.0)], [], [(9, 0.3)] * 3, [(4, 1.0), (1, 1.0)]]
    return SparseBag(10, 3, width=16), text_batch(texts), 16


NAMES = ["mlp", "resnet", "sparse bag"]


@pytest.mark.parametrize("name", NAMES)
def test_returns_logits_and_features(name):
    module, batch, width = build(name)
    logits, features = module(**batch)
    assert logits.shape == (5, 3)
    assert features.shape == (5, width)
    assert logits.dtype == features.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert torch.isfinite(features).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_logits_and_of_features_reach_the_first_layer(name):
    module, batch, _ = build(name)
    first = next(module.parameters())
    for output in range(2):
        module.zero_grad()
        module(**batch)[output].square().sum().backward()
        assert torch.isfinite(first.grad).all()
        assert first.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_all_parameters_are_used(name):
    module, batch, _ = build(name)
    module(**batch)[0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_predicted_as_it_is_alone(name):
    module, batch, _ = build(name)
    module.eval()
    whole = module(**batch)[0]
    if name == "sparse bag":
        alone = module(**text_batch([[(9, 0.3)] * 3]))[0]
    else:
        alone = module(batch["inputs"][3:4])[0]
    torch.testing.assert_close(alone[0], whole[3])


@pytest.mark.parametrize("name", NAMES)
def test_can_be_pickled(name):
    module, batch, _ = build(name)
    module.eval()
    copy = pickle.loads(pickle.dumps(module))
    torch.testing.assert_close(copy(**batch)[0], module(**batch)[0])


def test_the_features_of_an_mlp_are_the_input_of_its_head():
    module, batch, _ = build("mlp")
    logits, features = module(**batch)
    torch.testing.assert_close(logits, module.head(features))


@pytest.mark.parametrize("hidden_sizes", [(), (7,), [16, 8, 4]])
def test_an_mlp_has_as_many_layers_as_it_is_told(hidden_sizes):
    module = MLP(5, 2, hidden_sizes=hidden_sizes)
    widths = [5, *hidden_sizes, 2]
    pairs = itertools.pairwise(widths)
    assert n_parameters(module) == sum((a + 1) * b for a, b in pairs)
    assert module(torch.zeros(3, 5))[1].shape == (3, widths[-2])


@pytest.mark.parametrize(
    "module", [MLP(4, 2, dropout=0.9), SparseBag(4, 2, dropout=0.9)], ids=["mlp", "bag"]
)
def test_dropout_acts_in_training_only(module):
    batch = {"inputs": torch.ones(1, 4)}
    if isinstance(module, SparseBag):
        batch = text_batch([[(1, 1.0)]])
    module.train()
    assert not torch.equal(module(**batch)[0], module(**batch)[0])
    module.eval()
    assert torch.equal(module(**batch)[0], module(**batch)[0])


def test_a_default_resnet_is_small():
    assert 75_000 < n_parameters(ResNet(3, 10)) < 80_000


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (64, 48), (5, 7), (1, 1)])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_a_resnet_takes_images_of_any_size(size, n_channels):
    logits, features = ResNet(n_channels, 4).eval()(torch.rand(2, n_channels, *size))
    assert logits.shape == (2, 4)
    assert features.shape == (2, 64)


def test_a_resnet_has_as_many_blocks_as_it_is_told():
    shallow, deep = ResNet(1, 2, widths=(4, 8)), ResNet(1, 2, widths=(4, 8), blocks_per_stage=3)
    assert len(deep.blocks) == 3 * len(shallow.blocks) == 6
    assert deep(torch.rand(2, 1, 8, 8))[1].shape == (2, 8)


def test_a_resnet_does_not_mind_the_scale_of_images():
    torch.manual_seed(0)
    module = ResNet(3, 2, max_shift=0, flip=False).train()
    images = torch.rand(8, 3, 16, 16)
    torch.testing.assert_close(module(images)[0], module(images * 100 + 7)[0], rtol=1e-2, atol=1e-3)


def test_a_sparse_bag_adds_up_its_tokens_whatever_their_order():
    module, *_ = build("sparse bag")
    module.eval()
    pairs = [(1, 0.2), (5, 0.7), (5, 0.1)]
    forward, backward = module(**text_batch([pairs, pairs[::-1]]))[0]
    torch.testing.assert_close(forward, backward)
    torch.testing.assert_close(module(**text_batch([[(1, 0.2), (5, 0.8)]]))[0][0], forward)


def test_empty_texts_are_no_trouble():
    module, *_ = build("sparse bag")
    logits, features = module(**text_batch([[], []]))
    assert torch.equal(logits[0], logits[1])
    logits.sum().backward()
    features_of_all = torch.cat([p.grad.flatten() for p in module.parameters()])
    assert torch.isfinite(features_of_all).all()
    assert features.shape == (2, 16)


def test_a_sparse_bag_has_features_of_both_signs():
    module, batch, _ = build("sparse bag")
    features = module(**batch)[1]
    assert (features > 0).any()
    assert (features < -0.2).any()  # GELU is never below


# ---------------------------------------------------------------- PenultimateFeatures


class Tangled(nn.Module):
    """Layers run in another order than they were made, one of them twice."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 2)
        self.first = nn.Linear(4, 6)
        self.again = nn.Linear(6, 6)
        self.unused = nn.Linear(3, 3)

    def forward(self, inputs):
        self.features = torch.relu(self.again(self.again(self.first(inputs))))
        return self.head(self.features)


def test_the_input_of_the_linear_layer_that_ran_last_is_taken():
    network = Tangled()
    last = PenultimateFeatures(network)
    for n_rows in (3, 5):
        network(torch.randn(n_rows, 4))
        taken = last.take()
        assert taken is network.features or torch.equal(taken, network.features)
        assert taken.requires_grad
        assert taken.shape == (n_rows, 6)


def test_gradients_flow_through_what_was_taken():
    network = Tangled()
    last = PenultimateFeatures(network)
    network(torch.randn(3, 4))
    last.take().square().sum().backward()
    assert network.first.weight.grad.abs().sum() > 0
    assert network.head.weight.grad is None


def test_nothing_is_left_to_take_twice():
    network = Tangled()
    last = PenultimateFeatures(network)
    network(torch.randn(3, 4))
    last.take()
    with pytest.raises(ValueError, match=r"runs no torch\.nn\.Linear.*return \(logits, features\)"):
        last.take()


def test_a_network_without_linear_layers_says_what_to_do():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    last = PenultimateFeatures(network)
    network(torch.rand(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"return \(logits, features\) from forward"):
        last.take()


def test_removed_hooks_are_gone():
    network = Tangled()
    last = PenultimateFeatures(network)
    assert any(layer._forward_pre_hooks for layer in network.modules())
    last.remove()
    assert not any(layer._forward_pre_hooks for layer in network.modules())
    network(torch.randn(3, 4))
    with pytest.raises(ValueError, match="return"):
        last.take()
    pickle.dumps(network)


def test_more_than_one_axis_is_flattened():
    network = nn.Linear(4, 2)
    last = PenultimateFeatures(network)
    network(torch.randn(3, 5, 4))
    assert last.take().shape == (3, 20)


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.head(input=inputs)


def test_a_layer_that_is_called_by_name_is_seen_too():
    network = ByName()
    last = PenultimateFeatures(network)
    network(torch.randn(3, 4))
    assert last.take().shape == (3, 4)
