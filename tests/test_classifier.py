import copy
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import MinMaxScaler
from skorch import NeuralNetClassifier
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft.modules import MLP, ResNet, StaticText
from sk_aft.transfer import KernelAlignment, PooledDistillation

TEXTS = [f"{word} {i}" for i in range(20) for word in ("good film", "bad film", "dull book")]
MOODS = ["glad", "sad", "bored"] * 20


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X, y, PCA(2).fit_transform(X)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:200], y[:200]


def weights_of(estimator):
    return {name: value.clone() for name, value in estimator.module_.state_dict().items()}


def assert_same_weights(one, other):
    one, other = weights_of(one), weights_of(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class TwoHeads(nn.Module):
    """A user's own network that returns features with its logits."""

    def __init__(self, width=8, n_outputs=3):
        super().__init__()
        self.body = nn.Linear(4, width)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, inputs):
        features = torch.tanh(self.body(inputs))
        return self.head(features), features


def only_logits():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def test_is_a_skorch_classifier():
    assert isinstance(AFTClassifier(), NeuralNetClassifier)


def test_learns_a_table_and_beats_chance_by_far(iris):
    X, y, features = iris
    model = AFTClassifier(beta=1, lr=0.01, random_state=0).fit(X, y, features=features)
    assert isinstance(model.module_, MLP)
    assert model.score(X, y) > 0.95


def test_learns_images():
    digits = load_digits()
    images, y = digits.images[:600].astype(np.uint8) * 16, digits.target[:600]
    model = AFTClassifier(
        ResNet, beta=0, module__max_shift=0, max_epochs=15, lr=0.01, random_state=0
    ).fit(images[:500], y[:500])
    assert model.score(images[500:], y[500:]) > 0.8


def test_learns_texts_with_string_labels():
    model = AFTClassifier(beta=0, random_state=0).fit(TEXTS, MOODS)
    assert isinstance(model.module_, StaticText)
    assert list(model.classes_) == ["bored", "glad", "sad"]
    assert list(model.predict(["a good one", "bad"])) == ["glad", "sad"]
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        model.predict([])


def test_transfer_pulls_the_kernels_together(iris):
    X, y, features = iris
    distances = []
    for beta in (0.1, 10):
        model = AFTClassifier(beta=beta, random_state=0).fit(X, y, features=features)
        distances.append(model.history_[-1]["train_transfer_loss"])
    assert distances[1] < 0.7 * distances[0]


@pytest.mark.parametrize("device_labels", [[0, 1], ["no", "yes"], [False, True], [-1, 5]])
def test_any_labels_of_two_classes(iris, device_labels):
    X, y, _ = iris
    labels = np.array(device_labels)[(y > 0).astype(int)]
    model = AFTClassifier(beta=0, lr=0.01, random_state=0).fit(X, labels)
    assert model.predict(X).dtype == labels.dtype
    assert model.score(X, labels) > 0.95
    assert model.decision_function(X).shape == (150,)
    np.testing.assert_array_equal(
        model.decision_function(X) > 0, model.predict(X) == model.classes_[1]
    )


def test_probabilities_and_scores_agree_with_the_prediction(iris):
    X, y, _ = iris
    model = AFTClassifier(beta=0, max_epochs=5, random_state=0).fit(X, y)
    probabilities = model.predict_proba(X)
    assert probabilities.shape == model.decision_function(X).shape == (150, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), model.predict(X))
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), probabilities)
    far = 1e6 * X  # probabilities of 0
    assert model.predict_proba(far).min() == 0
    assert np.isfinite(model.predict_log_proba(far)).all()


def test_beta_zero_is_standard_training_bit_for_bit(iris):
    X, y, features = iris
    settings = {"max_epochs": 4, "random_state": 3, "batch_size": 32, "module__dropout": 0.2}
    plain = AFTClassifier(transfer=None, **settings).fit(X, y)
    zero = AFTClassifier(beta=0, **settings).fit(X, y, features=features)
    with pytest.warns(UserWarning, match="standard training"):
        automatic = AFTClassifier(**settings).fit(X, y)
    some = AFTClassifier(beta=1, **settings).fit(X, y, features=features)
    assert_same_weights(plain, zero)
    assert_same_weights(plain, automatic)
    assert not torch.equal(some.module_.head.weight, plain.module_.head.weight)


