import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from sk_aft.transfer import KernelAlignment, make_transfer


def naive_kernel(features):
    """Steps 2 to 4 of the definition, one row at a time, in float64."""
    centred = features - features.mean(axis=0)
    unit = [row / (np.sqrt(np.sum(row**2)) + 1e-8) for row in centred]
    return np.array([[np.dot(a, b) for b in unit] for a in unit])


def naive_distance(student, foundation, s):
    student, foundation, s = (np.asarray(x, dtype=np.float64) for x in (student, foundation, s))
    weighted = foundation / (1 + np.exp(-s))
    difference = naive_kernel(student) - naive_kernel(weighted)
    return np.sqrt(np.mean(difference**2) + 1e-8)


def draw(n_rows, width, seed, values="normal"):
    rng = np.random.default_rng(seed)
    if values == "few":  # many equal numbers, as after a ReLU or in counts
        return rng.choice([0.0, 0.0, 1.0, 2.0], size=(n_rows, width)).astype(np.float32)
    features = rng.normal(size=(n_rows, width)) + rng.normal(size=width)
    if values == "heavy":
        features = features**5
    return features.astype(np.float32)


def distance(student, foundation, s=None):
    alignment = KernelAlignment(foundation.shape[1])
    if s is not None:
        alignment.s.data = torch.as_tensor(np.asarray(s), dtype=torch.float32)
    return alignment(torch.as_tensor(student), torch.as_tensor(foundation)).item()


def is_well_conditioned(features):
    """Whether centring leaves digits of float32 in every row that is not exactly the mean."""
    norms = np.linalg.norm(features - features.astype(float).mean(axis=0), axis=1)
    return norms.min() > 1e-3 * np.abs(features).max()


