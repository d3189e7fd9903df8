"""What all transfer methods have in common, and how they are built."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sk_aft.transfer import (
    Combination,
    KernelAlignment,
    ProbeDistillation,
    TransferMethod,
    default_beta,
    make_transfer,
)
from sk_aft.transfer._methods import which_have

NAMES = [
    *("aft", "aft-fixed", "aft-dense", "aft-rbf", "feature-regression", "kd", "rkd", "ft", "kkd"),
    *("b-tuning", "probe-kd", "aft-product"),
]
PARAMETERLESS = {"aft-fixed", "rkd", "b-tuning", "probe-kd"}
SIZES = {"n_student_features": 5, "n_outputs": 3, "feature_slices": {"a": slice(0, 7)}}
SIZES["column_slices"] = {"image": slice(0, 4), "text": slice(4, 7)}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(name, rows):
    torch.manual_seed(0)
    method = make_transfer(name, 7, **SIZES)
    targets = method.fit(rows)
    return method, rows.features.matrix if targets is None else targets


def value(method, student, foundation, logits):
    return method(student, foundation, *([logits] if method.uses_logits else []))


@pytest.mark.parametrize("name", NAMES)
def test_gives_a_scalar_that_student_and_method_can_learn_from(name, make_rows):
    method, targets = fitted(name, make_rows())
    assert isinstance(method, TransferMethod)
    student, logits = draw(12, 5).requires_grad_(), draw(12, 3, seed=1).requires_grad_()
    result = value(method, student, torch.as_tensor(targets[:12]), logits)
    result.backward()
    assert result.shape == ()
    assert result.item() > 0
    learned = logits if method.uses_logits else student
    assert learned.grad.abs().sum() > 0
    parameters = [p for p in method.parameters() if p.requires_grad]
    assert bool(parameters) == (name not in PARAMETERLESS)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)


@pytest.mark.parametrize("name", NAMES)
def test_does_not_depend_on_the_order_of_rows(name, make_rows):
    method, targets = fitted(name, make_rows())
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    student, logits = draw(12, 5), draw(12, 3, seed=1)
    foundation = torch.as_tensor(targets[:12])
    plain = value(method, student, foundation, logits)
    assert value(method, student[order], foundation[order], logits[order]).item() == pytest.approx(
        plain.item(), rel=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_give_the_same_number(name, make_rows):
    method, targets = fitted(name, make_rows())
    inputs = (draw(12, 5), torch.as_tensor(targets[:12]), draw(12, 3, seed=1))
    plain = value(method, *inputs).item()
    assert value(copy.deepcopy(method), *inputs).item() == plain
    assert value(pickle.loads(pickle.dumps(method)), *inputs).item() == plain


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_around_it_changes_nothing(name, make_rows):
    method, targets = fitted(name, make_rows())
    inputs = (draw(12, 5), torch.as_tensor(targets[:12]), draw(12, 3, seed=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = value(method, *inputs)
        from_half = value(method, *(part.bfloat16() for part in inputs))
    assert mixed.dtype == from_half.dtype == torch.float32
    assert mixed.item() == value(method, *inputs).item()
    assert from_half.item() == pytest.approx(mixed.item(), rel=0.1, abs=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_right_in_double_precision(name, make_rows):
    method, targets = fitted(name, make_rows())
    method = method.double()
    student, logits = draw(6, 5).double(), draw(6, 3, seed=1).double()
    foundation = torch.as_tensor(targets[:6]).double()
    inputs = [student.requires_grad_(), logits.requires_grad_()]
    parameters = {n: p for n, p in method.named_parameters() if p.requires_grad}

    def function(student, logits, *values):
        replaced = dict(zip(parameters, values, strict=True))
        args = (student, foundation, logits) if method.uses_logits else (student, foundation)
        total = torch.func.functional_call(method, replaced, args)
        return total + 0 * (student.sum() + logits.sum())  # methods need not use both

    values = [p.detach().clone().requires_grad_() for p in parameters.values()]
    assert torch.autograd.gradcheck(function, (*inputs, *values))


DEGENERATE = {
    "constant": torch.ones_like,
    "zero": torch.zeros_like,
    "one row": lambda x: x[:1],
    "two equal rows": lambda x: x[[0, 0]],
    "duplicates": lambda x: x[[0, 0, 1, 1, 2, 2]],
    "tiny": lambda x: x * 1e-30,
    "large": lambda x: x * 1e6,
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_batches_have_finite_gradients(name, case, make_rows):
    method, targets = fitted(name, make_rows())
    change = DEGENERATE[case]
    student = change(draw(12, 5)).requires_grad_()
    n_rows = len(student)
    foundation = torch.as_tensor(targets[:n_rows])
    if name not in ("b-tuning", "probe-kd"):  # predictions are what they are
        foundation = change(torch.as_tensor(targets[:12]))
    logits = draw(n_rows, 3, seed=1).requires_grad_()
    result = value(method, student, foundation, logits)
    result.backward()
    assert torch.isfinite(result)
    if student.grad is not None:
        assert torch.isfinite(student.grad).all()
    for parameter in method.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


# ------------------------------------------------------------------- names and parameters


def test_default_betas_are_known_without_building():
    for name in NAMES:
        assert default_beta(name) == make_transfer(name, 7, **SIZES).default_beta > 0
    assert default_beta([("aft", 3), ("kd", 1)]) == 1
    assert default_beta(KernelAlignment(3)) == 10
    assert default_beta(nn.CosineSimilarity()) == 1
    with pytest.raises(ValueError, match="Unknown transfer method 'atf'"):
        default_beta("atf")


def test_a_module_is_returned_as_it_is_and_takes_no_parameters():
    module = KernelAlignment(3)
    assert make_transfer(module, 3) is module
    with pytest.raises(
        ValueError, match=r"transfer__kernel: the KernelAlignment is already an instance"
    ):
        make_transfer(module, 3, kernel="rbf")


@pytest.mark.parametrize(
    ("transfer", "name", "message"),
    [
        ("aft", "x", r"transfer__x: KernelAlignment takes \['kernel', 'weights', 'projection'\]"),
        (
            "aft-rbf",
            "kernel",
            r"transfer__kernel: KernelAlignment takes \['weights', 'projection'\]",
        ),
        ("rkd", "x", r"transfer__x: RelationalDistillation takes \[\]"),
        ([("kd", 1)], "kd__n_features", r"transfer__kd__n_features: FeatureDistillation takes"),
        ([("probe-kd", 1)], "probe_kd__x", r"transfer__probe_kd__x: ProbeDistillation takes"),
        ([("aft", 1)], "kernel", r"transfer__kernel: this list takes \['transfer__aft__...'\]"),
        ([("aft", 1)], "kd__x", "transfer__kd__x: this list takes"),
    ],
)
def test_unknown_parameters_name_the_known_ones(transfer, name, message):
    with pytest.raises(ValueError, match=f"Invalid parameter {message}"):
        make_transfer(transfer, 7, **SIZES, **{name: 1})


@pytest.mark.parametrize("name", ["kernel", "weights"])
def test_unknown_values_name_the_known_ones(name):
    with pytest.raises(ValueError, match=f"{name} is 'wrong', expected one of \\['"):
        make_transfer("aft", 7, **{name: "wrong"})


def test_a_size_that_is_missing_is_named():
    with pytest.raises(ValueError, match="'kd' needs n_student_features"):
        make_transfer("kd", 7)


def test_a_list_is_a_combination_with_parameters_of_each_part():
    own = KernelAlignment(7, weights="fixed")
    both = make_transfer(
        [("aft", 10), ("probe-kd", 1), (own, 2)],
        7,
        aft__kernel="rbf",
        probe_kd__temperature=2.0,
        probe_kd__beta=3,
    )
    assert isinstance(both, Combination)
    assert both.betas == [10, 3, 2]
    assert both.methods[0].kernel == "rbf"
    assert isinstance(both.methods[1], ProbeDistillation)
    assert both.methods[1].temperature == 2
    assert both.methods[2] is own


def test_parts_with_beta_0_are_left_out():
    both = make_transfer([("kd", 0), ("aft", 1), ("probe-kd", 5)], 7, probe_kd__beta=0)
    assert both.betas == [1]
    assert isinstance(both.methods[0], KernelAlignment)
    none = make_transfer([("kd", 0)], 7)
    assert none(draw(4, 3), draw(4, 7)).item() == 0
    with pytest.raises(ValueError, match="transfer__kd__x: this list takes"):
        make_transfer([("aft", 0)], 7, kd__x=1)


def test_active_methods_say_whether_they_take_soft_targets():
    both = [("aft", 1), ("probe-kd", 1)]
    assert which_have("takes_soft_targets", "probe-kd") == [True]
    assert which_have("takes_soft_targets", nn.CosineSimilarity()) == [False]
    assert which_have("takes_soft_targets", both) == [False, True]
    assert which_have("takes_soft_targets", both, {"aft__beta": 0}) == [True]
    assert which_have("takes_soft_targets", [("aft", 0)]) == []
    built = Combination([(KernelAlignment(3), 0.0), (ProbeDistillation(), 2.0)])
    assert which_have("takes_soft_targets", built) == [True]
    assert which_have("takes_soft_targets", Combination([])) == []


@pytest.mark.parametrize(
    ("transfer", "message"),
    [
        ([], "empty list"),
        (["aft", "kd"], "a list with 'aft' in it, expected pairs"),
        ([("aft", 1), ("aft", 2)], "twice"),
        ([("atf", 1)], "Unknown transfer method 'atf'"),
        ([("aft", -1)], "beta=-1"),
    ],
)
def test_a_list_that_cannot_be_combined_is_explained(transfer, message):
    with pytest.raises(ValueError, match=message):
        make_transfer(transfer, 7)


def test_fit_reads_no_rows_unless_it_has_to(make_rows):
    for name in ("aft", "kd", "rkd", "kkd"):
        rows = make_rows()
        assert fitted(name, rows)[0] is not None
        assert not rows.features.reads


@pytest.mark.parametrize("name", ["ft", "b-tuning", "probe-kd"])
def test_rows_without_features_are_never_read(name, make_rows):
    known_mask = np.arange(60) % 4 > 0
    rows = make_rows(known_mask=known_mask, labeled_mask=np.arange(60) % 5 > 0)
    _, targets = fitted(name, rows)
    assert all(known_mask[read].all() for read in rows.features.reads)
    if name != "ft":
        np.testing.assert_array_equal(np.isnan(targets).any(axis=1), ~known_mask)


@pytest.mark.parametrize("name", ["b-tuning", "probe-kd"])
def test_without_labels_there_is_nothing_to_fit(name, make_rows):
    rows = make_rows(labeled_mask=np.zeros(60, dtype=bool))
    with pytest.raises(ValueError, match="rows with labels and foundation features"):
        fitted(name, rows)


@pytest.mark.parametrize("name", ["ft", "b-tuning", "probe-kd"])
def test_fit_is_repeatable(name, make_rows):
    rows = make_rows()
    first, second = (fitted(name, rows) for _ in range(2))
    np.testing.assert_array_equal(first[1], second[1])
    other = second[0].state_dict()
    assert all(torch.equal(value, other[key]) for key, value in first[0].state_dict().items())
