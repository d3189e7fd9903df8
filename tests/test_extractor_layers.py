"""The extractor's ``layers``: which columns it returns, what it stores, and what a teacher gets."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.utils import _safe_indexing

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import Backbone, CallableBackbone, EfficientNetLiteBackbone
from sk_aft.backbones._hugging_face import HuggingFaceBackbone
from sk_aft.store import FeatureStore
from tests.conftest import TEXTS

TEXTS = list(dict.fromkeys(TEXTS))
LENGTHS = np.float32([[len(text)] for text in TEXTS])


class CountsRuns(HuggingFaceBackbone):
    """An encoder that counts the texts that it is run on."""

    n_rows = 0

    def run(self, rows, *arguments):
        self.n_rows += len(rows)
        return super().run(rows, *arguments)


@pytest.fixture
def encoder(encoder_directory):
    backbone = CountsRuns(encoder_directory("bert"))
    backbone.name = "bert"
    return backbone


@pytest.fixture
def extractor(encoder, cache):
    def make(**parameters):
        return FoundationFeatureExtractor(**{"model": encoder, "cache": cache, **parameters})

    return make


@pytest.fixture
def layers(encoder):
    """The features of each layer."""
    matrix = encoder.embed_layers(
        as_rows(TEXTS), (0, 1, 2, 3), batch_size=8, device=torch.device("cpu")
    )
    encoder.n_rows = 0
    return np.split(matrix, 4, axis=1)


def lengths(texts):
    return np.array([[len(text)] for text in texts])


def test_last_is_the_models_own_output(extractor, encoder):
    extractor = extractor()
    rows = extractor.fit_transform(TEXTS)
    assert rows.shape == rows.features.shape == (5, 32)
    assert extractor.n_features_out_ == 32
    assert extractor.feature_slices_ == rows.feature_slices == {"bert": slice(0, 32)}
    assert list(extractor.get_feature_names_out()[[0, -1]]) == ["bert_0", "bert_31"]
    assert extractor.backbones_ == [encoder]
    own = encoder.embed(as_rows(TEXTS), batch_size=8, device=torch.device("cpu"))
    np.testing.assert_allclose(rows.features, own, atol=1e-6)
    np.testing.assert_array_equal(rows.take([3, 1]), rows.features[[3, 1]])
    np.testing.assert_array_equal(rows[2], rows.features[2])


def test_auto_adds_the_middle_layer(extractor, layers):
    extractor = extractor(layers="auto")
    rows = extractor.fit_transform(TEXTS)
    assert rows.feature_slices == {"bert_layer2": slice(0, 32), "bert": slice(32, 64)}
    assert extractor.get_feature_names_out()[31] == "bert_layer2_31"
    np.testing.assert_allclose(rows, np.hstack([layers[2], layers[3]]), atol=1e-6)


def test_a_list_gives_its_layers_in_their_order(extractor, layers):
    rows = extractor(layers=[-1, 0, 1]).fit_transform(TEXTS)
    assert list(rows.feature_slices) == ["bert", "bert_layer0", "bert_layer1"]
    np.testing.assert_allclose(rows, np.hstack([layers[3], layers[0], layers[1]]), atol=1e-6)
    assert rows.teacher_features is rows


@pytest.mark.parametrize("first", ["last", "auto"])
def test_one_pass_serves_last_and_auto(first, extractor, encoder):
    second = {"last": "auto", "auto": "last"}[first]
    before = extractor(layers=first).fit_transform(TEXTS)
    assert encoder.n_rows == 5
    after = extractor(layers=second).fit_transform(TEXTS)
    assert encoder.n_rows == 5
    last, both = (before, after) if first == "last" else (after, before)
    np.testing.assert_array_equal(both.features[:, 32:], last.features)
    np.testing.assert_array_equal(both.features, last.teacher_features.features)


def test_what_is_stored(extractor, cache):
    def widths():
        return sorted(model["width"] for model in FeatureStore(cache).stats()["models"])

    alone = extractor(layers=[-1]).fit(TEXTS)
    alone.precompute(TEXTS)
    assert widths() == [32]
    last, auto = extractor().precompute(TEXTS), extractor(layers="auto").precompute(TEXTS)
    assert widths() == [32, 64]
    inner = extractor(layers=[0, 1, 2]).precompute(TEXTS)
    assert widths() == [32, 64, 96]
    assert list(inner.store_keys(TEXTS)) == ["bert"]  # by model, not by layer
    keys = last.store_keys(TEXTS)
    assert keys == auto.store_keys(TEXTS)
    assert list(keys) == ["bert"]
    assert all(key not in alone.store_keys(TEXTS)["bert"] for key in keys["bert"])
    assert not len(FeatureStore(cache).missing(keys["bert"]))


def test_teacher_features_of_last(extractor, encoder):
    rows = extractor(cache=None).fit(TEXTS).transform(TEXTS)
    teacher = rows.teacher_features
    assert teacher.feature_slices == {"bert_layer2": slice(0, 32), "bert": slice(32, 64)}
    assert teacher.shape == (5, 64)
    assert not rows.is_computed
    assert teacher.inputs is rows.inputs
    # Whoever asks first computes both.
    matrix = np.asarray(teacher)
    assert rows.is_computed
    np.testing.assert_array_equal(matrix[:, 32:], rows)
    assert encoder.n_rows == 5
    assert teacher.teacher_features is teacher


@pytest.mark.parametrize("where", ["memory", "store"])
def test_slices_and_pickles_have_teacher_features(where, extractor, encoder, cache):
    rows = extractor(cache=None if where == "memory" else cache).fit_transform(TEXTS)
    expected = np.asarray(rows.teacher_features)
    some = _safe_indexing(rows, [4, 1])
    np.testing.assert_array_equal(some.teacher_features, expected[[4, 1]])
    np.testing.assert_array_equal(rows.teacher_features[[4, 1]], expected[[4, 1]])
    for copied in (rows, rows.teacher_features, some):
        again = pickle.loads(pickle.dumps(copied))
        np.testing.assert_array_equal(again.teacher_features, copied.teacher_features)
        np.testing.assert_array_equal(again, copied)
    assert encoder.n_rows == 5


def test_an_extractor_is_pickled_and_cloned(extractor, encoder):
    fitted = extractor(layers=[1, -1]).fit(TEXTS)
    expected = np.asarray(fitted.transform(TEXTS))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(TEXTS), expected)
    assert clone(fitted).layers == [1, -1]


def test_frames_have_the_chosen_columns(extractor):
    frame = extractor(layers="auto").set_output(transform="pandas").fit_transform(TEXTS)
    assert list(frame.columns[[0, 63]]) == ["bert_layer2_0", "bert_31"]
    frame = extractor().set_output(transform="pandas").fit_transform(TEXTS)
    assert frame.shape == (5, 32)


def test_several_models(extractor, encoder):
    models = [encoder, CallableBackbone(lengths, "lengths"), encoder]
    rows = extractor(model=models).fit_transform(TEXTS)
    assert rows.feature_slices == {
        "bert": slice(0, 32),
        "lengths": slice(32, 33),
        "bert-2": slice(33, 65),
    }
    assert rows.teacher_features.feature_slices == {
        "bert_layer2": slice(0, 32),
        "bert": slice(32, 64),
        "lengths": slice(64, 65),
        "bert-2_layer2": slice(65, 97),
        "bert-2": slice(97, 129),
    }
    teacher = np.asarray(rows.teacher_features)
    np.testing.assert_array_equal(teacher[:, [*range(32, 65), *range(97, 129)]], rows)
    np.testing.assert_array_equal(rows.take([1, 3])[:, 32:33], LENGTHS[[1, 3]])
    auto = extractor(model=models, layers="auto").fit_transform(TEXTS)
    np.testing.assert_array_equal(auto, teacher)


def test_models_of_columns(extractor, encoder):
    frame = pd.DataFrame({"title": TEXTS, "body": TEXTS[::-1]})
    model = {"title": [encoder, lengths], "body": encoder}
    rows = extractor(model=model).fit_transform(frame)
    assert rows.column_slices == {"title": slice(0, 33), "body": slice(33, 65)}
    teacher = rows.teacher_features
    assert teacher.column_slices == {"title": slice(0, 65), "body": slice(65, 129)}
    assert list(teacher.feature_slices) == [
        "title_bert_layer2",
        "title_bert",
        "lengths",
        "body_bert_layer2",
        "body_bert",
    ]
    np.testing.assert_array_equal(teacher.features[:, 32:65], rows.features[:, :33])


def test_images():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    rows = FoundationFeatureExtractor(EfficientNetLiteBackbone(image_size=32)).fit_transform(images)
    assert rows.shape == (4, 1280)
    teacher = rows.teacher_features
    assert teacher.feature_slices == {
        "effnet-lite0_layer13": slice(0, 192),
        "effnet-lite0": slice(192, 1472),
    }
    np.testing.assert_array_equal(teacher.features[:, 192:], rows)


def test_rows_without_features(extractor):
    texts = [TEXTS[0], None, TEXTS[1]]
    with pytest.warns(UserWarning, match="1 of 3 rows have no features"):
        rows = extractor(on_error="mask").fit_transform(texts)
    for features in (rows, rows.teacher_features):
        assert features.missing_mask.tolist() == [False, True, False]
        assert np.isnan(features.take([1])).all()
        assert np.isfinite(np.asarray(features)[[0, 2]]).all()


class Plain(Backbone):
    """A user's backbone: only what has to be written."""

    name = "plain"

    def fingerprint(self):
        return {"type": "plain"}

    def embed(self, rows, *, batch_size, device):
        return np.float32(lengths(rows.values))


