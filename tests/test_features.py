import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_X_y, resample
from sklearn.utils.validation import _num_samples

from sk_aft import AFTClassifier, FoundationFeatureExtractor, FoundationFeatures
from sk_aft.backbones import CallableBackbone

LETTERS = "aeinort"
TEXTS = [f"{a} {b}" for a in ("one", "a train", "oat", "rain") for b in ("in", "tea", "neon", "")]
FEATURES = np.float32([[text.count(letter) for letter in LETTERS] for text in TEXTS])
LABELS = np.array([0, 1] * 8)


class CountLetters:
    """A foundation model that counts how often it is run on a row."""

    def __init__(self):
        self.n_rows = 0

    def __call__(self, texts):
        self.n_rows += len(texts)
        return np.array([[text.count(letter) for letter in LETTERS] for text in texts])


@pytest.fixture
def model():
    return CountLetters()


@pytest.fixture(params=["computed", "lazy", "in memory", "two models"])
def rows(request, model):
    """The same features, by every way they come to be."""
    if request.param == "two models":
        halves = [
            CallableBackbone(lambda x: model(x)[:, :3], "first half"),
            CallableBackbone(lambda x: model(x)[:, 3:], "second half"),
        ]
        return FoundationFeatureExtractor(halves).fit_transform(TEXTS)
    where = None if request.param == "in memory" else "auto"
    extractor = FoundationFeatureExtractor(model, cache=where)
    if request.param == "lazy":
        return extractor.fit(TEXTS).transform(TEXTS)
    return extractor.fit_transform(TEXTS)


def test_is_an_array_to_numpy_and_scikit_learn(rows):
    assert isinstance(rows, FoundationFeatures)
    assert rows.shape == FEATURES.shape
    assert (rows.ndim, rows.size, rows.dtype) == (2, FEATURES.size, np.float32)
    assert len(rows) == _num_samples(rows) == len(TEXTS)
    array = np.asarray(rows)
    assert type(array) is np.ndarray
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, FEATURES)
    np.testing.assert_array_equal(rows.features, FEATURES)
    np.testing.assert_array_equal(pd.DataFrame(rows), FEATURES)
    np.testing.assert_array_equal(list(rows), FEATURES)
    np.testing.assert_array_equal(check_array(rows), FEATURES)
    np.testing.assert_array_equal(check_X_y(rows, LABELS)[0], FEATURES)
    np.testing.assert_array_equal(np.vstack([rows, rows]), np.vstack([FEATURES, FEATURES]))


def test_keeps_the_raw_rows(rows):
    assert rows.inputs is TEXTS
    assert rows[[3, 1]].inputs == [TEXTS[3], TEXTS[1]]


@pytest.mark.parametrize(
    "key",
    [
        np.array([4, 0, 4]),
        [4, 0, 4],
        np.array([-1, 2], dtype=np.int32),
        np.array([3, 1], dtype=np.uint8),
        np.arange(16) % 3 == 0,
        (np.arange(16) % 3 == 0).tolist(),
        slice(None),
        slice(2, 9, 3),
        slice(None, None, -1),
        slice(5, 5),
        slice(-3, 100),
        ...,
        range(2, 6),
        np.array([], dtype=int),
    ],
    ids=str,
)
def test_is_sliced_as_an_array_is(rows, key):
    columns = slice(None)
    with_dots = (key, ...) if key is not ... else ...
    for form in (key, (key,), (key, columns), with_dots):
        part = rows[form]
        key = list(key) if isinstance(key, range) else key
        assert isinstance(part, FoundationFeatures)
        assert part.inputs == np.array(TEXTS, dtype=object)[key].tolist()
        assert part.shape == FEATURES[key].shape
        if len(part):
            np.testing.assert_array_equal(np.asarray(part), FEATURES[key])


def test_slices_of_slices(rows):
    part = rows[::2][np.array([5, 1, 0])][1:]
    assert part.inputs == [TEXTS[2], TEXTS[0]]
    np.testing.assert_array_equal(part, FEATURES[[2, 0]])


def test_single_rows_elements_and_columns_are_arrays(rows):
    np.testing.assert_array_equal(rows[3], FEATURES[3])
    np.testing.assert_array_equal(rows[np.int64(-1)], FEATURES[-1])
    np.testing.assert_array_equal(rows[:, 2], FEATURES[:, 2])
    np.testing.assert_array_equal(rows[1:4, [0, 2]], FEATURES[1:4, [0, 2]])
    assert rows[3, 2] == FEATURES[3, 2]
    np.testing.assert_array_equal(np.array(list(rows)), FEATURES)


