"""Training that resumes (partial_fit and warm_start), and the attributes that training sets."""

import pickle
import threading

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch.callbacks import Callback, LRScheduler
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def diabetes():
    return load_diabetes(return_X_y=True)


class LogitsOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, inputs):
        return self.layers(inputs)


def weights_of(model):
    return torch.cat([weight.detach().flatten() for weight in model.module_.parameters()])


def test_pieces_teach_what_the_whole_does(iris):
    X, y = iris
    order = np.random.default_rng(0).permutation(150)
    model = AFTClassifier(beta=1, lr=0.01, random_state=0)
    for _ in range(15):
        for piece in np.array_split(order, 3):
            model.partial_fit(X[piece], y[piece], [0, 1, 2], features=X[piece])
    assert model.score(X, y) > 0.9
    assert model.n_iter_ == len(model.loss_curve_) == 45
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_passes_over_the_same_rows_are_the_epochs_of_fit(iris):
    X, y = iris
    whole = AFTClassifier(
        transfer="aft", beta=1, lr_schedule="constant", max_epochs=4, random_state=0
    )
    whole.fit(X, y, features=X)
    pieces = AFTClassifier(beta=1, random_state=0)
    for _ in range(4):
        pieces.partial_fit(X, y, classes=[0, 1, 2], features=X)
    # Other rows are drawn together: the seeds of torch differ, those of the batches do not.
    np.testing.assert_allclose(pieces.loss_curve_[0], whole.loss_curve_[0], rtol=1e-6)
    np.testing.assert_allclose(pieces.predict_proba(X), whole.predict_proba(X), atol=0.05)


def test_the_first_call_names_the_classes_and_a_piece_may_lack_some(iris):
    X, y = iris
    model = AFTClassifier(beta=0, random_state=0)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, y)
    model.partial_fit(X[:50], y[:50], [0, 1, 2])
    assert model.predict_proba(X).shape == (150, 3)
    model.partial_fit(X[50:], y[50:])
    with pytest.raises(ValueError, match="is not the same as in the first call"):
        model.partial_fit(X, y, [0, 1])
    with pytest.raises(ValueError, match="y holds 7, which is not among the classes"):
        model.partial_fit(X, np.full(150, 7))
    with pytest.raises(ValueError, match="does not support early_stopping"):
        model.set_params(early_stopping=True).partial_fit(X, y)


def test_later_pieces_have_to_fit_the_first(iris, diabetes):
    X, y = iris
    model = AFTClassifier(beta=1, random_state=0).partial_fit(X, y, [0, 1, 2], features=X)
    with pytest.raises(ValueError, match="features has 3 columns, but training began with 4"):
        model.partial_fit(X, y, features=X[:, :3])
    with pytest.raises(ValueError, match="X has 3 features"):
        model.partial_fit(X[:, :3], y, features=X)
    X, y = diabetes
    model = AFTRegressor(beta=0, random_state=0).partial_fit(X, y)
    with pytest.raises(ValueError, match="y has 2 targets, but training began with 1"):
        model.partial_fit(X, np.stack([y, y], axis=1))


def test_a_regressor_keeps_its_scale(diabetes):
    X, y = diabetes
    order = np.argsort(y)  # the first piece holds small targets only
    model = AFTRegressor(beta=0, lr=0.01, random_state=0)
    for _ in range(60):
        for piece in np.array_split(order, 2):
            model.partial_fit(X[piece], y[piece])
    assert model.score(X, y) > 0.4


def test_features_may_come_later_and_settings_may_change(iris):
    X, y = iris
    model = AFTClassifier(beta=0, random_state=0).partial_fit(X, y, [0, 1, 2])
    assert not hasattr(model, "transfer_")
    model.set_params(beta=2, lr=0.5).partial_fit(X, y, features=X)
    assert model.beta_ == 2
    assert model.feature_weights_.shape == (4,)
    assert model.optimizer_.param_groups[0]["lr"] == 0.5


