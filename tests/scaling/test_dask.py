"""The batch function in Dask, on a cluster of processes."""

import os
import random
import signal
import threading
from contextlib import suppress

import numpy as np
import pytest

from sk_aft import FoundationFeatureExtractor
from tests.conftest import TEXTS as SENTENCES
from tests.scaling.models import TEXTS, CountedModel, extractor_of, features_of

pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")
pandas = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")

# A partition may be on several workers that are killed, one after the other.
SETTINGS = {"distributed.scheduler.allowed-failures": 20}


@pytest.fixture(scope="module")
def client():
    import dask

    with (
        dask.config.set(SETTINGS),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def partitions(texts, n_partitions):
    import dask.dataframe

    frame = pandas.DataFrame({"id": range(len(texts)), "text": texts})
    return dask.dataframe.from_pandas(frame, npartitions=n_partitions)


def with_features(extractor, texts, n_partitions):
    """Return a lazy frame with features; the types come from an empty frame."""
    frame = partitions(texts, n_partitions)
    function = extractor.as_batch_function("text")
    return frame.map_partitions(function, meta=function(frame._meta))


def assert_complete(table, texts):
    """Every row is there once, with its features."""
    table = table.sort_by("id")
    assert table["id"].to_pylist() == list(range(len(texts)))
    features = np.array(table["features"].to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(features, features_of(texts))


def test_partitions_get_features_of_a_real_model(client, encoder_directory):
    texts = [f"{text} {number}" for number, text in enumerate(SENTENCES)]
    extractor = FoundationFeatureExtractor(encoder_directory("bert"), cache=None)
    done = with_features(extractor, texts, 3).compute()
    assert done["id"].tolist() == list(range(len(texts)))
    expected = extractor.fit_transform(texts).features
    np.testing.assert_allclose(np.stack(done["features"]), expected, atol=1e-5)


def test_parquet_holds_lists_of_one_length(client, tmp_path):
    (tmp_path / "log").mkdir()
    model = CountedModel(tmp_path / "log")
    with_features(extractor_of(model), TEXTS, 8).to_parquet(tmp_path / "features")
    table = parquet.read_table(tmp_path / "features")
    assert str(table.schema.field("features").type) == "fixed_size_list<element: float>[8]"
    assert_complete(table, TEXTS)
    # Eight partitions, and each process unpickled the model once.
    assert model.count("loaded") == len({*model.processes()} - {os.getpid()}) <= 2


def test_a_worker_that_dies_in_a_batch_is_replaced(client, tmp_path):
    (tmp_path / "log").mkdir()
    model = CountedModel(tmp_path / "log", dies_at=TEXTS[100])
    with_features(extractor_of(model), TEXTS, 8).to_parquet(tmp_path / "features")
    assert model.has_died()
    assert_complete(parquet.read_table(tmp_path / "features"), TEXTS)


@pytest.mark.slow
def test_no_row_is_lost_or_doubled_after_20_kills(client, tmp_path):
    (tmp_path / "log").mkdir()
    model = CountedModel(tmp_path / "log", seconds=0.3)
    extractor = extractor_of(model, cache=tmp_path / "store")
    killed, is_done = [], threading.Event()
    killer = threading.Thread(target=kill_at_random, args=(model, killed, is_done))
    killer.start()
    number = 0
    try:
        while len(killed) < 20:
            number += 1
            texts = [f"{text} in run {number}" for text in TEXTS]
            path = tmp_path / f"features {number}"
            with_features(extractor, texts, 40).to_parquet(path)
            assert_complete(parquet.read_table(path), texts)
    finally:
        is_done.set()
        killer.join()


def kill_at_random(model, killed, is_done):
    """Kill 20 times the process that began the latest batch, after a random time."""
    draw = random.Random(0)
    while not is_done.wait(draw.uniform(0.1, 0.6)) and len(killed) < 20:
        pid = model.processes()[-1]
        if pid not in (os.getpid(), *killed):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)


def test_an_unreadable_row_is_named_to_the_driver(client, tmp_path):
    (tmp_path / "log").mkdir()
    extractor = extractor_of(CountedModel(tmp_path / "log"))
    texts = [*TEXTS[:7], None, *TEXTS[8:10]]
    with pytest.raises(ValueError, match="In a batch of 5 rows: column 'text': Row 2 of X is miss"):
        with_features(extractor, texts, 2).compute()


def test_threads_of_a_worker_take_turns(tmp_path):
    (tmp_path / "log").mkdir()
    model = CountedModel(tmp_path / "log", seconds=0.01)
    done = with_features(extractor_of(model), TEXTS, 10).compute(scheduler="threads")
    np.testing.assert_array_equal(np.stack(done["features"]).astype(np.float32), features_of(TEXTS))
    assert model.count("loaded") == 1
