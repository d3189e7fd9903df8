"""Rates and weight decay of the layers of a network."""

import pytest
from torch import nn

from sk_aft.modules import MLP
from sk_aft.modules._parameter_groups import (
    freeze_layers,
    keep_frozen_statistics,
    parameter_groups,
    trained_parameters,
)
from sk_aft.modules._training_defaults import TrainingDefaults


class Stack(nn.Module):
    """An embedding, two layers and a head, as of a small language model."""

    training_defaults = TrainingDefaults(head_lr_factor=5.0, layer_decay=0.5)

    def __init__(self, head_lr_factor=None, layer_decay=None, n_frozen_layers=0):
        super().__init__()
        self.head_lr_factor = head_lr_factor
        self.layer_decay = layer_decay
        self.n_frozen_layers = n_frozen_layers
        self.embedding = nn.Embedding(5, 3)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), nn.Linear(3, 3, bias=False)]
        )
        self.pooler = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)

    @property
    def layers(self):
        return [self.embedding, *self.blocks]


def groups_of(module, lr=1.0, weight_decay=0.1):
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {
        names[parameter]: (group["lr"], group.get("weight_decay"))
        for group in parameter_groups(module, lr, weight_decay)
        for parameter in group["params"]
    }


def test_rates_fall_from_the_head_to_the_input():
    assert groups_of(Stack()) == {
        "embedding.weight": (0.25, 0.1),
        "blocks.0.0.weight": (0.5, 0.1),
        "blocks.0.0.bias": (0.5, 0.0),
        "blocks.0.1.weight": (0.5, 0.0),
        "blocks.0.1.bias": (0.5, 0.0),
        "blocks.1.weight": (1.0, 0.1),
        "pooler.weight": (5.0, 0.1),
        "pooler.bias": (5.0, 0.0),
        "head.weight": (5.0, 0.1),
        "head.bias": (5.0, 0.0),
    }


def test_arguments_of_the_network_have_precedence_over_its_defaults():
    found = groups_of(Stack(head_lr_factor=1, layer_decay=1.0), lr=0.1)
    assert {lr for lr, _ in found.values()} == {0.1}
    assert len(parameter_groups(Stack(head_lr_factor=1, layer_decay=1.0), 0.1, 0.1)) == 2


def test_without_a_weight_decay_that_of_the_optimizer_stays():
    found = groups_of(Stack(), weight_decay=None)
    assert found["head.weight"] == (5.0, None)
    assert found["head.bias"] == (5.0, 0.0)


def test_a_shared_weight_is_in_one_group():
    stack = Stack()
    stack.blocks[1].weight = stack.blocks[0][0].weight
    stack.pooler.weight = stack.blocks[0][0].weight
    groups = parameter_groups(stack, 1.0, 0.1)
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert len(parameters) == len(set(parameters)) == 8
    assert groups_of(stack)["blocks.0.0.weight"] == (0.5, 0.1)


@pytest.mark.parametrize(("n_frozen", "n_trained"), [(0, 10), (1, 9), (2, 5), (3, 4)])
def test_frozen_layers_are_left_out(n_frozen, n_trained):
    stack = Stack(n_frozen_layers=n_frozen)
    freeze_layers(stack)
    assert len(groups_of(stack)) == len(trained_parameters(stack)) == n_trained
    assert all(parameter.requires_grad for _, parameter in trained_parameters(stack))


@pytest.mark.parametrize("wrong", [-1, 4, None, 0.5])
def test_a_wrong_number_of_frozen_layers(wrong):
    with pytest.raises(ValueError, match=r"Stack has 3 layers: set module__n_frozen_layers to an"):
        freeze_layers(Stack(n_frozen_layers=wrong))


def test_running_statistics_of_frozen_layers_are_kept():
    stack = Stack(n_frozen_layers=2)
    stack.blocks[0][1] = nn.BatchNorm1d(3)
    stack.blocks[1] = nn.BatchNorm1d(3)
    freeze_layers(stack)
    for _ in range(2):
        assert not stack.blocks[0][1].training
        assert stack.blocks[0].training
        assert stack.blocks[1].training
        stack.train()
        keep_frozen_statistics(stack)


class Own(nn.Module):
    """A user's own network, with a frozen layer and an attribute of the same name."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.layers[0].requires_grad_(False)
        self.head = nn.Linear(2, 2)
        self.n_frozen_layers = 2


@pytest.mark.parametrize("network", [Own(), MLP(3, 2)])
def test_other_networks_have_one_group_of_all_weights(network):
    freeze_layers(network)
    keep_frozen_statistics(network)
    assert network.head.weight.requires_grad
    (group,) = parameter_groups(network, 0.1, 0.1)
    assert list(group) == ["params"]
    assert group["params"] == list(network.parameters())
