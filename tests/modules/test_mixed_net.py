import pickle

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sk_aft.modules import MLP, BilinearHead, MixedNet, ResNet, SparseBag, StaticText, network_for


def random_head(*sizes):
    torch.manual_seed(0)
    head = BilinearHead(*sizes)
    nn.init.normal_(head.weight, std=0.1)
    return head


def explicit(head, first, second):
    """The same over outer products that are built."""
    products = (first[:, :, None] * second[:, None, :]).flatten(1)
    both = torch.cat([first, second], dim=1)
    return products @ head.weight.flatten(1).T + both @ head.linear.weight.T + head.linear.bias


# ---------------------------------------------------------------- BilinearHead


@pytest.mark.parametrize("sizes", [(5, 7, 3), (7, 5, 1), (1, 4, 2)])
def test_a_bilinear_head_is_linear_in_the_outer_product(sizes):
    head = random_head(*sizes).double()
    first = torch.randn(6, sizes[0], dtype=torch.float64, requires_grad=True)
    second = torch.randn(6, sizes[1], dtype=torch.float64, requires_grad=True)
    leaves = [first, second, *head.parameters()]
    outputs, expected = head(first, second), explicit(head, first, second)
    torch.testing.assert_close(outputs, expected)
    gradients = torch.autograd.grad(outputs.square().sum(), leaves)
    for one, other in zip(
        gradients, torch.autograd.grad(expected.square().sum(), leaves), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_bilinear_head_starts_as_a_linear_layer():
    head = BilinearHead(4, 3, 2)
    first, second = torch.randn(5, 4), torch.randn(5, 3)
    torch.testing.assert_close(head(first, second), head.linear(torch.cat([first, second], 1)))


class LargestTensor(TorchDispatchMode):
    """Notes the most entries that any tensor has that is computed."""

    n_entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                stored = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.n_entries = max(self.n_entries, stored)
        return result


def test_outer_products_are_never_built():
    n_rows, width, n_outputs = 128, 1024, 3
    head = random_head(width, width, n_outputs)
    first, second = (torch.randn(n_rows, width, requires_grad=True) for _ in range(2))
    for function, is_small in ((head, True), (lambda *pair: explicit(head, *pair), False)):
        with LargestTensor() as largest, torch.set_grad_enabled(is_small):
            outputs = function(first, second)
            if is_small:
                outputs.square().sum().backward()
        # The largest is the gradient of the weights; an outer product has 43 times as many.
        assert (largest.n_entries <= n_outputs * width * width) == is_small
    assert n_rows * width * width > 42 * n_outputs * width * width


# ---------------------------------------------------------------- MixedNet

PARTS = {
    "an image!": {"n_channels": 1, "n_inputs": 1},
    "text.of": {"n_tokens": 9},
    "numbers": {"n_inputs": 4},
}


def inputs_of(names):
    torch.manual_seed(0)
    inputs = {
        "an image!": torch.rand(5, 1, 8, 8),
        "text.of": {
            "tokens": torch.tensor([[0], [3], [8], [1], [2]]),
            "lengths": torch.ones(5, dtype=torch.int64),
        },
        "numbers": torch.randn(5, 4),
    }
    return {name: inputs[name] for name in names}


def build(n_parts, **parameters):
    torch.manual_seed(0)
    parts = dict(list(PARTS.items())[:n_parts])
    return MixedNet(parts, n_outputs=3, **parameters), inputs_of(parts)


def test_each_part_has_the_network_of_its_kind():
    network, _ = build(3)
    assert [type(branch) for branch in network.branches] == [ResNet, StaticText, MLP]
    assert [network_for(sizes) for sizes in PARTS.values()] == [ResNet, StaticText, MLP]
    assert network_for({"parts": PARTS}) is MixedNet
    assert network_for({"n_tokens": 9, "n_inputs": 9}) is SparseBag


def test_two_parts_are_multiplied():
    network, inputs = build(2)
    nn.init.normal_(network.head.weight)
    network.eval()
    logits, features = network(**inputs)
    assert [part.shape for part in features] == [(5, 64), (5, 128)]
    image, text = features
    torch.testing.assert_close(logits, explicit(network.head, image, text))


@pytest.mark.parametrize(
    ("n_parts", "head", "is_pair"),
    [
        (1, "auto", False),
        (2, "auto", True),
        (2, "bilinear", True),
        (2, "concatenation", False),
        (3, "auto", False),
    ],
)
def test_all_parameters_are_used_and_features_are_what_the_head_says(n_parts, head, is_pair):
    network, inputs = build(n_parts, head=head)
    logits, features = network(**inputs)
    assert logits.shape == (5, 3)
    assert isinstance(features, tuple) == is_pair
    if not is_pair:
        assert features.shape == (5, 128)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()
    copy = pickle.loads(pickle.dumps(network))
    torch.testing.assert_close(copy(**inputs)[0], network(**inputs)[0])


def test_embeddings_are_sparse_if_asked_for():
    assert [build(2, sparse=sparse)[0].branches[1].bag.sparse for sparse in (True, False)] == [1, 0]


def test_heads_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="head='other' is unknown"):
        build(2, head="other")
    with pytest.raises(ValueError, match=r"for two parts.*'numbers'"):
        build(3, head="bilinear")
