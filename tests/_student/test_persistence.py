"""A saved student equals the fitted one, and loads without the foundation model."""

import copy
import io
import pickle
import pickletools
import re
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Checkpoint, LRScheduler

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft._student._persistence import with_tensors, without_tensors
from sk_aft.datasets import load_banking77

DOCUMENT = Path(__file__).parents[2] / "docs" / "guide" / "saving.md"


def through_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


ROUND_TRIPS = [
    copy.deepcopy,
    lambda model: pickle.loads(pickle.dumps(model)),
    through_joblib,
    lambda model: pickle.loads(cloudpickle.dumps(model)),
]
NAMES = ["deepcopy", "pickle", "joblib", "cloudpickle"]


def table():
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int), np.tanh(X)


def images():
    X = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    X[::2] //= 4
    return X, np.arange(40) % 2, X.reshape(40, -1)[:, :20] / 255


def texts():
    X, y = load_banking77(labels_per_class=1, return_X_y=True)
    return X[:60], y[:60], np.random.default_rng(0).normal(size=(60, 5))


def frame():
    X, y, features = texts()
    return pd.DataFrame({"text": X, "length": [len(text) for text in X]}), y, features


@pytest.mark.parametrize("round_trip", ROUND_TRIPS, ids=NAMES)
@pytest.mark.parametrize("rows", [table, images, texts, frame])
def test_a_fitted_student_survives(rows, round_trip):
    X, y, features = rows()
    model = AFTClassifier(transfer="aft", max_epochs=2, random_state=0)
    before = model.fit(X, y, features=features).predict_proba(X)
    again = round_trip(model)
    np.testing.assert_array_equal(again.predict_proba(X), before)
    np.testing.assert_array_equal(again.feature_weights_, model.feature_weights_)
    np.testing.assert_array_equal(model.predict_proba(X), before)  # left as it was
    assert again.loss_curve_ == model.loss_curve_
    assert again.get_params() == model.get_params()
    assert clone(again).fit(X, y, features=features).n_iter_ == 2


@pytest.mark.parametrize("round_trip", ROUND_TRIPS, ids=NAMES)
@pytest.mark.parametrize("fitted", [False, True])
def test_a_pipeline_survives(round_trip, fitted):
    X, y, _ = table()
    pipe = make_pipeline(
        FoundationFeatureExtractor(PCA(2).fit(X)), AFTRegressor(max_epochs=2, random_state=0)
    )
    if fitted:
        pipe.fit(X, y)
    again = round_trip(pipe)
    if not fitted:
        with pytest.raises(NotFittedError):
            again[-1].predict(X)
        pipe.fit(X, y)
        again.fit(X, y)
    np.testing.assert_array_equal(again.predict(X), pipe.predict(X))
    np.testing.assert_array_equal(again[0].transform(X), pipe[0].transform(X))


def trusted_types():
    (block,) = re.findall(r"trusted = \[(.*?)\]", DOCUMENT.read_text(), re.DOTALL)
    return re.findall(r'"(.+?)"', block)


@pytest.mark.parametrize("estimator", [AFTClassifier, AFTRegressor])
@pytest.mark.parametrize("rows", [table, images, texts, frame])
def test_skops_reads_a_student_with_the_documented_types(rows, estimator):
    X, y, features = rows()
    if estimator is AFTRegressor:
        y = np.arange(len(y), dtype=float)
    model = estimator(beta=1, max_epochs=2, early_stopping=True, random_state=0)
    model.fit(X, y, features=features)
    written = skops.io.dumps(model)
    assert set(skops.io.get_untrusted_types(data=written)) <= set(trusted_types())
    again = skops.io.loads(written, trusted=trusted_types())
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    again.set_params(warm_start=True, early_stopping=False).fit(X, y, features=features)
    assert again.n_iter_ == model.n_iter_ + 2


def test_a_pickle_holds_no_tensors():
    """So a device that is not there when it is read does not matter."""
    X, y, features = table()
    model = AFTClassifier(beta=1, max_epochs=1, optimizer=torch.optim.Adam, random_state=0)
    written = pickle.dumps(model.fit(X, y, features=features))
    strings = {argument for _, argument, _ in pickletools.genops(written) if argument is not None}
    assert "torch.nn.modules.linear" in strings
    assert not [text for text in strings if "_rebuild" in str(text) or "storage" in str(text)]


def test_a_student_that_asks_for_a_device_that_is_not_there_predicts_on_the_cpu():
    X, y, features = table()
    model = AFTClassifier(beta=1, max_epochs=1, random_state=0).fit(X, y, features=features)
    model.device = "cuda:7"  # as if it came from elsewhere
    again = pickle.loads(pickle.dumps(model))
    assert again.device_.type == "cpu"
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.second = torch.nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.norm = torch.nn.BatchNorm1d(4)
        self.small = torch.nn.Parameter(torch.randn(3).to(torch.bfloat16), requires_grad=False)
        self.also = [self.first.bias]

    def forward(self, inputs):
        return self.norm(self.second(self.first(inputs)))


def test_tensors_come_back_as_they_were():
    network = Tied()
    network(torch.randn(8, 4))
    again = with_tensors(pickle.loads(pickle.dumps(without_tensors(network))))
    assert again.second.weight is again.first.weight
    assert again.also[0] is again.first.bias
    assert not again.small.requires_grad
    for name, value in network.state_dict().items():
        assert again.state_dict()[name].dtype == value.dtype
        assert torch.equal(again.state_dict()[name], value)
    again(torch.randn(8, 4)).sum().backward()
    assert again.first.weight.grad is not None
    assert network.first.weight.grad is None


class Normed(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(4, 8), torch.nn.utils.spectral_norm(torch.nn.Linear(8, 2)))


class Remembers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, inputs):
        self.last = self.linear(inputs)  # no leaf of the graph
        return self.last


@pytest.mark.parametrize("network", [Normed, Remembers])
@pytest.mark.parametrize("round_trip", ROUND_TRIPS, ids=NAMES)
def test_networks_that_keep_what_they_computed(network, round_trip):
    X, y, features = table()
    model = AFTClassifier(network, beta=1, max_epochs=1).fit(X, y, features=features)
    again = round_trip(model)
    np.testing.assert_allclose(again.predict_proba(X), model.predict_proba(X), rtol=1e-6)


def test_networks_whose_sizes_are_found_later():
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    model = pickle.loads(pickle.dumps(AFTClassifier(lazy, beta=0, max_epochs=1)))
    assert repr(model.module[0]).startswith("LazyLinear")


def test_a_checkpoint_of_the_whole_student(tmp_path):
    X, y, features = table()
    checkpoint = Checkpoint(dirname=tmp_path, f_pickle="model.pkl", monitor=None)
    model = AFTClassifier(beta=1, max_epochs=2, callbacks=[checkpoint], random_state=0)
    model.fit(X, y, features=features)
    saved = pickle.loads((tmp_path / "model.pkl").read_bytes())
    np.testing.assert_allclose(saved.predict_proba(X), model.predict_proba(X), rtol=1e-6)


def test_schedulers_are_saved_without_their_optimizer():
    X, y, features = table()
    model = AFTClassifier(beta=1, callbacks=[LRScheduler("StepLR", step_size=1)], max_epochs=1)
    model.fit(X, y, features=features)
    strings = [str(argument) for _, argument, _ in pickletools.genops(pickle.dumps(model))]
    assert not [text for text in strings if "_rebuild" in text]
