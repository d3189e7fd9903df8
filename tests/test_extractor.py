import copy
import functools
import os
import pickle
import shutil

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sk_aft import AFTClassifier, FoundationFeatureExtractor, FoundationFeatures
from sk_aft.backbones import CallableBackbone
from sk_aft.store import FeatureStore
from sk_aft.transfer import KernelAlignment

LETTERS = "aeinort"
TEXTS = [f"{a} {b}" for a in ("one", "a train", "oat", "rain") for b in ("in", "tea", "neon", "no")]
LABELS = np.array([0, 1] * 8)


def count_letters(texts, log, letters=LETTERS):
    with open(log, "a") as file:
        file.writelines(text + "\n" for text in texts)
    return np.array([[text.count(letter) for letter in letters] for text in texts])


FEATURES = count_letters(TEXTS, os.devnull)


@pytest.fixture
def log(tmp_path):
    """A file that gets a line for every row that a model is run on, in whatever process."""
    log = tmp_path / "log"
    log.touch()
    return log


@pytest.fixture
def model(log):
    """A bare function: its features are kept as long as the session."""
    return functools.partial(count_letters, log=log)


@pytest.fixture
def declared(model):
    """A function with a fingerprint: its features are kept in the cache."""
    return CallableBackbone(model, "letters v1")


def calls(log):
    return log.read_text().splitlines()


def fold_features(extractor, texts):
    """What a worker of a search does."""
    return np.asarray(clone(extractor).fit_transform(texts))


def features_of(rows):
    return np.asarray(rows)


# ---------------------------------------------------------------- when a model runs


@pytest.mark.parametrize("kind", ["model", "declared"])
def test_fit_runs_one_row_to_learn_the_width(kind, request, log):
    extractor = FoundationFeatureExtractor(request.getfixturevalue(kind)).fit(TEXTS)
    assert extractor.n_features_out_ == 7
    assert calls(log) == TEXTS[:1]
    extractor.fit(TEXTS)
    extractor.fit_transform(TEXTS)
    assert sorted(calls(log)) == sorted(TEXTS)  # the first row not again


def test_transform_runs_nothing_until_somebody_asks(model, log):
    extractor = FoundationFeatureExtractor(model).fit(TEXTS[:1])
    rows = extractor.transform(TEXTS)
    assert isinstance(rows, FoundationFeatures)
    assert not rows.is_computed
    assert calls(log) == TEXTS[:1]
    np.testing.assert_array_equal(np.asarray(rows), FEATURES)
    assert sorted(calls(log)) == sorted(TEXTS)


def test_fit_transform_runs_each_distinct_row_at_once(model, log):
    rows = FoundationFeatureExtractor(model).fit_transform(TEXTS + TEXTS[::-1])
    assert rows.is_computed
    assert sorted(calls(log)) == sorted(TEXTS)
    np.testing.assert_array_equal(rows, np.vstack([FEATURES, FEATURES[::-1]]))


@pytest.mark.parametrize("kind", ["model", "declared"])
def test_each_distinct_row_is_run_once_whatever_asks_for_it(kind, request, log):
    model = request.getfixturevalue(kind)
    extractor = FoundationFeatureExtractor(model)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    for train, test in KFold(4).split(TEXTS):
        fold = clone(extractor)
        fold.fit_transform([TEXTS[i] for i in train])
        np.asarray(fold.transform([TEXTS[i] for i in test]))
    shuffled = extractor.fit_transform([TEXTS[i] for i in order])
    np.testing.assert_array_equal(shuffled, FEATURES[order])
    for how in (pickle, cloudpickle):
        again = pickle.loads(how.dumps(extractor))
        np.testing.assert_array_equal(again.transform(TEXTS), FEATURES)
        np.testing.assert_array_equal(clone(again).fit_transform(TEXTS[::-1]), FEATURES[::-1])
    FoundationFeatureExtractor(model, batch_size=3, verbose=1).fit_transform(TEXTS)
    np.asarray(extractor.transform(pd.Series(TEXTS)))
    assert sorted(calls(log)) == sorted(TEXTS)


