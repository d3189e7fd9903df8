"""Outputs of frozen layers are computed once, and training is the same."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.modules import EfficientNetLite

RNG = np.random.RandomState(0)
N = 40
Y = np.arange(N) % 2
X = RNG.randint(0, 120, (N, 16, 16)).astype(np.uint8)
X[Y == 1, 3:11, 3:11] += 120  # a bright square
FEATURES = RNG.normal(size=(N, 5)) + Y[:, None]


class Counting(EfficientNetLite):
    """Counts the images that its first layer sees in training."""

    n_seen = 0

    def __init__(self, n_outputs, **parameters):
        super().__init__(n_outputs, **parameters)
        self.body[0].register_forward_hook(count)


def count(layer, inputs, outputs):
    Counting.n_seen += len(outputs) if layer.training else 0


class Recomputing(Counting):
    """Runs its frozen layers in every step."""

    @property
    def frozen_outputs(self):
        raise AttributeError

    def forward(self, images):
        return super().forward(frozen_outputs=EfficientNetLite.frozen_outputs(self, images))


class TooLarge(Counting):
    """Its outputs would need petabytes."""

    def frozen_outputs(self, images):
        return super().frozen_outputs(images).expand(-1, 1 << 30, -1, -1, -1)


def student(module=Counting, kind=AFTClassifier, **parameters):
    Counting.n_seen = 0
    defaults = {
        "module__n_blocks": 2,
        "module__n_frozen_layers": 2,
        "module__image_size": 16,
        "module__min_crop": 1,
        "beta": 0,
        "lr": 0.01,
        "max_epochs": 5,
        "batch_size": 20,
        "random_state": 0,
    }
    return kind(module, **{**defaults, **parameters})


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"early_stopping": True, "validation_fraction": 0.25},
        {"precision": "bf16-mixed"},
        {"module__n_frozen_layers": 4},
    ],
    ids=str,
)
def test_training_is_the_same(parameters):
    kept = student(**parameters).fit(X, Y)
    recomputed = student(Recomputing, **parameters).fit(X, Y)
    tolerance = 0.05 if "precision" in parameters else 0.01
    np.testing.assert_allclose(kept.loss_curve_, recomputed.loss_curve_, rtol=tolerance, atol=1e-3)
    np.testing.assert_allclose(kept.predict_proba(X), recomputed.predict_proba(X), atol=tolerance)
    assert kept.loss_curve_[-1] < 0.9 * kept.loss_curve_[0]


def test_transfer_from_unlabelled_rows_is_the_same():
    y = np.where(np.arange(N) % 4 < 2, Y, -1)
    weights = np.linspace(0.5, 2, N)
    fitted = []
    for module in (Counting, Recomputing):
        model = student(module, beta=1, transfer="probe-kd", missing_label=-1)
        fitted.append(model.fit(X, y, features=FEATURES, sample_weight=weights))
    kept, recomputed = fitted
    np.testing.assert_allclose(kept.loss_curve_, recomputed.loss_curve_, rtol=0.01)
    np.testing.assert_allclose(kept.predict_proba(X), recomputed.predict_proba(X), atol=0.03)


@pytest.mark.parametrize(("flip", "n_views"), [(False, 1), (True, 2)])
def test_frozen_layers_see_every_row_once(flip, n_views):
    student(module__flip=flip).fit(X, Y)
    assert Counting.n_seen == n_views * N
    student(Recomputing).fit(X, Y)
    assert Counting.n_seen == 5 * N


def test_layers_that_are_not_frozen_see_every_batch():
    student(module__n_frozen_layers=0).fit(X, Y)
    assert Counting.n_seen == 5 * N


def test_a_single_epoch_keeps_nothing():
    student(max_epochs=1).fit(X, Y)
    assert Counting.n_seen == N
    student().partial_fit(X, Y, classes=[0, 1])
    assert Counting.n_seen == N


def test_without_room_the_layers_run_in_every_step():
    crowded = student(TooLarge).fit(X, Y)
    assert Counting.n_seen == 20 + 5 * N  # the first batch tells how much room is needed
    recomputed = student(Recomputing).fit(X, Y)
    np.testing.assert_allclose(crowded.loss_curve_, recomputed.loss_curve_, rtol=1e-3)


class OfImagesOnly(EfficientNetLite):
    def forward(self, images):
        return super().forward(images * 1.0)


def test_a_forward_of_the_users_own_gets_the_images():
    model = student(OfImagesOnly).fit(X, Y)
    assert model.loss_curve_ == student(Recomputing).fit(X, Y).loss_curve_


def test_frozen_weights_and_statistics_stay_and_others_are_trained():
    model = student().fit(X, Y)
    start = EfficientNetLite(2, n_blocks=2).state_dict()
    for name, value in model.module_.state_dict().items():
        is_frozen = name.startswith(("body.0", "body.1"))
        if name.startswith("body") and "num_batches" not in name:
            assert torch.equal(value, start[name]) == is_frozen, name


def test_warm_start_and_partial_fit():
    model = student(EfficientNetLite, warm_start=True).fit(X, Y)
    first = model.loss_curve_[-1]
    model.fit(X, Y)
    assert model.n_iter_ == 10
    assert model.loss_curve_[-1] < first
    again = student(EfficientNetLite)
    for _ in range(5):
        again.partial_fit(X, Y, classes=[0, 1])
    assert again.loss_curve_[-1] < 0.9 * again.loss_curve_[0]
    pickle.loads(pickle.dumps(again)).partial_fit(X, Y)


def test_a_regressor_learns():
    targets = Y * 3.0 + 1
    model = student(EfficientNetLite, AFTRegressor, max_epochs=20).fit(X, targets)
    assert model.score(X, targets) > 0.7


@pytest.mark.parametrize(
    ("name", "values"),
    [("n_frozen_layers", [0, 3]), ("n_blocks", [1, 2]), ("image_size", [8, 16])],
)
def test_a_search(name, values):
    search = GridSearchCV(
        student("effnet-lite0", module__n_frozen_layers=None, max_epochs=3),
        {f"module__{name}": np.array(values)},
        cv=2,
        error_score="raise",
    )
    search.fit(X, Y)
    best = search.best_params_[f"module__{name}"]
    module = search.best_estimator_.module_
    found = {
        "n_frozen_layers": module.n_frozen_layers,
        "n_blocks": len(module.layers) - 2,
        "image_size": module.prepare(torch.zeros(1, 1, 16, 16)).shape[-1],
    }
    assert found[name] == best
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(search)).predict_proba(X), search.predict_proba(X)
    )