def test_a_copy_goes_on(iris):
    X, y = iris
    model = AFTClassifier(beta=1, random_state=0).partial_fit(X, y, [0, 1, 2], features=X)
    copy = pickle.loads(pickle.dumps(model))
    copy.partial_fit(X, y, features=X)
    assert copy.n_iter_ == 2
    assert model.n_iter_ == 1


def test_warm_start_goes_on_and_without_it_fit_starts_anew(iris):
    X, y = iris
    model = AFTClassifier(beta=0, max_epochs=5, warm_start=True, random_state=0).fit(X, y)
    first = weights_of(model)
    losses = list(model.loss_curve_)
    preprocessor = model.preprocessor_
    model.fit(X, y)
    assert model.n_iter_ == 10
    assert model.loss_curve_[:5] == losses
    assert model.loss_curve_[-1] < losses[-1]
    assert model.preprocessor_ is preprocessor
    assert torch.equal(weights_of(model.set_params(warm_start=False).fit(X, y)), first)
    assert model.n_iter_ == 5


def test_warm_start_with_other_classes_is_an_error_that_loses_nothing(iris):
    X, y = iris
    model = AFTClassifier(beta=0, max_epochs=2, warm_start=True, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="not among the classes of this network"):
        model.fit(X, y + 5)
    assert model.predict(X).shape == (150,)


def test_curves_are_those_of_scikit_learns_networks(iris):
    X, y = iris
    model = AFTClassifier(beta=0, max_epochs=6, random_state=0).fit(X, y)
    assert model.validation_scores_ is None
    assert model.loss_curve_ == model.history_[:, "train_loss"]
    model.set_params(early_stopping=True).fit(X, y)
    assert len(model.validation_scores_) == model.n_iter_
    assert all(0 <= score <= 1 for score in model.validation_scores_)
    with pytest.raises(AttributeError):
        AFTClassifier().loss_curve_  # noqa: B018


def test_the_history_holds_each_term_and_the_weight_of_each_model(iris):
    X, y = iris
    teachers = [PCA(2).fit(X), PCA(3).fit(X)]
    pipe = make_pipeline(
        FoundationFeatureExtractor(teachers),
        AFTClassifier(transfer="aft", beta=1, max_epochs=3, random_state=0),
    ).fit(X, y)
    history = pipe[-1].history_
    for epoch in history:
        np.testing.assert_allclose(
            epoch["train_loss"], epoch["train_task_loss"] + epoch["train_transfer_loss"]
        )
    weights = pipe[-1].feature_weights_
    assert history[-1]["feature_weight_pca"] == pytest.approx(weights[:2].mean(), rel=1e-5)
    assert history[-1]["feature_weight_pca-2"] == pytest.approx(weights[2:].mean(), rel=1e-5)
    plain = AFTClassifier(transfer="aft", beta=1, max_epochs=1).fit(X, y, features=X)
    assert 0 < plain.history_[-1]["feature_weight_features"] < 1


def test_a_network_that_diverges_says_so(iris):
    X, y = iris
    model = AFTClassifier(beta=0, lr=1e30, optimizer=torch.optim.SGD, random_state=0)
    with pytest.raises(ValueError, match=r"The loss became .* the network diverged. Lower lr"):
        model.fit(X, y)
    assert not hasattr(model, "n_iter_")


