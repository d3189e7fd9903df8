import pickle
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import RandomTreesEmbedding
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, SplineTransformer, StandardScaler

from sk_aft import FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import SklearnBackbone
from sk_aft.store import FeatureStore

CPU = torch.device("cpu")
X = load_iris().data
TEXTS = ["a cat", "the dog ran", "a bird sang", "dogs ran off", "the cat sang"]


def embed(backbone, rows, batch_size=1024):
    return backbone.embed(as_rows(rows), batch_size=batch_size, device=CPU)


@pytest.mark.parametrize("batch_size", [1, 7, 1024])
def test_a_fitted_transformer_gives_what_it_gives(batch_size):
    pca = PCA(3).fit(X)
    features = embed(SklearnBackbone(pca), X, batch_size)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, pca.transform(X), rtol=1e-4, atol=1e-5)


def test_sparse_results_and_pipelines_of_texts():
    pipe = make_pipeline(TfidfVectorizer(), TruncatedSVD(2, random_state=0)).fit(TEXTS)
    np.testing.assert_allclose(
        embed(SklearnBackbone(pipe), TEXTS), pipe.transform(TEXTS), rtol=1e-4
    )
    tfidf = pipe[0]
    expected = tfidf.transform(TEXTS).toarray()
    np.testing.assert_allclose(embed(SklearnBackbone(tfidf), TEXTS, 2), expected, rtol=1e-6)