@pytest.mark.parametrize("key", [16, -17, [16], np.ones(15, dtype=bool)])
def test_rows_that_are_not_there(rows, key):
    with pytest.raises(IndexError):
        rows[key]


def test_some_rows_are_taken_into_memory(rows):
    taken = rows.take(np.array([5, 5, 0]))
    np.testing.assert_array_equal(taken, FEATURES[[5, 5, 0]])
    assert taken.flags.writeable


def test_other_dtypes_and_copies(rows):
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.asarray(rows, dtype=np.float64), FEATURES)
    copy = np.array(rows)
    copy[:] = -1
    np.testing.assert_array_equal(rows, FEATURES)
    with pytest.raises(ValueError, match="copy"):
        rows.__array__(np.float64, copy=False)


@pytest.mark.parametrize("where", ["auto", None])
def test_a_step_that_works_in_place_does_not_change_the_features(model, where):
    """Slices of other folds share them."""
    rows = FoundationFeatureExtractor(model, cache=where).fit_transform(TEXTS)
    scaled = StandardScaler(copy=False).fit_transform(rows)
    assert abs(scaled.mean()) < 1e-5
    np.testing.assert_array_equal(rows, FEATURES)


def test_scikit_learn_splits_fits_and_scores(rows):
    train, test, *_ = train_test_split(rows, LABELS, random_state=0)
    assert isinstance(train, FoundationFeatures)
    assert isinstance(test, FoundationFeatures)
    assert set(train.inputs) | set(test.inputs) == set(TEXTS)
    np.testing.assert_array_equal(
        resample(rows, random_state=0), resample(FEATURES, random_state=0)
    )
    for estimator in (LogisticRegression(), KNeighborsClassifier(3), Ridge()):
        scores = cross_val_score(estimator, rows, LABELS, cv=3, error_score="raise")
        expected = cross_val_score(clone(estimator), FEATURES, LABELS, cv=3)
        np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_nothing_is_computed_until_somebody_asks(model):
    extractor = FoundationFeatureExtractor(CallableBackbone(model, "counter")).fit(TEXTS)
    done = model.n_rows
    rows = extractor.transform(TEXTS)
    part = rows[np.arange(8)][::2]
    assert (len(part), part.shape, part.size, part.ndim) == (4, (4, 7), 28, 2)
    assert part.dtype == np.float32
    assert "not computed yet" in repr(part)
    pickle.loads(pickle.dumps(part))
    assert not part.is_computed
    assert model.n_rows == done
    np.testing.assert_array_equal(part, FEATURES[:8:2])
    assert part.is_computed
    assert "not computed" not in repr(part)
    assert model.n_rows == done + 3  # fit ran the first row
    np.asarray(part)
    assert model.n_rows == done + 3


def test_is_memory_mapped_where_the_store_holds_the_rows_in_order(model):
    rows = FoundationFeatureExtractor(model).fit_transform(TEXTS)
    assert isinstance(rows.features, np.memmap)
    assert isinstance(rows[3:9].features, np.memmap)
    assert not rows.features.flags.writeable


@pytest.mark.parametrize(
    "container",
    [
        tuple,
        lambda x: np.array(x, dtype=object),
        np.array,
        lambda x: pd.Series(x, index=range(100, 116)),
        lambda x: pd.DataFrame({"text": x}, index=range(100, 116)),
        pl.Series,
        lambda x: pl.DataFrame({"text": x}),
    ],
    ids=["tuple", "objects", "strings", "Series", "DataFrame", "pl.Series", "pl.DataFrame"],
)
def test_inputs_stay_what_they_were(model, container):
    X = container(TEXTS)
    rows = FoundationFeatureExtractor(model).fit_transform(X)
    assert rows.inputs is X
    part = rows[np.array([4, 2])]
    assert type(part.inputs) in (type(X), list)
    values = np.asarray(part.inputs, dtype=object).ravel().tolist()
    assert values == [TEXTS[4], TEXTS[2]]
    np.testing.assert_array_equal(part, FEATURES[[4, 2]])
    if hasattr(X, "index") and not isinstance(X, tuple):
        assert part.inputs.index.tolist() == [104, 102]


def test_images_and_numbers_are_inputs_too(photographs):
    def mean(images):
        return np.asarray(images, dtype=float).reshape(len(images), -1).mean(axis=1, keepdims=True)

    for X in (photographs, FEATURES):
        rows = FoundationFeatureExtractor(mean).fit_transform(X)
        np.testing.assert_array_equal(rows[[1, 0]].inputs, X[[1, 0]])
        np.testing.assert_allclose(rows[[1, 0]], mean(X[[1, 0]]), rtol=1e-6)