def test_beta_zero_equals_a_hand_written_loop(iris):
    X, y, features = iris
    X = X.astype(np.float32)
    start = TwoHeads()
    model = AFTClassifier(
        start, beta=0, preprocessor=None, max_epochs=3, batch_size=150, lr_schedule="constant"
    ).fit(X, y, features=features)
    by_hand = copy.deepcopy(start)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(by_hand(torch.from_numpy(X))[0], torch.from_numpy(y)).backward()
        optimizer.step()
    for ours, theirs in zip(model.module_.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_auto_without_features_warns_exactly_once(iris):
    X, y, _ = iris
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        AFTClassifier(max_epochs=2).fit(X, y)
    messages = [str(w.message) for w in caught if w.category is UserWarning]
    assert len(messages) == 1
    assert "standard training" in messages[0]


def test_auto_teaches_by_a_pool_with_the_strength_of_the_method(iris):
    X, y, features = iris
    model = AFTClassifier(max_epochs=1).fit(X, y, features=features)
    assert (model.transfer_method_, model.beta_) == ("pooled-kd", 1)
    assert isinstance(model.transfer_, PooledDistillation)
    model = AFTClassifier(transfer="aft", max_epochs=1).fit(X, y, features=features)
    assert (model.transfer_method_, model.beta_) == ("aft", KernelAlignment.default_beta)
    assert model.beta_ == 10
    assert model.feature_weights_.shape == (2,)
    assert model.transfer_.projection is None  # as published


def test_auto_aligns_kernels_where_no_probe_can_be_fitted(iris):
    X, y, features = iris
    pieces = AFTClassifier().partial_fit(X, y, [0, 1, 2], features=features)
    assert (pieces.transfer_method_, pieces.beta_) == ("aft", 10)
    constant = AFTRegressor(max_epochs=1).fit(X, np.ones(len(X)), features=features)
    assert constant.transfer_method_ == "aft"


def test_where_nothing_was_transferred_the_attributes_say_so(iris):
    X, y, features = iris
    for student in (AFTClassifier(beta=0), AFTClassifier(transfer=None)):
        student.set_params(max_epochs=1).fit(X, y, features=features)
        assert (student.transfer_method_, student.beta_) == (None, 0)
        assert not hasattr(student, "transfer_")
    both = AFTClassifier(transfer=[("aft", 10), ("probe-kd", 1)], max_epochs=1)
    assert both.fit(X, y, features=features).transfer_method_ == [("aft", 10), ("probe-kd", 1)]


def test_a_projection_is_an_option(iris):
    X, y, features = iris
    student = AFTClassifier(transfer="aft", transfer__projection=128, max_epochs=1)
    assert student.fit(X, y, features=features).transfer_.map.weight.shape == (128, 128)


def test_feature_weights_exist_only_with_transfer(iris):
    X, y, features = iris
    model = AFTClassifier(max_epochs=1, beta=0).fit(X, y, features=features)
    assert not hasattr(model, "feature_weights_")


def test_a_useless_feature_loses_weight():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    features = np.c_[X, rng.normal(size=(400, 1)) * 2]
    model = AFTClassifier(transfer="aft", lr=0.01, random_state=0)
    model.fit(X, X[:, 0] > 0, features=features)
    assert model.feature_weights_[2] < model.feature_weights_[:2].min() - 0.1


@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize("build", [TwoHeads, only_logits])
def test_own_networks(iris, build, is_built):
    X, y, features = iris
    torch.manual_seed(0)
    module = build() if is_built else build
    model = AFTClassifier(module, beta=1, lr=0.02, random_state=0).fit(X, y, features=features)
    assert model.score(X, y) > 0.9
    assert model.history_[-1]["train_transfer_loss"] < model.history_[0]["train_transfer_loss"]


def test_features_taken_from_the_last_linear_are_those_that_would_be_returned(iris):
    X, y, features = iris

    class LogitsOnly(TwoHeads):
        def forward(self, inputs):
            return super().forward(inputs)[0]

    settings = {"beta": 5, "max_epochs": 3, "random_state": 0}
    returned = AFTClassifier(TwoHeads, **settings).fit(X, y, features=features)
    taken = AFTClassifier(LogitsOnly, **settings).fit(X, y, features=features)
    assert_same_weights(returned, taken)
    assert not any(layer._forward_pre_hooks for layer in taken.module_.modules())


def test_an_instance_is_copied_and_its_weights_are_the_start(iris):
    X, y, _ = iris
    module = TwoHeads()
    before = copy.deepcopy(module.state_dict())
    model = AFTClassifier(module, beta=0, max_epochs=1, lr=1e-9).fit(X, y)
    assert model.module_ is not module
    for name, value in model.module_.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=1e-5, rtol=0)
        assert torch.equal(module.state_dict()[name], before[name])


