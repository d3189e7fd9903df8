"""Steps and learning rates of students: those of the network, unless the user changes them."""

import functools
import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, GradientNormClipping, LRScheduler
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft.modules import MLP, MixedNet
from sk_aft.modules._training_defaults import TrainingDefaults

X, Y = load_iris(return_X_y=True)


class Tower(nn.Module):
    """A small network with the arguments and attributes of those that are fine-tuned."""

    training_defaults = TrainingDefaults(
        lr=3e-3,
        head_lr_factor=10.0,
        weight_decay=0.1,
        warmup=0.1,
        max_gradient_norm=1.0,
        layer_decay=0.5,
        n_steps=60,
        n_epochs=5,
    )

    def __init__(
        self,
        n_inputs,
        n_outputs,
        head_lr_factor=None,
        layer_decay=None,
        n_frozen_layers=0,
    ):
        super().__init__()
        self.head_lr_factor = head_lr_factor
        self.layer_decay = layer_decay
        self.n_frozen_layers = n_frozen_layers
        self.first = nn.Sequential(nn.Linear(n_inputs, 16), nn.BatchNorm1d(16), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(16, 16), nn.Tanh())
        self.head = nn.Linear(16, n_outputs)

    @property
    def layers(self):
        return [self.first, self.second]

    def forward(self, inputs):
        features = self.second(self.first(inputs))
        return self.head(features), features