@pytest.mark.parametrize("layers", ["last", "auto"])
@pytest.mark.parametrize("model", [Plain(), lengths])
def test_models_with_one_output(model, layers):
    rows = FoundationFeatureExtractor(model, layers=layers).fit_transform(TEXTS)
    np.testing.assert_array_equal(rows, LENGTHS)
    assert rows.teacher_features is rows


def test_widths_that_only_the_model_knows(extractor, encoder, monkeypatch):
    monkeypatch.setattr(CountsRuns, "n_features_out", None)
    fitted = extractor().fit(TEXTS)
    assert fitted.n_features_out_ == 32
    assert encoder.n_rows == 1
    assert fitted.transform(TEXTS).teacher_features.shape == (5, 64)


def test_known_widths_need_no_run(extractor, encoder):
    assert extractor(layers=[2, 0]).fit(TEXTS).n_features_out_ == 64
    assert encoder.n_rows == 0


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("middle", "layers='middle': expected 'last', 'auto' or a list"),
        (4, "layers=4: expected 'last', 'auto' or a list"),
        ([], r"layers=\[\]: expected"),
        ([True], r"layers=\[True\]: expected"),
        ([1.0], r"layers=\[1.0\]: expected"),
        ([4], r"layers=\[4\] names a layer that does not exist: model 'bert' has 3 layers"),
        ([3, -1], r"layers=\[3, -1\] names a layer twice: model 'bert' has 3 layers"),
    ],
)
def test_layers_that_cannot_be_used(layers, message, extractor, encoder):
    with pytest.raises(ValueError, match=message):
        extractor(layers=layers).fit(TEXTS)
    assert encoder._loaded is None


def test_a_list_needs_models_with_layers(extractor, encoder):
    calls = []
    with pytest.raises(
        ValueError, match=r"layers=\[1\].*'append'.*single output: use layers='auto"
    ):
        extractor(model=[encoder, calls.append], layers=[1]).fit(TEXTS)
    assert not calls
    assert encoder.n_rows == 0


def test_a_student_learns_from_teacher_features(extractor):
    y = np.array([0, 1, 0, 1, 0])
    fitted = extractor()
    teacher = fitted.fit_transform(TEXTS).teacher_features
    unlabeled = fitted.transform(["why was it stolen"]).teacher_features
    student = AFTClassifier(random_state=0, max_epochs=1)
    student.fit(teacher, y, X_unlabeled=unlabeled)
    assert student.predict(TEXTS).shape == (5,)
