"""Searches on the workers of Dask and Ray, with features that stay in the store."""

import os
import pickle

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone
from tests.scaling.models import features_of

WIDE = 4_000
N_ROWS = 80


def wide_features(texts):
    """Features that would show in a pickle: 16 kB a row."""
    return np.tile(features_of(texts), WIDE // 8)


@pytest.fixture
def rows(tmp_path):
    texts = [f"{'good' if number % 2 else 'bad'} {number}" for number in range(N_ROWS)]
    backbone = CallableBackbone(wide_features, fingerprint="wide")
    extractor = FoundationFeatureExtractor(backbone, cache=tmp_path / "store")
    return extractor.fit_transform(texts)


@pytest.fixture
def search():
    student = AFTClassifier(max_epochs=2, random_state=0, device="cpu")
    return GridSearchCV(student, {"beta": [0.0, 1.0]}, cv=2, n_jobs=2, error_score="raise")


def labels():
    return np.arange(N_ROWS) % 2


def scores(search, rows):
    fitted = search.fit(rows, labels())
    return {name: fitted.cv_results_[name] for name in fitted.cv_results_ if "_test_score" in name}


def assert_same_scores(search, rows, elsewhere):
    for name, found in scores(search.set_params(n_jobs=1), rows).items():
        np.testing.assert_allclose(elsewhere[name], found, err_msg=name)


def test_rows_travel_without_their_features(rows):
    assert rows.features.nbytes == N_ROWS * WIDE * 4
    assert len(pickle.dumps(rows)) < 10_000
    copy = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(copy.features, rows.features)
    assert copy.is_on_disk


def test_a_search_on_dask_has_the_scores_of_a_search_here(rows, search):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        elsewhere = scores(search, rows)
    assert_same_scores(search, rows, elsewhere)


def test_a_search_on_ray_has_the_scores_of_a_search_here(rows, search, monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=150 << 20, log_to_driver=False
    )
    try:
        register_ray()
        with joblib.parallel_config(backend="ray"):
            elsewhere = scores(search, rows)
    finally:
        ray.shutdown()
    assert_same_scores(search, rows, elsewhere)


def test_the_workers_read_the_store(rows, tmp_path):
    """A worker that finds all rows in the store does not run the model."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        future = client.submit(found_by, rows, os.getpid())
        assert future.result() == (N_ROWS, True)


def found_by(rows, driver):
    assert os.getpid() != driver
    rows._source.readers[0].backbone.function = None  # cannot run
    return len(rows.features), rows.is_on_disk