@settings(max_examples=150, deadline=None)
@given(
    n_rows=st.integers(2, 24),
    width=st.integers(1, 12),
    n_features=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    values=st.sampled_from(["normal", "heavy", "few"]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_equals_the_definition(n_rows, width, n_features, seed, values, scale):
    student = draw(n_rows, width, [seed, 0], values)
    foundation = draw(n_rows, n_features, [seed, 1], values) * np.float32(scale)
    s = np.random.default_rng([seed, 2]).normal(size=n_features, scale=2)
    assume(is_well_conditioned(student) and is_well_conditioned(foundation))
    expected = naive_distance(student, foundation, s)
    assert distance(student, foundation, s) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_the_definition_by_hand():
    """Two rows: centred they are opposite, so every kernel of two distinct rows is equal."""
    assert distance(np.float32([[0], [1]]), np.float32([[5, 3], [-2, 7]])) == pytest.approx(1e-4)
    # Three rows on a line against the corners of a triangle: cosines 1, 0, -1 against -1/2.
    line = np.float32([[-1], [0], [1]])
    angles = np.array([0, 2, 4]) * np.pi / 3
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    difference = np.array([[0, 0.5, -0.5], [0.5, -1, 0.5], [-0.5, 0.5, 0]])
    expected = np.sqrt(np.mean(difference**2) + 1e-8)
    assert distance(line, corners) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_the_definition(seed):
    student, foundation = draw(7, 4, [seed, 0]), draw(7, 5, [seed, 1])
    s = np.random.default_rng([seed, 2]).normal(size=5)
    alignment = KernelAlignment(5)
    alignment.s.data = torch.tensor(s, dtype=torch.float32)
    inputs = torch.tensor(student, requires_grad=True)
    alignment(inputs, torch.tensor(foundation)).backward()

    def numerical(of, point):
        gradient = np.empty(point.shape)
        for place in np.ndindex(point.shape):
            step = np.zeros(point.shape)
            step[place] = 1e-6
            gradient[place] = (of(point + step) - of(point - step)) / 2e-6
        return gradient

    of_student = numerical(lambda x: naive_distance(x, foundation, s), student.astype(float))
    of_s = numerical(lambda x: naive_distance(student, foundation, x), s)
    np.testing.assert_allclose(inputs.grad.numpy(), of_student, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(alignment.s.grad.numpy(), of_s, rtol=1e-3, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    n_rows=st.integers(3, 20),
    width=st.integers(2, 8),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_blind_to_rotation_scale_and_order(n_rows, width, scale, seed):
    rng = np.random.default_rng(seed)
    student, foundation = draw(n_rows, width, [seed, 0]), draw(n_rows, 6, [seed, 1])
    rotation, _ = np.linalg.qr(rng.normal(size=(width, width)))
    order = rng.permutation(n_rows)
    plain = distance(student, foundation)
    turned = (student @ rotation * scale).astype(np.float32)
    assert distance(turned, foundation) == pytest.approx(plain, rel=1e-3, abs=1e-5)
    assert distance(student, foundation * np.float32(scale)) == pytest.approx(
        plain, rel=1e-3, abs=1e-5
    )
    assert distance(student[order], foundation[order]) == pytest.approx(plain, rel=1e-3, abs=1e-5)


def test_constant_columns_and_offsets_do_not_count():
    student, foundation = draw(9, 4, 0), draw(9, 5, 1)
    plain = distance(student, foundation)
    for constant in (0.0, 1.0, -7.3):
        padded = np.c_[student, np.full((9, 3), constant, dtype=np.float32)]
        assert distance(padded, foundation) == pytest.approx(plain, rel=1e-4)
        padded = np.c_[foundation, np.full((9, 3), constant, dtype=np.float32)]
        assert distance(student, padded) == pytest.approx(plain, rel=1e-4)
    assert distance(student + 10, foundation - 10) == pytest.approx(plain, rel=1e-3)


def test_identical_features_have_nothing_left_to_learn():
    features = draw(16, 6, 0)
    assert distance(features, features) == pytest.approx(1e-4, rel=0.01)


def test_rows_out_of_order_are_further_away_than_rows_in_order():
    foundation = draw(32, 8, 0)
    student = foundation[:, :4]
    order = np.random.default_rng(1).permutation(32)
    assert distance(student[order], foundation) > distance(student, foundation) + 0.1


def test_is_at_most_two():
    opposite = np.float32([[-1], [1], [-1], [1]])
    across = np.float32([[-1], [-1], [1], [1]])
    assert 0 < distance(opposite, across) <= 2


def test_a_weight_near_zero_takes_a_column_out():
    student, foundation = draw(12, 3, 0), draw(12, 4, 1)
    off = [0, 0, 0, -40]
    without = distance(student, foundation[:, :3])
    assert distance(student, foundation, off) == pytest.approx(without, rel=1e-4)


def test_learned_weights_prefer_the_columns_that_the_student_can_follow():
    rng = np.random.default_rng(0)
    student = torch.tensor(rng.normal(size=(64, 4)), dtype=torch.float32)
    noise = torch.tensor(rng.normal(size=(64, 4)), dtype=torch.float32)
    foundation = torch.cat([student, noise], dim=1)
    alignment = KernelAlignment(8)
    np.testing.assert_array_equal(alignment.feature_weights.detach(), np.full(8, 0.5))
    optimizer = torch.optim.Adam(alignment.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        alignment(student, foundation).backward()
        optimizer.step()
    weights = alignment.feature_weights.detach().numpy()
    assert weights[:4].min() > 2 * weights[4:].max()
    assert alignment(student, foundation) < 0.05


DEGENERATE = {
    "constant": lambda x: np.ones_like(x),
    "constant with rounding": lambda x: np.full_like(x, 1000.1),
    "zero": np.zeros_like,
    "one row": lambda x: x[:1],
    "two equal rows": lambda x: x[[0, 0]],
    "duplicates": lambda x: x[[0, 0, 1, 1, 2, 2]],
    "one row at the mean": lambda x: np.vstack([x[:4], -x[:4], 0 * x[:1]]),
    "zero rows": lambda x: x * (np.arange(len(x)) > 2)[:, None],
    "tiny": lambda x: x * np.float32(1e-30),
    "subnormal": lambda x: x * np.float32(1e-42),
    "small": lambda x: x * np.float32(1e-9),
    "large": lambda x: x * np.float32(1e12),
    "huge": lambda x: x * np.float32(1e30),
}


@pytest.mark.parametrize("side", ["student", "foundation", "both"])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_batches_have_finite_gradients(case, side):
    student, foundation = draw(10, 4, 0), draw(10, 5, 1)
    n_rows = len(DEGENERATE[case](student))
    student = DEGENERATE[case](student) if side != "foundation" else student[:n_rows]
    foundation = DEGENERATE[case](foundation) if side != "student" else foundation[:n_rows]
    alignment = KernelAlignment(5)
    inputs = torch.tensor(student, requires_grad=True)
    value = alignment(inputs, torch.tensor(foundation))
    value.backward()
    assert 0 < value.item() <= 2.001
    assert torch.isfinite(inputs.grad).all()
    assert torch.isfinite(alignment.s.grad).all()


@pytest.mark.parametrize("scale", [1e-4, 1e12])
def test_scale_does_not_matter_over_many_orders_of_magnitude(scale):
    student, foundation = draw(10, 4, 0), draw(10, 5, 1)
    plain = distance(student, foundation)
    scaled = distance(student * np.float32(scale), foundation * np.float32(scale))
    assert scaled == pytest.approx(plain, rel=0.01)


def test_mixed_precision_around_it_changes_nothing():
    student, foundation = torch.tensor(draw(16, 8, 0)), torch.tensor(draw(16, 8, 1))
    alignment = KernelAlignment(8)
    plain = alignment(student, foundation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = alignment(student, foundation)
    assert mixed.dtype == torch.float32
    assert mixed.item() == plain.item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_of_other_precision_give_float32_close_to_float32s(dtype):
    student, foundation = torch.tensor(draw(16, 8, 0)), torch.tensor(draw(16, 8, 1))
    alignment = KernelAlignment(8)
    plain = alignment(student, foundation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = alignment(student.to(dtype), foundation.to(dtype))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(plain.item(), rel=0.02)


def test_half_precision_that_would_overflow_does_not():
    student = torch.tensor(draw(8, 4, 0) * 1e4, dtype=torch.float16)
    alignment = KernelAlignment(4)
    assert alignment(student, student).item() == pytest.approx(1e-4, rel=0.01)


def test_a_module_cast_to_half_precision_still_computes_in_float32():
    alignment = KernelAlignment(8).to(torch.bfloat16)
    value = alignment(torch.tensor(draw(16, 8, 0)), torch.tensor(draw(16, 8, 1)))
    assert value.dtype == torch.float32


def test_a_method_is_made_by_its_name():
    alignment = make_transfer("aft", 7)
    assert isinstance(alignment, KernelAlignment)
    assert alignment.s.shape == (7,)


def test_a_module_is_a_method_as_it_is():
    module = nn.CosineSimilarity()
    assert make_transfer(module, 7) is module


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown transfer method 'atf'\. Known: 'aft'"):
        make_transfer("atf", 7)


def naive_rbf(features):
    centred = features - features.mean(axis=0)
    unit = [row / (np.sqrt(np.sum(row**2)) + 1e-8) for row in centred]
    return np.array([[np.exp(-np.sum((a - b) ** 2)) for b in unit] for a in unit])


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(2, 16),
    width=st.integers(1, 8),
    n_features=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
    kernel=st.sampled_from(["linear", "rbf"]),
    weights=st.sampled_from(["diagonal", "fixed", "dense"]),
)
def test_variants_equal_their_definition(n_rows, width, n_features, seed, kernel, weights):
    student, foundation = draw(n_rows, width, [seed, 0]), draw(n_rows, n_features, [seed, 1])
    alignment = KernelAlignment(n_features, kernel=kernel, weights=weights)
    rng = np.random.default_rng([seed, 2])
    if weights == "dense":
        weighted = foundation.astype(float) @ alignment.A.detach().numpy()
    else:
        s = np.zeros(n_features) if weights == "fixed" else rng.normal(size=n_features)
        alignment.s.data = torch.tensor(s, dtype=torch.float32)
        weighted = foundation / (1 + np.exp(-s))
    assume(is_well_conditioned(student) and is_well_conditioned(weighted))
    naive = naive_rbf if kernel == "rbf" else naive_kernel
    expected = np.sqrt(np.mean((naive(student.astype(float)) - naive(weighted)) ** 2) + 1e-8)
    found = alignment(torch.tensor(student), torch.tensor(foundation)).item()
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(n_rows=st.integers(3, 16), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**32 - 1))
def test_the_rbf_kernel_is_blind_to_rotation_scale_and_constants(n_rows, scale, seed):
    student, foundation = draw(n_rows, 4, [seed, 0]), draw(n_rows, 5, [seed, 1])
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))
    assume(is_well_conditioned(student) and is_well_conditioned(foundation))

    def rbf_distance(student):
        alignment = KernelAlignment(5, kernel="rbf")
        return alignment(torch.tensor(student), torch.tensor(foundation)).item()

    turned = np.c_[student @ rotation * scale, np.ones((n_rows, 2))].astype(np.float32)
    assert rbf_distance(turned) == pytest.approx(rbf_distance(student), rel=5e-3, abs=1e-5)


def test_the_rbf_kernel_takes_no_memory_for_differences_of_rows():
    student, foundation = torch.randn(64, 1024, requires_grad=True), torch.randn(64, 1024)
    with torch.profiler.profile(profile_memory=True) as profile:
        KernelAlignment(1024, kernel="rbf")(student, foundation).backward()
    assert max(event.cpu_memory_usage for event in profile.events()) < 2 * 2**20  # not 16 MiB


def test_what_is_learned_depends_on_the_weights():
    learned = {}
    for weights in ("diagonal", "fixed", "dense"):
        parameters = KernelAlignment(4, weights=weights).named_parameters()
        learned[weights] = {name: tuple(parameter.shape) for name, parameter in parameters}
    assert learned == {"diagonal": {"s": (4,)}, "fixed": {}, "dense": {"A": (4, 4)}}
    np.testing.assert_array_equal(KernelAlignment(4, weights="fixed").feature_weights, [0.5] * 4)
    assert not hasattr(KernelAlignment(4, weights="dense"), "feature_weights")
    big = KernelAlignment(300, weights="dense").A
    assert big.var().item() == pytest.approx(1 / 300, rel=0.05)
    assert big.mean().item() == pytest.approx(0, abs=1e-3)


def test_features_in_double_precision_are_compared_in_it():
    student, foundation = draw(16, 8, 0).astype(float), draw(16, 8, 1).astype(float)
    value = KernelAlignment(8)(torch.tensor(student), torch.tensor(foundation))
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(naive_distance(student, foundation, np.zeros(8)), rel=1e-9)


def test_a_projection_compares_the_mapped_features():
    student, foundation = draw(9, 5, 0), draw(9, 7, 1)
    alignment = KernelAlignment(7, projection=3, n_student_features=5)
    P = alignment.map.weight.detach().double().numpy().T
    expected = naive_distance(student.astype(np.float64) @ P, foundation, np.zeros(7))
    found = alignment(torch.from_numpy(student), torch.from_numpy(foundation))
    np.testing.assert_allclose(found.item(), expected, rtol=1e-5)
    wide = alignment.double()
    inputs = torch.from_numpy(student).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a: wide(a, torch.from_numpy(foundation).double()), inputs
    )


def test_what_the_projection_leaves_out_is_free():
    student = torch.from_numpy(draw(9, 5, 0))
    foundation = torch.from_numpy(draw(9, 7, 1))
    alignment = KernelAlignment(7, projection=3, n_student_features=5)
    with torch.no_grad():
        alignment.map.weight[:, 4] = 0
    other = student.clone()
    other[:, 4] = torch.arange(9.0)
    assert alignment(student, foundation) == alignment(other, foundation)


@pytest.mark.parametrize(
    ("parameters", "projection"),
    [
        ({}, None),
        ({"weights": "fixed"}, None),
        ({"projection": 128}, 128),
        ({"kernel": "rbf"}, None),
        ({"weights": "fixed", "projection": 16}, 16),
        ({"projection": None}, None),
    ],
)
def test_there_is_no_projection_unless_asked(parameters, projection):
    alignment = make_transfer("aft", 6, n_student_features=4, **parameters)
    assert alignment.projection == projection
    assert hasattr(alignment, "map") == (projection is not None)


def test_a_projection_has_to_make_sense():
    for projection in ("auto", 0, 1.5):
        with pytest.raises(ValueError, match="expected a width"):
            KernelAlignment(3, projection=projection, n_student_features=4)
    with pytest.raises(ValueError, match="needs n_student_features"):
        KernelAlignment(3, projection=8)
