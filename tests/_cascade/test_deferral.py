"""Thresholds and temperatures against slow and plain ways to find them."""

import numpy as np
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.fixes import parse_version

from sk_aft._cascade._deferral import deferral_curve, fit_temperature, scaled

# Few values, so that many rows have the same confidence; and two neighbours.
CONFIDENCES = st.sampled_from([0.25, 0.5, np.nextafter(0.5, 1), 0.75, 1.0])
ROWS = st.lists(st.tuples(CONFIDENCES, st.booleans(), st.booleans()), min_size=1, max_size=30)


def arrays(rows):
    return (np.array(column) for column in zip(*rows, strict=True))


@given(ROWS)
def test_each_threshold_gives_what_its_point_says(rows):
    confidence, student_right, teacher_right = arrays(rows)
    curve = deferral_curve(confidence, student_right, teacher_right)
    assert len(curve.thresholds) == len(np.unique(confidence)) + 1
    for threshold, share, accuracy in zip(*curve, strict=True):
        deferred = confidence < threshold
        assert deferred.mean() == share
        assert np.where(deferred, teacher_right, student_right).mean() == accuracy
    assert (curve.deferred[0], curve.deferred[-1]) == (0, 1)


@given(ROWS, st.floats(0, 1))
def test_the_best_threshold_is_the_most_accurate_that_may_be_chosen(rows, max_deferred):
    confidence, student_right, teacher_right = arrays(rows)
    best = deferral_curve(confidence, student_right, teacher_right).best(max_deferred)
    assert (confidence < best.threshold).mean() == best.deferred <= max_deferred
    for threshold in [0, *confidence, np.inf]:
        deferred = confidence < threshold
        if deferred.mean() <= max_deferred:
            accuracy = np.where(deferred, teacher_right, student_right).mean()
            assert (accuracy, -deferred.mean()) <= (best.accuracy, -best.deferred)


def test_rows_of_the_same_confidence_are_not_deferred_if_they_are_too_many():
    confidence = np.array([0.4, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])
    curve = deferral_curve(confidence, np.zeros(10, dtype=bool), np.ones(10, dtype=bool))
    assert curve.best(0.3).deferred == 0.1
    assert curve.best(0.4).deferred == 0.4


def test_a_temperature_is_found_again():
    logits = np.random.default_rng(0).normal(size=(20_000, 4))
    codes = np.array(
        [np.random.default_rng(i).choice(4, p=softmax(x)) for i, x in enumerate(logits)]
    )
    too_sure = softmax(3 * logits, axis=1)
    temperature = fit_temperature(too_sure, codes)
    assert temperature == pytest.approx(3, rel=0.05)
    np.testing.assert_allclose(
        scaled(too_sure, temperature), softmax(3 * logits / temperature, axis=1)
    )


@pytest.mark.parametrize(("right", "expected"), [(True, 0.1), (False, 100)])
def test_temperatures_have_bounds(right, expected):
    probabilities = np.tile([0.8, 0.2], (10, 1))
    codes = np.full(10, 0 if right else 1)
    assert fit_temperature(probabilities, codes) == pytest.approx(expected, rel=1e-3)


def test_classes_that_a_classifier_does_not_know_keep_no_probability():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.8, 0.2, 0.0]])
    known = np.tile([True, True, False], (3, 1))
    for temperature in (0.1, 1, 3, 100):
        result = scaled(probabilities, temperature, known)
        np.testing.assert_allclose(result[:, :2], scaled(probabilities[:, :2], temperature))
        assert not result[:, 2].any()
    codes = np.array([0, 0, 1])
    expected = fit_temperature(probabilities[:, :2], codes)
    assert fit_temperature(probabilities, codes, known) == expected
    of_another = fit_temperature(np.tile(probabilities, (2, 1)), np.array([0, 0, 1, 2, 2, 2]),
                                 np.tile(known, (2, 1)))  # fmt: skip
    assert of_another == expected
    assert fit_temperature(probabilities, np.full(3, 2), known) == 1


def test_scaling_keeps_the_order_within_a_row():
    probabilities = np.array([[0.0, 0.2, 0.8], [1e-300, 1 - 1e-15, 1e-15], [0.5, 0.5, 0]])
    for temperature in (0.1, 1, 100):
        result = scaled(probabilities, temperature)
        np.testing.assert_allclose(result.sum(axis=1), 1)
        assert result[2, 0] == result[2, 1]
        np.testing.assert_array_equal(result.argsort(axis=1)[:2], [[0, 1, 2], [0, 2, 1]])
    np.testing.assert_array_equal(scaled(probabilities, 1), probabilities)


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.8"), reason="has no temperature scaling"
)
def test_probabilities_are_as_good_as_those_of_scikit_learns_temperature_scaling():
    X, y = load_digits(return_X_y=True)
    model = LogisticRegression(C=1e-4, max_iter=1000).fit(X[:600], y[:600])
    theirs = CalibratedClassifierCV(FrozenEstimator(model), method="temperature")
    theirs = theirs.fit(X[600:], y[600:]).predict_proba(X)
    probabilities = model.predict_proba(X)
    ours = scaled(probabilities, fit_temperature(probabilities[600:], y[600:]))
    assert log_loss(y[600:], ours[600:]) <= log_loss(y[600:], theirs[600:]) + 1e-6
    assert log_loss(y[600:], ours[600:]) < log_loss(y[600:], probabilities[600:]) / 1.2
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
