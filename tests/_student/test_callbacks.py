"""skorch's callbacks see rows, labels and numbers as the user passed them."""

import re
import signal
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_validate
from skorch.callbacks import (
    BatchScoring,
    Callback,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
    ProgressBar,
)
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.modules import ResNet

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
LABELS = {"numbers from 1": Y + 1, "strings": NAMES[Y], "objects": NAMES[Y].astype(object)}


def student(callbacks, **parameters):
    parameters = {"lr": 0.01, "max_epochs": 15, "beta": 0, "random_state": 0, **parameters}
    return AFTClassifier(callbacks=callbacks, **parameters)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("use_caching", [True, False])
@pytest.mark.parametrize("on_train", [True, False])
def test_scores_of_any_labels(labels, use_caching, on_train):
    y = LABELS[labels]
    scoring = EpochScoring("accuracy", on_train=on_train, use_caching=use_caching)
    model = student([scoring], early_stopping=not on_train, validation_fraction=0.3).fit(X, y)
    assert model.history_[-1]["accuracy"] > 0.85
    if on_train and not use_caching:
        assert model.history_[-1]["accuracy"] == pytest.approx(model.score(X, y), abs=0.03)


@pytest.mark.parametrize(
    "scoring",
    ["neg_log_loss", "roc_auc_ovr", "f1_macro", make_scorer(accuracy_score), accuracy_score, None],
)
def test_other_scorers(scoring):
    name = "found"
    model = student([EpochScoring(scoring, on_train=True, name=name)]).fit(X, NAMES[Y])
    values = [epoch[name] for epoch in model.history_]
    assert values[-1] > values[0]
    assert values[-1] > -0.6


@pytest.mark.parametrize("on_train", [True, False])
@pytest.mark.parametrize("use_caching", [True, False])
def test_scores_of_numbers_are_in_their_unit(on_train, use_caching):
    y = 1000 + 500 * X[:, 0]
    callbacks = [
        EpochScoring("r2", on_train=on_train, use_caching=use_caching),
        EpochScoring("neg_mean_absolute_error", on_train=on_train, use_caching=use_caching),
    ]
    model = AFTRegressor(
        callbacks=callbacks, lr=0.01, max_epochs=30, early_stopping=not on_train,
        validation_fraction=0.3, beta=0, random_state=0,
    ).fit(X, y)  # fmt: skip
    assert model.history_[-1]["r2"] > 0.9
    assert -200 < model.history_[-1]["neg_mean_absolute_error"] < -5


def test_scores_of_batches_and_of_several_targets():
    callbacks = [BatchScoring("accuracy", on_train=True, name="by_batch")]
    assert student(callbacks, batch_size=20).fit(X, NAMES[Y]).history_[-1]["by_batch"] > 0.9
    model = AFTRegressor(
        callbacks=[EpochScoring("r2", on_train=True)], lr=0.01, max_epochs=30, beta=0
    ).fit(X, X[:, :2] * 100)
    assert model.history_[-1]["r2"] > 0.7


def test_rows_without_labels_are_not_scored():
    y = np.where(np.arange(150) % 3 == 0, Y + 1, -1)
    for use_caching in (True, False):
        scoring = EpochScoring("accuracy", on_train=True, use_caching=use_caching)
        model = student([scoring], beta="auto", missing_label=-1).fit(X, y, features=X)
        assert model.history_[-1]["accuracy"] > 0.9


class Seen(Callback):
    def on_train_begin(self, net, X, y, **kwargs):
        self.given = (X, y)

    def on_batch_end(self, net, batch, training, **kwargs):
        inputs, labels = batch
        self.batch = (inputs, labels)

    def on_epoch_end(self, net, dataset_train, dataset_valid, **kwargs):
        self.datasets = (dataset_train, dataset_valid)