@pytest.mark.usefixtures("new_workers")
def test_so_do_several_processes(model, declared, log):
    """Folds overlap, and two processes ask for the same rows at the same time."""
    folds = [TEXTS[start : start + 10] for start in (0, 3, 6, 0)]
    lazy = FoundationFeatureExtractor(model).fit(TEXTS).transform(TEXTS)
    with joblib.Parallel(n_jobs=2) as parallel:
        for extractor in (FoundationFeatureExtractor(model), FoundationFeatureExtractor(declared)):
            log.write_text(TEXTS[0] + "\n" if extractor.model is model else "")
            results = parallel(joblib.delayed(fold_features)(extractor, fold) for fold in folds)
            for fold, features in zip(folds, results, strict=True):
                np.testing.assert_array_equal(features, count_letters(fold, os.devnull))
            assert sorted(calls(log)) == sorted(TEXTS)
        # What workers of a bare function computed is known here, and the other way round.
        (features,) = parallel([joblib.delayed(features_of)(lazy)])
    np.testing.assert_array_equal(features, FEATURES)
    np.testing.assert_array_equal(FoundationFeatureExtractor(model).fit_transform(TEXTS), FEATURES)
    assert sorted(calls(log)) == sorted(TEXTS)


def test_a_bare_function_is_trusted_in_its_session_only(model, log, cache):
    FoundationFeatureExtractor(model).fit_transform(TEXTS)
    assert not cache.exists()
    other = functools.partial(count_letters, log=log, letters="xyz")
    rows = FoundationFeatureExtractor(other).fit_transform(TEXTS)
    assert rows.shape == (16, 3)
    assert len(calls(log)) == 32


def test_a_declared_fingerprint_names_the_features(model, declared, log):
    FoundationFeatureExtractor(declared).fit_transform(TEXTS)
    again = CallableBackbone(functools.partial(count_letters, log=log), "letters v1")
    FoundationFeatureExtractor(again).fit_transform(TEXTS)
    assert len(calls(log)) == 16
    changed = CallableBackbone(functools.partial(count_letters, log=log), "letters v2")
    FoundationFeatureExtractor(changed).fit_transform(TEXTS)
    assert len(calls(log)) == 32


@pytest.mark.parametrize("interruption", [OSError, MemoryError, KeyboardInterrupt])
def test_after_an_interruption_it_goes_on_where_it_was(model, log, interruption):
    texts = [f"{text} {number}" for number in range(4) for text in TEXTS]
    broken = log.with_name("broken")
    broken.touch()

    def breaks(texts_):
        if texts[40] in texts_ and broken.exists():
            raise interruption
        return model(texts_)

    extractor = FoundationFeatureExtractor(breaks, batch_size=2)
    with pytest.raises(interruption):
        extractor.fit_transform(texts)
    before = calls(log)
    assert not set(before) & set(texts[40:])
    assert len(before) > 32
    broken.unlink()
    log.write_text("")
    np.testing.assert_array_equal(extractor.fit_transform(texts), count_letters(texts, os.devnull))
    again = calls(log)
    assert set(again) >= set(texts[40:])
    assert len(again) <= len(texts) - 32  # lost: less than what one commit holds


# ---------------------------------------------------------------- scikit-learn


def test_is_a_linear_probe_with_scikit_learns_own_steps(model, log):
    probe = make_pipeline(FoundationFeatureExtractor(model), StandardScaler(), LogisticRegression())
    scores = cross_val_score(probe, TEXTS, LABELS, cv=4, error_score="raise")
    plain = make_pipeline(StandardScaler(), LogisticRegression())
    np.testing.assert_allclose(scores, cross_val_score(plain, FEATURES, LABELS, cv=4))
    assert sorted(calls(log)) == sorted(TEXTS)


