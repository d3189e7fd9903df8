import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

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


def test_many_rows_whose_angles_are_taken_some_at_a_time():
    """70 rows have more angles than are taken at once."""
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(70, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    foundation = torch.randn(70, 5, generator=draw, dtype=torch.float64)
    method = RelationalDistillation()
    value = method(student, foundation)
    assert value.item() == pytest.approx(naive_of_many(student, foundation), rel=1e-9)
    with torch.no_grad():
        assert method(student, foundation) == value
        (gradient,) = torch.autograd.grad(value, student)
        step = 1e-5 * torch.randn(70, 4, generator=draw, dtype=torch.float64)
        change = method(student + step, foundation) - method(student - step, foundation)
    assert change.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=1e-4)


def naive_of_many(student, foundation):
    """Return the definition with an array of all angles."""
    terms = []
    for features in (student.detach().numpy(), foundation.numpy()):
        towards = features[None] - features[:, None]
        lengths = np.linalg.norm(towards, axis=2)
        unit = towards / np.where(lengths > 0, lengths, 1)[..., None]
        terms.append((lengths / lengths[lengths > 0].mean(), unit @ unit.transpose(0, 2, 1)))
    pairs, angles = (smooth_l1(one - other).mean() for one, other in zip(*terms, strict=True))
    return (pairs + 2 * angles) / 2


def test_memory_is_a_fraction_of_that_of_all_angles():
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(256, 32, generator=draw, requires_grad=True)
    foundation = torch.randn(256, 64, generator=draw)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        RelationalDistillation()(student, foundation).backward()
    now = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    assert 2**20 < most < 32 * 2**20  # one number for each triplet takes 64 MiB