def test_what_callbacks_are_told_of():
    frame = pd.DataFrame(X, columns=list("abcd"))
    seen = Seen()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = student([seen], early_stopping=True).fit(frame, NAMES[Y])
        train, valid = seen.datasets
        assert (len(train), len(valid)) == (135, 15)
        assert set(train.y) == set(NAMES)
        assert model.score(valid.X, valid.y) > 0.8
    assert seen.given[0] is frame
    assert isinstance(seen.batch[0], torch.Tensor)
    assert set(seen.batch[1]) <= set(NAMES)
    row, label = train[0]
    assert len(row) == 4
    assert label == train.y[0]


def test_progress_and_stopping_work_as_ever():
    stopping = EarlyStopping(monitor="train_loss", patience=1, threshold=1e6)
    model = student([ProgressBar(), stopping]).fit(X, Y)
    assert model.n_iter_ < 15


def test_what_is_no_callback_is_refused():
    for given in (3, "accuracy", ("name", 3), nn.Linear):
        with pytest.raises(TypeError, match=r"callbacks holds .* expected callbacks of skorch"):
            student([given]).fit(X, Y)


def test_gradients_of_texts_can_be_clipped():
    texts, labels = ["good film", "bad film"] * 20, [1, 0] * 20
    model = student([GradientNormClipping(0.1)]).fit(texts, labels)
    assert model.score(texts, labels) == 1

    class Sparse(nn.Module):
        def __init__(self, n_tokens, n_outputs):
            super().__init__()
            self.bag = nn.EmbeddingBag(n_tokens, n_outputs, mode="sum", sparse=True)

        def forward(self, tokens, lengths):
            return self.bag(tokens)

    with pytest.raises(ValueError, match="cannot clip the sparse gradients of the layer 'bag'"):
        student([GradientNormClipping(0.1)], module=Sparse).fit(texts, labels)


def test_a_scheduler_of_the_users_own_takes_the_place_of_the_cosine():
    steps = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=100, gamma=0.1)
    for given in (steps, ("mine", steps)):
        model = student([given], max_epochs=3).fit(X, Y)
        assert model.optimizer_.param_groups[0]["lr"] == pytest.approx(0.01)


def test_no_colours_where_there_is_no_terminal(capsys):
    student([], verbose=1, max_epochs=2).fit(X, Y)
    printed = capsys.readouterr().out
    assert re.search(r"epoch +train_loss", printed)
    assert "\x1b" not in printed


def test_images_and_their_labels():
    digits = load_digits()
    images, labels = digits.images[:100], np.array(list("abcdefghij"))[digits.target[:100]]
    scoring = EpochScoring("accuracy", on_train=True, use_caching=False)
    model = student([scoring], module=ResNet, max_epochs=8).fit(images, labels)
    assert model.history_[-1]["accuracy"] > 0.2


class Interrupting(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def _interrupts_are_raised():
    """Python ignores SIGINT if it was started in the background."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("_interrupts_are_raised")
@pytest.mark.parametrize("search", [GridSearchCV, HalvingGridSearchCV])
def test_an_interrupt_reaches_the_search(search):
    searched = search(student([Interrupting()]), {"lr": [0.01, 0.1]}, cv=2, error_score=0)
    with pytest.raises(KeyboardInterrupt):
        searched.fit(X, Y)
    assert not hasattr(searched, "cv_results_")
    with pytest.raises(KeyboardInterrupt):
        cross_validate(student([Interrupting()]), X, Y, cv=2)


@pytest.mark.usefixtures("_interrupts_are_raised")
def test_an_interrupted_fit_keeps_what_whole_epochs_have_taught():
    model = student([Interrupting()])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert model.n_iter_ == 2
    assert model.predict(X[:2]).shape == (2,)


def test_a_score_of_rows_that_are_not_held_out_is_warned_of():
    with pytest.warns(UserWarning, match=r"EpochScoring\('f1_macro'\) scores held-out rows"):
        student([EpochScoring("f1_macro")]).fit(X, Y)


def test_the_last_epoch_of_an_early_stop_is_seen_by_all_callbacks():
    scoring = EpochScoring("accuracy", name="mine")
    model = student([scoring], early_stopping=True, n_iter_no_change=2, max_epochs=100).fit(X, Y)
    assert model.n_iter_ < 100
    assert len(model.history_[:, "mine"]) == model.n_iter_
