"""Methods that compare features through a learned linear map, against NumPy in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sk_aft.transfer import FeatureDistillation, FeatureRegression, KernelDistillation

sizes = {
    "n_rows": st.integers(2, 16),
    "p": st.integers(1, 6),
    "d": st.integers(1, 6),
    "seed": st.integers(0, 2**32 - 1),
}


def draw(n_rows, p, d, seed):
    rng = np.random.default_rng(seed)
    student = (rng.normal(size=(n_rows, p)) + rng.normal(size=p)).astype(np.float32)
    foundation = (rng.normal(size=(n_rows, d)) + rng.normal(size=d)).astype(np.float32)
    return student, foundation


def compute(method, student, foundation):
    return method(torch.tensor(student), torch.tensor(foundation)).item()


def weight(method):
    return method.map.weight.detach().numpy().astype(float)


def kernel(features):
    centred = features - features.mean(axis=0)
    unit = centred / (np.linalg.norm(centred, axis=1, keepdims=True) + 1e-8)
    return unit @ unit.T


@settings(max_examples=40, deadline=None)
@given(**sizes)
def test_feature_regression_equals_the_definition(n_rows, p, d, seed):
    student, foundation = draw(n_rows, p, d, seed)
    method = FeatureRegression(d, p)
    predicted = foundation @ weight(method).T
    error = (student - student.mean(axis=0)) - (predicted - predicted.mean(axis=0))
    assert compute(method, student, foundation) == pytest.approx(np.mean(error**2), rel=1e-4)
    # Centred on both sides: shifts do not count.
    assert compute(method, student + 1, foundation - 1) == pytest.approx(
        np.mean(error**2), rel=1e-3, abs=1e-6
    )


@settings(max_examples=40, deadline=None)
@given(**sizes)
def test_feature_distillation_equals_the_definition(n_rows, p, d, seed):
    student, foundation = draw(n_rows, p, d, seed)
    method = FeatureDistillation(d, p)
    predicted = student @ weight(method).T + method.map.bias.detach().numpy()
    expected = np.mean((predicted - foundation) ** 2)
    assert compute(method, student, foundation) == pytest.approx(expected, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(**sizes)
def test_kernel_distillation_equals_the_definition(n_rows, p, d, seed):
    student, foundation = draw(n_rows, p, d, seed)
    method = KernelDistillation(d, p)
    difference = kernel(student @ weight(method).T) - kernel(foundation.astype(float))
    expected = np.sqrt(np.mean(difference**2) + 1e-8)
    assert compute(method, student, foundation) == pytest.approx(expected, rel=2e-3, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    n_rows=st.integers(3, 16), scale=st.floats(1e-3, 1e3), seed=sizes["seed"], d=st.integers(2, 6)
)
def test_kernel_distillation_is_blind_to_scale_of_both_and_rotation_of_psi(n_rows, scale, seed, d):
    student, foundation = draw(n_rows, 4, d, seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    method = KernelDistillation(d, 4)
    plain = compute(method, student, foundation)
    scaled = compute(method, student * np.float32(scale), foundation)
    turned = compute(method, student, (foundation @ rotation * scale).astype(np.float32))
    assert scaled == pytest.approx(plain, rel=5e-3, abs=1e-4)
    assert turned == pytest.approx(plain, rel=5e-3, abs=1e-4)


def test_maps_learn_what_is_linear():
    rng = np.random.default_rng(0)
    student = torch.tensor(rng.normal(size=(64, 3)), dtype=torch.float32)
    foundation = student @ torch.tensor(rng.normal(size=(3, 3)), dtype=torch.float32)
    for method in (FeatureRegression(3, 3), FeatureDistillation(3, 3), KernelDistillation(3, 3)):
        optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
        before = method(student, foundation).item()
        for _ in range(150):
            optimizer.zero_grad()
            method(student, foundation).backward()
            optimizer.step()
        assert method(student, foundation).item() < before / 20
