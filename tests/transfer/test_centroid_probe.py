"""The probe for very many classes."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import StratifiedKFold

from sk_aft.transfer._centroid_probe import CentroidProbe
from sk_aft.transfer._probe import ClassProbe, RidgeProbe, make_probe

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 4
FEATURES = (RNG.normal(size=(4, 5))[LABELS] + RNG.normal(size=(60, 5)) + 3).astype(np.float32)
WEIGHTS = RNG.uniform(0.2, 1.8, 60)
FOLDS = list(StratifiedKFold(3, shuffle=True, random_state=0).split(FEATURES, LABELS))
SCALES = [3, 10, 30, 100]


def similarities(train, test, weights=None):
    """Cosine similarity to the mean of each class, around the mean of all rows."""
    weights = np.ones(60) if weights is None else weights
    centre = np.average(FEATURES[train], axis=0, weights=weights[train])
    means = [
        np.average(FEATURES[rows], axis=0, weights=weights[rows])
        for rows in (train[LABELS[train] == label] for label in range(4))
    ]
    return cosine_similarity(FEATURES[test] - centre, np.array(means) - centre)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_is_the_softmax_of_similarities_to_the_means_of_classes(weights):
    expected = np.empty((60, 4))
    for train, test in FOLDS:
        expected[test] = similarities(train, test, weights)
    losses = [
        -(
            np.log(softmax(scale * expected, axis=1)[np.arange(60), LABELS])
            * (1 if weights is None else weights)
        ).sum()
        for scale in SCALES
    ]
    scale = SCALES[int(np.argmin(losses))]
    probe = CentroidProbe(4, standardises=False)
    found = probe.out_of_fold(FEATURES, LABELS, FOLDS, weights)
    np.testing.assert_allclose(found, softmax(scale * expected, axis=1), atol=1e-4)
    every = np.arange(60)
    found = probe.fit(FEATURES, LABELS, weights).predict(FEATURES)
    expected = softmax(scale * similarities(every, every, weights), axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("standardises", [True, False])
def test_sample_weights_are_repeated_rows(standardises):
    probe = CentroidProbe(4, standardises=standardises)
    times = RNG.integers(1, 4, 60)
    repeated = np.repeat(np.arange(60), times)
    found = probe.fit(FEATURES, LABELS, times.astype(float)).predict(FEATURES)
    expected = probe.fit(FEATURES[repeated], LABELS[repeated]).predict(FEATURES)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_scale_follows_the_information_in_the_features():
    labels = np.repeat(np.arange(10), 6)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(labels, labels))
    useful = np.eye(10)[labels] + 0.01 * RNG.normal(size=(60, 10))
    found = CentroidProbe(10).out_of_fold(useful, labels, folds)
    assert found[np.arange(60), labels].min() > 0.99
    found = CentroidProbe(10).out_of_fold(RNG.normal(size=(60, 10)), labels, folds)
    assert found.max() < 0.7


def test_standardises_when_asked():
    """One column of noise has a scale of 1,000."""
    labels = np.arange(2200) % 1100
    useful = RNG.normal(size=(1100, 20))[labels] + 0.3 * RNG.normal(size=(2200, 20))
    noise = 1000 * RNG.normal(size=(2200, 1))
    features = np.hstack([useful, noise]).astype(np.float32)
    half = np.split(np.arange(2200), 2)
    folds = [(half[0], half[1]), (half[1], half[0])]
    probe = make_probe(1100)
    found = probe.out_of_fold(features, labels, folds)
    assert (found.argmax(axis=1) == labels).mean() > 0.9
    assert (probe.fit(features, labels).predict(features).argmax(axis=1) == labels).mean() > 0.9
    raw = make_probe(1100, standardises=False).out_of_fold(features, labels, folds)
    assert (raw.argmax(axis=1) == labels).mean() < 0.5


def test_very_many_rows_have_probabilities_that_add_up_to_one():
    labels = np.arange(2500) % 5
    features = RNG.normal(size=(5, 3))[labels] + RNG.normal(size=(2500, 3))
    folds = [(np.arange(1000), np.arange(1000, 2500))]
    found = CentroidProbe(5).out_of_fold(features, labels, folds)
    assert np.isnan(found[:1000]).all()
    np.testing.assert_allclose(found[1000:].sum(axis=1), 1, rtol=1e-5)


def test_absent_classes_have_probability_zero():
    labels = LABELS * 2  # of nine classes, four occur
    probe = CentroidProbe(9)
    found = probe.out_of_fold(FEATURES, labels, FOLDS)
    assert not found[:, [1, 3, 5, 7, 8]].any()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert not probe.fit(FEATURES, labels).predict(FEATURES)[:, [1, 3, 5, 7, 8]].any()


def test_rows_whose_class_a_fold_lacks_have_no_prediction():
    labels = np.where(np.arange(60) == 7, 4, LABELS)
    found = CentroidProbe(5).out_of_fold(FEATURES, labels, FOLDS)
    np.testing.assert_array_equal(np.isnan(found).any(axis=1), np.arange(60) == 7)
    assert np.isnan(CentroidProbe(4).out_of_fold(FEATURES, LABELS, [])).all()


def test_a_class_needs_one_row():
    labels = np.arange(60)
    found = CentroidProbe(60).fit(FEATURES, labels).predict(FEATURES)
    np.testing.assert_array_equal(found.argmax(axis=1), labels)
    constant = np.ones((60, 3), dtype=np.float32)
    found = CentroidProbe(4).fit(constant, LABELS).predict(constant)
    np.testing.assert_allclose(found, 0.25)


def test_is_for_very_many_classes():
    assert isinstance(make_probe(1001), CentroidProbe)
    assert isinstance(make_probe(1000), ClassProbe)
    assert isinstance(make_probe(None), RidgeProbe)