class Own(nn.Module):
    """A user's own network; its layers are no invitation to train them in a special way."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(n_inputs, 16), nn.ReLU()])
        self.head = nn.Linear(16, n_outputs)

    def forward(self, inputs):
        for layer in self.layers:
            inputs = layer(inputs)
        return self.head(inputs)


class Rates(Callback):
    """The learning rates of all groups before each step."""

    def initialize(self):
        self.rates_ = []
        return self

    def on_batch_begin(self, net, training=True, **kwargs):
        if training:
            self.rates_.append([group["lr"] for group in net.optimizer_.param_groups])


class GradientNorms(Callback):
    """The norm of the gradients that a step uses."""

    def initialize(self):
        self.norms_ = []
        return self

    def on_grad_computed(self, net, named_parameters, **kwargs):
        gradients = [p.grad.flatten() for _, p in named_parameters if p.grad is not None]
        self.norms_.append(torch.cat(gradients).norm().item())


def student(module=Tower, **parameters):
    return AFTClassifier(module, **{"beta": 0, "random_state": 0, **parameters})


def rates(**parameters):
    """Return the learning rates, (n_steps, n_groups), and the student."""
    model = student(callbacks=[("rates", Rates())], **parameters).fit(X, Y)
    return np.array(dict(model.callbacks_)["rates"].rates_), model


def groups_of(model):
    """Return rate and weight decay by the name of each weight."""
    names = {parameter: name for name, parameter in model.module_.named_parameters()}
    return {
        names[parameter]: (group.get("initial_lr", group["lr"]), group["weight_decay"])
        for group in model.optimizer_.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("estimator", [AFTClassifier, AFTRegressor])
def test_the_rate_of_the_networks_of_this_package_and_of_the_users_is_as_before(estimator):
    for module in ("auto", Own, functools.partial(MLP, hidden_sizes=(8,))):
        models = [
            estimator(module, lr=lr, beta=0, max_epochs=3, random_state=0).fit(X, Y)
            for lr in ("auto", 1e-3)
        ]
        np.testing.assert_array_equal(*(model.forward(X) for model in models))
        (group,) = models[0].optimizer_.param_groups
        assert (group["initial_lr"], group["weight_decay"]) == (1e-3, 0.01)
        assert models[0].lr == "auto"


@pytest.mark.parametrize(
    ("parameters", "body", "head"),
    [
        ({}, 3e-3, 3e-2),
        ({"lr": 1e-4}, 1e-4, 1e-3),
        ({"optimizer__lr": 1e-4}, 1e-4, 1e-3),
        ({"optimizer__lr": 1e-4, "lr": 1}, 1e-4, 1e-3),
        ({"module__head_lr_factor": 2}, 3e-3, 6e-3),
        ({"module__layer_decay": 1, "module__head_lr_factor": 1, "lr": 0.1}, 0.1, 0.1),
    ],
)
def test_rates_of_the_layers_and_the_head(parameters, body, head):
    found = groups_of(student(max_epochs=1, **parameters).fit(X, Y))
    layer_decay = parameters.get("module__layer_decay", 0.5)
    assert found["head.weight"] == (pytest.approx(head), 0.1)
    assert found["head.bias"] == (pytest.approx(head), 0.0)
    assert found["second.0.weight"] == (pytest.approx(body), 0.1)
    assert found["second.0.bias"] == (pytest.approx(body), 0.0)
    assert found["first.0.weight"] == (pytest.approx(body * layer_decay), 0.1)
    assert found["first.1.weight"] == (pytest.approx(body * layer_decay), 0.0)  # of the norm
    assert len(found) == 8


def test_parameters_of_the_optimizer_have_precedence():
    found = groups_of(student(max_epochs=1, optimizer__weight_decay=0.3).fit(X, Y))
    assert {decay for _, decay in found.values()} == {0.3, 0.0}
    groups = [("head*", {"lr": 0.7, "weight_decay": 0.2})]
    found = groups_of(student(max_epochs=1, optimizer__param_groups=groups).fit(X, Y))
    assert found["head.weight"] == found["head.bias"] == (0.7, 0.2)
    assert {found[name] for name in found if "head" not in name} == {(3e-3, 0.1)}
    # Weight decay means something else in other optimizers, which keep theirs.
    for optimizer, decay in (
        (torch.optim.SGD, 0.0),
        (functools.partial(torch.optim.AdamW, weight_decay=0.4), 0.4),
    ):
        model = student(max_epochs=1, optimizer=optimizer, lr=0.1).fit(X, Y)
        assert groups_of(model)["second.0.weight"] == (0.1, decay)


def test_lbfgs_is_refused_where_rates_differ():
    with pytest.raises(ValueError, match=r"LBFGS trains one group .* but Tower is trained with 6"):
        student(optimizer=torch.optim.LBFGS).fit(X, Y)


def test_rates_rise_and_then_fall_along_a_cosine():
    found, model = rates(max_epochs=50)
    n_steps, n_rising = 100, 10
    assert len(found) == n_steps
    highest = found.max(axis=0)
    np.testing.assert_allclose(sorted(set(highest)), [1.5e-3, 3e-3, 3e-2])
    shares = found / highest
    np.testing.assert_allclose(shares[:n_rising, 0], np.arange(1, 11) / 11)
    fallen = (1 + np.cos(np.pi * np.arange(90) / 90)) / 2
    np.testing.assert_allclose(shares[n_rising:, 0], fallen)
    np.testing.assert_allclose(shares, np.repeat(shares[:, :1], found.shape[1], axis=1))
    assert max(group["lr"] for group in model.optimizer_.param_groups) == pytest.approx(0)
    assert model.score(X, Y) > 0.9


def test_rates_rise_and_then_stay():
    found, _ = rates(max_epochs=50, lr_schedule="constant")
    np.testing.assert_allclose(found[:10, 0] / found[-1, 0], np.arange(1, 11) / 11)
    assert (found[10:] == found[-1]).all()


def test_warm_up_can_be_changed_and_replaced():
    name = "callbacks__lr_scheduler__warmup"
    found, _ = rates(max_epochs=10, **{name: 0})
    assert found[0].max() == pytest.approx(3e-2)
    found, _ = rates(module="auto", max_epochs=10, **{name: 0.5})
    np.testing.assert_allclose(found[:10, 0], 1e-3 * np.arange(1, 11) / 11)
    found, _ = rates(max_epochs=5, **{name: 1.0})
    assert (np.diff(found, axis=0) > 0).all()
    own = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=100)
    model = student(max_epochs=3, callbacks=[own]).fit(X, Y)
    assert max(rate for rate, _ in groups_of(model).values()) == pytest.approx(3e-2)


def test_networks_without_warm_up_start_at_their_rate_and_may_keep_it():
    found, _ = rates(module="auto", max_epochs=3)
    assert found[0] == [1e-3]
    found, model = rates(module="auto", max_epochs=3, lr_schedule="constant")
    assert (found == 1e-3).all()
    assert "lr_scheduler" not in dict(model.callbacks_)


def norms(callbacks=(), **parameters):
    callbacks = [*callbacks, ("norms", GradientNorms())]
    model = student(callbacks=callbacks, max_epochs=3, **parameters).fit(X, Y)
    return np.array(dict(model.callbacks_)["norms"].norms_), model


def test_gradients_are_clipped_at_the_networks_norm():
    own_norms, model = norms(callbacks__gradient_clipping=None)
    assert "gradient_clipping" not in dict(model.callbacks_)
    assert own_norms.max() > 1
    found, _ = norms()
    np.testing.assert_allclose(found, np.minimum(found, 1 + 1e-5))
    assert found[0] == pytest.approx(1, abs=1e-4)
    found, _ = norms(callbacks__gradient_clipping__gradient_clip_value=0.25)
    np.testing.assert_allclose(found, 0.25, rtol=1e-4)
    found, _ = norms([GradientNormClipping(0.5)])  # the user's own replaces that of the network
    np.testing.assert_allclose(found, 0.5, rtol=1e-4)
    found, _ = norms([GradientNormClipping(1e6)])
    assert found[0] == pytest.approx(own_norms[0])


def test_clipping_of_networks_without_a_norm():
    _, model = norms(module="auto", callbacks__gradient_clipping=None)  # as in a search
    assert "gradient_clipping" not in dict(model.callbacks_)
    with pytest.raises(ValueError, match="Invalid parameter callbacks__gradient_clipping__grad"):
        norms(module="auto", callbacks__gradient_clipping__gradient_clip_value=1.0)


class SparseTower(nn.Module):
    training_defaults = TrainingDefaults(max_gradient_norm=1.0, n_steps=20)

    def __init__(self, n_tokens, n_outputs, sparse=False):
        super().__init__()
        self.bag = nn.EmbeddingBag(n_tokens, 8, mode="sum", sparse=sparse)
        self.head = nn.Linear(8, n_outputs)

    @property
    def layers(self):
        return [self.bag]

    def forward(self, tokens, lengths):
        return self.head(self.bag(tokens))


def test_embeddings_are_sparse_unless_gradients_are_clipped():
    texts = ["good film", "bad film"] * 10
    model = student(SparseTower, max_epochs=2).fit(texts, [1, 0] * 10)
    assert not model.module_.bag.sparse
    model.set_params(callbacks__gradient_clipping=None).fit(texts, [1, 0] * 10)
    assert model.module_.bag.sparse


@pytest.mark.parametrize(
    ("module", "parameters", "lr"),
    [
        (Tower, {}, "0.003"),
        ("auto", {}, "0.001"),
        ("auto", {"lr": 0.5}, "0.5"),
        ("auto", {"optimizer__lr": 0.25}, "0.25"),
    ],
)
def test_the_message_names_the_rate(module, parameters, lr):
    model = student(module, preprocessor=None, optimizer=torch.optim.SGD, **parameters)
    with pytest.raises(ValueError, match=rf"Lower lr \(now {lr}\)"):
        model.fit(X * 1e37, Y)


def test_pieces_have_the_rate_and_no_warm_up():
    model = student(callbacks=[("rates", Rates())])
    for _ in range(2):
        model.partial_fit(X, Y, classes=[0, 1, 2])
        found = np.array(dict(model.callbacks_)["rates"].rates_)
        np.testing.assert_allclose(sorted(set(found.ravel())), [1.5e-3, 3e-3, 3e-2])
        assert (found == found[0]).all()
    assert model.n_iter_ == 2


def test_warm_starts_rise_again():
    model = student(warm_start=True, max_epochs=20, callbacks=[("rates", Rates())])
    for _ in range(2):
        found = np.array(dict(model.fit(X, Y).callbacks_)["rates"].rates_)
        np.testing.assert_allclose(found.max(axis=0) / found[0], 5)  # 4 of 40 steps rise
    assert model.n_iter_ == 40
    with pytest.raises(ValueError, match="module__n_frozen_layers differs"):
        model.set_params(module__n_frozen_layers=1).fit(X, Y)


@pytest.mark.parametrize("frozen", [0, 1, 2])
@pytest.mark.parametrize("beta", [0, 1])
def test_frozen_layers_do_not_change(frozen, beta):
    torch.manual_seed(0)
    start = Tower(4, 3, n_frozen_layers=frozen)
    model = student(start, max_epochs=5, beta=beta, transfer="aft", random_state=0)
    model.fit(X, Y, features=X)
    before, after = start.state_dict(), model.module_.state_dict()
    for name in before:
        is_frozen = name.split(".")[0] in ("first", "second")[:frozen]
        assert torch.equal(before[name], after[name]) == is_frozen, name
    in_optimizer = {p for group in model.optimizer_.param_groups for p in group["params"]}
    n_trained = {0: 8, 1: 4, 2: 2}[frozen]
    assert len(in_optimizer & set(model.module_.parameters())) == n_trained
    assert sum(p.requires_grad for p in model.module_.parameters()) == n_trained
    # The instance of the user is not changed, and a pickle stays frozen.
    assert all(p.requires_grad for p in start.parameters())
    restored = pickle.loads(pickle.dumps(model))
    assert sum(p.requires_grad for p in restored.module_.parameters()) == n_trained
    restored.partial_fit(X, Y, features=X)
    after = restored.module_.state_dict()
    assert torch.equal(before["first.0.weight"], after["first.0.weight"]) == (frozen > 0)
    assert torch.equal(before["first.1.running_mean"], after["first.1.running_mean"]) == (
        frozen > 0
    )


def test_frozen_layers_and_groups_of_the_user():
    groups = [("first*", {"lr": 0.7})]
    model = student(
        max_epochs=2, optimizer__param_groups=groups, module__n_frozen_layers=1
    ).fit(X, Y)  # fmt: skip
    assert set(groups_of(model)) == {"second.0.weight", "second.0.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize("wrong", [-1, 3, 1.5, "all"])
def test_a_wrong_number_of_frozen_layers(wrong):
    message = r"n_frozen_layers=.*, but Tower has 2 layers: .* an integer between 0 and 2"
    with pytest.raises(ValueError, match=message):
        student(module__n_frozen_layers=wrong).fit(X, Y)


def test_steps_are_those_of_the_network():
    assert student().fit(X, Y).n_iter_ == 30  # 60 steps, 2 a pass
    assert student(batch_size=10).fit(X, Y).n_iter_ == 5  # passes
    assert student(Own, batch_size=50).fit(X, Y).n_iter_ == 334  # 1,000 steps, 3 a pass
    partial = functools.partial(Tower, layer_decay=1.0)
    assert student(partial).fit(X, Y).n_iter_ == 30
    assert student(Tower(4, 3)).fit(X, Y).n_iter_ == 30


@pytest.mark.parametrize(
    ("n_labeled", "n_batches", "n_passes"),
    [
        (20, 8, 8),  # 60 steps
        (100, 10, 6),  # 60 steps, since 5 passes over the labelled rows have only 50
        (200, 20, 5),  # 100 steps
    ],
)
def test_passes_count_labelled_rows(n_labeled, n_batches, n_passes):
    random = np.random.RandomState(0)
    rows = random.randn(n_labeled + 80, 4)
    y = np.where(np.arange(len(rows)) < n_labeled, random.randint(0, 2, len(rows)), -1)
    model = student(beta=1, transfer="aft", batch_size=20, missing_label=-1)
    model.fit(rows, y, features=rows)
    assert model.n_iter_ == n_passes
    assert model.history_[-1]["train_batch_count"] == n_batches


def test_early_stopping_ignores_the_warm_up():
    # With so small a rate, every epoch has the same score, and the first one is the best.
    model = student(lr=1e-12, early_stopping=True, max_epochs=50, n_iter_no_change=10)
    model.fit(X, Y)
    assert dict(model.callbacks_)["early_stopping"].best_epoch_ == 6  # the warm-up has 5 epochs
    assert model.n_iter_ == 16
    constant = student(nn.Sequential(nn.Linear(4, 3)), lr=1e-12, early_stopping=True)
    assert constant.fit(X, Y).n_iter_ == 11  # a network without warm-up


def test_few_labels_among_many_rows_take_few_passes():
    random = np.random.RandomState(0)
    texts = [f"text {number} of {random.randint(50)}" for number in range(2300)]
    y = np.where(np.arange(2300) < 300, random.randint(0, 2, 2300), -1)
    model = AFTClassifier(transfer="aft", missing_label=-1, random_state=0)
    model.fit(texts, y, features=random.randn(2300, 3))
    # 500 steps are more than 5 passes over the labels; a pass over all rows has 32 steps.
    assert model.n_iter_ == 16


def test_clones_searches_and_files(tmp_path):
    model = student(max_epochs=10)
    assert clone(model).lr == "auto"
    search = GridSearchCV(model, {"lr": ["auto", 1e-9], "module__n_frozen_layers": [0, 1]}, cv=2)
    search.fit(X, Y)
    assert search.best_params_["lr"] == "auto"
    fitted = search.best_estimator_
    expected = fitted.predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(X), expected)
    plain = AFTClassifier(beta=0, max_epochs=2, random_state=0).fit(X, Y)
    skops.io.dump(plain, tmp_path / "student.skops")
    trusted = skops.io.get_untrusted_types(file=tmp_path / "student.skops")
    restored = skops.io.load(tmp_path / "student.skops", trusted=trusted)
    assert restored.lr == "auto"
    np.testing.assert_array_equal(restored.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.filterwarnings("ignore:This CPU has no instructions for bfloat16")
def test_precisions(precision):
    found, model = norms(precision=precision)
    assert model.score(X, Y) > 0.6
    assert np.nanmax(found) < 1.001


@pytest.mark.parametrize("wrong", [0, -1, "fast", None])
def test_a_wrong_rate(wrong):
    with pytest.raises(ValueError, match="The 'lr' parameter of AFTClassifier must be"):
        student(lr=wrong).fit(X, Y)


MARKED = np.where(np.arange(150) % 3, -1, Y)
PROBABILITIES = np.eye(3)[Y]


def rate(model):
    return model._run.schedule.lr


def marked(**parameters):
    return AFTClassifier(missing_label=-1, random_state=0, max_epochs=1, **parameters)


def test_an_mlp_that_predictions_teach_takes_larger_steps():
    taught = functools.partial(AFTClassifier.fit, soft_targets=PROBABILITIES)
    assert rate(taught(marked(), X, MARKED)) == 3e-3
    assert rate(marked().fit(X, MARKED, features=X)) == 3e-3  # probes
    of_list = marked(transfer=[("probe-kd", 1.0), ("aft", 1.0)])
    assert rate(of_list.fit(X, MARKED, features=X)) == 3e-3
    assert rate(taught(marked(), X, Y)) == 1e-3  # all rows have a label
    assert rate(marked(transfer="aft").fit(X, MARKED, features=X)) == 1e-3
    assert rate(taught(marked(beta=0), X, MARKED)) == 1e-3
    assert rate(taught(marked(lr=1e-2), X, MARKED)) == 1e-2
    assert rate(taught(marked(module=Tower), X, MARKED)) == 3e-3  # its own
    rows = FoundationFeatureExtractor(lambda rows: rows).fit_transform(X)
    by_pieces = marked(transfer="probe-kd").partial_fit(rows, MARKED, classes=[0, 1, 2])
    assert rate(by_pieces) == 1e-3  # pieces differ in what they hold


def test_a_frame_of_numbers_and_categories_is_trained_as_long_as_numbers():
    frame = pd.DataFrame(X, columns=list("abcd"))
    frame["kind"] = pd.Categorical(np.where(X[:, 0] > 6, "long", "short"))
    model = AFTClassifier(random_state=0, beta=0).fit(frame, Y)
    assert type(model.module_) is MixedNet
    plain = AFTClassifier(random_state=0, beta=0).fit(X, Y)
    assert len(model.history_) == len(plain.history_) == 500
    frame["text"] = [f"row {number % 7}" for number in range(150)]
    with_texts = AFTClassifier(random_state=0, beta=0, module__start="random").fit(frame, Y)
    assert len(with_texts.history_) == 100
