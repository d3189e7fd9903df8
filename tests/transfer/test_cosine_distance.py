import pytest
import torch

from sk_aft.transfer._cosine_distance import cosine_kernel_distance
from sk_aft.transfer._kernels import cosine_kernel, kernel_distance


def rows(n_rows, width, seed, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n_rows, width, generator=draw, dtype=dtype)


def by_autograd(student, foundation, logits=None):
    if logits is not None:
        foundation = foundation * torch.sigmoid(logits)
    return kernel_distance(cosine_kernel(student), cosine_kernel(foundation))


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 4), (8, 3, 5), (16, 20, 7)])
def test_distance_and_gradients_are_autograds(shape, weighted):
    n_rows, n_student, n_foundation = shape
    inputs = [rows(n_rows, n_student, 0), rows(n_rows, n_foundation, 1)]
    if weighted:
        inputs.append(rows(1, n_foundation, 2)[0])
    results = []
    for distance in (cosine_kernel_distance, by_autograd):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        value = distance(*leaves)
        (3 * value).backward()
        results.append([value.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-9)


def test_gradients_are_right():
    inputs = [rows(6, 4, 0), rows(6, 5, 1), rows(1, 5, 2)[0]]
    leaves = [tensor.requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(cosine_kernel_distance, leaves)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e25])
def test_scale_does_not_matter(scale):
    student, foundation = rows(8, 4, 0, torch.float32), rows(8, 5, 1, torch.float32)
    expected = cosine_kernel_distance(student, foundation)
    leaf = (student * scale).requires_grad_()
    distance = cosine_kernel_distance(leaf, foundation * 1e20)
    # Norms are compared with 1e-8, as ever.
    if scale > 1:
        torch.testing.assert_close(distance, expected, rtol=1e-3, atol=0)
    distance.backward()
    assert leaf.grad.isfinite().all()


def test_rows_without_variation_do_no_harm():
    student = rows(6, 4, 0).index_fill(0, torch.tensor([2]), 0.0)
    student[2] = student[[0, 1, 3, 4, 5]].mean(dim=0)  # zero once centred
    student.requires_grad_()
    foundation = torch.ones(6, 5, dtype=torch.float64)
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    cosine_kernel_distance(student, foundation, logits).backward()
    assert student.grad.isfinite().all()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize(("value", "n_rows"), [(0.1, 6), (0.3, 33)])
def test_features_that_do_not_vary_have_no_cosines(value, n_rows):
    student = rows(n_rows, 4, 0, torch.float32)
    constant = torch.full((n_rows, 5), value)
    expected = by_autograd(student, torch.zeros(n_rows, 5))
    torch.testing.assert_close(cosine_kernel_distance(student, constant), expected)
    logits = torch.zeros(5)
    torch.testing.assert_close(cosine_kernel_distance(student, constant, logits), expected)


def test_what_needs_no_gradient_gets_none():
    student = rows(6, 4, 0).requires_grad_()
    foundation, logits = rows(6, 5, 1), rows(1, 5, 2)[0]
    cosine_kernel_distance(student, foundation, logits).backward()
    assert student.grad is not None
    assert foundation.grad is None
    assert logits.grad is None
    assert not cosine_kernel_distance(student.detach(), foundation).requires_grad
