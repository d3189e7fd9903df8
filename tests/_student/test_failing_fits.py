"""A fit that fails leaves a student that was fitted before unchanged."""

import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.exceptions import DivergenceError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 5)).astype(np.float32)
FEATURES = np.tanh(X)
LABELS = (X[:, 0] > 0).astype(int)
TARGETS = {AFTClassifier: LABELS, AFTRegressor: X @ np.arange(5.0)}


class Interrupt(Callback):
    """Do what Ctrl-C does in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, net, **kwargs):
        if net.history[-1]["epoch"] >= self.epoch:
            raise KeyboardInterrupt


def bad_input(model, fit):
    with pytest.raises(ValueError, match="NaN"):
        fit(model, np.where(np.arange(5) == 3, np.nan, X))


def bad_features(model, fit):
    with pytest.raises(ValueError, match="features has 119 rows"):
        fit(model, X, features=FEATURES[1:])


def divergence(model, fit):
    optimizer = model.optimizer
    model.set_params(lr=1e30, optimizer=torch.optim.SGD)
    with pytest.raises(DivergenceError, match="the network diverged"):
        fit(model, X)
    model.set_params(lr=1e-3, optimizer=optimizer)


def interruption(model, fit):
    model.set_params(callbacks=[Interrupt(2)])
    with pytest.raises(KeyboardInterrupt):
        fit(model, X)
    model.set_params(callbacks=None)


FAILURES = [bad_input, bad_features, divergence, interruption]


def state_of(model):
    outputs = model.forward(X).numpy()
    weights = [value.clone() for value in model.module_.state_dict().values()]
    learned = (model.n_iter_, model.beta_, list(model.loss_curve_), list(model.history_))
    return outputs, weights, learned, (model.module_, model.transfer_, model.criterion_)


def assert_same(model, before):
    outputs, weights, learned, parts = state_of(model)
    np.testing.assert_array_equal(outputs, before[0])
    assert all(torch.equal(now, then) for now, then in zip(weights, before[1], strict=True))
    assert learned == before[2]
    assert all(now is then for now, then in zip(parts, before[3], strict=True))


def fitting(estimator):
    def fit(model, rows, features=FEATURES):
        return model.fit(rows, TARGETS[estimator], features=features)

    return fit


def fitting_a_piece(estimator):
    classes = [0, 1] if estimator is AFTClassifier else None

    def fit(model, rows, features=FEATURES):
        return model.partial_fit(rows, TARGETS[estimator], classes, features=features)

    return fit


@pytest.mark.parametrize("fails", FAILURES)
@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("estimator", [AFTClassifier, AFTRegressor])
def test_fit(estimator, warm_start, fails):
    fit = fitting(estimator)
    settings = {"transfer": "aft", "beta": 3, "max_epochs": 3, "batch_size": 32, "random_state": 0}
    model, twin = (
        fit(estimator(warm_start=warm_start, **settings), X),
        fit(estimator(warm_start=warm_start, **settings), X),
    )
    before = state_of(model)
    fails(model, fit)
    assert_same(model, before)
    # What follows is what would have followed without the failure.
    np.testing.assert_array_equal(fit(model, X).forward(X), fit(twin, X).forward(X))


@pytest.mark.parametrize("fails", FAILURES)
@pytest.mark.parametrize("estimator", [AFTClassifier, AFTRegressor])
def test_partial_fit(estimator, fails):
    fit = fitting_a_piece(estimator)
    settings = {"transfer": "probe-kd", "beta": 1, "batch_size": 32, "random_state": 0}
    model, twin = fit(estimator(**settings), X), fit(estimator(**settings), X)
    before = state_of(model)
    fails(model, fit)
    assert_same(model, before)
    np.testing.assert_array_equal(fit(model, X).forward(X), fit(twin, X).forward(X))


def test_without_an_earlier_student_an_interruption_keeps_what_was_learned():
    model = AFTClassifier(beta=0, lr=0.05, callbacks=[Interrupt(3)], random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABELS)
    assert model.n_iter_ == len(model.history_) == 2
    assert model.score(X, LABELS) > 0.5


def test_without_an_earlier_student_other_failures_leave_none():
    model = AFTClassifier(beta=0, lr=1e30, optimizer=torch.optim.SGD, random_state=0)
    with pytest.raises(DivergenceError):
        model.fit(X, LABELS)
    assert not model.__sklearn_is_fitted__()
    for name in ("module_", "classes_", "n_iter_", "n_features_in_", "optimizer_"):
        assert not hasattr(model, name)


def test_a_student_of_another_kind_of_rows_survives_too():
    texts = ["open an account", "close the account"] * 20
    model = AFTClassifier(beta=0, max_epochs=2, random_state=0).fit(texts, [0, 1] * 20)
    before = model.predict_proba(texts)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, LABELS[1:])
    np.testing.assert_array_equal(model.predict_proba(texts), before)
    assert not hasattr(model, "n_features_in_")


def test_divergence_in_the_last_step_is_noticed_before_the_student_is_replaced():
    model = AFTClassifier(beta=3, batch_size=200, max_epochs=1, random_state=0)
    model.fit(X, LABELS, features=FEATURES)
    before = state_of(model)
    model.set_params(lr=1e30, optimizer=torch.optim.SGD)
    with pytest.raises(DivergenceError, match="in the last step"):
        model.fit(X, LABELS, features=FEATURES)
    assert_same(model, before)


class Averaged(AFTClassifier):
    """Keeps a module of its own beside the network, and a loss."""

    def initialize_module(self):
        super().initialize_module()
        self.average_ = torch.nn.Linear(1, 1)
        return self

    def initialize_criterion(self):
        super().initialize_criterion()
        self.auxiliary_ = torch.nn.MSELoss()
        return self

    def train_step(self, batch, **fit_params):
        with torch.no_grad():
            self.average_.weight += 1
        return super().train_step(batch, **fit_params)


@pytest.mark.parametrize("warm_start", [False, True])
def test_what_a_subclass_added_is_put_back_too(warm_start):
    model = Averaged(transfer="aft", beta=1, max_epochs=2, warm_start=warm_start, random_state=0)
    model.fit(X, LABELS, features=FEATURES)
    before, kept = state_of(model), (model.average_, model.average_.weight.item())
    divergence(model, fitting(AFTClassifier))
    assert_same(model, before)
    assert (model.average_, model.average_.weight.item()) == kept


def test_a_transfer_that_was_not_used_is_put_back_too():
    model = AFTClassifier(transfer="aft", max_epochs=2, warm_start=True, random_state=0)
    model.fit(X, LABELS, features=FEATURES)
    model.set_params(beta=0).fit(X, LABELS, features=FEATURES)
    before = pickle.dumps(model)
    model.set_params(beta=10, callbacks=[Interrupt(6)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABELS, features=FEATURES)
    after = pickle.dumps(model.set_params(beta=0, callbacks=None))
    assert len(after) == len(before)
    weights = [pickle.loads(written).set_params(beta="auto") for written in (before, after)]
    resumed = [one.fit(X, LABELS, features=FEATURES).feature_weights_ for one in weights]
    np.testing.assert_array_equal(*resumed)