def test_stands_beside_other_columns(model, log):
    frame = pd.DataFrame({"text": TEXTS, "number": np.arange(16.0)})
    for column in ("text", ["text"]):
        columns = make_column_transformer(
            (FoundationFeatureExtractor(model), column), (StandardScaler(), ["number"])
        )
        probe = make_pipeline(columns, LogisticRegression()).fit(frame, LABELS)
        np.testing.assert_array_equal(probe[0].transform(frame)[:, :7], FEATURES)
        assert probe.predict(frame).shape == (16,)
    union = make_union(FoundationFeatureExtractor(model), TfidfVectorizer())
    assert union.fit_transform(TEXTS).shape[1] > 7
    assert sorted(calls(log)) == sorted(TEXTS)


def test_folds_run_in_threads(log):
    for _ in range(20):  # threads meet at another point each time
        model = functools.partial(count_letters, log=log)
        probe = make_pipeline(FoundationFeatureExtractor(model), LogisticRegression())
        with joblib.parallel_backend("threading", n_jobs=4):
            scores = cross_val_score(probe, TEXTS, LABELS, cv=4, error_score="raise")
        np.testing.assert_allclose(scores, cross_val_score(probe, TEXTS, LABELS, cv=4))
        assert sorted(calls(log)) == sorted(TEXTS)
        log.unlink()


def test_a_deep_copy_knows_what_was_computed(log):
    class Model:
        def __call__(self, texts):
            return count_letters(texts, log)

    extractor = FoundationFeatureExtractor(Model())
    rows = extractor.fit_transform(TEXTS)
    np.testing.assert_array_equal(copy.deepcopy(extractor).transform(TEXTS), FEATURES)
    np.testing.assert_array_equal(copy.deepcopy(rows), FEATURES)
    assert sorted(calls(log)) == sorted(TEXTS)


def test_a_clone_shares_the_model():
    heavy = torch.nn.Linear(3, 2)
    extractor = FoundationFeatureExtractor([heavy, "minilm"], batch_size=5, cache="here")
    again = clone(extractor.set_output(transform="pandas"))
    assert again.model[0] is heavy
    assert again is not extractor
    assert again.get_params(deep=False) == extractor.get_params(deep=False)
    assert not hasattr(again, "backbones_")
    squares = FoundationFeatureExtractor(np.square).set_output(transform="pandas")
    assert isinstance(clone(squares).fit_transform(np.eye(2)), pd.DataFrame)


def test_refuses_to_transform_before_it_is_fitted(model):
    with pytest.raises(NotFittedError):
        FoundationFeatureExtractor(model).transform(TEXTS)
    with pytest.raises(NotFittedError):
        FoundationFeatureExtractor(model).get_feature_names_out()


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"cache": 3}, "cache"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "all"}, "batch_size"),
        ({"device": 0}, "device"),
        ({"verbose": "loud"}, "verbose"),
    ],
)
def test_wrong_parameters_are_named(model, parameters, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        FoundationFeatureExtractor(model, **parameters).fit(TEXTS)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ([], ValueError, "empty list"),
        ("no-such-model", ValueError, "Unknown foundation model 'no-such-model'"),
        (3, TypeError, "Cannot use an object of type int"),
        (PCA(2), NotFittedError, "not fitted"),
        (PCA, TypeError, "class PCA: give an instance"),
        (torch.nn.Identity, TypeError, "class Identity: give an instance"),
    ],
)
def test_what_is_no_model_says_so_at_fit(model, error, message):
    with pytest.raises(error, match=message):
        FoundationFeatureExtractor(model).fit([[1.0, 2.0]])


def test_rows_that_a_model_does_not_read_are_refused_at_fit():
    with pytest.raises(ValueError, match="Model 'minilm': Expected text rows, got numeric rows"):
        FoundationFeatureExtractor("minilm").fit([[1.0, 2.0]])
    with pytest.raises(ValueError, match="Model 'minilm': Expected text rows, got image rows"):
        FoundationFeatureExtractor("minilm").fit(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="Model 'effnet-lite0': Expected image rows, got numeric"):
        FoundationFeatureExtractor("effnet-lite0").fit([[1.0, 2.0]])