def test_a_class_gets_the_sizes_it_asks_for_and_its_own_parameters(iris):
    X, y, _ = iris
    model = AFTClassifier(MLP, beta=0, max_epochs=1, module__hidden_sizes=(7,)).fit(X, y)
    assert model.module_.head.in_features == 7
    assert model.module_.head.out_features == 3


def test_a_network_with_the_wrong_number_of_outputs_is_explained(iris):
    X, y, _ = iris
    with pytest.raises(ValueError, match=r"shape \(128, 5\), expected \(n_rows, 3\)"):
        AFTClassifier(TwoHeads(n_outputs=5), beta=0).fit(X, y)


def test_a_network_without_linear_layer_is_explained(iris):
    X, y, features = iris

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))

        def forward(self, inputs):
            return inputs[:, :3] * self.factor

    AFTClassifier(Scale, beta=0, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="return \\(logits, features\\)"):
        AFTClassifier(Scale, beta=1).fit(X, y, features=features)


def test_an_own_transfer_objective(iris):
    X, y, features = iris

    class MeanDistance(nn.Module):
        def forward(self, student, foundation):
            return (student.mean() - foundation.mean()).square()

    model = AFTClassifier(transfer=MeanDistance(), beta=2, max_epochs=2)
    model.fit(X, y, features=features)
    assert model.beta_ == 2
    assert "train_transfer_loss" in model.history_[-1]


def test_same_seed_same_weights_and_the_global_state_is_left_alone(iris):
    X, y, features = iris
    settings = {"beta": 3, "max_epochs": 3, "module__dropout": 0.1}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    one = AFTClassifier(random_state=7, **settings).fit(X, y, features=features)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state[1], np.random.get_state()[1])  # noqa: NPY002
    torch.rand(5)
    other = AFTClassifier(random_state=7, **settings).fit(X, y, features=features)
    third = AFTClassifier(random_state=8, **settings).fit(X, y, features=features)
    assert_same_weights(one, other)
    assert not torch.equal(one.module_.head.weight, third.module_.head.weight)


def test_fitting_again_starts_again(iris):
    X, y, features = iris
    model = AFTClassifier(beta=1, max_epochs=2, random_state=0).fit(X, y, features=features)
    first = weights_of(model)
    model.set_params(beta=0).fit(X[:, :2], y)
    assert model.n_features_in_ == 2
    assert not hasattr(model, "transfer_")
    model.set_params(beta=1).fit(X, y, features=features)
    assert all(torch.equal(first[name], value) for name, value in weights_of(model).items())
    assert len(model.history_) == 2


def test_weights_of_one_change_nothing_and_zero_removes_from_the_task(iris):
    X, y, _ = iris
    settings = {"beta": 0, "random_state": 0, "max_epochs": 60, "lr": 0.01}
    plain = AFTClassifier(**settings).fit(X, y)
    ones = AFTClassifier(**settings).fit(X, y, sample_weight=np.ones(150))
    np.testing.assert_allclose(plain.predict_proba(X), ones.predict_proba(X), atol=1e-5)
    no_third = AFTClassifier(**settings).fit(X, y, sample_weight=(y != 2).astype(float))
    assert 2 not in no_third.predict(X)


def test_class_weight_favours_a_class():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    y = (X[:, 0] + rng.normal(size=400) > 1.5).astype(int)
    settings = {"beta": 0, "random_state": 0}
    plain = AFTClassifier(**settings).fit(X, y).predict(X).mean()
    balanced = AFTClassifier(class_weight="balanced", **settings).fit(X, y).predict(X).mean()
    heavy = AFTClassifier(class_weight={0: 1, 1: 50}, **settings).fit(X, y).predict(X).mean()
    assert plain < balanced < heavy


def test_early_stopping_stops_and_restores_the_best(iris):
    X, y, features = iris
    model = AFTClassifier(
        beta=1, early_stopping=True, n_iter_no_change=3, max_epochs=200, lr=0.05, random_state=0
    ).fit(X, y, features=features)
    assert model.n_iter_ < 200
    scores = model.history_[:, "valid_score"]
    assert max(scores) > 0.8
    assert scores.index(max(scores)) == len(scores) - 4  # three epochs without a better one
    assert model.score(X, y) > 0.9