def test_a_callback_that_fails_at_the_start_leaves_nothing(iris):
    class Fails(Callback):
        def on_train_begin(self, net, **kwargs):
            networks.append(net.module_)
            raise RuntimeError("not today")

    X, y = iris
    networks = []
    model = AFTClassifier(LogitsOnly(), beta=1, callbacks=[Fails()])
    with pytest.raises(RuntimeError, match="not today"):
        model.fit(X, y, features=X)
    assert not any(layer._forward_pre_hooks for layer in networks[0].modules())
    assert not hasattr(model, "module_")
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_a_network_may_change_its_inputs_in_place(iris):
    class InPlace(LogitsOnly):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(4))

        def forward(self, inputs):
            seen.append(inputs.abs().sum().item())
            inputs *= self.scale
            return super().forward(inputs.mul_(0.5))

    X, y = iris
    seen = []
    model = AFTClassifier(InPlace(), beta=0, max_epochs=3, early_stopping=True, lr=1e-9)
    model.fit(X, y)
    assert seen[2] == pytest.approx(seen[5]) == pytest.approx(seen[8])  # the rows held out


def test_fits_in_threads_are_those_of_one_thread(iris):
    X, y = iris

    class Noisy(torch.nn.Sequential):
        def __init__(self):
            super().__init__(
                torch.nn.Linear(4, 16), torch.nn.Dropout(), torch.nn.ReLU(), torch.nn.Linear(16, 3)
            )

    def fit(seed):
        return AFTClassifier(Noisy, beta=0, max_epochs=3, random_state=seed).fit(X, y)

    alone = [weights_of(fit(seed)) for seed in range(4)]
    together = {}
    before = torch.get_rng_state()
    threads = [
        threading.Thread(target=lambda seed=seed: together.update({seed: weights_of(fit(seed))}))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(alone[seed], together[seed]) for seed in range(4))
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------- resuming with less or more


@pytest.mark.parametrize("warm", [False, True])
def test_an_own_schedule_goes_on(iris, warm):
    X, y = iris
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.5)
    model = AFTClassifier(
        beta=0, max_epochs=2, warm_start=warm, lr_schedule="constant", callbacks=[schedule]
    )
    for _ in range(3):
        model.fit(X, y) if warm else model.partial_fit(X, y, classes=[0, 1, 2])
    assert model.n_iter_ == (6 if warm else 3)


def test_pieces_weigh_what_they_weigh(iris):
    X, y = iris
    parameters = {"beta": 0, "optimizer": torch.optim.SGD, "lr": 0.1, "random_state": 0}
    start = AFTClassifier(**parameters).partial_fit(X, y, [0, 1, 2])
    before = weights_of(start)

    def moved(**given):
        model = pickle.loads(pickle.dumps(start)).set_params(
            class_weight=given.pop("by_class", None)
        )
        return (weights_of(model.partial_fit(X[:50], y[:50], **given)) - before).norm()

    whole = moved()
    assert moved(sample_weight=np.full(50, 1e-3)) < 0.01 * whole
    assert moved(by_class={0: 1e-3, 1: 1, 2: 1}) < 0.01 * whole
    assert moved(by_class={0: 1, 2: 3}) == whole  # a class that is not there is not needed


def test_pieces_without_weight_are_refused_before_they_do_harm(iris):
    X, y = iris
    model = AFTClassifier(beta=0, class_weight={0: 0, 1: 1, 2: 1}, random_state=0)
    model.partial_fit(X, y, [0, 1, 2])
    before = weights_of(model)
    with pytest.raises(ValueError, match="All training rows have weight 0"):
        model.partial_fit(X[:50], y[:50])
    assert torch.equal(weights_of(model), before)
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        model.set_params(class_weight="balanced").partial_fit(X, y)


