import numpy as np
import pytest
import torch
from torch import nn

from sk_aft._student._losses import transfer_loss
from sk_aft.transfer import (
    BTuning,
    Combination,
    FactorTransfer,
    KernelAlignment,
    ProbeDistillation,
    RelationalDistillation,
)


def inputs(rows, targets, n_rows=12):
    draw = torch.Generator().manual_seed(0)
    student, logits = torch.randn(n_rows, 5, generator=draw), torch.randn(n_rows, 3, generator=draw)
    whole = rows.features.matrix[:n_rows] if targets is None else targets.take(np.arange(n_rows))
    return student, torch.as_tensor(whole), logits


def test_is_the_weighted_sum_of_parts_that_each_get_their_own(make_rows):
    rows = make_rows()
    parts = [
        (KernelAlignment(7), 10.0),
        (ProbeDistillation(), 2.0),
        (RelationalDistillation(), 0.5),
        (BTuning(5, 3), 3.0),
    ]
    both = Combination(parts)
    targets = both.fit(rows)
    assert targets.shape == (60, 7 + 3 + 3)
    taken = targets.take(np.array([4, 2]))
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken[:, :7], rows.features.matrix[[4, 2]])
    student, joined, logits = inputs(rows, targets)
    features, probabilities, predictions = joined[:, :7], joined[:, 7:10], joined[:, 10:]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    expected = (
        10 * parts[0][0](student, features)
        + 2 * parts[1][0](student, probabilities, logits)
        + 0.5 * parts[2][0](student, features)
        + 3 * parts[3][0](student, predictions)
    )
    assert both(student, joined, logits).item() == pytest.approx(expected.item(), rel=1e-6)


def test_without_targets_of_a_part_nothing_is_read(make_rows):
    rows = make_rows()
    both = Combination([(KernelAlignment(7), 10), (RelationalDistillation(), 1)])
    assert both.fit(rows) is None
    assert not rows.features.reads
    student, features, logits = inputs(rows, None)
    expected = 10 * both.methods[0](student, features) + both.methods[1](student, features)
    assert both(student, features, logits).item() == pytest.approx(expected.item())
    assert both(student, features).item() == pytest.approx(expected.item())


def test_features_that_no_part_takes_are_left_out(make_rows):
    rows = make_rows()
    both = Combination([(ProbeDistillation(), 1), (BTuning(5, 3), 1)])
    targets = both.fit(rows)
    assert targets.shape == (60, 6)
    rows.features.reads.clear()
    student, joined, logits = inputs(rows, targets)
    assert not rows.features.reads
    expected = both.methods[0](student, joined[:, :3], logits) + both.methods[1](
        student, joined[:, 3:]
    )
    assert both(student, joined, logits).item() == pytest.approx(expected.item())


def test_only_rows_that_are_asked_for_are_read(make_rows):
    rows = make_rows()
    targets = Combination([(KernelAlignment(7), 1), (ProbeDistillation(), 1)]).fit(rows)
    rows.features.reads.clear()
    targets.take(np.array([3, 1]))
    assert [read.tolist() for read in rows.features.reads] == [[3, 1]]


def test_combinations_combine(make_rows):
    rows = make_rows()
    inner = Combination([(KernelAlignment(7), 1), (ProbeDistillation(), 1)])
    outer = Combination([(inner, 2), (RelationalDistillation(), 1)])
    targets = outer.fit(rows)
    assert targets.shape == (60, 7 + 7 + 3)
    student, joined, logits = inputs(rows, targets)
    expected = 2 * inner(student, joined[:, 7:], logits) + outer.methods[1](student, joined[:, :7])
    assert outer(student, joined, logits).item() == pytest.approx(expected.item())


def test_a_part_of_strength_zero_costs_nothing(make_rows):
    rows = make_rows()
    off = [(ProbeDistillation(), 0), (FactorTransfer(7, 5), 0.0)]
    both = Combination([*off, (KernelAlignment(7), 1)])
    assert both.fit(rows) is None
    assert not rows.features.reads
    student, features, logits = inputs(rows, None)
    assert both(student, features, logits) == both.methods[2](student, features)


def test_modules_that_know_nothing_of_the_protocol_are_parts_too(make_rows):
    class Difference(nn.Module):
        def forward(self, student, foundation):
            return (student.mean() - foundation.mean()).square()

    rows = make_rows()
    both = Combination([(Difference(), 2), (ProbeDistillation(), 1)])
    student, joined, logits = inputs(rows, both.fit(rows))
    expected = 2 * Difference()(student, joined[:, :7]) + both.methods[1](
        student, joined[:, 7:], logits
    )
    assert both(student, joined, logits).item() == pytest.approx(expected.item())


def test_feature_weights_are_those_of_the_part_that_has_some():
    alignment = KernelAlignment(7)
    both = Combination([(RelationalDistillation(), 1), (alignment, 1)])
    assert torch.equal(both.feature_weights, alignment.feature_weights)
    assert not hasattr(Combination([(RelationalDistillation(), 1)]), "feature_weights")


def test_parts_have_soft_targets_and_features_of_their_own(make_rows):
    soft_targets = np.full((60, 3), 1 / 3, dtype=np.float32)
    soft_targets[::2] = np.nan
    rows = make_rows(soft_targets=soft_targets, known_mask=np.arange(60) % 3 > 0)
    both = Combination([(KernelAlignment(7), 10), (ProbeDistillation(), 2)])
    student, joined, logits = inputs(rows, both.fit(rows))
    np.testing.assert_array_equal(joined[:, 7:], soft_targets[:12])
    found = transfer_loss(both, student, joined, logits, has_untaught_rows=True)
    known, taught = rows.known_mask[:12], np.arange(12) % 2 == 1
    alignment, distillation = both.methods
    expected = 10 * alignment(student[known], joined[known, :7]) + 2 * distillation(
        student[taught], joined[taught, 7:], logits[taught]
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert not both.takes_soft_targets
    assert Combination([(ProbeDistillation(), 1), (KernelAlignment(7), 0)]).takes_soft_targets


def test_parameters_of_all_parts_are_learned():
    both = Combination([(KernelAlignment(7), 1), (FactorTransfer(7, 5), 1)])
    assert "methods.0.s" in dict(both.named_parameters())
    assert any(name.startswith("methods.1.translator") for name, _ in both.named_parameters())
