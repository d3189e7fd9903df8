import pytest
import torch

from sk_aft.modules import SparseBag
from sk_aft.optim import RowwiseAdamW


def steps(optimizer_class, sparse, n_steps=4, **parameters):
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(20, 3, sparse=sparse)
    linear = torch.nn.Linear(3, 2)
    groups = [{"params": embedding.parameters()}, {"params": linear.parameters(), "lr": 0.02}]
    optimizer = optimizer_class(groups, lr=0.1, weight_decay=0.1, **parameters)
    before = embedding.weight.detach().clone()
    for step in range(n_steps):
        optimizer.zero_grad()
        linear(embedding(torch.tensor([1, 5, 5, 2 + step]))).square().sum().backward()
        optimizer.step()
    return before, embedding.weight.detach(), linear.weight.detach(), optimizer


def test_dense_parameters_learn_as_with_adamw():
    *_, expected, _ = steps(torch.optim.AdamW, sparse=False)
    _, rows, weight, _ = steps(RowwiseAdamW, sparse=False)
    torch.testing.assert_close(weight, expected, rtol=0, atol=0)
    torch.testing.assert_close(rows, steps(torch.optim.AdamW, sparse=False)[1], rtol=0, atol=0)


def test_only_rows_of_the_batches_change():
    before, after, _, _ = steps(RowwiseAdamW, sparse=True)
    changed = (before != after).any(dim=1).nonzero().flatten().tolist()
    assert changed == [1, 2, 3, 4, 5]


def test_every_row_moves_by_one_step_size():
    embedding = torch.nn.Embedding(6, 2, sparse=True)
    before = embedding.weight.detach().clone()
    optimizer = RowwiseAdamW(embedding.parameters(), lr=0.1, weight_decay=0.0)
    expected, mean_square = before.clone(), 0.0
    for step, tokens in enumerate(([0, 0, 0, 1], [1, 4]), start=1):
        optimizer.zero_grad()
        embedding(torch.tensor(tokens)).sum().backward()
        gradient = torch.zeros(6, 2)
        for token in tokens:
            gradient[token] += 1
        mean_square = 0.999 * mean_square + 0.001 * gradient.square().mean()
        expected -= 0.1 * gradient / (mean_square / (1 - 0.999**step)).sqrt()
        optimizer.step()
    torch.testing.assert_close(embedding.weight.detach(), expected)


def test_the_state_can_be_saved_and_goes_on():
    *_, optimizer = steps(RowwiseAdamW, sparse=True)
    _, _, _, other = steps(RowwiseAdamW, sparse=True, n_steps=1)
    other.load_state_dict(optimizer.state_dict())
    saved = [state["step"] for state in optimizer.state_dict()["state"].values()]
    assert [state["step"] for state in other.state_dict()["state"].values()] == saved


def test_a_closure_is_called_with_gradients():
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = RowwiseAdamW(embedding.parameters())

    def closure():
        optimizer.zero_grad()
        loss = embedding(torch.tensor([1])).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).ndim == 0


def test_what_is_not_supported_is_said():
    with pytest.raises(ValueError, match="amsgrad is not supported for sparse gradients"):
        steps(RowwiseAdamW, sparse=True, amsgrad=True)


def test_a_sparse_bag_has_the_gradients_of_a_dense_one():
    tokens, offsets = torch.tensor([3, 1, 3, 7]), torch.tensor([0, 3])
    gradients = []
    for sparse in (True, False):
        torch.manual_seed(0)
        bag = SparseBag(10, 2, token_dropout=0.0, sparse=sparse)
        bag(tokens, offsets, torch.full((4,), 0.5))[0].square().sum().backward()
        gradients.append(bag.embedding.weight.grad)
    assert gradients[0].is_sparse
    torch.testing.assert_close(gradients[0].to_dense(), gradients[1])
