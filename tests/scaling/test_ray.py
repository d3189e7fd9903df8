"""The batch function in Ray Data, on a local cluster."""

import os

import numpy as np
import pytest

from sk_aft import FoundationFeatureExtractor
from tests.conftest import TEXTS as SENTENCES
from tests.scaling.models import TEXTS, CountedModel, extractor_of, features_of

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
parquet = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(
            num_cpus=2, include_dashboard=False, object_store_memory=150 << 20, log_to_driver=False
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()


def dataset(texts, n_blocks):
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    return ray.data.from_items(rows, override_num_blocks=n_blocks)


def read(path):
    return parquet.read_table(path).sort_by("id")


def assert_complete(table):
    """Every row is there once, with its features."""
    assert table["id"].to_pylist() == list(range(len(TEXTS)))
    features = np.array(table["features"].to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(features, features_of(TEXTS))


def test_batches_get_features_of_a_real_model(encoder_directory):
    texts = [f"{text} {number}" for number, text in enumerate(SENTENCES)]
    extractor = FoundationFeatureExtractor(encoder_directory("bert"), cache=None)
    function = extractor.as_batch_function("text")
    batches = dataset(texts, 2).map_batches(function, batch_size=8)
    done = sorted(batches.take_all(), key=lambda row: row["id"])
    assert [row["id"] for row in done] == list(range(len(texts)))
    features = np.stack([row["features"] for row in done])
    np.testing.assert_allclose(features, extractor.fit_transform(texts).features, atol=1e-5)
    assert features.dtype == np.float32


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_parquet_holds_the_features(tmp_path, batch_format):
    (tmp_path / "log").mkdir()
    model = CountedModel(tmp_path / "log")
    function = extractor_of(model).as_batch_function("text")
    batches = dataset(TEXTS, 8).map_batches(function, batch_size=10, batch_format=batch_format)
    batches.write_parquet(str(tmp_path / "features"))
    table = read(tmp_path / "features")
    assert_complete(table)
    if batch_format != "numpy":  # an array becomes a tensor of Ray's own
        assert str(table.schema.field("features").type) == "fixed_size_list<element: float>[8]"
    # A process runs several blocks, and unpickled the model once.
    assert model.count("loaded") == len({*model.processes()} - {os.getpid()})


def test_a_worker_that_dies_in_a_batch_is_replaced(tmp_path):
    (tmp_path / "log").mkdir()
    model = CountedModel(tmp_path / "log", dies_at=TEXTS[100])
    function = extractor_of(model).as_batch_function("text")
    batches = dataset(TEXTS, 8).map_batches(function, batch_size=10, batch_format="pyarrow")
    batches.write_parquet(str(tmp_path / "features"))
    assert model.has_died()
    assert_complete(read(tmp_path / "features"))


def test_blocks_without_rows_are_no_obstacle(tmp_path):
    (tmp_path / "log").mkdir()
    function = extractor_of(CountedModel(tmp_path / "log")).as_batch_function("text")
    few = dataset(TEXTS, 8).filter(lambda row: row["id"] >= 190)
    done = few.map_batches(function, batch_format="pyarrow").take_all()
    assert sorted(row["id"] for row in done) == list(range(190, 200))


def test_an_unreadable_row_is_named_to_the_driver(tmp_path):
    (tmp_path / "log").mkdir()
    function = extractor_of(CountedModel(tmp_path / "log")).as_batch_function("text")
    texts = [*TEXTS[:7], None, *TEXTS[8:10]]
    with pytest.raises(Exception, match="In a batch of 5 rows: column 'text': Row 2 of X is miss"):
        dataset(texts, 2).map_batches(function, batch_size=5).take_all()
