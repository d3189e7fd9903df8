"""Merging stores."""

import os
import threading
import time

import numpy as np
import pytest

from sk_aft import FineTunedFeatureExtractor
from sk_aft.store import FeatureStore, _merge
from tests._fine_tuning.linear_layers import LinearLayers


def keys_of(store, numbers, model="a model", **entries):
    prefix = store.register_model({"weights": model, **entries}, name=model)
    return [prefix + int(number + 1).to_bytes(8, "little") * 2 for number in numbers]


def features_of(numbers, width=6):
    rows = [np.random.default_rng(number).normal(size=width) for number in numbers]
    return np.float32(rows).reshape(-1, width)


def fill(store, numbers, **parameters):
    store.put_many(keys_of(store, numbers, **parameters), features_of(numbers))


def assert_holds(store, numbers, **parameters):
    matrix, found = store.get_many(keys_of(store, numbers, **parameters))
    assert found.all()
    np.testing.assert_array_equal(matrix, features_of(numbers))


def damage(store, row):
    (path,) = store.path.rglob("*.features")
    content = bytearray(path.read_bytes())
    content[row * 24 + 5] ^= 1
    path.write_bytes(content)


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "own")


@pytest.fixture
def other(tmp_path):
    return FeatureStore(tmp_path / "other")


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(_merge, "PIECE_BYTES", 7 * 24)


def test_rows_that_are_missing_are_copied(store, other):
    fill(store, range(10))
    fill(other, range(5, 40))
    fill(other, range(3), model="another")
    assert store.merge(other) == 30 + 3
    assert_holds(store, range(40))
    assert_holds(store, range(3), model="another")
    assert store.stats()["rows"] == 43
    assert store.verify()["damaged"] == 0
    assert_holds(other, range(5, 40))


def test_merging_again_copies_nothing(store, other):
    fill(other, range(20))
    assert store.merge(str(other.path)) == 20
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*.features")}
    assert store.merge(other) == 0
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*.features")} == before
    fill(other, range(25))
    assert store.merge(other) == 5


def test_a_merged_model_is_known_by_name_and_fingerprint(store, other):
    fill(other, range(2), pooling="mean")
    store.merge(other)
    assert [model["name"] for model in store.stats()["models"]] == ["a model"]
    (key, _) = keys_of(other, range(2), pooling="mean")
    assert store.explain_key(key)["fingerprint"] == {"weights": "a model", "pooling": "mean"}


def test_number_formats_stay_apart_and_exact(store, other):
    for dtype in ("float32", "float16", "bfloat16"):
        fill(FeatureStore(other.path, dtype=dtype), range(30))
    assert store.merge(other) == 90
    for dtype in ("float32", "float16", "bfloat16"):
        ours, theirs = (FeatureStore(where.path, dtype=dtype) for where in (store, other))
        keys = keys_of(ours, range(30))
        np.testing.assert_array_equal(ours.get_many(keys)[0], theirs.get_many(keys)[0])


def test_damaged_rows_are_left_out_and_counted(store, other):
    fill(other, range(20))
    damage(other, 3)
    damage(other, 11)
    with pytest.warns(UserWarning, match=r"2 rows in the feature store .* and were left out"):
        assert store.merge(other) == 18
    assert store.missing(keys_of(store, range(20))).tolist() == [3, 11]
    assert store.verify()["damaged"] == 0


def test_a_row_that_was_computed_again_is_copied_once(store, other):
    fill(other, range(20))
    damage(other, 3)
    fill(other, range(20))
    assert store.merge(other) == 20
    assert_holds(store, range(20))
    assert store.stats()["rows"] == 20


def test_a_damaged_row_is_mended_by_a_merge(store, other):
    fill(store, range(20))
    fill(other, range(20))
    damage(store, 7)
    assert store.merge(other) == 1
    assert_holds(store, range(20))


def test_a_model_of_another_width_raises_before_anything_is_written(store, other):
    fill(other, range(20), model="a first one")
    store.put_many(keys_of(store, [0]), features_of([0], width=4))
    fill(other, range(20))
    message = r"Model 'a model' has 4 features per row in .* but 6 in the other one"
    with pytest.raises(ValueError, match=message):
        store.merge(other)
    assert store.stats()["rows"] == 1
    assert len(store.stats()["models"]) == 1


def test_a_store_is_not_merged_into_itself(store, tmp_path):
    fill(store, range(3))
    (tmp_path / "link").symlink_to(store.path)
    for same in (store, tmp_path / "link", os.path.relpath(store.path)):
        with pytest.raises(ValueError, match="cannot be merged into itself"):
            store.merge(same)
    with pytest.raises(FileNotFoundError, match="no feature store to read"):
        store.merge(tmp_path / "nowhere")


def test_weights_of_a_fine_tuned_model_are_copied(store, other):
    X, y = [[float(i), 1.0] for i in range(8)], [0, 1] * 4

    def extractor(where):
        return FineTunedFeatureExtractor(LinearLayers(), objective="linear", n_steps=2, cache=where)

    expected = np.asarray(extractor(other).fit_transform(X, y))
    files = [path for path in other.path.rglob("weights.safetensors")]
    assert files
    assert store.merge(other) > 0
    for path in files:
        copied = store.path / path.relative_to(other.path)
        assert copied.read_bytes() == path.read_bytes()
    shared = FeatureStore(store.path, read_only=True)
    np.testing.assert_array_equal(extractor(shared).fit_transform(X, y), expected)


def test_damaged_weights_are_left_out(store, other):
    fill(other, range(3))
    (directory,) = (path.parent for path in other.path.rglob("*.features"))
    (directory / "weights.safetensors").write_bytes(b"\x10" + bytes(30))
    with pytest.warns(UserWarning, match="0 rows and the weights of 1 models in"):
        assert store.merge(other) == 3
    assert list(store.path.rglob("weights*")) == []


def test_both_stores_may_be_written_and_read_meanwhile(store, other):
    fill(other, range(300))
    fill(store, range(0, 300, 3))
    errors = []

    def attempt(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    def write(where, first):
        for start in range(first, first + 200, 10):
            fill(where, range(start, start + 10))

    def read():
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            matrix, found = store.get_many(keys_of(store, range(300)))
            np.testing.assert_array_equal(matrix[found], features_of(range(300))[found])

    works = [
        lambda: store.merge(other),
        lambda: FeatureStore(store.path).merge(other),
        lambda: write(store, 150),
        lambda: write(other, 250),
        read,
    ]
    threads = [threading.Thread(target=attempt, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    store.merge(other)
    assert_holds(store, range(450))
    assert store.stats()["rows"] == 450
