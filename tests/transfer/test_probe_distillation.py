import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft.transfer import ProbeDistillation
from sk_aft.transfer._probe import ClassProbe

STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1, 10]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_is_the_divergence_of_softened_predictions(temperature):
    rng = np.random.default_rng(0)
    probabilities, logits = rng.dirichlet(np.ones(4), size=10), rng.normal(size=(10, 4))
    probabilities[0] = [1, 0, 0, 0]
    with np.errstate(divide="ignore"):
        q = softmax(np.log(probabilities) / temperature, axis=1)
        entropy = np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0)
    log_p = log_softmax(logits / temperature, axis=1)
    expected = temperature**2 * (entropy - q * log_p).sum(axis=1).mean()
    found = ProbeDistillation(temperature)(
        torch.zeros(10, 3), torch.tensor(probabilities), torch.tensor(logits)
    )
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_class_probabilities_are_out_of_fold(make_rows):
    labeled_mask, known_mask = np.arange(90) < 60, np.arange(90) % 7 > 0
    rows = make_rows(90, labeled_mask=labeled_mask, known_mask=known_mask, seed=3)
    found = ProbeDistillation().fit(rows)
    used = labeled_mask & known_mask
    X, y = rows.features.matrix, rows.targets
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probes = [make_pipeline(StandardScaler(), LogisticRegression(C=C)) for C in STRENGTHS]
    out_of_fold = [
        cross_val_predict(probe, X[used], y[used], cv=folds, method="predict_proba")
        for probe in probes
    ]
    # Few rows say little about the penalty, so it stays close to C = 10 ** -1.5.
    entropies = [
        2 * (np.log10(C) + 1.5) ** 2 - np.log(p[np.arange(used.sum()), y[used]]).sum()
        for C, p in zip(STRENGTHS, out_of_fold, strict=True)
    ]
    best = int(np.argmin(entropies))
    np.testing.assert_allclose(found[used], out_of_fold[best], atol=1e-2)
    others = known_mask & ~labeled_mask
    fitted = probes[best].fit(X[used], y[used])
    np.testing.assert_allclose(found[others], fitted.predict_proba(X[others]), atol=1e-2)
    assert np.isnan(found[~known_mask]).all()
    np.testing.assert_allclose(found[known_mask].sum(axis=1), 1, rtol=1e-5)


def test_predictions_of_numbers_are_out_of_fold(make_rows):
    labeled_mask, known_mask = np.arange(60) < 40, np.arange(60) % 7 > 0
    rows = make_rows(n_classes=None, labeled_mask=labeled_mask, known_mask=known_mask)
    method = ProbeDistillation()
    found = method.fit(rows)
    used, others = labeled_mask & known_mask, known_mask & ~labeled_mask
    X, y = rows.features.matrix, rows.targets
    probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 8)))
    folds = KFold(5, shuffle=True, random_state=0)
    np.testing.assert_allclose(
        found[used], cross_val_predict(probe, X[used], y[used], cv=folds), atol=1e-4
    )
    np.testing.assert_allclose(
        found[others], probe.fit(X[used], y[used]).predict(X[others]), atol=1e-4
    )
    assert np.isnan(found[~known_mask]).all()
    logits = torch.randn(5, 2)
    targets = torch.tensor(found[used][:5])
    assert method(torch.zeros(5, 3), targets, logits).item() == pytest.approx(
        np.square(targets.numpy() - logits.numpy()).mean(), rel=1e-5
    )


def test_a_probe_that_would_have_to_repeat_labels_does_not(make_rows):
    """Features without information: out of fold, the labels cannot be read off the targets."""
    rows = make_rows(120, widths=(100,))
    rows.features.matrix[:] = np.random.default_rng(0).normal(size=(120, 100))
    found = ProbeDistillation().fit(rows)
    assert found[np.arange(120), rows.targets].mean() < 0.5


@pytest.mark.parametrize(
    "targets",
    [
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 2],  # fewer members than folds, one alone
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1],  # a fold without the second class
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],  # all alone
        [0, 0, 1, 1, 4, 4, 4, 9, 9, 9],  # classes without labelled rows
        [0, 1],
    ],
)
def test_small_classes_are_provided_for(make_rows, targets):
    targets = np.array(targets)
    n_rows = len(targets)
    rows = make_rows(
        n_rows + 4,
        n_classes=10,
        labeled_mask=np.arange(n_rows + 4) < n_rows,
    )
    rows.targets[:n_rows] = targets
    found = ProbeDistillation().fit(rows)
    assert found.shape == (n_rows + 4, 10)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    alone = np.bincount(targets, minlength=10)[targets] == 1
    np.testing.assert_array_equal(found[:n_rows][alone], np.eye(10)[targets[alone]])
    absent = ~np.isin(np.arange(10), targets)
    assert not found[:, absent].any()


@pytest.mark.parametrize("n_rows", [2, 3])
def test_few_numbers_are_provided_for(make_rows, n_rows):
    rows = make_rows(n_rows, n_classes=None)
    assert np.isfinite(ProbeDistillation().fit(rows)).all()


def test_the_search_for_the_penalty_stops_when_it_gets_worse(monkeypatch):
    tried = []
    fit = LogisticRegression.fit

    def noted(self, *args, **kwargs):
        tried.append(self.C)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(LogisticRegression, "fit", noted)
    features = np.random.default_rng(0).normal(size=(60, 30))
    folds = list(KFold(5).split(features))
    ClassProbe(3).out_of_fold(features, np.arange(60) % 3, folds)
    assert set(tried) < set(STRENGTHS)


@pytest.mark.parametrize("has_features", [True, False])
def test_soft_targets_replace_the_probe(make_rows, has_features):
    soft_targets = np.random.default_rng(0).dirichlet(np.ones(3), size=60).astype(np.float32)
    soft_targets[:7] = np.nan
    changes = {} if has_features else {"features": None, "known_mask": np.zeros(60, dtype=bool)}
    rows = make_rows(soft_targets=soft_targets)
    rows = dataclasses.replace(rows, **changes)
    np.testing.assert_array_equal(ProbeDistillation().fit(rows), soft_targets)
    if has_features:
        assert not rows.features.reads


def test_predictions_of_numbers_replace_the_probe(make_rows):
    predictions = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    method = ProbeDistillation()
    rows = make_rows(n_classes=None, soft_targets=predictions)
    np.testing.assert_array_equal(method.fit(rows), predictions)
    logits = torch.zeros(60, 2)
    found = method(torch.zeros(60, 3), torch.tensor(predictions), logits).item()
    assert found == pytest.approx(np.square(predictions).mean(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0, -1])
def test_a_temperature_that_is_not_above_zero_is_explained(temperature):
    with pytest.raises(ValueError, match=f"temperature is {temperature}"):
        ProbeDistillation(temperature)
