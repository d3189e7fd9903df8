"""The batch function in `map` of Hugging Face datasets."""

import numpy as np
import pytest

from sk_aft import FoundationFeatureExtractor
from tests.conftest import TEXTS as SENTENCES

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _cache_of_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def bert(encoder_directory):
    return FoundationFeatureExtractor(encoder_directory("bert"), cache=None)


@pytest.fixture
def texts():
    return datasets.Dataset.from_dict({"id": list(range(20)), "text": SENTENCES})


def features_in(dataset):
    return np.array(dataset.with_format("numpy")["features"][:], dtype=np.float32)


@pytest.mark.parametrize("container", [None, "numpy", "torch", "pandas", "polars", "arrow"])
def test_batches_of_each_format_get_features(bert, texts, container):
    formatted = texts.with_format(container)
    done = formatted.map(bert.as_batch_function("text"), batched=True, batch_size=8)
    expected = bert.fit_transform(SENTENCES).features
    np.testing.assert_allclose(features_in(done), expected, atol=1e-5)
    assert done.column_names == ["id", "text", "features"]
    assert done.features["features"].feature == datasets.Value("float32")
    assert done.with_format(None)["id"][:] == list(range(20))


def test_processes_have_models_of_their_own(bert, texts):
    function = bert.as_batch_function("text")
    expected = function({"text": SENTENCES})["features"]  # loaded before the fork
    done = texts.map(function, batched=True, batch_size=4, num_proc=2)
    np.testing.assert_allclose(features_in(done), expected, atol=1e-5)
    assert done["id"][:] == list(range(20))


def test_a_streamed_dataset_gets_features(bert, texts):
    stream = texts.to_iterable_dataset().map(bert.as_batch_function("text"), batched=True)
    features = np.array([row["features"] for row in stream], dtype=np.float32)
    np.testing.assert_allclose(features, bert.fit_transform(SENTENCES).features, atol=1e-5)


def test_the_same_function_is_found_in_the_cache_of_datasets(bert, texts, tmp_path):
    path = str(tmp_path / "texts.parquet")
    texts.to_parquet(path)
    on_disk = datasets.load_dataset("parquet", data_files=path, split="train")
    first, second = (
        on_disk.map(bert.as_batch_function("text"), batched=True, batch_size=8) for _ in range(2)
    )
    assert first.cache_files == second.cache_files != on_disk.cache_files


def test_images_are_not_encoded_again(photographs):
    image = pytest.importorskip("PIL.Image")
    features = datasets.Features({"image": datasets.Image()})
    pictures = [image.fromarray(photograph) for photograph in photographs]
    dataset = datasets.Dataset.from_dict({"image": pictures}, features=features)
    extractor = FoundationFeatureExtractor("effnet-lite0", cache=None)
    done = dataset.map(extractor.as_batch_function("image"), batched=True, batch_size=4)
    expected = extractor.fit_transform(photographs).features
    np.testing.assert_allclose(features_in(done), expected, rtol=1e-3, atol=1e-4)
    before, after = (d.with_format("arrow")["image"][:].to_pylist() for d in (dataset, done))
    assert before == after