def test_frames_that_a_transformer_returns_are_matrices():
    pca = PCA(3).fit(X).set_output(transform="pandas")
    np.testing.assert_allclose(
        embed(SklearnBackbone(pca), X), pca.transform(X).to_numpy(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("transformer", [PCA(), make_pipeline(StandardScaler(), PCA())])
def test_one_that_is_not_fitted_is_refused(transformer):
    with pytest.raises(NotFittedError):
        SklearnBackbone(transformer)


def test_one_that_needs_no_fit_is_not():
    np.testing.assert_allclose(
        embed(SklearnBackbone(FunctionTransformer(np.abs)), -X), X, rtol=1e-6
    )


def test_fingerprints_follow_what_was_learned():
    fingerprints = [
        SklearnBackbone(transformer).fingerprint()
        for transformer in (
            PCA(2).fit(X),
            PCA(3).fit(X),
            PCA(2).fit(X[:100]),
            PCA(2, whiten=True).fit(X),
            StandardScaler().fit(X),
        )
    ]
    assert len({fingerprint["state"] for fingerprint in fingerprints}) == 5
    assert SklearnBackbone(PCA(2).fit(X)).fingerprint() == fingerprints[0]


def test_running_it_does_not_change_its_fingerprint():
    backbone = SklearnBackbone(PCA(2).fit(X))
    before = backbone.fingerprint()
    embed(backbone, X)
    assert backbone.fingerprint() == before


@pytest.mark.parametrize(
    ("transformer", "rows"),
    [
        pytest.param(
            HashingVectorizer(n_features=8),
            TEXTS,
            marks=pytest.mark.skipif(
                sklearn.__version__.startswith("1.6"), reason="tells that it has to be fitted"
            ),
        ),
        (SplineTransformer(), X),
    ],
)
def test_what_a_transformer_remembers_when_it_is_run_does_not_count(transformer, rows):
    if rows is X:
        transformer.fit(rows)
    before = SklearnBackbone(transformer).fingerprint()
    embed(SklearnBackbone(transformer), rows)
    assert SklearnBackbone(transformer).fingerprint() == before


@pytest.mark.parametrize(
    "transformer",
    [
        PCA(2),
        StandardScaler(),
        PCA(2, svd_solver="randomized", random_state=0),
        TruncatedSVD(2, random_state=0),
        Nystroem(n_components=5, random_state=0),
        RandomTreesEmbedding(5, random_state=0),
        SplineTransformer(),
    ],
)
def test_a_worker_recognises_a_transformer(transformer):
    """A pickled copy has the same fingerprint, so its rows are not computed again."""
    backbone = SklearnBackbone(transformer.fit(X))
    assert pickle.loads(pickle.dumps(backbone)).fingerprint() == backbone.fingerprint()


def test_another_run_recognises_a_transformer_that_was_fitted_anew():
    code = f"""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sk_aft.backbones import SklearnBackbone
        print(SklearnBackbone(TfidfVectorizer().fit({TEXTS!r})).fingerprint()["state"])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    here = SklearnBackbone(TfidfVectorizer().fit(TEXTS)).fingerprint()["state"]
    assert result.stdout.strip() == here


def scale(rows):
    return 2 * rows


def test_a_function_inside_a_transformer_is_trusted_in_its_process_only(monkeypatch):
    """As when a function is edited in a notebook: the new one must not get the old features."""
    rows = FoundationFeatureExtractor(FunctionTransformer(scale)).fit_transform(X)
    np.testing.assert_allclose(rows, 2 * X, rtol=1e-6)

    def edited(rows):
        return 3 * rows

    edited.__name__ = edited.__qualname__ = "scale"
    monkeypatch.setitem(globals(), "scale", edited)
    rows = FoundationFeatureExtractor(FunctionTransformer(edited)).fit_transform(X)
    np.testing.assert_allclose(rows, 3 * X, rtol=1e-6)


def test_a_transformer_that_holds_a_lambda_is_a_model():
    reverse = FunctionTransformer(lambda rows: rows[:, ::-1])
    rows = FoundationFeatureExtractor(reverse).fit_transform(X)
    np.testing.assert_allclose(rows, X[:, ::-1], rtol=1e-6)


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_transformer_that_was_fitted_on_a_frame_is_run_without_warnings():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    rows = FoundationFeatureExtractor(PCA(2).fit(frame)).fit_transform(frame)
    np.testing.assert_allclose(rows, PCA(2).fit_transform(frame), rtol=1e-3, atol=1e-5)


def test_a_transformer_that_is_fitted_again_is_another_model():
    pca = PCA(2).fit(X)
    backbone = SklearnBackbone(pca)
    FoundationFeatureExtractor(backbone).fit_transform(X)
    pca.fit(X[:50])
    rows = FoundationFeatureExtractor(backbone).fit_transform(X)
    np.testing.assert_allclose(rows, pca.transform(X), rtol=1e-3, atol=1e-5)


class Stateless(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True


def doubling():
    class Scaler(Stateless):
        def transform(self, X):
            return 2 * X

    return Scaler


def tripling():
    class Scaler(Stateless):
        def transform(self, X):
            return 3 * X

    return Scaler


def test_an_edited_class_is_trusted_in_its_process_only(monkeypatch, cache):
    """As in a notebook: the same name, another code."""
    for make, factor in ((doubling, 2), (tripling, 3)):
        edited = make()
        edited.__qualname__, edited.__module__ = "Scaler", "__main__"
        monkeypatch.setattr(sys.modules["__main__"], "Scaler", edited, raising=False)
        rows = FoundationFeatureExtractor(edited()).fit_transform(X)
        np.testing.assert_allclose(rows, factor * X, rtol=1e-6)
    assert not cache.exists()


def test_a_transformer_whose_class_is_local_is_a_model():
    rows = FoundationFeatureExtractor(doubling()()).fit_transform(X)
    np.testing.assert_allclose(rows, 2 * X, rtol=1e-6)


class FewerRows(Stateless):
    """Drops duplicates, which a transformer must not do."""

    def transform(self, X):
        return np.unique(X[:, 0])[:, None]


def test_a_transformer_has_to_return_a_row_a_row():
    with pytest.raises(ValueError, match="rows"):
        FoundationFeatureExtractor(FewerRows()).fit_transform(X)


def test_features_are_kept_across_runs(cache):
    FoundationFeatureExtractor(PCA(2).fit(X)).fit_transform(X)
    assert len(FeatureStore(cache).stats()["models"]) == 1


def test_a_transformer_that_holds_a_pandas_index_is_a_model(cache):
    table = pd.DataFrame(X)
    table.columns = [f"column {i}" for i in range(X.shape[1])]
    chosen = ColumnTransformer([("scaled", StandardScaler(), table.columns)]).fit(table)
    rows = FoundationFeatureExtractor(chosen).fit_transform(table)
    np.testing.assert_allclose(rows, StandardScaler().fit_transform(X), rtol=1e-5, atol=1e-6)
    assert cache.exists()


def test_a_transformer_that_cannot_be_pickled_lives_as_long_as_the_process(cache):
    scaler = StandardScaler().fit(X)
    scaler.lock = threading.Lock()
    FoundationFeatureExtractor(scaler).fit_transform(X)
    assert not cache.exists()