def test_no_validation_split_unless_asked_for(iris):
    X, y, _ = iris
    model = AFTClassifier(beta=0, max_epochs=1, batch_size=10).fit(X, y)
    assert model.history_[-1]["train_batch_count"] == 15
    assert "valid_loss" not in model.history_[-1]


def test_frames_bring_names(iris):
    X, y, _ = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = AFTClassifier(beta=0, max_epochs=1).fit(frame, y)
    assert list(model.feature_names_in_) == list("abcd")
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="3 features"):
        model.predict(X[:, :3])


def test_own_preprocessor_is_cloned_and_reachable(iris):
    X, y, _ = iris
    scaler = MinMaxScaler()
    model = AFTClassifier(preprocessor=scaler, beta=0, max_epochs=1)
    model.set_params(preprocessor__feature_range=(0, 2)).fit(X, y)
    assert scaler.feature_range == (0, 2)
    assert not hasattr(scaler, "scale_")
    assert model.preprocessor_.transform(X).max() == pytest.approx(2)
    text = AFTClassifier(beta=0, max_epochs=1, preprocessor__vocab_size=300)
    assert text.fit(TEXTS, MOODS).preprocessor_.vocab_size == 300


def test_parameters_survive_clone_and_set_params():
    model = AFTClassifier(
        MLP, beta=3, module__hidden_sizes=(5,), optimizer__weight_decay=0.1, transfer__x=1
    )
    again = clone(model)
    assert again.get_params() == model.get_params()
    again.set_params(module__hidden_sizes=(6,), lr=0.5)
    assert again.get_params()["module__hidden_sizes"] == (6,)
    assert model.get_params()["module__hidden_sizes"] == (5,)


def test_optimizer_parameters_reach_the_optimizer_and_not_the_feature_weights(iris):
    X, y, features = iris
    model = AFTClassifier(
        optimizer=torch.optim.SGD, optimizer__momentum=0.5, optimizer__weight_decay=0.3,
        lr_schedule="constant", transfer="aft", max_epochs=1,
    ).fit(X, y, features=features)  # fmt: skip
    student, transfer = model.optimizer_.param_groups
    assert (student["lr"], student["weight_decay"], student["momentum"]) == (1e-3, 0.3, 0.5)
    assert (transfer["lr"], transfer["weight_decay"]) == (1e-2, 0)


def test_the_learning_rate_falls_to_zero(iris):
    X, y, _ = iris
    model = AFTClassifier(beta=0, max_epochs=3).fit(X, y)
    assert model.optimizer_.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_quiet_by_default_and_a_table_when_asked(iris, capsys):
    X, y, features = iris
    AFTClassifier(beta=1, max_epochs=2, early_stopping=True).fit(X, y, features=features)
    assert capsys.readouterr().out == ""
    AFTClassifier(beta=1, max_epochs=2, verbose=1).fit(X, y, features=features)
    assert "train_transfer_loss" in capsys.readouterr().out


def test_a_callback_may_change_the_strength(iris):
    from skorch.callbacks import Callback

    class Anneal(Callback):
        def on_epoch_begin(self, net, **kwargs):
            net.beta_ = net.beta_ / 2

    X, y, features = iris
    model = AFTClassifier(beta=1, max_epochs=2, callbacks=[Anneal()], random_state=0)
    model.fit(X, y, features=features)
    assert model.beta_ == 0.25
    halved = model.history_[-1]["train_loss"] - model.history_[-1]["train_task_loss"]
    assert halved == pytest.approx(0.25 * model.history_[-1]["train_transfer_loss"], rel=1e-4)


def test_a_subclass_may_take_parameters_as_keywords(iris):
    class Student(AFTClassifier):
        def __init__(self, module="auto", *, alpha=1.0, **parameters):
            super().__init__(module, **parameters)
            self.alpha = alpha

    X, y, features = iris
    assert Student(alpha=3.0, beta=3, max_epochs=1).fit(X, y, features=features).beta_ == 3


