import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.datasets import load_iris

from sk_aft.metrics import logme_score
from sk_aft.metrics._logme import fit_logme


def log_evidence(F, y, alpha, beta):
    """Of y given F with the weights integrated out: y is normal, so no formula is trusted."""
    covariance = np.eye(len(y)) / beta + F @ F.T / alpha
    sign, determinant = np.linalg.slogdet(covariance)
    assert sign > 0
    quadratic = y @ np.linalg.solve(covariance, y)
    return -(len(y) * np.log(2 * np.pi) + determinant + quadratic) / 2


def maximum(F, y):
    """Brute force: from many starts, in the logarithms of both parameters."""
    scale, noise = 1 / np.square(F).mean(), 1 / np.square(y).mean()

    def negative(logs):
        alpha, beta = np.exp(np.clip(logs, -25, 25)) / (scale**-1 * noise**-1, noise**-1)
        return -log_evidence(F, y, alpha, beta)

    starts = [(a, b) for a in (-6, -2, 2, 6) for b in (0, 2)]
    found = [minimize(negative, start, method="Nelder-Mead") for start in starts]
    return -min(result.fun for result in found) / len(y)


@pytest.mark.parametrize(
    ("n_rows", "n_features", "rank"),
    [(30, 4, 4), (30, 12, 3), (10, 25, 10), (12, 30, 5), (8, 8, 8), (5, 1, 1)],
)
@pytest.mark.parametrize("signal", [0.3, 3.0])
def test_is_the_maximum_of_the_evidence(n_rows, n_features, rank, signal):
    rng = np.random.default_rng([n_rows, n_features])
    F = rng.normal(size=(n_rows, rank)) @ rng.normal(size=(rank, n_features))
    y = signal * F @ rng.normal(size=n_features) / np.sqrt(n_features) + rng.normal(size=n_rows)
    assert logme_score(F, y) == pytest.approx(maximum(F, y), abs=2e-3)


@pytest.mark.parametrize(("n_rows", "n_features"), [(40, 6), (10, 25)])
def test_weights_are_the_posterior_mean(n_rows, n_features):
    rng = np.random.default_rng(0)
    F = rng.normal(size=(n_rows, n_features))
    y = F @ rng.normal(size=n_features) + rng.normal(size=n_rows)
    weights = fit_logme(F, y[:, None]).weights[:, 0]
    residual = F.T @ (y - F @ weights)  # = (alpha / beta) weights
    ratio = residual @ weights / (weights @ weights)
    np.testing.assert_allclose(residual, ratio * weights, rtol=1e-6, atol=1e-8)
    assert ratio > 0


def test_classes_are_scored_one_against_the_rest():
    F, y = load_iris(return_X_y=True)
    names = np.array(["a", "b", "c"])[y]
    expected = np.mean(
        [logme_score(F, (y == k).astype(float), task="regression") for k in range(3)]
    )
    assert logme_score(F, y) == pytest.approx(expected)
    assert logme_score(F, names) == pytest.approx(expected)
    assert logme_score(F, np.eye(3)[y], task="regression") == pytest.approx(expected)
    # Integers are classes unless task="regression".
    assert logme_score(F, y, task="regression") != pytest.approx(expected)


def test_targets_are_scored_one_by_one():
    rng = np.random.default_rng(0)
    F, Y = rng.normal(size=(30, 5)), rng.normal(size=(30, 3))
    assert logme_score(F, Y) == pytest.approx(np.mean([logme_score(F, y) for y in Y.T]))


@settings(max_examples=40, deadline=None)
@given(
    n_rows=st.integers(4, 30),
    n_features=st.integers(1, 40),
    scale=st.sampled_from([1e-20, 1e-3, 1e3, 1e20]),
    seed=st.integers(0, 2**32 - 1),
)
def test_does_not_change_with_scale_rotation_order_and_columns_of_zeros(
    n_rows, n_features, scale, seed
):
    rng = np.random.default_rng(seed)
    F = rng.normal(size=(n_rows, n_features))
    y = F[:, 0] + rng.normal(size=n_rows)
    plain = logme_score(F, y)
    rotation, _ = np.linalg.qr(rng.normal(size=(n_features, n_features)))
    order = rng.permutation(n_rows)
    for same in (F * scale, F @ rotation, np.c_[F, np.zeros((n_rows, 3))]):
        assert logme_score(same, y) == pytest.approx(plain, abs=1e-4)
    assert logme_score(F[order], y[order]) == pytest.approx(plain, abs=1e-4)
    assert logme_score(F.astype(np.float32), y) == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("n_features", [3, 40])
def test_constant_and_repeated_columns_do_no_harm(n_features):
    rng = np.random.default_rng(0)
    F = rng.normal(size=(20, n_features))
    y = F[:, 0] + rng.normal(size=20)
    for degenerate in (np.ones((20, 2)), np.zeros((20, 2)), F[:, :2]):
        wider = np.c_[F, degenerate]
        assert logme_score(wider, y) == pytest.approx(maximum(wider, y), abs=2e-3)
    for nothing in (np.zeros((20, 3)), np.ones((20, 3))):
        assert np.isfinite(logme_score(nothing, y))


def test_targets_that_features_explain_entirely_have_a_high_finite_score():
    rng = np.random.default_rng(0)
    F = rng.normal(size=(30, 5))
    score = logme_score(F, F @ rng.normal(size=5))
    assert np.isfinite(score)
    assert score > logme_score(F, F[:, 0] + 0.01 * rng.normal(size=30)) > 0


def test_the_score_of_many_rows_depends_on_their_second_moments_alone():
    """So it is that of any rotation of the rows, although they are added up in blocks."""
    rng = np.random.default_rng(0)
    F, y = rng.normal(size=(10_000, 7)), rng.normal(size=10_000)
    reflection = rng.normal(size=10_000)
    reflection /= np.linalg.norm(reflection)
    rotated = [values - 2 * np.outer(reflection, reflection @ values) for values in (F, y[:, None])]
    score = logme_score(F, y, task="regression")
    assert score == pytest.approx(logme_score(rotated[0], rotated[1][:, 0], task="regression"))
    weights = fit_logme(F, y[:, None]).weights[:, 0]
    residual = F.T @ (y - F @ weights)  # = (alpha / beta) weights
    np.testing.assert_allclose(residual, residual @ weights / (weights @ weights) * weights)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, 1, 1, 1], "one class only"),
        ([0.5, 0.5, 0.5, 0.5], "same in every row"),
        (np.c_[[0.5, 1.5, 2.5, 3.5], np.ones(4)], "same in every row"),
        ([0.5, np.nan, 1, 2], "NaN"),
        ([0.5, 1.5, 2.5], "inconsistent numbers of samples"),
        ([[0, 1], [1, 1], [0, 0], [1, 0]], "task='regression'"),
    ],
)
def test_targets_that_cannot_be_scored_are_explained(y, message):
    F = np.random.default_rng(0).normal(size=(4, 2))
    with pytest.raises(ValueError, match=message):
        logme_score(F, y)


def test_features_that_cannot_be_scored_are_explained():
    with pytest.raises(ValueError, match="F contains NaN"):
        logme_score([[np.nan], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="2D array"):
        logme_score([1.0, 2.0], [0, 1])
    with pytest.raises(ValueError, match=r"task is 'rank', expected one of \['auto'"):
        logme_score([[1.0], [2.0]], [0, 1], task="rank")
