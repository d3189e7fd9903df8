"""Features of several teachers are brought to one scale before they are put side by side."""

import pickle

import numpy as np
import pytest

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._data._feature_rows import ScaledRows, StoredRows, scales_of
from sk_aft.transfer import TransferMethod

RNG = np.random.RandomState(0)
X = RNG.normal(size=(80, 4)).astype(np.float32)
Y = np.arange(80) % 2


def small(rows):
    return rows[:, :2]


def large(rows):
    return 1000 * rows[:, 2:] + 5


class Watching(TransferMethod):
    """It keeps what it gets."""

    seen: list = []

    def forward(self, student, foundation):
        self.seen.append(foundation.detach().numpy().copy())
        return 0 * student.sum()


def quick(**parameters):
    return AFTClassifier(random_state=0, max_epochs=2, **parameters)


def test_each_slice_gets_the_total_variance_of_one():
    features = StoredRows.of_array(np.hstack([X[:, :2], 1000 * X[:, 2:]]))
    slices = {"small": slice(0, 2), "large": slice(2, 4)}
    scales = scales_of(features, slices, seed=0)
    scaled = ScaledRows(features, scales).take(np.arange(80))
    for columns in slices.values():
        assert scaled[:, columns].var(axis=0).sum() == pytest.approx(1, rel=1e-4)
        assert len(set(scales[columns].tolist())) == 1


def test_rows_without_features_and_constant_features_do_not_matter():
    array = np.hstack([X, np.full((80, 1), 3, np.float32)])
    array[5] = np.nan
    slices = {"some": slice(0, 4), "constant": slice(4, 5)}
    scales = scales_of(StoredRows.of_array(array), slices, seed=0)
    assert np.isfinite(scales).all()
    assert scales[4] == 1
    assert np.isnan(ScaledRows(StoredRows.of_array(array), scales).take(np.array([5]))).all()


def test_a_transfer_method_gets_scaled_features_of_several_models_and_raw_ones_of_one():
    Watching.seen = []
    rows = FoundationFeatureExtractor([small, large]).fit_transform(X)
    quick(transfer=Watching(), beta=1).fit(rows, Y)
    stds = np.concatenate(Watching.seen).std(axis=0)
    assert (stds > 0.4).all()
    assert (stds < 1).all()
    Watching.seen = []
    quick(transfer=Watching(), beta=1).fit(FoundationFeatureExtractor(large).fit_transform(X), Y)
    assert (np.concatenate(Watching.seen).std(axis=0) > 500).all()


def test_training_that_resumes_keeps_the_scale():
    rows = FoundationFeatureExtractor([small, large]).fit_transform(X)
    model = quick(transfer="kd", beta=1, warm_start=True).fit(rows, Y)
    scales = model._fitted.feature_scales
    model = pickle.loads(pickle.dumps(model))
    model.fit(rows[:40], Y[:40])
    np.testing.assert_array_equal(model._fitted.feature_scales, scales)
    by_pieces = quick(transfer="kd", beta=1)
    for piece in (slice(0, 40), slice(40, 80)):
        by_pieces.partial_fit(rows[piece], Y[piece], classes=[0, 1])
    expected = scales_of(rows[:40], rows.feature_slices, seed=0)
    np.testing.assert_allclose(by_pieces._fitted.feature_scales, expected, rtol=1e-6)


def test_training_that_resumes_without_the_names_of_models_keeps_the_scale():
    rows = FoundationFeatureExtractor([small, large]).fit_transform(X)
    array = np.asarray(rows)
    for first, second in ((rows, X), (X, rows)):
        Watching.seen = []
        model = quick(transfer=Watching(), beta=1)
        for piece in (first, second):
            plain = {} if piece is rows else {"features": array}
            model.partial_fit(piece, Y, classes=[0, 1], **plain)
        stds = [np.concatenate(part).std(axis=0)[2:] for part in np.array_split(Watching.seen, 2)]
        np.testing.assert_allclose(*stds, rtol=0.2)


def test_the_unit_of_a_teacher_does_not_matter():
    def in_other_unit(rows):
        return large(rows) / 1e5

    losses = []
    for other in (large, in_other_unit):
        rows = FoundationFeatureExtractor([small, other]).fit_transform(X)
        model = quick(transfer="kd", beta=1).fit(rows, Y)
        losses.append(model.history_[-1, "train_transfer_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
