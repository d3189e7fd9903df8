"""Mixup: mixtures of two rows, of their targets and of their soft targets."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn
from torch.nn import functional as F

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft._data._batches import Batch
from sk_aft._student._mixup import mix
from sk_aft.modules import EfficientNetLite

N = 8
# Row i is one in column i, so mixtures show which rows they are made of.
ROWS = np.eye(N, dtype=np.float32)
RNG = np.random.RandomState(0)


def taken_apart(mixed):
    """Return the share of each row itself, and the number of its partner."""
    mixed = np.asarray(mixed)
    own = mixed.diagonal().copy()
    others = mixed - np.diag(own)
    partners = np.where(others.max(axis=1) > 0, others.argmax(axis=1), np.arange(len(mixed)))
    return own, partners


@pytest.mark.parametrize("n_labeled", [N, 5, 1])
def test_everything_of_a_row_is_mixed_with_the_same_partner(n_labeled):
    inputs = torch.from_numpy(ROWS)
    features = torch.randn(N, 3)
    targets, weights = torch.arange(n_labeled), torch.rand(n_labeled)
    for seed in range(10):
        torch.manual_seed(seed)
        batch, partners, share = mix(Batch(inputs, targets, features, weights), alpha=1.0)
        assert 0 <= share <= 1
        rows = batch.inputs
        own, other = taken_apart(rows)
        np.testing.assert_allclose(own[other != np.arange(N)], share, rtol=1e-5)
        np.testing.assert_allclose(rows.sum(dim=1), 1, rtol=1e-5)
        expected = [share * features[i] + (1 - share) * features[j] for i, j in enumerate(other)]
        torch.testing.assert_close(batch.features, torch.stack(expected))
        assert torch.equal(batch.targets, targets)
        assert partners.targets.tolist() == other[:n_labeled].tolist()
        torch.testing.assert_close(partners.weights, weights[other[:n_labeled]])
        assert (other[:n_labeled] < n_labeled).all()
        assert (other[n_labeled:] >= n_labeled).all()


class Recording(nn.Module):
    """A linear model that remembers its first batch and its weights at that time."""

    first = None

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.linear = nn.Linear(n_inputs, n_outputs)

    def forward(self, inputs):
        if Recording.first is None:
            Recording.first = inputs.clone(), self.linear(inputs).detach()
        return self.linear(inputs)


def fitted(kind, y, **parameters):
    Recording.first = None
    settings = {"beta": 0, "preprocessor": None, "mixup": 1.0, "max_epochs": 1, "batch_size": N}
    model = kind(Recording, **settings, random_state=0).set_params(**parameters)
    model.fit(ROWS, y)
    inputs, outputs = Recording.first
    # Rows are shuffled: put them into the order of their largest share, then look at the others.
    return model.history_[0]["train_loss"], inputs.numpy(), outputs.numpy()


def naive_pairs(inputs):
    """Return (row, share) of the two rows that a mixture is made of."""
    for mixed in inputs:
        rows = np.flatnonzero(mixed)
        assert len(rows) in (1, 2)
        np.testing.assert_allclose(mixed.sum(), 1, rtol=1e-5)
        yield [(row, mixed[row]) for row in rows]


def test_the_loss_of_a_classifier():
    y = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    loss, inputs, outputs = fitted(AFTClassifier, y)
    log_likelihood = outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True))
    expected = -np.mean(
        [
            sum(share * row_log[y[row]] for row, share in pairs)
            for pairs, row_log in zip(naive_pairs(inputs), log_likelihood, strict=True)
        ]
    )
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_regressor():
    y = RNG.normal(size=N)
    loss, inputs, outputs = fitted(AFTRegressor, y)
    scaled = (y - y.mean()) / y.std()
    expected = np.mean(
        [
            sum(share * (output[0] - scaled[row]) ** 2 for row, share in pairs)
            for pairs, output in zip(naive_pairs(inputs), outputs, strict=True)
        ]
    )
    assert loss == pytest.approx(expected, rel=1e-4)


def test_rows_are_not_mixed_without_it():
    fitted(AFTClassifier, np.arange(N) % 2, mixup=0)
    assert sorted(Recording.first[0].argmax(dim=1).tolist()) == list(range(N))
    assert set(Recording.first[0].flatten().tolist()) == {0.0, 1.0}


def test_held_out_rows_are_not_mixed():
    digits, y = load_digits(n_class=4, return_X_y=True)
    model = AFTClassifier(
        beta=0, mixup=1.0, early_stopping=True, max_epochs=2, random_state=0, lr=1e-9
    ).fit(digits, y)
    # The network does not change, so the loss of all rows is that of the held-out ones, about.
    log_probabilities = np.log(model.predict_proba(digits))
    plain = F.nll_loss(torch.from_numpy(log_probabilities).float(), torch.from_numpy(y))
    assert model.history_[-1]["valid_loss"] == pytest.approx(plain.item(), abs=0.05)
    assert model.history_[-1]["valid_loss"] == pytest.approx(
        model.history_[0]["valid_loss"], rel=1e-4
    )


def test_a_student_learns():
    X, y = load_digits(return_X_y=True)
    model = AFTClassifier(beta=0, mixup=0.4, lr=0.01, max_epochs=15, random_state=0)
    assert model.fit(X[:500], y[:500]).score(X[500:], y[500:]) > 0.88


def test_soft_targets_of_unlabelled_rows_are_mixed():
    X, y = load_digits(n_class=4, return_X_y=True)
    known = np.where(np.arange(len(y)) < 40, y, -1)
    model = AFTClassifier(
        transfer="probe-kd", mixup=0.4, missing_label=-1, lr=0.01, max_epochs=15, random_state=0
    ).fit(X, known, features=X)
    assert model.score(X[40:], y[40:]) > 0.85


class Watched(EfficientNetLite):
    n_kept = 0

    def frozen_outputs(self, images):
        Watched.n_kept += len(images)
        return super().frozen_outputs(images)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_images_are_mixed_rather_than_outputs_of_frozen_layers(mixup):
    y = np.arange(20) % 2
    X = RNG.randint(0, 100, (20, 16, 16)).astype(np.uint8)
    X[y == 1] += 120
    Watched.n_kept = 0
    model = AFTClassifier(
        Watched, module__n_blocks=2, module__image_size=16, module__n_frozen_layers=2
    ).set_params(beta=0, mixup=mixup, max_epochs=12, lr=0.01, random_state=0)
    assert model.fit(X, y).score(X, y) == 1
    assert Watched.n_kept == (0 if mixup else 20)


def test_a_list_of_methods_with_soft_targets_is_mixed():
    features = RNG.randn(40, 3)
    y = np.arange(40) % 2
    model = AFTClassifier(transfer=[("probe-kd", 1.0)], mixup=0.2, max_epochs=2, random_state=0)
    assert len(model.fit(RNG.randn(40, 2), y, features=features).loss_curve_) == 2


def test_texts_are_refused():
    with pytest.raises(ValueError, match=r"mixup=0.2 mixes images or rows of numbers.*mixup=0\."):
        AFTClassifier(beta=0, mixup=0.2, max_epochs=1).fit(["a card", "the rate"] * 4, [0, 1] * 4)


def test_sparse_rows_of_a_vectorizer_are_refused():
    from sklearn.feature_extraction.text import TfidfVectorizer

    model = AFTClassifier(preprocessor=TfidfVectorizer(), beta=0, mixup=0.2)
    with pytest.raises(ValueError, match="of another kind: use mixup=0"):
        model.fit(["a card", "the rate"] * 4, [0, 1] * 4)


@pytest.mark.parametrize("transfer", ["aft", "aft-fixed", [("aft", 1), ("probe-kd", 1)]], ids=str)
def test_methods_that_compare_features_are_refused(transfer):
    model = AFTClassifier(transfer=transfer, mixup=0.2)
    with pytest.raises(ValueError, match=r"mixes the targets of two rows.*'pooled-kd'.*'probe-kd'"):
        model.fit(ROWS, np.arange(N) % 2, features=ROWS)
    model.set_params(beta=0, max_epochs=1).fit(ROWS, np.arange(N) % 2, features=ROWS)


@pytest.mark.parametrize("mixup", [-0.1, "yes", None])
def test_values_that_cannot_be(mixup):
    with pytest.raises(InvalidParameterError, match="'mixup' parameter"):
        AFTClassifier(beta=0, mixup=mixup).fit(ROWS, np.arange(N) % 2)
