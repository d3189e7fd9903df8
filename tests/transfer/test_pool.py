"""The weights with which predictions of several models are pooled."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.metrics import log_loss, r2_score

from sk_aft.transfer._pool import (
    OF_NUMBERS,
    OF_PROBABILITIES,
    drawn,
    pool_numbers,
    pool_probabilities,
    score_of_numbers,
    score_of_probabilities,
    weights_of_numbers,
    weights_of_probabilities,
)


def classifiers(labels, sharpness, n_classes=3, seed=0):
    """Return probabilities of a model for each sharpness; 0 is a model that knows nothing."""
    rng = np.random.default_rng(seed)
    truth = np.eye(n_classes)[labels]
    noise = rng.normal(size=(len(sharpness), len(labels), n_classes))
    return [softmax(s * truth + one, axis=1) for s, one in zip(sharpness, noise, strict=True)]


def regressors(targets, errors, seed=0):
    rng = np.random.default_rng(seed)
    return [targets + error * rng.normal(size=targets.shape) for error in errors]


LABELS = np.random.default_rng(1).integers(0, 3, 80)
TARGETS = np.random.default_rng(1).normal(size=(80, 2))
ONES = np.ones(80)


def test_probabilities_are_multiplied():
    one, other = classifiers(LABELS, [1.0, 2.0])
    product = one**0.5 * other**1.5
    expected = product / product.sum(axis=1, keepdims=True)
    found = pool_probabilities([one, other], np.array([0.5, 1.5]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(pool_probabilities([one], np.ones(1)), one, rtol=1e-5)


def test_numbers_are_added():
    one, other = regressors(TARGETS, [1.0, 2.0])
    found = pool_numbers([one, other], np.array([0.7, 0.2]))
    np.testing.assert_allclose(found, 0.7 * one + 0.2 * other, rtol=1e-5)


@pytest.mark.parametrize("pooling", [OF_PROBABILITIES, OF_NUMBERS])
def test_a_model_without_a_prediction_abstains(pooling):
    one, other = classifiers(LABELS, [1.0, 2.0])
    one[:2], other[1:3] = np.nan, np.nan
    weights = np.array([0.7, 1.3])
    found = pooling.pool([one, other], weights)
    # The weight of the other model is as large as the sum of both.
    np.testing.assert_allclose(found[0], pooling.pool([other[:1]], np.array([2.0]))[0], rtol=1e-5)
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[2], pooling.pool([one[2:3]], np.array([2.0]))[0], rtol=1e-5)
    expected = pooling.pool([one[3:], other[3:]], weights)
    np.testing.assert_allclose(found[3:], expected, rtol=1e-5)


def test_a_probability_of_zero_is_no_veto():
    never, always = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    found = pool_probabilities([never, always], np.ones(2))
    np.testing.assert_allclose(found, [[0.5, 0.5]], rtol=1e-5)


def test_weights_of_classifiers_are_those_of_a_naive_minimisation():
    models = classifiers(LABELS, [0.5, 1.0, 3.0])
    weights = np.random.default_rng(0).uniform(0.2, 1.8, 80)

    def loss(w):
        logits = sum(wj * np.log(one) for wj, one in zip(w, models, strict=True))
        chosen = softmax(logits, axis=1)[np.arange(80), LABELS]
        return -(weights * np.log(chosen)).sum() + 15 * ((w - 1 / 3) ** 2).sum()

    expected = minimize(loss, np.full(3, 1 / 3), bounds=[(0, 8)] * 3).x
    found = weights_of_probabilities(models, LABELS, weights)
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_weights_of_regressors_are_those_of_a_naive_minimisation():
    models = regressors(TARGETS, [2.0, 1.0, 0.5])
    weights = np.random.default_rng(0).uniform(0.2, 1.8, 80)
    variance = min((weights[:, None] * (one - TARGETS) ** 2).sum() / 160 for one in models)

    def loss(w):
        residuals = sum(wj * one for wj, one in zip(w, models, strict=True)) - TARGETS
        squares = (weights[:, None] * residuals**2).sum() / 2
        return squares / (2 * variance) + 15 * ((w - 1 / 3) ** 2).sum()

    expected = minimize(loss, np.full(3, 1 / 3), bounds=[(0, 8)] * 3).x
    found = weights_of_numbers(models, TARGETS, weights)
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_sample_weights_are_repeated_rows():
    times = np.random.default_rng(0).integers(1, 4, 80)
    repeated = np.repeat(np.arange(80), times)
    for pooling, models, targets in (
        (OF_PROBABILITIES, classifiers(LABELS, [0.5, 2.0]), LABELS),
        (OF_NUMBERS, regressors(TARGETS, [1.0, 0.5]), TARGETS),
    ):
        found = pooling.find_weights(models, targets, times.astype(float))
        again = [one[repeated] for one in models]
        expected = pooling.find_weights(again, targets[repeated], np.ones(len(repeated)))
        if pooling is OF_PROBABILITIES:  # the variance is per row, so it differs for numbers
            np.testing.assert_allclose(found, expected, atol=1e-3)
        score = pooling.score(models[0], targets, times.astype(float))
        assert score == pytest.approx(
            pooling.score(again[0], targets[repeated], np.ones(len(repeated)))
        )


def test_a_useless_model_has_a_small_weight():
    rng = np.random.default_rng(0)
    labels, targets = rng.integers(0, 3, 500), rng.normal(size=(500, 1))
    useless, useful = weights_of_probabilities(
        classifiers(labels, [0.0, 3.0]), labels, np.ones(500)
    )
    assert useless < 0.2 < 0.8 < useful
    noise = rng.normal(size=(500, 1))
    useless, useful = weights_of_numbers([noise, 0.9 * targets], targets, np.ones(500))
    assert useless < 0.02
    assert useful == pytest.approx(1 / 0.9, abs=0.02)


def test_a_model_that_is_wrong_has_no_weight():
    right, wrong = classifiers(LABELS, [2.0, 2.0])
    found = weights_of_probabilities([right, np.roll(wrong, 1, axis=1)], LABELS, ONES)
    assert found[1] == 0


def test_too_cautious_predictions_are_sharpened():
    """The sum of the weights is free."""
    labels = np.arange(300) % 3
    cautious = np.eye(3)[labels] * 0.1 + 0.3
    assert 2 < weights_of_probabilities([cautious], labels, np.ones(300))[0] <= 8


def test_few_labels_keep_the_weights_nearly_equal():
    models = classifiers(LABELS, [0.0, 3.0])
    spread = [
        np.diff(weights_of_probabilities([m[:n] for m in models], LABELS[:n], ONES[:n]))[0]
        for n in (0, 2, 80)
    ]
    assert spread[0] == 0
    assert 0 < spread[1] < spread[2] / 2


def test_a_row_that_only_models_without_weight_predict_is_unknown():
    one, other = classifiers(LABELS, [1.0, 2.0])
    one[:2] = np.nan
    found = pool_probabilities([one, other], np.array([1.0, 0.0]))
    assert np.isnan(found).any(axis=1).tolist() == [True] * 2 + [False] * 78


def test_without_labels_the_weights_are_equal():
    absent = [np.full((80, 3), np.nan)] * 4
    np.testing.assert_array_equal(weights_of_probabilities(absent, LABELS, ONES), 0.25)
    absent = [np.full((80, 2), np.nan)] * 4
    np.testing.assert_array_equal(weights_of_numbers(absent, TARGETS, ONES), 0.25)


def test_rows_without_any_prediction_do_not_count():
    models = classifiers(LABELS, [0.5, 2.0])
    expected = weights_of_probabilities([one[:50] for one in models], LABELS[:50], ONES[:50])
    for one in models:
        one[50:] = np.nan
    np.testing.assert_allclose(weights_of_probabilities(models, LABELS, ONES), expected)


def test_score_is_the_share_of_the_entropy_that_is_explained():
    (model,) = classifiers(LABELS, [2.0])
    weights = np.random.default_rng(0).uniform(0.2, 1.8, 80)
    shares = np.bincount(LABELS, weights=weights) / weights.sum()
    entropy = -(shares * np.log(shares)).sum()
    expected = 1 - log_loss(LABELS, model, sample_weight=weights) / entropy
    assert 0.2 < expected < 0.9
    assert score_of_probabilities(model, LABELS, weights) == pytest.approx(expected)
    frequencies = np.tile(shares, (80, 1))
    assert score_of_probabilities(frequencies, LABELS, weights) == pytest.approx(0, abs=1e-12)
    assert score_of_probabilities(np.eye(3)[LABELS], LABELS, weights) == pytest.approx(1)
    assert score_of_probabilities(np.eye(3)[LABELS - 1], LABELS, weights) == 0
    model[:40] = np.nan
    half = score_of_probabilities(model[40:], LABELS[40:], weights[40:])
    assert score_of_probabilities(model, LABELS, weights) == half


def test_score_of_numbers_is_r2():
    (model,) = regressors(TARGETS, [0.5])
    weights = np.random.default_rng(0).uniform(0.2, 1.8, 80)
    expected = r2_score(TARGETS, model, sample_weight=weights)
    assert score_of_numbers(model, TARGETS, weights) == pytest.approx(expected)
    assert score_of_numbers(-model, TARGETS, weights) == 0
    model[:40] = np.nan
    half = score_of_numbers(model[40:], TARGETS[40:], weights[40:])
    assert score_of_numbers(model, TARGETS, weights) == pytest.approx(half)


def test_there_is_no_score_without_predictions():
    assert np.isnan(score_of_probabilities(np.full((80, 3), np.nan), LABELS, ONES))
    assert np.isnan(score_of_numbers(np.full((80, 2), np.nan), TARGETS, ONES))
    one_class = np.zeros(80, dtype=int)
    assert score_of_probabilities(np.full((80, 3), 1 / 3), one_class, ONES) == 0


def test_rows_are_drawn_whatever_their_order():
    """Of 20,000 rows with 1,000 classes, 4,000 are used."""
    rows = np.arange(20_000) + 7
    some = drawn(rows, 1000)
    assert some.shape == (4000,)
    assert (np.diff(some) > 0).all()
    np.testing.assert_array_equal(some, drawn(rows, 1000))
    assert len(set(some)) == 4000
    assert set(some) <= set(rows)
    counts = np.bincount(some % 5)  # labels that repeat
    assert counts.min() > 700
    np.testing.assert_array_equal(drawn(rows[:4000], 1000), rows[:4000])
