import numpy as np
import pytest
import torch

from sk_aft.metrics import logme_score
from sk_aft.transfer import BTuning


def posterior_mean(F, y):
    """The mean where the evidence is largest, found on a fine grid of alpha / beta."""
    F, y = F.astype(float), y.astype(float)
    best, weights = -np.inf, None
    for ratio in np.logspace(-6, 6, 2401) * np.square(F).mean() * len(F):
        gram = F.T @ F + ratio * np.eye(F.shape[1])
        m = np.linalg.solve(gram, F.T @ y)
        error = np.square(F @ m - y).sum() + ratio * np.square(m).sum()
        beta = len(y) / error
        evidence = (
            F.shape[1] / 2 * np.log(ratio * beta)
            + len(y) / 2 * np.log(beta)
            - np.linalg.slogdet(beta * gram)[1] / 2
        )
        if evidence > best:
            best, weights = evidence, m
    return weights


def targets_of(rows):
    return np.eye(rows.n_classes)[rows.targets] if rows.n_classes else rows.targets


@pytest.mark.parametrize("n_classes", [3, None])
def test_predicts_what_posterior_means_predict(make_rows, n_classes):
    labeled_mask, known_mask = np.arange(60) % 3 > 0, np.arange(60) % 7 > 0
    if n_classes:
        labeled_mask = np.arange(60) < 40
    rows = make_rows(n_classes=n_classes, labeled_mask=labeled_mask, known_mask=known_mask)
    y = targets_of(rows)
    used = labeled_mask & known_mask
    method = BTuning(5, y.shape[1])
    found = method.fit(rows)
    matrix = rows.features.matrix.astype(float)
    scores, predictions = [], []
    for columns in rows.feature_slices.values():
        F = matrix[:, columns]
        scores.append(logme_score(F[used], y[used], task="regression"))
        means = np.stack([posterior_mean(F[used], column) for column in y[used].T], axis=1)
        predictions.append(F @ means)
    shares = np.exp(np.array(scores) / 0.1) / np.exp(np.array(scores) / 0.1).sum()
    expected = sum(
        share * prediction for share, prediction in zip(shares, predictions, strict=True)
    )
    np.testing.assert_allclose(found[known_mask], expected[known_mask], atol=2e-3)
    assert np.isnan(found[~known_mask]).all()
    np.testing.assert_allclose(list(method.model_weights.values()), shares, rtol=1e-3)
    of_student = rows.student_features(np.flatnonzero(used))
    weights = np.stack([posterior_mean(of_student, column) for column in y[used].T], axis=1)
    np.testing.assert_allclose(method.student_weights, weights, atol=2e-3)
    student = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    some = np.flatnonzero(known_mask)[:8]
    value = method(torch.tensor(student), torch.tensor(found[some])).item()
    assert value == pytest.approx(np.mean((student @ weights - expected[some]) ** 2), rel=1e-2)


def test_a_class_without_labelled_rows_is_predicted_as_absent(make_rows):
    rows = make_rows(labeled_mask=np.arange(60) % 3 != 2)
    method = BTuning(5, 3)
    assert not method.fit(rows)[:, 2].any()
    assert not method.student_weights[:, 2].any()


def test_the_better_model_counts_more(make_rows):
    rows = make_rows(widths=(4, 4))
    rows.features.matrix[:, 4:] = np.random.default_rng(1).normal(size=(60, 4))
    method = BTuning(5, 3)
    method.fit(rows)
    assert method.model_weights["model0"] > 0.9
    assert sum(method.model_weights.values()) == pytest.approx(1)


def test_training_that_goes_on_keeps_the_weights_of_the_initial_features(make_rows):
    method = BTuning(5, 3)
    method.fit(make_rows())
    weights = method.student_weights.clone()
    method.fit(make_rows(student_features=lambda rows: np.ones((len(rows), 5))))
    assert torch.equal(method.student_weights, weights)
