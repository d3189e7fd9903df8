import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.decomposition import PCA
from skorch import NeuralNetRegressor
from torch import nn

from sk_aft import AFTRegressor


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return X, y, PCA(5).fit_transform(X)


def test_is_a_skorch_regressor_without_probabilities():
    assert isinstance(AFTRegressor(), NeuralNetRegressor)
    assert not hasattr(AFTRegressor(), "predict_proba")


def test_learns_with_and_without_transfer(diabetes):
    X, y, features = diabetes
    for beta in (0, 1):
        model = AFTRegressor(beta=beta, max_epochs=20, random_state=0)
        model.fit(X[:300], y[:300], features=features[:300])
        assert model.score(X[300:], y[300:]) > 0.35
        assert model.predict(X).shape == (442,)


def test_several_targets_of_different_units(diabetes):
    X, y, features = diabetes
    Y = np.c_[y, 1000 * X[:, 2]]
    model = AFTRegressor(beta=1, max_epochs=20, random_state=0).fit(X, Y, features=features)
    assert model.predict(X).shape == (442, 2)
    assert model.score(X, Y) > 0.6


def test_the_unit_of_the_target_does_not_matter(diabetes):
    X, y, features = diabetes
    settings = {"beta": 1, "max_epochs": 3, "random_state": 0}
    one = AFTRegressor(**settings).fit(X, y, features=features).predict(X)
    thousand = AFTRegressor(**settings).fit(X, 1000 * y, features=features).predict(X)
    np.testing.assert_allclose(1000 * one, thousand, rtol=1e-4)


def test_a_constant_target_is_learned(diabetes):
    X, _, _ = diabetes
    model = AFTRegressor(beta=0, max_epochs=40, lr=0.01, random_state=0).fit(X, np.full(442, 7.0))
    np.testing.assert_allclose(model.predict(X), 7, atol=0.5)


def test_own_network_with_one_output_a_row(diabetes):
    X, y, features = diabetes

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1))

        def forward(self, inputs):
            return self.net(inputs)[:, 0]

    model = AFTRegressor(Flat, beta=1, lr=0.01, max_epochs=40, random_state=0)
    assert model.fit(X, y, features=features).score(X, y) > 0.4


def test_early_stopping_and_weights(diabetes):
    X, y, _ = diabetes
    model = AFTRegressor(
        beta=0, early_stopping=True, n_iter_no_change=3, max_epochs=200, lr=0.01, random_state=0
    ).fit(X, y, sample_weight=np.linspace(1, 2, 442))
    assert model.n_iter_ < 200
    assert model.score(X, y) > 0.35


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_targets_have_to_be_finite(diabetes, bad):
    X, y, _ = diabetes
    y = y.copy()
    y[3] = bad
    with pytest.raises(ValueError, match="Input y contains"):
        AFTRegressor(beta=0).fit(X, y)


def test_a_weight_of_zero_keeps_a_target_out_of_the_scale(diabetes):
    X, y, _ = diabetes
    weights = np.ones(442)
    weights[:40] = 0
    unknown = y.copy()
    unknown[:40] = 1e9
    model = AFTRegressor(beta=0, lr=0.01, max_epochs=10, random_state=0)
    model.fit(X, unknown, sample_weight=weights)
    assert model.score(X[40:], y[40:]) > 0.3


def test_early_stopping_needs_two_rows_to_validate_on():
    with pytest.raises(ValueError, match="needs at least 3 labelled rows"):
        AFTRegressor(beta=0, early_stopping=True).fit(np.eye(2), np.arange(2.0))


def test_the_reduction_of_the_loss_is_the_one_that_was_set():
    X = np.random.RandomState(0).normal(size=(64, 3))
    y = X[:, 0]
    losses = {}
    for reduction in ("sum", "mean"):
        model = AFTRegressor(
            beta=0, criterion__reduction=reduction, batch_size=64, max_epochs=1, random_state=0
        )
        losses[reduction] = model.fit(X, y).loss_curve_[0]
    assert losses["sum"] == pytest.approx(64 * losses["mean"], rel=1e-5)