def test_interrupting_keeps_what_was_learned(iris):
    from skorch.callbacks import Callback

    class Interrupt(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    X, y, _ = iris
    model = AFTClassifier(beta=0, callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert model.n_iter_ == len(model.loss_curve_) == 2
    assert model.predict(X).shape == (150,)


# ------------------------------------------------------------------ errors come before the work


def test_strength_without_features_says_how_to_give_them(iris):
    X, y, _ = iris
    with pytest.raises(ValueError, match=r"beta=3 needs foundation features.*features=F"):
        AFTClassifier(beta=3).fit(X, y)


def test_features_of_another_length_give_both_lengths(iris):
    X, y, features = iris
    with pytest.raises(ValueError, match="features has 149 rows, but X has 150"):
        AFTClassifier().fit(X, y, features=features[1:])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_name_the_row(iris, bad):
    X, y, features = iris
    features = features.copy()
    features[17, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity in row 17, column 1"):
        AFTClassifier().fit(X, y, features=features)


def test_features_twice_is_ambiguous(iris):
    X, y, features = iris
    rows = FoundationFeatureExtractor(PCA(2).fit(X)).fit_transform(X)
    with pytest.raises(ValueError, match="already holds foundation features"):
        AFTClassifier().fit(rows, y, features=features)


def test_one_class(iris):
    with pytest.raises(ValueError, match="one class only"):
        AFTClassifier(beta=0).fit(iris[0], np.zeros(150))


def test_missing_y(iris):
    with pytest.raises(ValueError, match="requires y to be passed"):
        AFTClassifier(beta=0).fit(iris[0])


def test_y_of_another_length(iris):
    with pytest.raises(ValueError, match="X has 150 rows and y has 149"):
        AFTClassifier(beta=0).fit(iris[0], iris[1][1:])


def test_mixed_types_name_the_row():
    with pytest.raises(ValueError, match="row 0 is text and row 2 is of type int"):
        AFTClassifier(beta=0).fit(["a", "b", 3, "c"], [0, 1, 0, 1])


def test_prediction_needs_a_fit_and_rows_of_the_same_kind(iris):
    X, y, _ = iris
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(AFTClassifier(), method)(X)
    with pytest.raises(ValueError, match="Expected numeric rows, got text rows"):
        AFTClassifier(beta=0, max_epochs=1).fit(X, y).predict(["a text"])


@pytest.mark.parametrize(
    "wrong", [{"beta": -1}, {"beta": "much"}, {"lr": 0}, {"max_epochs": 0}, {"module": 3}]
)
def test_parameters_are_checked(iris, wrong):
    with pytest.raises(ValueError, match=f"The '{next(iter(wrong))}' parameter"):
        AFTClassifier(**wrong).fit(iris[0], iris[1])


def test_unknown_names_are_rejected(iris):
    with pytest.raises(TypeError, match="unexpected keyword argument 'epochs'"):
        AFTClassifier(epochs=3)
    with pytest.raises(ValueError, match="Invalid parameter 'epochs'"):
        AFTClassifier().set_params(epochs=3)
    with pytest.raises(ValueError, match="Unknown transfer method 'magic'"):
        AFTClassifier(transfer="magic").fit(iris[0], iris[1], features=iris[2])


# ---------------------------------------------------------------- skorch's callbacks


def test_callbacks_of_skorch_work(digits, tmp_path, capsys):
    from skorch.callbacks import Checkpoint, EpochScoring, ProgressBar

    X, y = digits
    callbacks = [
        ("bar", ProgressBar(detect_notebook=False)),
        ("on_train", EpochScoring("accuracy", on_train=True, name="train_acc")),
        ("on_valid", EpochScoring("accuracy", name="valid_acc", lower_is_better=False)),
        ("best", Checkpoint(monitor="valid_acc_best", dirname=str(tmp_path))),
    ]
    student = AFTClassifier(
        beta=0, max_epochs=3, early_stopping=True, callbacks=callbacks, random_state=0
    ).fit(X, y)
    assert (tmp_path / "params.pt").exists()
    np.testing.assert_allclose(
        student.history[:, "valid_acc"], student.history[:, "valid_score"], rtol=1e-6
    )
    assert student.history[-1, "train_acc"] > student.history[0, "train_acc"]
    assert "it/s" in capsys.readouterr().err


# ---------------------------------------------------------------- preprocessors and networks


def test_an_own_preprocessor_gets_the_frame_and_may_fill_what_is_missing(digits):
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer

    X, y = digits
    frame = pd.DataFrame(X.astype(float), columns=[f"pixel {i}" for i in range(X.shape[1])])
    frame.iloc[3, 30] = np.nan
    chosen = [f"pixel {i}" for i in range(20, 50)]
    preprocessor = ColumnTransformer([("filled", SimpleImputer(), chosen)])
    student = AFTClassifier(beta=0, preprocessor=preprocessor, max_epochs=2).fit(frame, y)
    assert next(student.module_.parameters()).shape[1] == 30
    assert len(student.predict(frame)) == len(y)
    with pytest.raises(ValueError, match="NaN"):
        AFTClassifier(beta=0, max_epochs=1).fit(frame, y)


def test_the_network_fits_what_the_preprocessor_returns():
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    from sk_aft.modules import MLP, SparseBag

    texts = ["one fish", "two fish", "red dog", "blue dog"] * 3
    dense = make_pipeline(TfidfVectorizer(), TruncatedSVD(2, random_state=0))
    for preprocessor, network in ((dense, MLP), (TfidfVectorizer(), SparseBag)):
        student = AFTClassifier(beta=0, preprocessor=preprocessor, max_epochs=1)
        student.fit(texts, [0, 0, 1, 1] * 3)
        assert isinstance(student.module_, network)


def test_whole_numbers_are_numbers_like_any_other(digits):
    X, y = digits
    student = AFTClassifier(beta=0, preprocessor=None, max_epochs=1, random_state=0)
    proba = student.fit(X.astype(np.int64), y).predict_proba(X.astype(np.int32))
    np.testing.assert_array_equal(proba, student.predict_proba(X.astype(np.float64)))
    np.testing.assert_array_equal(
        proba, clone(student).fit(X.astype(float), y).predict_proba(X.astype(np.uint8))
    )


def test_a_network_that_is_built_takes_no_parameters(digits):
    X, y = digits
    network = nn.Sequential(nn.Linear(X.shape[1], 10))
    with pytest.raises(ValueError, match=r"is an instance of .*, so \['dropout'\]"):
        AFTClassifier(network, beta=0, module__dropout=0.1).fit(X, y)


def test_parameters_whose_name_ends_in_an_underscore_survive_fit(digits):
    class Net(nn.Module):
        def __init__(self, n_inputs, n_outputs, lambda_=0.0):
            super().__init__()
            self.lambda_ = lambda_
            self.head = nn.Linear(n_inputs, n_outputs)

        def forward(self, inputs):
            return self.head(inputs)

    X, y = digits
    student = AFTClassifier(Net, beta=0, module__lambda_=0.5, max_epochs=1).fit(X, y)
    assert student.module_.lambda_ == 0.5
    assert student.get_params()["module__lambda_"] == 0.5


def test_a_set_parameter_of_the_preprocessor_overrules_the_constructors(digits):
    from sklearn.preprocessing import StandardScaler

    student = AFTClassifier(preprocessor=StandardScaler(), preprocessor__with_mean=False)
    student.set_params(preprocessor__with_mean=True)
    assert student.get_params()["preprocessor__with_mean"] is True
    assert student.set_params(beta=0, max_epochs=1).fit(*digits).preprocessor_.with_mean


def test_a_first_fit_that_fails_leaves_nothing_to_predict_with(digits):
    X, y = digits
    student = AFTClassifier(beta=0, max_epochs=1, criterion__reduction="mean")
    with pytest.raises(ValueError, match="cannot be weighted"):
        student.fit(X, y, sample_weight=np.ones(len(y)))
    with pytest.raises(NotFittedError):
        student.predict(X)


def test_a_weight_counts_alike_whatever_rows_share_its_batch():
    """The gradient of an epoch's mean loss is that of the weighted mean over all rows."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(64, 3)), np.arange(64) % 2
    weights = np.where(np.arange(64) == 5, 100.0, 1.0)
    student = AFTClassifier(
        nn.Linear(3, 2),
        beta=0,
        preprocessor=None,
        optimizer=torch.optim.SGD,
        lr=1e-9,
        max_epochs=1,
        batch_size=16,
        random_state=0,
    ).fit(X, y, sample_weight=weights)
    proba = student.predict_proba(X)[np.arange(64), y]
    expected = np.average(-np.log(proba), weights=weights)
    assert student.history[-1, "train_task_loss"] == pytest.approx(expected, rel=1e-4)


def test_one_row_a_batch_cannot_transfer(digits):
    X, y = digits
    with pytest.raises(ValueError, match="needs more than batch_size=1"):
        AFTClassifier(batch_size=1, beta=1).fit(X, y, features=X)


def test_rows_held_out_need_a_weight(digits):
    X, y = digits
    weights = np.zeros(len(y))
    weights[0] = 1
    with pytest.raises(ValueError, match="held out for early stopping have sample_weight 0"):
        AFTClassifier(beta=0, early_stopping=True, random_state=1).fit(X, y, sample_weight=weights)
