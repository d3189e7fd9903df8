import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sk_aft.transfer import RelationalDistillation


def smooth_l1(difference):
    difference = np.abs(difference)
    return np.where(difference < 1, difference**2 / 2, difference - 0.5)


def naive_distances(features):
    distances = np.array([[np.linalg.norm(a - b) for b in features] for a in features])
    return distances / distances[distances > 0].mean()


def naive_cosines(features):
    n_rows = len(features)
    cosines = np.zeros((n_rows, n_rows, n_rows))
    for i, j, k in np.ndindex(cosines.shape):
        one, other = features[j] - features[i], features[k] - features[i]
        lengths = np.linalg.norm(one) * np.linalg.norm(other)
        cosines[i, j, k] = one @ other / lengths if lengths else 0
    return cosines


def naive(student, foundation):
    student, foundation = student.astype(float), foundation.astype(float)
    pairs = smooth_l1(naive_distances(student) - naive_distances(foundation)).mean()
    angles = smooth_l1(naive_cosines(student) - naive_cosines(foundation)).mean()
    return (pairs + 2 * angles) / 2


def distance(student, foundation):
    student, foundation = (torch.tensor(x, dtype=torch.float32) for x in (student, foundation))
    return RelationalDistillation()(student, foundation).item()


def nearest(features):
    distances = naive_distances(features) if len(np.unique(features, axis=0)) > 1 else np.zeros(1)
    return min(distances[distances > 0], default=0)


@settings(max_examples=40, deadline=None)
@given(
    n_rows=st.integers(2, 9),
    widths=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    n_equal=st.integers(0, 2),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_definition(n_rows, widths, n_equal, scale, seed):
    rng = np.random.default_rng(seed)
    student, foundation = (rng.normal(size=(n_rows, width)) * scale + 3 for width in widths)
    student[: 1 + n_equal] = student[0]
    # Rows nearer than this are equal in float32, and have no angle.
    assume(min(nearest(student), nearest(foundation)) > 1e-2)
    assert distance(student, foundation) == pytest.approx(
        naive(student, foundation), rel=1e-2, abs=1e-4
    )


@settings(max_examples=25, deadline=None)
@given(n_rows=st.integers(3, 12), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**32 - 1))
def test_is_blind_to_rotation_scale_and_shift_of_either_side(n_rows, scale, seed):
    rng = np.random.default_rng(seed)
    student, foundation = rng.normal(size=(n_rows, 4)), rng.normal(size=(n_rows, 6))
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    plain = distance(student, foundation)
    assert distance(student @ rotation * scale + scale, foundation) == pytest.approx(
        plain, rel=1e-2, abs=1e-4
    )
    assert distance(student, foundation * scale) == pytest.approx(plain, rel=1e-2, abs=1e-4)
    constant = np.c_[student, np.full((n_rows, 2), 1.5)]
    assert distance(constant, foundation) == pytest.approx(plain, rel=1e-2, abs=1e-4)
    assert distance(student, student @ rotation) == pytest.approx(0, abs=1e-6)


def test_taking_the_angles_some_at_a_time_changes_nothing(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(11, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    foundation = torch.randn(11, 5, generator=draw, dtype=torch.float64)
    results = []
    for at_a_time in (1, 3 * 11**2, 10**9):
        monkeypatch.setattr("sk_aft.transfer._relational_distillation._ANGLES_PER_CHUNK", at_a_time)
        value = RelationalDistillation()(student, foundation)
        (gradient,) = torch.autograd.grad(value, student)
        with torch.no_grad():
            assert RelationalDistillation()(student, foundation) == value
        results.append((value.item(), gradient.numpy()))
    for value, gradient in results[1:]:
        assert value == pytest.approx(results[0][0], rel=1e-12)
        np.testing.assert_allclose(gradient, results[0][1], rtol=1e-9, atol=1e-12)


MEMORY_OF_A_STEP = """
import resource, sys, torch
from sk_aft.transfer import RelationalDistillation
n_rows = 512
student = torch.randn(n_rows, 256, requires_grad=True)
foundation = torch.randn(n_rows, 4096)
method = RelationalDistillation()
method(student[:16], foundation[:16]).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
method(student, foundation).backward()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
unit = 2**20 if sys.platform == "darwin" else 2**10
print((after - before) / unit)
"""


def test_memory_is_a_fraction_of_that_of_all_angles():
    pytest.importorskip("resource")
    run = subprocess.run(
        [sys.executable, "-c", MEMORY_OF_A_STEP], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 200  # MiB; one number for each triplet takes 512