@pytest.mark.parametrize("cache", ["auto", None])
def test_texts_for_an_image_model_are_paths(cache):
    extractor = FoundationFeatureExtractor("effnet-lite0", cache=cache)
    message = r"Row 0 .*Model 'effnet-lite0' reads images and takes strings as their paths"
    with pytest.raises(ValueError, match=message):
        extractor.fit_transform(["my card", "why"])
    with pytest.raises(ValueError, match="not a readable image") as caught:
        extractor.fit_transform(["no/such/file.png"])
    assert "takes strings" not in str(caught.value)


@pytest.mark.parametrize("method", ["fit", "fit_transform"])
def test_rows_are_checked_before_a_model_runs(model, log, method):
    with pytest.raises(ValueError, match="Row 3 of X is missing"):
        getattr(FoundationFeatureExtractor(model), method)([*TEXTS[:3], None])
    assert calls(log) == []


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_gives_frames_when_asked_to(model, declared, library):
    extractor = FoundationFeatureExtractor([model, declared]).set_output(transform=library)
    module = pd if library == "pandas" else pl
    for frame in (extractor.fit_transform(TEXTS), extractor.transform(TEXTS)):
        assert isinstance(frame, module.DataFrame)
        assert list(frame.columns) == extractor.get_feature_names_out().tolist()
        np.testing.assert_array_equal(frame.to_numpy(), np.hstack([FEATURES, FEATURES]))


def test_the_global_setting_parts_no_features_from_their_rows(model):
    extractor = FoundationFeatureExtractor(model)
    with sklearn.config_context(transform_output="pandas"):
        for rows in (extractor.fit_transform(TEXTS), clone(extractor).fit(TEXTS).transform(TEXTS)):
            assert isinstance(rows, FoundationFeatures)
            assert rows.inputs == TEXTS
        assert isinstance(clone(extractor).set_output().fit_transform(TEXTS), FoundationFeatures)
        extractor.set_output(transform="pandas")
        assert isinstance(extractor.fit_transform(TEXTS), pd.DataFrame)
        extractor.set_output(transform="default")
        assert isinstance(extractor.fit_transform(TEXTS), FoundationFeatures)
    assert isinstance(FoundationFeatureExtractor(model).fit_transform(TEXTS), FoundationFeatures)


def test_frames_keep_the_index_of_frames(model):
    extractor = FoundationFeatureExtractor(model).set_output(transform="pandas")
    X = pd.DataFrame({"text": TEXTS}, index=range(50, 66))
    assert extractor.fit_transform(X).index.tolist() == X.index.tolist()
    assert extractor.transform(X).index.tolist() == X.index.tolist()