def test_rows_held_out_stay_held_out():
    """Labels are noise: only rows that were learned from could be predicted."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 20)), rng.integers(0, 2, 200)
    model = AFTClassifier(
        beta=0,
        max_epochs=30,
        lr=0.01,
        early_stopping=True,
        validation_fraction=0.3,
        warm_start=True,
        random_state=0,
    )
    for _ in range(4):
        model.fit(X, y)
    assert max(model.validation_scores_) < 0.75


def test_an_epoch_that_did_not_end_is_no_epoch(iris):
    X, y = iris

    class Interrupting(Callback):
        def on_batch_begin(self, net, **kwargs):
            if len(net.history) == 3:
                raise KeyboardInterrupt

    model = AFTClassifier(beta=0, max_epochs=5, warm_start=True, callbacks=[Interrupting()])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert model.n_iter_ == len(model.loss_curve_) == 2
    model.set_params(callbacks=None, max_epochs=3).fit(X, y)
    assert model.n_iter_ == len(model.loss_curve_) == 5


def test_a_call_that_is_refused_changes_nothing(iris):
    X, y = iris
    model = AFTClassifier(transfer="aft", warm_start=True, max_epochs=1, random_state=0)
    model.fit(X, y, features=X)
    with pytest.raises(ValueError, match=r"non-zero|zero for every row"):
        model.fit(X, y, sample_weight=np.zeros(150))
    assert model.beta_ == 10
    learned = model.feature_weights_
    with pytest.warns(UserWarning, match="No foundation features"):
        model.partial_fit(X, y)
    np.testing.assert_array_equal(model.feature_weights_, learned)


def test_settings_of_the_optimizer_and_the_loss_may_change(iris):
    X, y = iris
    model = AFTClassifier(beta=0, random_state=0).partial_fit(X, y, [0, 1, 2])
    model.set_params(optimizer__amsgrad=True, criterion__label_smoothing=0.3).partial_fit(X, y)
    assert model.optimizer_.defaults["amsgrad"]
    assert model.criterion_.label_smoothing == 0.3


class TwoLayers(nn.Sequential):
    def __init__(self, n_inputs, n_outputs, width=8):
        super().__init__(nn.Linear(n_inputs, width), nn.ReLU(), nn.Linear(width, n_outputs))


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("module", "auto"),
        ("module", TwoLayers(4, 3)),
        ("module__width", 9),
        ("preprocessor", None),
        ("preprocessor__with_mean", False),
        ("transfer", None),
        ("transfer__kernel", "linear"),
    ],
)
def test_what_is_built_once_may_not_change(iris, name, value, warm):
    X, y = iris
    model = AFTClassifier(
        TwoLayers, module__width=8, preprocessor=StandardScaler(), max_epochs=1, random_state=0
    )
    model.set_params(warm_start=True).fit(X, y, features=X)
    learned = weights_of(model)
    go_on = model.fit if warm else model.partial_fit
    with pytest.raises(ValueError, match=f"^{name} differs from what the training began with"):
        model.set_params(**{name: value}) and go_on(X, y, features=X)
    assert torch.equal(weights_of(model), learned)


def test_the_same_settings_and_what_is_not_built_yet_may_be_set(iris):
    X, y = iris
    model = AFTClassifier(beta=0, transfer=None, module__hidden_sizes=[8], module__dropout=0.0)
    model.set_params(preprocessor=FunctionTransformer(np.abs))
    model.partial_fit(X, y, [0, 1, 2])
    model.set_params(module__hidden_sizes=(8,), module__dropout=np.float64(0), transfer="aft")
    model.set_params(preprocessor__func=np.abs, beta=2, random_state=0)
    assert model.partial_fit(X, y, features=X).beta_ == 2
    with pytest.raises(ValueError, match="transfer__kernel differs"):
        model.set_params(transfer__kernel="linear").partial_fit(X, y, features=X)


def test_a_fit_in_threads_within_a_fit_does_not_hang(iris):
    X, y = iris

    class Inner(StandardScaler):
        def fit(self, X, y=None):
            with joblib.parallel_config("threading"):
                labels = np.arange(len(X)) % 3
                self.scores_ = cross_val_score(
                    AFTClassifier(beta=0, max_epochs=1), X, labels, cv=2, n_jobs=2
                )
            return super().fit(X)

    model = AFTClassifier(preprocessor=Inner(), beta=0, max_epochs=1)
    thread = threading.Thread(target=model.fit, args=(X, y), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert len(model.preprocessor_.scores_) == 2
