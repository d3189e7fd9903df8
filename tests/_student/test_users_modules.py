"""Mistakes in the user's own networks, losses and hooks raise clear errors."""

import copy
import functools
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft.modules import ResNet

X, Y = load_digits(return_X_y=True)
X, Y = X[:400] / 16, Y[:400]


def network(*last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10), *last)


def student(module="auto", **parameters):
    parameters = {"lr": 0.01, "max_epochs": 5, "beta": 0, "random_state": 0, **parameters}
    return AFTClassifier(module, **parameters)


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_a_softmax_at_the_end_is_refused_on_the_first_batch(criterion):
    model = student(network(nn.Softmax(dim=1)), criterion=criterion)
    with pytest.raises(ValueError, match=r"returns probabilities.*return logits"):
        model.fit(X, Y)
    with pytest.raises(ValueError, match="return logits"):
        model.partial_fit(X, Y, classes=range(10))
    assert not hasattr(model, "module_")


def test_a_sigmoid_at_the_end_is_warned_of():
    with pytest.warns(UserWarning, match=r"between 0 and 1.*Return logits"):
        student(network(nn.Sigmoid()), max_epochs=1).fit(X, Y)


@pytest.mark.parametrize("last", [[], [nn.LogSoftmax(dim=1)]])
def test_logits_and_log_probabilities_are_fine(last):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = student(network(*last), max_epochs=15).fit(X, Y)
    assert log_loss(Y, model.predict_proba(X)) < 0.3


def test_outputs_of_another_type_or_shape_are_refused():
    class Mapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, inputs):
            return {"logits": self.linear(inputs)}

    with pytest.raises(TypeError, match="returned a dict, expected a tensor of outputs"):
        student(Mapped()).fit(X, Y)
    with pytest.raises(ValueError, match=r"shape \(128, 3\), expected \(n_rows, 10\)"):
        student(nn.Linear(64, 3)).fit(X, Y)


def test_a_transfer_has_to_be_a_scalar():
    class PerRow(nn.Module):
        def forward(self, student, foundation):
            return student.mean(dim=1) - foundation.mean(dim=1)

    with pytest.raises(ValueError, match=r"PerRow returned a tensor of shape \(128,\).*scalar"):
        student(transfer=PerRow(), beta=1).fit(X, Y, features=X)


@pytest.mark.parametrize(
    "name", ["get_loss", "get_dataset", "get_iterator", "fit_loop", "check_data"]
)
def test_hooks_of_skorch_that_are_not_called_say_so(name):
    subclass = type("Mine", (AFTClassifier,), {name: lambda self, *args, **kwargs: None})
    with pytest.raises(TypeError, match=f"Mine.{name} has no effect"):
        subclass(max_epochs=1, beta=0).fit(X, Y)
    with pytest.raises(NotImplementedError, match=f"AFTClassifier does not use skorch's {name}"):
        getattr(AFTClassifier(), name)(X)


def test_lbfgs_works_alone_and_says_why_not_with_a_transfer_that_learns():
    model = student(optimizer=torch.optim.LBFGS, lr=0.1, lr_schedule="constant", batch_size=400)
    assert model.fit(X, Y).score(X, Y) > 0.9
    model.set_params(transfer="aft", beta=1)
    with pytest.raises(ValueError, match=r"LBFGS trains one group of parameters.*probe-kd"):
        model.fit(X, Y, features=X)
    model.set_params(transfer="probe-kd")
    assert model.fit(X, Y, features=X).score(X, Y) > 0.9


@pytest.fixture
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    assert torch.get_default_dtype() == torch.float64  # left as it was
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def plain_predictions():
    return {
        transfer: student(transfer=transfer, beta=1).fit(X, Y, features=X[:, :30]).predict_proba(X)
        for transfer in ("aft", "probe-kd", "kd", "b-tuning")
    }


def test_float64_as_default_changes_nothing(plain_predictions, float64_by_default):
    for transfer, expected in plain_predictions.items():
        model = student(transfer=transfer, beta=1).fit(X, Y, features=X[:, :30])
        np.testing.assert_array_equal(model.predict_proba(X), expected)
        model.partial_fit(X, Y, features=X[:, :30])


def test_modules_made_under_float64_become_float32(float64_by_default):
    assert network()[0].weight.dtype == torch.float64
    criterion = nn.CrossEntropyLoss(weight=torch.ones(10))
    model = student(network(), criterion=criterion, max_epochs=15).fit(X, Y)
    assert model.module_[0].weight.dtype == torch.float32
    assert model.score(X, Y) > 0.9
    teacher = PCA(8).fit(X)
    pipe = make_pipeline(FoundationFeatureExtractor(teacher), student(beta=1, max_epochs=15))
    assert pipe.fit(X, Y).score(X, Y) > 0.9
    images, labels = (X[:40].reshape(-1, 8, 8) * 255).astype("uint8"), Y[:40]
    for module in ("auto", ResNet):
        model = student(module, max_epochs=2).fit(images, labels)
        assert {weight.dtype for weight in model.module_.parameters()} == {torch.float32}
        assert model.predict(images[:3]).shape == (3,)
    AFTRegressor(beta=0, max_epochs=2).fit(["a b", "b c"] * 10, np.arange(20.0)).predict(["a"])


def test_weights_of_another_network_leave_the_student_as_it_was(tmp_path):
    small, large = student(module__hidden_sizes=(8,)).fit(X, Y), student().fit(X, Y)
    before = small.predict_proba(X)
    large.save_params(f_params=tmp_path / "large.pt")
    with pytest.raises(RuntimeError, match="size mismatch"):
        small.load_params(f_params=tmp_path / "large.pt")
    np.testing.assert_array_equal(small.predict_proba(X), before)