def test_numbers_have_their_columns_checked():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 3)), columns=["a", "b", "c"])
    extractor = FoundationFeatureExtractor(PCA(2).fit(frame.to_numpy())).fit(frame)
    assert extractor.n_features_in_ == 3
    assert extractor.feature_names_in_.tolist() == ["a", "b", "c"]
    assert extractor.fit(frame.to_numpy()).n_features_in_ == 3
    assert not hasattr(extractor, "feature_names_in_")
    with pytest.raises(ValueError, match=r"X has 2 features, but .* is expecting 3"):
        extractor.transform(frame.to_numpy()[:, :2])
    extractor.fit(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        extractor.transform(frame.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="contains NaN"):
        extractor.transform(frame.replace(frame.iloc[0, 0], np.nan))


def test_texts_have_no_number_of_columns(model):
    extractor = FoundationFeatureExtractor(model).fit(TEXTS)
    assert not hasattr(extractor, "n_features_in_")


# ---------------------------------------------------------------- several models


def test_models_are_side_by_side(model, log):
    lengths = CallableBackbone(lambda texts: np.array([[len(t), 1] for t in texts]), "lengths")
    extractor = FoundationFeatureExtractor([model, lengths, model]).fit(TEXTS)
    assert extractor.feature_slices_ == {
        "partial": slice(0, 7),
        "function": slice(7, 9),
        "partial-2": slice(9, 16),
    }
    names = extractor.get_feature_names_out().tolist()
    assert names[:2] == ["partial_0", "partial_1"]
    assert names[7:10] == ["function_0", "function_1", "partial-2_0"]
    assert len(set(names)) == len(names) == extractor.n_features_out_ == 16
    rows = extractor.transform(TEXTS)
    np.testing.assert_array_equal(
        rows.features[:, extractor.feature_slices_["partial-2"]], FEATURES
    )
    np.testing.assert_array_equal(rows.features[:, 7], [len(text) for text in TEXTS])
    assert sorted(calls(log)) == sorted(TEXTS)


def test_equal_modules_have_names_of_their_own():
    modules = [torch.nn.Linear(3, 2) for _ in range(3)]
    extractor = FoundationFeatureExtractor(modules).fit(np.eye(3))
    assert list(extractor.feature_slices_) == ["linear", "linear-2", "linear-3"]
    with torch.no_grad():
        expected = torch.cat([module(torch.eye(3)) for module in modules], dim=1)
    np.testing.assert_allclose(extractor.transform(np.eye(3)), expected, rtol=1e-6)


def test_a_tuple_of_models_is_a_list_of_them(model):
    assert FoundationFeatureExtractor((model, model)).fit(TEXTS).n_features_out_ == 14


# ---------------------------------------------------------------- where features are kept


def test_features_are_kept_where_the_variable_says(declared, cache):
    FoundationFeatureExtractor(declared).fit_transform(TEXTS)
    assert FeatureStore(cache).stats()["rows"] == 16


@pytest.mark.parametrize("form", [str, lambda path: path, FeatureStore])
def test_features_are_kept_where_the_parameter_says(declared, log, tmp_path, cache, form):
    path = tmp_path / "elsewhere"
    extractor = FoundationFeatureExtractor(declared, cache=form(path))
    np.testing.assert_array_equal(extractor.fit_transform(TEXTS), FEATURES)
    assert FeatureStore(path).stats()["rows"] == 16
    assert not cache.exists()
    FoundationFeatureExtractor(declared, cache=path).fit_transform(TEXTS)
    assert len(calls(log)) == 16


def test_without_a_cache_nothing_is_written(model, declared, cache):
    extractor = FoundationFeatureExtractor([model, declared], cache=None)
    rows = extractor.fit_transform(TEXTS)
    np.testing.assert_array_equal(rows, np.hstack([FEATURES, FEATURES]))
    np.testing.assert_array_equal(extractor.transform(TEXTS[3:]), rows[3:])
    assert not cache.exists()


# ---------------------------------------------------------------- pickles


def test_a_fitted_extractor_can_be_pickled(declared, log):
    extractor = FoundationFeatureExtractor(declared).fit(TEXTS)
    again = pickle.loads(pickle.dumps(extractor))
    assert again.feature_slices_ == extractor.feature_slices_
    np.testing.assert_array_equal(again.transform(TEXTS), FEATURES)
    assert sorted(calls(log)) == sorted(TEXTS)


def test_rows_can_be_pickled_before_and_after_they_are_computed(declared, log):
    extractor = FoundationFeatureExtractor(declared).fit(TEXTS)
    lazy = pickle.loads(pickle.dumps(extractor.transform(TEXTS)))
    assert calls(log) == TEXTS[:1]
    np.testing.assert_array_equal(lazy, FEATURES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy)), FEATURES)
    assert sorted(calls(log)) == sorted(TEXTS)


def test_a_pickle_outlives_the_store(declared, log, cache):
    rows = FoundationFeatureExtractor(declared).fit_transform(TEXTS)
    pickled = pickle.dumps(rows)
    shutil.rmtree(cache)
    np.testing.assert_array_equal(pickle.loads(pickled), FEATURES)
    assert sorted(calls(log)) == sorted(TEXTS * 2)


def test_a_pickle_of_a_lambda_works_in_this_session(log):
    model = functools.partial(count_letters, log=log)
    extractor = FoundationFeatureExtractor(lambda texts: model(texts)).fit(TEXTS)
    again = pickle.loads(cloudpickle.dumps(extractor))
    np.testing.assert_array_equal(again.transform(TEXTS), FEATURES)
    np.testing.assert_array_equal(extractor.transform(TEXTS), FEATURES)
    assert sorted(calls(log)) == sorted(TEXTS)


