import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sk_aft.transfer import ProductKernelAlignment
from sk_aft.transfer._kernels import product_kernel


def outer(*modalities):
    product = modalities[0]
    for other in modalities[1:]:
        product = np.einsum("ia,ib->iab", product, other).reshape(len(product), -1)
    return product


def is_well_conditioned(modalities):
    """Whether no row's product is so close to the mean that rounding makes its direction."""
    product = outer(*modalities)
    norms = np.linalg.norm(product - product.mean(axis=0), axis=1)
    return norms.min() > 1e-4 * np.abs(product).max()


def kernel(features):
    centred = features - features.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit @ unit.T


def explicit(student, foundation):
    """The distance by building the outer products."""
    difference = kernel(outer(*student)) - kernel(outer(*foundation))
    return np.sqrt(np.mean(difference**2) + 1e-8)


def draw(n_rows, widths, seed, shift=1.0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n_rows, width)) + shift * rng.normal(size=width) for width in widths]


def slices(widths):
    stops = [0, *np.cumsum(widths).tolist()]
    return {f"modality{i}": slice(*stops[i : i + 2]) for i in range(len(widths))}


def compute(student, foundation, s=None, dtype=torch.float64, **settings):
    widths = [part.shape[1] for part in foundation]
    method = ProductKernelAlignment(sum(widths), slices(widths), **settings)
    if s is not None:
        method.s.data = torch.tensor(s)
    student = tuple(torch.tensor(part, dtype=dtype) for part in student)
    foundation = torch.tensor(np.concatenate(foundation, axis=1), dtype=dtype)
    return method(student if len(student) > 1 else student[0], foundation).item()


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(2, 20),
    student_widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    scale=st.sampled_from([1e-2, 1.0, 1e3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_explicit_outer_product(n_rows, student_widths, widths, scale, seed):
    student = draw(n_rows, student_widths, [seed, 0])
    foundation = [part * scale for part in draw(n_rows, widths, [seed, 1])]
    s = np.random.default_rng([seed, 2]).normal(size=sum(widths))
    weights = np.split(1 / (1 + np.exp(-s)), np.cumsum(widths)[:-1])
    weighted = [part * w for part, w in zip(foundation, weights, strict=True)]
    assume(is_well_conditioned(student) and is_well_conditioned(weighted))
    expected = explicit(student, weighted)
    assert compute(student, foundation, s) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("shift", [0.0, 1.0, 10.0])
def test_is_as_exact_from_float32_of_realistic_widths(shift):
    student = draw(64, (32, 24), 0)
    foundation = [part.astype(np.float32).astype(float) for part in draw(64, (64, 48), 1, shift)]
    student = [part.astype(np.float32).astype(float) for part in student]
    expected = explicit(student, foundation)
    found = compute(student, foundation, dtype=torch.float32)
    assert found == pytest.approx(expected, abs=1e-5)
    assert compute(student, foundation) == pytest.approx(expected, abs=1e-7)


def test_features_of_the_row_as_a_whole_are_compared_as_they_are():
    (student,), foundation = draw(10, (6,), 0), draw(10, (3, 4), 1)
    difference = kernel(student) - kernel(outer(*foundation))
    assert compute([student], foundation) == pytest.approx(
        np.sqrt(np.mean(difference**2) + 1e-8), rel=1e-6
    )


def test_a_modality_may_have_the_columns_of_several_models():
    foundation = draw(10, (2, 3, 4), 0)
    student = torch.tensor(draw(10, (5,), 1)[0])
    together = ProductKernelAlignment(9, {"image": [slice(0, 2), slice(5, 9)], "text": slice(2, 5)})
    image = np.concatenate([foundation[0], foundation[2]], axis=1)
    difference = kernel(student.numpy()) - kernel(outer(image, foundation[1]))
    found = together(student, torch.tensor(np.concatenate(foundation, axis=1)))
    assert found.item() == pytest.approx(np.sqrt(np.mean(difference**2) + 1e-8), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(n_rows=st.integers(3, 12), scale=st.floats(1e-2, 1e2), seed=st.integers(0, 2**32 - 1))
def test_is_blind_to_rotation_scale_and_order(n_rows, scale, seed):
    student, foundation = draw(n_rows, (3, 4), [seed, 0]), draw(n_rows, (3, 2), [seed, 1])
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(n_rows)
    plain = compute(student, foundation)
    assert compute([student[0] @ rotation * scale, student[1]], foundation) == pytest.approx(
        plain, rel=1e-5
    )
    assert compute([p[order] for p in student], [p[order] for p in foundation]) == pytest.approx(
        plain, rel=1e-5
    )
    assert compute(student, student) == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize("whole", [False, True])
def test_gradients_are_right_in_double_precision(whole):
    method = ProductKernelAlignment(5, {"a": slice(0, 3), "b": slice(3, 5)}).double()
    student = [torch.tensor(part).requires_grad_() for part in draw(6, (3, 2), 0)]
    foundation = torch.tensor(np.concatenate(draw(6, (3, 2), 1), axis=1))

    def function(s, *student):
        given = student[0] if whole else student
        return (
            torch.func.functional_call(method, {"s": s}, (given, foundation)) + 0 * student[1].sum()
        )

    s = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (s, *student))


@pytest.mark.parametrize(
    "change",
    [
        torch.ones_like,
        torch.zeros_like,
        lambda x: torch.full_like(x, 1000.1),
        lambda x: x[:1],
        lambda x: x[[0, 0, 1, 1]],
        lambda x: x * 1e-30,
        lambda x: x * 1e30,
    ],
)
def test_degenerate_batches_have_finite_gradients(change):
    method = ProductKernelAlignment(5, {"a": slice(0, 3), "b": slice(3, 5)})
    student = [
        change(torch.tensor(p, dtype=torch.float32)).requires_grad_() for p in draw(6, (3, 2), 0)
    ]
    foundation = change(torch.tensor(np.concatenate(draw(6, (3, 2), 1), axis=1)).float())
    distance = method(tuple(student), foundation)
    distance.backward()
    assert 0 < distance.item() <= 2.001
    for tensor in (*student, method.s):
        assert torch.isfinite(tensor.grad).all()


def test_a_row_equal_to_the_mean_has_no_cosines():
    draw = torch.Generator().manual_seed(0)
    features = 0.7 * torch.randn(129, 20, generator=draw)
    features[-1] = features[:-1].mean(dim=0)
    constant = torch.full((129, 4), 0.3)
    kernel = product_kernel((features, constant))
    torch.testing.assert_close(kernel[-1], torch.zeros(129), atol=1e-4, rtol=0)
    torch.testing.assert_close(kernel[:-1].diagonal(), torch.ones(129)[:128])


def test_outer_products_of_1024_by_1024_features_are_never_built():
    draw = torch.Generator().manual_seed(0)
    foundation = torch.randn(32, 2048, generator=draw)  # products: 128 MiB
    method = ProductKernelAlignment(2048, {"a": slice(0, 1024), "b": slice(1024, 2048)})
    with torch.profiler.profile(profile_memory=True) as profile:
        method((foundation[:, :16], foundation[:, 16:32]), foundation).backward()
    assert max(event.cpu_memory_usage for event in profile.events()) < 4 * 2**20


def test_fixed_weights_are_not_learned():
    method = ProductKernelAlignment(5, {"a": slice(0, 3), "b": slice(3, 5)}, weights="fixed")
    assert not list(method.parameters())
    np.testing.assert_array_equal(method.feature_weights, np.full(5, 0.5))


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match="weights is 'dense', expected one of"):
        ProductKernelAlignment(5, {"a": slice(0, 5)}, weights="dense")
    with pytest.raises(ValueError, match="has a modality without columns"):
        ProductKernelAlignment(5, {"a": slice(0, 5), "b": slice(5, 9)})
    with pytest.raises(ValueError, match="has a modality without columns"):
        ProductKernelAlignment(5, {})