def test_a_history_that_is_loaded_has_its_number_of_epochs(tmp_path):
    model = student(max_epochs=4).fit(X, Y)
    model.save_params(f_history=tmp_path / "history.json")
    other = student(max_epochs=1).fit(X, Y)
    other.load_params(f_history=tmp_path / "history.json")
    assert other.n_iter_ == len(other.loss_curve_) == 4


@pytest.mark.parametrize("n_rows", [1, 2, 3, 8])
def test_few_outputs_are_no_reason_to_complain(n_rows):
    labels = (X[:, 10] > 0.5).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(20):
            model = student(transfer=None, random_state=seed)
            for start in range(0, 5 * n_rows, n_rows):
                rows = slice(start, start + n_rows)
                model.partial_fit(X[rows], labels[rows], classes=[0, 1])

    class FromZero(nn.Linear):
        def reset_parameters(self):
            nn.init.zeros_(self.weight)
            nn.init.constant_(self.bias, 0.1)

    student(FromZero(64, 10), max_epochs=1).fit(X, Y)


def test_a_softmax_is_noticed_once_there_are_enough_rows():
    model = student(network(nn.Softmax(dim=1)))
    model.partial_fit(X[:2], Y[:2], classes=range(10))
    with pytest.raises(ValueError, match="return logits"):
        model.partial_fit(X[2:40], Y[2:40])


def test_other_default_dtypes_change_nothing_either():
    criterion = {"criterion__weight": torch.ones(10, dtype=torch.float64)}
    expected = student(network(), criterion=nn.CrossEntropyLoss(weight=torch.ones(10)))
    expected = expected.fit(X, Y).predict_proba(X)
    modules = network()
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        torch.set_default_dtype(dtype)
        try:
            made = copy.deepcopy(modules).to(dtype)
            model = student(made, **criterion).fit(X, Y)
            assert model.module_[0].weight.dtype == torch.float32
            np.testing.assert_allclose(model.predict_proba(X), expected, atol=0.2)
        finally:
            torch.set_default_dtype(torch.float32)


def test_threads_share_the_default_dtype(float64_by_default):
    class MakesTensors(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, inputs):
            return self.linear(inputs @ torch.eye(64))

    def fit(_):
        return student(MakesTensors(), max_epochs=2).fit(X, Y)

    with ThreadPoolExecutor(4) as threads:
        models = list(threads.map(fit, range(6)))
        found = list(threads.map(lambda n: models[n % 6].predict_proba(X), range(60)))
    assert len(found) == 60


def test_a_partial_lbfgs_is_known():
    optimizer = functools.partial(torch.optim.LBFGS, max_iter=3)
    with pytest.raises(ValueError, match="LBFGS trains one group"):
        student(optimizer=optimizer, transfer="aft", beta=1).fit(X, Y, features=X)


def test_parameters_of_another_method_name_the_one_in_use():
    with pytest.raises(ValueError, match=r"The method is 'pooled-kd': name another with transfer="):
        student(beta=1, transfer__projection=8).fit(X, Y, features=X)


def test_a_constructor_that_asks_for_more_is_told_what_there_is():
    class Named(nn.Linear):
        def __init__(self, input_dim, n_outputs):
            super().__init__(input_dim, n_outputs)

    with pytest.raises(TypeError, match=r"Named needs \['input_dim'\].*'n_inputs': 64"):
        student(Named).fit(X, Y)
    assert student(Named, module__input_dim=64).fit(X, Y).n_iter_ == 5


def test_parameters_of_skorch_name_what_stands_for_them():
    with pytest.raises(TypeError, match=r"train_split.*use early_stopping=True"):
        AFTClassifier(train_split=None)


def test_a_softmax_of_predictions_only_is_refused_after_training():
    class Changing(nn.Linear):
        def forward(self, inputs):
            logits = super().forward(inputs)
            return logits if self.training else logits.softmax(dim=1)

    with pytest.raises(ValueError, match="return logits"):
        student(Changing(64, 10)).fit(X, Y)


def test_nllloss_on_logits_is_refused():
    for module in ("auto", network()):
        with pytest.raises(ValueError, match="NLLLoss, which wants log-probabilities"):
            student(module, criterion=nn.NLLLoss).fit(X, Y)
    model = student(network(nn.LogSoftmax(dim=1)), criterion=nn.NLLLoss, max_epochs=15)
    assert model.fit(X, Y).score(X, Y) > 0.9


@pytest.mark.parametrize("criterion", [nn.MSELoss, nn.BCEWithLogitsLoss, nn.GaussianNLLLoss])
def test_losses_of_numbers_are_refused_by_a_classifier(criterion):
    with pytest.raises(ValueError, match=f"criterion is {criterion.__name__}.*CrossEntropyLoss"):
        student(criterion=criterion, batch_size=10).fit(X, Y)


def test_a_regressor_that_cannot_be_negative_is_warned_of():
    module = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1), nn.ReLU())
    with pytest.warns(UserWarning, match=r"not negative.*standardised"):
        AFTRegressor(module, beta=0, max_epochs=1, random_state=0).fit(X, X[:, 20])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AFTRegressor(beta=0, max_epochs=2).fit(X, X[:, 20])


def test_the_sizes_of_lazy_layers_are_found_in_training():
    lazy = nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(10))
    model = student(lazy).fit(X, Y)
    assert model.module_[0].in_features == 64
    assert model.score(X, Y) > 0.8


def test_numbers_beyond_float32_are_refused():
    model = student().fit(X, Y)
    with pytest.raises(ValueError, match="beyond float32 for row 1"):
        model.predict(np.vstack([X[:1], np.full((1, 64), 1e300)]))