# ---------------------------------------------------------------- what models return


@pytest.mark.parametrize(
    ("result", "shape"),
    [
        (lambda texts: np.zeros(len(texts)), r"\(1,\) for 1 rows"),
        (lambda texts: np.zeros((1 + len(texts), 2)), r"\(2, 2\) for 1 rows"),
        (lambda texts: np.zeros((len(texts), 2, 2)), r"\(1, 2, 2\) for 1 rows"),
        (lambda texts: 1.0, r"\(\) for 1 rows"),
    ],
)
def test_a_function_has_to_return_a_row_a_row(result, shape):
    with pytest.raises(ValueError, match=rf"function returned an array of shape {shape}: expected"):
        FoundationFeatureExtractor(result).fit(TEXTS)


@pytest.mark.parametrize("where", ["auto", None])
@pytest.mark.parametrize("kind", ["numbers", "tensor", "list", "frame", "float16"])
def test_what_a_function_may_return(kind, where):
    def embed(texts):
        features = count_letters(texts, os.devnull).astype(float)
        return {
            "numbers": features,
            "tensor": torch.tensor(features, requires_grad=True).bfloat16(),
            "list": features.tolist(),
            "frame": pd.DataFrame(features),
            "float16": features.astype(np.float16),
        }[kind]

    rows = FoundationFeatureExtractor(embed, cache=where).fit_transform(TEXTS)
    assert rows.features.dtype == np.float32
    np.testing.assert_array_equal(rows, FEATURES)


@pytest.mark.parametrize("where", ["auto", None])
def test_a_function_whose_width_changes_is_refused(where):
    def embed(texts):
        return np.zeros((len(texts), 2 if TEXTS[15] in texts else 3))

    with pytest.raises(ValueError, match=r"features a row|width"):
        FoundationFeatureExtractor(embed, cache=where, batch_size=1).fit_transform(TEXTS)


def test_features_that_are_not_finite_name_row_and_model():
    def invert(rows):
        with np.errstate(divide="ignore"):
            return 1 / rows

    extractor = FoundationFeatureExtractor(invert)
    with pytest.raises(ValueError, match=r"'invert' failed for row 2 .* NaN or infinite"):
        extractor.fit_transform([[1.0, 2], [3, 4], [0, 1]])
    lazy = extractor.fit([[1.0, 2]]).transform([[1.0, 2], [0, 1]])
    with pytest.raises(ValueError, match="for row 1 "):
        np.asarray(lazy)


# ---------------------------------------------------------------- what rows may be


@pytest.mark.parametrize(
    "container",
    [
        tuple,
        np.array,
        lambda x: np.array(x, dtype=object),
        pd.Series,
        lambda x: pd.Series(x, index=range(50, 66)),
        lambda x: pd.DataFrame({"text": x}, index=range(50, 66)),
        pl.Series,
        lambda x: pl.DataFrame({"text": x}),
        pd.Index,
    ],
)
def test_rows_are_found_whatever_holds_them(model, log, container):
    extractor = FoundationFeatureExtractor(model)
    extractor.fit_transform(TEXTS)
    X = container(TEXTS)
    np.testing.assert_array_equal(clone(extractor).fit_transform(X), FEATURES)
    np.testing.assert_array_equal(extractor.transform(X), FEATURES)
    assert sorted(calls(log)) == sorted(TEXTS)


def test_images_reach_a_function_as_arrays(photographs):
    seen = []

    def mean(images):
        seen.append(type(images))
        return np.array([image.mean(axis=(0, 1)) for image in images])

    expected = photographs.mean(axis=(1, 2))
    rows = FoundationFeatureExtractor(mean).fit_transform(photographs)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    smaller = [*photographs[1:], photographs[0][:32]]
    rows = FoundationFeatureExtractor(mean).fit_transform(smaller)
    np.testing.assert_allclose(rows[:5], expected[1:], rtol=1e-5)
    assert set(seen) == {np.ndarray, list}


