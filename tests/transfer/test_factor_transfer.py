import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from sk_aft.transfer import FactorTransfer


def perceptron(layers, x):
    """Linear layers with leaky ReLUs of slope 0.1 between them."""
    linear = [layer for layer in layers if hasattr(layer, "weight")]
    for i, layer in enumerate(linear):
        x = x @ layer.weight.detach().numpy().astype(float).T + layer.bias.detach().numpy()
        x = np.where(x < 0, 0.1 * x, x) if i < len(linear) - 1 else x
    return x


def test_equals_the_definition(make_rows):
    rows = make_rows()
    method = FactorTransfer(7, 5)
    method.fit(rows)
    student = np.random.default_rng(0).normal(size=(10, 5)).astype(np.float32)
    foundation = rows.features.matrix[:10]
    standardised = (foundation - method.mean.numpy()) / method.scale.numpy()
    vectors = [perceptron(method.translator, student), perceptron(method.encoder, standardised)]
    predicted, factor = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors)
    assert predicted.shape == factor.shape == (10, 3)
    found = method(torch.tensor(student), torch.tensor(foundation)).item()
    assert found == pytest.approx(np.abs(predicted - factor).mean(), rel=1e-4)


def test_the_encoder_is_trained_on_rows_with_features_and_then_frozen(make_rows):
    known_mask = np.arange(200) % 4 > 0
    rows = make_rows(200, (8, 4), known_mask=known_mask)
    torch.manual_seed(0)
    method = FactorTransfer(12, 5, n_factors=4)
    before = [p.clone() for p in method.encoder.parameters()]
    assert method.fit(rows) is None
    after = list(method.encoder.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(p.requires_grad for p in after)
    assert all(p.requires_grad for p in method.translator.parameters())
    assert {row for read in rows.features.reads for row in read} == set(np.flatnonzero(known_mask))
    known = rows.features.matrix[known_mask]
    assert method.scale.item() == pytest.approx(known.std(axis=0).mean(), rel=0.3)


def test_the_factor_keeps_what_can_be_kept(make_rows):
    """Features of 12 columns with two directions: four factors determine a row."""
    rng = np.random.default_rng(0)
    rows = make_rows(300, (12,))
    rows.features.matrix[:] = 5 + rng.normal(size=(300, 2)) @ rng.normal(size=(2, 12))
    torch.manual_seed(0)
    method = FactorTransfer(12, 5, n_factors=4)
    method.fit(rows)
    factors = method.encode(torch.tensor(rows.features.matrix)).numpy()
    known = np.c_[factors, np.ones(300)]
    solution, *_ = np.linalg.lstsq(known, rows.features.matrix, rcond=None)
    unexplained = rows.features.matrix - known @ solution
    assert unexplained.var() < 0.2 * (rows.features.matrix - rows.features.matrix.mean(0)).var()


def test_stops_by_rows_that_it_does_not_learn_from(make_rows):
    """Noise that it learns by heart makes held-out rows worse."""
    rows = make_rows(60, (40,))
    rows.features.matrix[:] = np.random.default_rng(0).normal(size=(60, 40))
    torch.manual_seed(0)
    steps = []
    counting = register_optimizer_step_post_hook(lambda *args: steps.append(args))
    try:
        FactorTransfer(40, 5).fit(rows)
    finally:
        counting.remove()
    assert len(steps) < 400  # 500 if rows that it learned from were the judges


@pytest.mark.parametrize("n_rows", [1, 2, 3])
def test_few_rows_do_no_harm(make_rows, n_rows):
    rows = make_rows(n_rows)
    method = FactorTransfer(7, 5)
    method.fit(rows)
    value = method(torch.ones(n_rows, 5), torch.tensor(rows.features.matrix))
    assert torch.isfinite(value)


def test_narrow_features_have_a_factor():
    assert FactorTransfer(1, 5).encode(torch.ones(2, 1)).shape == (2, 1)
    assert FactorTransfer(3000, 5).encode(torch.ones(2, 3000)).shape == (2, 512)