def test_no_rows_are_refused_by_a_student(model):
    rows = FoundationFeatureExtractor(model).fit_transform(TEXTS)
    student = AFTClassifier(beta=0, max_epochs=1).fit(rows, np.arange(len(TEXTS)) % 2)
    with pytest.raises(ValueError, match="0 sample"):
        student.predict(rows[:0])


def test_a_pickle_of_rows_in_the_store_holds_no_features(model):
    texts = [f"{text} {number}" for text in TEXTS for number in range(100)]
    rows = FoundationFeatureExtractor(model).fit_transform(texts)
    n_rows = model.n_rows
    pickled = pickle.dumps(rows)
    assert len(pickled) < len(pickle.dumps(texts)) + 2000
    copy = pickle.loads(pickled)
    assert copy.inputs == texts
    np.testing.assert_array_equal(copy, rows)
    assert model.n_rows == n_rows


def test_a_pickle_of_rows_in_memory_holds_them(model):
    rows = FoundationFeatureExtractor(model, cache=None).fit_transform(TEXTS)
    n_rows = model.n_rows
    copy = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(copy, FEATURES)
    assert model.n_rows == n_rows


class Guesses:
    """Soft targets from the features; counts the rows that it is asked for."""

    def __init__(self, classes=("no", "yes")):
        self.classes = np.array(classes)
        self.n_rows = 0

    def compute(self, rows, parts):
        self.n_rows += len(rows)
        assert len(rows) == len(parts[0])
        share = parts[0].take(np.arange(len(rows)))[:, 0] / 10
        np.testing.assert_allclose(share, [text.count("a") / 10 for text in rows.values], rtol=1e-6)
        return np.float32(np.c_[share, 1 - share])


def with_soft_targets(rows, source):
    return FoundationFeatures(
        rows.inputs, rows._rows, rows._source, rows.feature_slices, soft_target_source=source
    )


EXPECTED = np.c_[FEATURES[:, 0] / 10, 1 - FEATURES[:, 0] / 10]


def test_plain_extractors_have_no_soft_targets(rows):
    assert not rows.has_soft_targets
    assert rows.soft_targets is None
    assert rows.soft_target_classes is None


@pytest.mark.parametrize("is_sliced_first", [True, False])
def test_soft_targets_are_computed_once_when_they_are_used(model, is_sliced_first):
    plain = FoundationFeatureExtractor(CallableBackbone(model, "guesses")).fit(TEXTS)
    source = Guesses()
    done = model.n_rows
    rows = with_soft_targets(plain.transform(TEXTS), source)
    assert rows.has_soft_targets
    assert rows.soft_target_classes.tolist() == ["no", "yes"]
    assert repr(rows) == repr(plain.transform(TEXTS))
    indices = np.array([5, 2, 9])
    part = rows[indices] if is_sliced_first else rows
    assert (source.n_rows, model.n_rows) == (0, done)
    np.testing.assert_allclose(
        part.soft_targets, EXPECTED[indices] if is_sliced_first else EXPECTED, rtol=1e-6
    )
    part = part if is_sliced_first else rows[indices]
    np.testing.assert_allclose(part[1:].soft_targets, EXPECTED[[2, 9]], rtol=1e-6)
    assert part.soft_target_classes.tolist() == ["no", "yes"]
    assert source.n_rows == (3 if is_sliced_first else 16)


@pytest.mark.parametrize("cache", ["auto", None])
@pytest.mark.parametrize("is_computed", [True, False])
def test_a_pickle_holds_soft_targets(model, cache, is_computed):
    extractor = FoundationFeatureExtractor(model, cache=cache)
    rows = with_soft_targets(extractor.fit_transform(TEXTS), Guesses())
    if is_computed:
        assert rows.soft_targets.shape == (16, 2)
    copy = pickle.loads(pickle.dumps(rows))
    np.testing.assert_allclose(copy.soft_targets, EXPECTED, rtol=1e-6)
    assert copy._soft_target_source.n_rows == 16
    assert copy.soft_target_classes.tolist() == ["no", "yes"]


def test_scikit_learn_slices_soft_targets(model):
    rows = with_soft_targets(FoundationFeatureExtractor(model).fit_transform(TEXTS), Guesses())
    some, others = train_test_split(rows, random_state=0)
    assert rows.soft_targets is rows.soft_targets
    order = [TEXTS.index(text) for text in (*some.inputs, *others.inputs)]
    found = np.concatenate([some.soft_targets, others.soft_targets])
    np.testing.assert_allclose(found, EXPECTED[order], rtol=1e-6)


def test_says_what_it_is(model):
    rows = FoundationFeatureExtractor(CallableBackbone(model, "counter")).fit_transform(TEXTS)
    assert repr(rows) == "FoundationFeatures(shape=(16, 7), models=[CountLetters])"