def test_a_fitted_transformer_is_a_model():
    vectorizer = TfidfVectorizer().fit(TEXTS)
    rows = FoundationFeatureExtractor(vectorizer).fit_transform(TEXTS)
    np.testing.assert_allclose(rows, vectorizer.transform(TEXTS).toarray(), rtol=1e-6)
    X = np.random.default_rng(0).normal(size=(4, 3))
    rows = FoundationFeatureExtractor(FunctionTransformer(np.abs)).fit_transform(X)
    np.testing.assert_allclose(rows, np.abs(X), rtol=1e-6)


def test_one_row_is_enough(model):
    np.testing.assert_array_equal(
        FoundationFeatureExtractor(model).fit_transform(TEXTS[:1]), FEATURES[:1]
    )


def test_columns_in_another_order_are_refused():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 2)), columns=["a", "b"])
    extractor = FoundationFeatureExtractor(PCA(2).fit(table))
    extractor.fit(table)
    with pytest.raises(ValueError, match=r"feature names should match.*\['b', 'a'\]"):
        extractor.fit(table[["b", "a"]])


def test_one_text_that_looks_like_a_path_is_a_text_after_all(model):
    extractor = FoundationFeatureExtractor(model).fit(["see photo.jpg", "hello"])
    assert np.asarray(extractor.transform(["resend invoice.png"])).shape == (1, 7)


def test_parameters_of_a_model_are_none_of_the_extractors():
    pca = PCA(2).fit(np.eye(3))
    extractor = FoundationFeatureExtractor(pca)
    assert set(extractor.get_params()) == set(extractor.get_params(deep=False))
    with pytest.raises(ValueError, match="Invalid parameter"):
        extractor.set_params(model__whiten=True)


# ---------------------------------------------------------------- rows that cannot be read


