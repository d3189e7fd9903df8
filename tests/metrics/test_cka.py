import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sk_aft.metrics import cka


def naive(A, B):
    """From Gram matrices, centred from both sides."""
    n_rows = len(A)
    centring = np.eye(n_rows) - 1 / n_rows
    K, L = centring @ A @ A.T @ centring, centring @ B @ B.T @ centring
    return (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum())


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(2, 20),
    d=st.integers(1, 30),
    p=st.integers(1, 30),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_definition_and_is_blind_to_rotation_and_scale(n_rows, d, p, scale, seed):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(n_rows, d)) + 1, rng.normal(size=(n_rows, p))
    expected = naive(A, B)
    assert cka(A, B) == pytest.approx(expected, abs=1e-9)
    assert cka(B, A) == pytest.approx(expected, abs=1e-9)
    rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
    assert cka(A @ rotation * scale, B) == pytest.approx(expected, abs=1e-6)
    assert cka(np.c_[A, np.ones(n_rows)], B) == pytest.approx(expected, abs=1e-9)
    assert cka(A, A @ rotation) == pytest.approx(1)


def test_columns_without_correlation_have_nothing_in_common():
    assert cka([[1], [-1], [1], [-1]], [[1], [1], [-1], [-1]]) == 0


@pytest.mark.parametrize(
    ("A", "B", "message"),
    [
        ([[1.0], [1.0]], [[1.0], [2.0]], "All rows of A are equal"),
        ([[1.0], [2.0]], [[3.0], [3.0]], "All rows of B are equal"),
        ([[1.0], [2.0]], [[1.0], [2.0], [3.0]], "inconsistent"),
        ([[1.0], [np.inf]], [[1.0], [2.0]], "A contains infinity"),
        ([[1.0]], [[2.0]], "minimum of 2"),
    ],
)
def test_what_cannot_be_compared_is_explained(A, B, message):
    with pytest.raises(ValueError, match=message):
        cka(A, B)
