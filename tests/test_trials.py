"""beta="auto" finds out which transfer helps, and whether it harms."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from skorch.callbacks import Callback
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft._student import _trials
from sk_aft._student._trials import _CANDIDATES, TransferChoice, choose_beta
from sk_aft.transfer import KernelAlignment


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:600], y[:600]


class Flatten(nn.Module):
    """A transfer objective that can only harm: it wants all rows to be the same."""

    default_beta = 1000.0

    def forward(self, student, foundation):
        return (student - student.mean(dim=0)).square().mean()


def student(**parameters):
    return AFTClassifier(**{"max_epochs": 50, "random_state": 0, **parameters})


def test_what_does_not_harm_is_trained_with_as_if_the_strength_was_given(digits):
    X, y = digits
    features = LinearDiscriminantAnalysis().fit_transform(X, y)
    tried = student(transfer=[("aft", 0.1)]).fit(X, y, features=features)
    assert tried.beta_ == 1
    assert sorted(tried.beta_trials_) == [0, 1]
    assert all(0 <= error < 0.5 for error in tried.beta_trials_.values())
    given = student(transfer=[("aft", 0.1)], beta=1).fit(X, y, features=features)
    np.testing.assert_array_equal(tried.predict_proba(X), given.predict_proba(X))
    assert not hasattr(given, "beta_trials_")


@pytest.mark.parametrize("weighted", [False, True])
def test_what_harms_is_left_out_as_if_there_was_none(digits, weighted):
    X, y = digits
    weights = np.linspace(0.5, 2, len(y)) if weighted else None
    tried = student(transfer=Flatten()).fit(X, y, features=X, sample_weight=weights)
    assert tried.beta_ == 0
    assert sorted(tried.beta_trials_) == [0, 100, 1000]
    assert tried.beta_trials_[1000] > tried.beta_trials_[0]
    alone = student(beta=0).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(tried.predict_proba(X), alone.predict_proba(X))


def test_a_regressor_judges_by_squared_errors():
    X, y = load_diabetes(return_X_y=True)
    tried = AFTRegressor(transfer=Flatten(), max_epochs=40, random_state=0)
    tried.fit(X, np.column_stack([y, -y]), features=X)
    assert tried.beta_ == 0
    assert tried.beta_trials_[1000] > tried.beta_trials_[0]


@pytest.mark.parametrize(
    ("harms", "expected"),
    [
        ({10: (0.01, 0.02)}, 10),
        ({10: (-0.1, 0.02)}, 10),
        ({10: (0.03, 0.02), 1: (0.0, 0.02)}, 1),
        ({10: (0.03, 0.02), 1: (0.01, 0.02)}, 0),
    ],
)
def test_a_tenth_has_to_do_at_least_as_well_as_none(harms, expected):
    assert choose_beta(10, harms.__getitem__) == expected


def test_few_labels_and_pieces_are_not_tried(digits):
    X, y = digits
    assert student().fit(X[:199], y[:199], features=X[:199]).beta_ == 10
    mostly_unknown = np.where(np.arange(len(y)) < 199, y, -1)
    fitted = student(missing_label=-1, max_epochs=1).fit(X, mostly_unknown, features=X)
    assert fitted.beta_ == 10
    assert not hasattr(fitted, "beta_trials_")
    piecewise = student().partial_fit(X, y, classes=np.unique(y), features=X)
    assert piecewise.beta_ == 10
    assert not hasattr(piecewise, "beta_trials_")


def test_rows_without_labels_take_part_in_trials(digits):
    X, y = digits
    marked = np.where(np.arange(len(y)) < 300, y, -1)
    fitted = student(missing_label=-1, transfer=Flatten()).fit(X, marked, features=X)
    assert fitted.beta_ == 0
    alone = student(beta=0).fit(X[:300], y[:300])
    np.testing.assert_array_equal(fitted.predict_proba(X), alone.predict_proba(X))


def test_training_that_goes_on_keeps_what_was_chosen(digits):
    X, y = digits
    fitted = student(transfer=Flatten(), warm_start=True, max_epochs=50).fit(X, y, features=X)
    trials = fitted.beta_trials_
    fitted.fit(X, y, features=X)
    assert fitted.beta_ == 0
    assert fitted.beta_trials_ is trials
    assert fitted.n_iter_ == 100
    fitted.set_params(warm_start=False).fit(X, y, features=X)
    assert fitted.beta_trials_ is not trials  # starts anew, and tries again


class Counter(Callback):
    """Counts trainings."""

    def __init__(self, n_trainings=0):
        self.n_trainings = n_trainings

    def on_train_begin(self, net, **kwargs):
        self.n_trainings += 1


def test_trials_leave_no_trace(digits, capsys):
    X, y = digits
    counter = Counter()
    state = torch.get_rng_state()
    fitted = student(
        transfer=KernelAlignment(64),
        callbacks=[("counter", counter)],
        callbacks__print_log=None,
        callbacks__counter__n_trainings=0,
        early_stopping=True,
        max_epochs=8,
    )
    parameters = fitted.get_params()
    fitted.fit(X, y, features=X)
    assert fitted.beta_trials_
    assert fitted.get_params() == parameters
    assert fitted.n_iter_ <= 8
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(fitted.callbacks_)["counter"].n_trainings == 1
    assert capsys.readouterr().out == ""


def test_a_line_says_what_was_found(digits, capsys):
    X, y = digits
    student(transfer=Flatten(), verbose=1, max_epochs=4).fit(X, y, features=X)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("beta=0: error on held-out rows in short trainings is ")
    assert " at 0, " in line
    assert line.endswith(" at 1000")


@pytest.fixture(scope="module")
def useful(digits):
    """Features that know the task, of fewer rows than it takes to learn it."""
    X, y = digits
    every_row, every_label = load_digits(return_X_y=True)
    return X, y, LinearDiscriminantAnalysis().fit(every_row, every_label).transform(X)


@pytest.mark.parametrize("name", ["aft and probe-kd", "aft", "probe-kd"])
def test_what_is_chosen_is_trained_with_as_if_it_was_given(useful, monkeypatch, name):
    X, y, features = useful
    transfer, beta = _CANDIDATES[name]
    candidates = {name: TransferChoice(transfer, beta / 100), "none": _CANDIDATES["none"]}
    monkeypatch.setattr(_trials, "_CANDIDATES", candidates)
    chosen = student().fit(X, y, features=features)
    assert list(chosen.transfer_trials_) == [name, "none"]
    given = student(transfer=transfer, beta=beta / 100).fit(X, y, features=features)
    assert chosen.beta_ == given.beta_
    np.testing.assert_array_equal(chosen.predict_proba(X), given.predict_proba(X))


def test_the_best_is_chosen_unless_it_harms(useful, monkeypatch):
    X, y, features = useful
    fitted = student(max_epochs=8).fit(X, y, features=features)
    assert list(fitted.transfer_trials_) == list(_CANDIDATES)
    assert len(set(fitted.transfer_trials_.values())) > 1
    assert not hasattr(fitted, "beta_trials_")
    assert fitted.get_params()["transfer"] == "auto"

    candidates = {
        "bad": TransferChoice(Flatten(), 1000.0),
        "better": TransferChoice("probe-kd", 0.1),
        "none": TransferChoice("aft", 0.0),
    }
    monkeypatch.setattr(_trials, "_CANDIDATES", candidates)
    fitted = student().fit(X, y, features=features)
    assert fitted.transfer_trials_["bad"] > fitted.transfer_trials_["better"]
    assert (fitted.chosen_transfer_, fitted.beta_) == ("probe-kd", 0.1)
    monkeypatch.delitem(candidates, "better")
    fitted = student().fit(X, y, features=features)
    assert fitted.beta_ == 0
    alone = student(beta=0).fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X), alone.predict_proba(X))


def test_a_number_or_a_parameter_of_aft_says_that_it_is_aft(digits):
    X, y = digits
    number = student(beta=3, max_epochs=2).fit(X, y, features=X)
    assert isinstance(number.transfer_, KernelAlignment)
    assert not hasattr(number, "transfer_trials_")
    named = student(transfer__weights="fixed", max_epochs=2).fit(X, y, features=X)
    assert sorted(named.beta_trials_)[-1] == 10
    few = student(max_epochs=2).fit(X[:50], y[:50], features=X[:50])
    assert isinstance(few.transfer_, KernelAlignment)
    assert few.beta_ == 10


def test_a_probe_needs_unlike_targets():
    X = np.random.RandomState(0).normal(size=(300, 4))
    fitted = AFTRegressor(max_epochs=2, random_state=0).fit(X, np.ones(300), features=X)
    assert list(fitted.transfer_trials_) == ["aft", "none"]


def test_training_that_goes_on_keeps_the_method_that_was_chosen(useful, monkeypatch):
    X, y, features = useful
    candidates = {"probe-kd": TransferChoice("probe-kd", 0.01), "none": _CANDIDATES["none"]}
    monkeypatch.setattr(_trials, "_CANDIDATES", candidates)
    fitted = student(warm_start=True, max_epochs=8).fit(X, y, features=features)
    transfer, trials = fitted.transfer_, fitted.transfer_trials_
    again = pickle.loads(pickle.dumps(fitted)).fit(X, y, features=features)
    fitted.fit(X, y, features=features)
    assert fitted.transfer_ is transfer
    assert fitted.transfer_trials_ is trials
    assert fitted.n_iter_ == again.n_iter_ == 16
    assert again.beta_ == fitted.beta_


class Diverge(nn.Module):
    """A transfer objective that makes the loss infinite."""

    def forward(self, student, foundation):
        return (student * torch.inf).sum()


def test_a_method_that_diverges_in_a_trial_is_not_chosen(useful, monkeypatch):
    X, y, features = useful
    candidates = {
        "wild": TransferChoice(Diverge(), 1.0),
        "tame": TransferChoice("probe-kd", 0.01),
        "none": _CANDIDATES["none"],
    }
    monkeypatch.setattr(_trials, "_CANDIDATES", candidates)
    fitted = student(max_epochs=8).fit(X, y, features=features)
    assert fitted.transfer_trials_["wild"] == np.inf
    assert fitted.chosen_transfer_ == "probe-kd"

    named = student(max_epochs=8, transfer=Diverge()).fit(X, y, features=features)
    assert named.beta_ == 0
    assert named.beta_trials_[1.0] == np.inf
    with pytest.raises(ValueError, match="the network diverged"):
        student(max_epochs=8, transfer=Diverge(), beta=1).fit(X, y, features=features)


def test_trials_are_a_part_of_the_training_where_most_rows_have_no_label(useful, monkeypatch):
    X, y, features = useful
    some = np.where(np.arange(len(y)) < 250, y, -1)
    steps = {}
    trained = _trials._Trials._trained_errors

    def counted(trials, transfer):
        steps[transfer.beta] = trials._n_epochs(transfer.beta)
        return trained(trials, transfer)

    monkeypatch.setattr(_trials._Trials, "_trained_errors", counted)
    student(missing_label=-1, max_epochs=100, batch_size=32, transfer="probe-kd").fit(
        X, some, features=features
    )
    # Of 22 steps each, to see the 350 rows without a label; and of 8 without transfer.
    assert steps == {0.0: 25, 1.0: 25}
    student(missing_label=-1, max_epochs=30, batch_size=32, transfer="probe-kd").fit(
        X, some, features=features
    )
    assert steps == {0.0: 25, 1.0: 10}


@pytest.mark.parametrize("transfer", ["probe-kd", "b-tuning", [("aft", 10), ("probe-kd", 1)]])
def test_a_later_piece_of_one_class_is_learned_without_a_probe(useful, transfer):
    X, y, features = useful
    learning = student(transfer=transfer, missing_label=-1)
    learning.partial_fit(X, y, classes=np.arange(10), features=features)
    alone = pickle.loads(pickle.dumps(learning)).set_params(beta=0)
    of_one_class = np.where(y == 3, 3, -1)
    learning.partial_fit(X, of_one_class, features=features)
    alone.partial_fit(X[y == 3], y[y == 3])
    np.testing.assert_array_equal(learning.history_[-1]["train_loss"], alone.loss_curve_[-1])
    learning.partial_fit(X, y, features=features)
    assert "train_transfer_loss" not in learning.history_[1]
    assert learning.history_[2]["train_transfer_loss"] > 0


def test_what_was_chosen_is_public_and_a_copy(useful, monkeypatch):
    X, y, features = useful
    both = _CANDIDATES["aft and probe-kd"]
    candidates = {"both": TransferChoice(both.method, 0.01), "none": _CANDIDATES["none"]}
    monkeypatch.setattr(_trials, "_CANDIDATES", candidates)
    unfitted = student(max_epochs=8)
    assert not hasattr(unfitted, "chosen_transfer_")
    fitted = unfitted.fit(X, y, features=features)
    assert fitted.chosen_transfer_ == [("aft", 10.0), ("probe-kd", 1.0)]
    fitted.chosen_transfer_.clear()
    assert pickle.loads(pickle.dumps(fitted)).chosen_transfer_ == both[0]