@pytest.fixture
def pictures(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    paths[3].write_bytes(b"not an image")
    paths[7].unlink()
    content = paths[9].read_bytes()
    paths[9].write_bytes(content[: len(content) // 2])  # its header is right
    return paths


def brightness(images):
    return np.array([[image.mean(), image.std()] for image in images])


@pytest.mark.parametrize("where", ["auto", None])
def test_masked_rows_keep_their_place_without_features(pictures, where):
    model = CallableBackbone(brightness, "brightness")
    extractor = FoundationFeatureExtractor(model, cache=where, on_error="mask")
    with pytest.warns(UserWarning, match=r"3 of 12 rows have no features of model 'brightness'"):
        rows = extractor.fit_transform(pictures)
    np.testing.assert_array_equal(np.flatnonzero(rows.missing_mask), [3, 7, 9])
    np.testing.assert_array_equal(np.isnan(rows).all(axis=1), rows.missing_mask)
    assert np.isfinite(rows.features[~rows.missing_mask]).all()
    np.testing.assert_array_equal(rows[[2, 3]].missing_mask, [False, True])
    intact = [path for row, path in enumerate(pictures) if row not in (3, 7, 9)]
    expected = FoundationFeatureExtractor(model, cache=None).fit_transform(intact)
    np.testing.assert_array_equal(rows.features[~rows.missing_mask], expected)


def test_a_row_that_raises_is_named_and_the_others_are_kept(cache):
    def embed(texts):
        if "oat tea" in texts:
            raise RuntimeError("no oats")
        return [[len(text)] for text in texts]

    extractor = FoundationFeatureExtractor(CallableBackbone(embed, "oats"))
    row = TEXTS.index("oat tea")
    with pytest.raises(ValueError, match=rf"failed for row {row} \('oat tea'\): no oats"):
        extractor.fit_transform(TEXTS)
    assert FeatureStore().stats()["rows"] >= row  # those before it
    with pytest.warns(UserWarning, match=rf"1 of 16 rows .* first is row {row}: no oats"):
        rows = extractor.set_params(on_error="mask").fit_transform(TEXTS)
    assert FeatureStore().stats()["rows"] == 15
    assert rows.missing_mask.sum() == 1


def test_the_first_row_may_be_the_bad_one(pictures):
    extractor = FoundationFeatureExtractor(brightness, on_error="mask")
    with pytest.warns(UserWarning, match="1 of 2 rows"):
        rows = extractor.fit_transform(pictures[3:5])
    assert rows.missing_mask.tolist() == [True, False]


@pytest.mark.parametrize("on_error", ["raise", "mask"])
@pytest.mark.parametrize("n_rows", [3, 5000])
def test_a_model_that_fails_for_every_row_is_not_excused(n_rows, on_error):
    def embed(texts):
        raise TypeError("takes numbers.")

    texts = [f"text {number}" for number in range(n_rows)]
    extractor = FoundationFeatureExtractor(embed, on_error=on_error)
    message = rf"failed for each of {min(n_rows, 11)} rows, .* probably not the cause: takes num"
    with pytest.raises(ValueError, match=message):
        extractor.fit_transform(texts)


@pytest.mark.parametrize("fail", ["raise", "nan"])
def test_a_model_that_fails_for_every_row_after_fit_blames_none(fail):
    def embed(texts):
        if fail == "raise" and any("new" in text for text in texts):
            raise TypeError("no new texts")
        return [[np.nan if "new" in text else len(text)] for text in texts]

    extractor = FoundationFeatureExtractor(embed).fit(TEXTS)
    with pytest.raises(ValueError, match="failed for each of 11 rows"):
        np.asarray(extractor.transform([f"new {text}" for text in TEXTS]))
    with pytest.raises(ValueError, match="failed for row 1 "):
        np.asarray(extractor.transform(["old", "new"]))


def test_tables_of_another_width_than_a_model_was_fitted_on_are_refused():
    X = np.random.default_rng(0).normal(size=(6, 4))
    pca = make_pipeline(StandardScaler(), PCA(2)).fit(X)
    for rows in (X[:, :3], pd.DataFrame(X[:, :3])):
        with pytest.raises(ValueError, match=r"X has 3 features, but .*'pipeline' was fitted on 4"):
            FoundationFeatureExtractor(pca, on_error="mask").fit_transform(rows)


def test_masked_rows_take_no_part_in_the_transfer_term():
    """A student on rows of which some are masked learns from the kernel of the others."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = np.arange(60) % 2
    bad = {5, 17, 40}

    def embed(rows):
        if any(np.array_equal(row, X[i]) for row in rows for i in bad):
            raise ValueError("bad")
        return np.tanh(rows)

    student = AFTClassifier(
        transfer="aft", beta=5, max_epochs=1, batch_size=60, optimizer=torch.optim.SGD, lr=1e-9
    )
    with pytest.warns(UserWarning, match="3 of 60 rows"):
        rows = FoundationFeatureExtractor(embed, on_error="mask").fit_transform(X)
    student.set_params(random_state=0).fit(rows, y)
    known = ~rows.missing_mask
    inputs = torch.from_numpy(student.preprocessor_.transform(X)).float()
    with torch.no_grad():
        _, features = student.module_(inputs)
        expected = KernelAlignment(3)(features[known], torch.tanh(torch.from_numpy(X[known])))
    assert student.history[-1, "train_transfer_loss"] == pytest.approx(float(expected), rel=1e-3)
    assert student.n_iter_ == 1


# ---------------------------------------------------------------- precompute


def test_precompute_fills_the_store_and_frees_the_model(log, declared, cache):
    extractor = FoundationFeatureExtractor(declared)
    unloaded = []
    declared.unload = lambda: unloaded.append(True)
    assert extractor.precompute(TEXTS) is extractor
    assert unloaded
    before = len(calls(log))
    np.testing.assert_array_equal(extractor.fit_transform(TEXTS), FEATURES)
    assert len(calls(log)) == before
    with pytest.raises(ValueError, match="nothing to precompute"):
        FoundationFeatureExtractor(declared, cache=None).precompute(TEXTS)


def test_progress_says_how_many_rows_were_in_the_store(declared, capsys):
    FoundationFeatureExtractor(declared).precompute(TEXTS[:6])
    FoundationFeatureExtractor(declared, verbose=1).precompute(TEXTS)
    progress = capsys.readouterr().err
    assert "10/10" in progress
    assert "in store=6" in progress
