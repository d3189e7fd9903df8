"""Maintenance of a store: its contents, its files, and reducing its size."""

import os
import time

import numpy as np
import pytest

from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone
from sk_aft.store import FeatureStore


def keys_of(store, numbers, model="a model", **entries):
    prefix = store.register_model({"weights": model, **entries}, name=model)
    return [prefix + bytes([number]) * 16 for number in numbers]


def features_of(numbers, width=6):
    return np.float32([np.random.default_rng(number).normal(size=width) for number in numbers])


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


# ---------------------------------------------------------------- dtype


@pytest.mark.parametrize(("dtype", "rtol"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_sixteen_bits_take_half_the_space_and_round(tmp_path, dtype, rtol):
    store = FeatureStore(tmp_path, dtype=dtype)
    store.put_many(keys_of(store, range(20)), features_of(range(20)))
    matrix, found = store.get_many(keys_of(store, range(20)))
    assert found.all()
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, features_of(range(20)), rtol=rtol)
    assert np.abs(matrix - features_of(range(20))).max() > 0
    (features,) = tmp_path.rglob("*.features")
    assert features.stat().st_size == 20 * 6 * 2
    assert store.stats()["models"][0]["dtype"] == dtype


def test_bfloat16_rounds_as_torch_does(tmp_path):
    import torch

    values = np.float32([[1.00390625, 1.01171875, -3.3e38, 1e-40, 0.0, -0.0]])
    store = FeatureStore(tmp_path, dtype="bfloat16")
    store.put_many(keys_of(store, [1]), values)
    matrix, _ = store.get_many(keys_of(store, [1]))
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(matrix, expected)


def test_the_dtype_is_part_of_the_key(tmp_path):
    exact, rounded = FeatureStore(tmp_path), FeatureStore(tmp_path, dtype="float16")
    assert keys_of(exact, [1]) != keys_of(rounded, [1])
    assert exact != rounded
    texts = ["a", "bb"]
    model = CallableBackbone(lambda rows: np.array([[len(row) / 3] for row in rows]), "thirds")
    for store in (rounded, exact):
        rows = FoundationFeatureExtractor(model, cache=store).fit_transform(texts)
        is_exact = np.array_equal(rows, np.float32([[1 / 3], [2 / 3]]))
        assert is_exact == (store is exact)
        assert isinstance(rows[:1].features, np.memmap) == (store is exact)


def test_numbers_that_a_dtype_cannot_hold_are_refused(tmp_path):
    store = FeatureStore(tmp_path, dtype="float16")
    with pytest.raises(ValueError, match=r"float16 can hold, got 70000\.0 in column 1"):
        store.put_many(keys_of(store, [1, 2]), [[1, 2], [3, 70000]])
    assert store.stats()["rows"] == 0
    with pytest.raises(ValueError, match="finite"):
        FeatureStore(tmp_path).put_many(keys_of(FeatureStore(tmp_path), [1]), [[np.nan]])
    with pytest.raises(ValueError, match=r"dtype has to be one of \['float32', "):
        FeatureStore(tmp_path, dtype="int8")


# ---------------------------------------------------------------- stats


def test_hits_of_this_process_are_counted(store):
    stats = store.stats()
    assert (stats["hits"], stats["misses"], np.isnan(stats["hit_rate"])) == (0, 0, True)
    store.put_many(keys_of(store, [1, 2, 3]), features_of([1, 2, 3]))
    store.get_many(keys_of(store, [1, 2, 3, 4]))
    store.missing(keys_of(store, [7]))  # nobody wanted its features
    stats = FeatureStore(store.path).stats()
    assert (stats["hits"], stats["misses"], stats["hit_rate"]) == (3, 1, 0.75)


def test_hits_of_an_extraction_are_counted_once(store):
    model = CallableBackbone(lambda rows: np.array([[len(row)] for row in rows]), "lengths")
    extractor = FoundationFeatureExtractor(model, cache=store).fit(["a"])
    extractor.fit_transform(["a", "bb", "ccc", "bb"])
    before = store.stats()
    np.asarray(extractor.transform(["a", "bb", "ccc", "dddd"]))
    after = store.stats()
    assert (after["hits"] - before["hits"], after["misses"] - before["misses"]) == (3, 1)


# ---------------------------------------------------------------- removal


def test_a_model_is_removed_by_name_or_digest(store):
    for name in ("one", "two", "three"):
        store.put_many(keys_of(store, range(5), name), features_of(range(5)))
    assert store.remove(model="two") == 5
    assert store.remove(model=keys_of(store, [0], "three")[0][:16].hex()) == 5
    assert [model["name"] for model in store.stats()["models"]] == ["one"]
    assert len(store.missing(keys_of(store, range(5), "two"))) == 5
    assert len(store.missing(keys_of(store, range(5), "one"))) == 0
    with pytest.raises(ValueError, match=r"has no model 'four'; it has \['one'"):
        store.remove(model="four")


def test_rows_that_were_read_before_their_model_was_removed_stay_readable(store):
    model = CallableBackbone(lambda rows: np.array([[len(row)] for row in rows]), "lengths")
    rows = FoundationFeatureExtractor(model, cache=store).fit_transform(["a", "bb"])
    store.remove(model=model.name)
    np.testing.assert_array_equal(rows, [[1], [2]])


def test_the_models_that_were_not_used_for_longest_go_first(store):
    names = ["oldest", "used again", "newest"]
    for age, name in enumerate(names):
        store.put_many(keys_of(store, range(10), name), features_of(range(10)))
        for path in store.path.rglob("model.json"):
            if path.stat().st_mtime > time.time() - 1000:
                os.utime(path, (0, 10_000 + age))
    keys_of(store, [0], "used again")
    size = store.stats()["bytes"]
    assert store.reduce_size(size) == 0
    assert store.reduce_size(2 * size // 3) == 10
    assert {model["name"] for model in store.stats()["models"]} == {"used again", "newest"}
    assert store.reduce_size("0K") == 20
    assert store.stats()["rows"] == 0


def test_of_one_model_the_oldest_rows_go(store):
    store.put_many(keys_of(store, range(30)), features_of(range(30)))
    store.put_many(keys_of(store, range(30, 40)), features_of(range(30, 40)))
    row_bytes = store.stats()["bytes"] // 40
    assert store.reduce_size(12 * row_bytes + 5) == 28
    assert store.stats()["bytes"] == 12 * row_bytes
    on_disk = sum(path.stat().st_size for path in (*store.path.rglob("*.features"),))
    assert on_disk == 12 * 6 * 4
    matrix, found = store.get_many(keys_of(store, range(40)))
    np.testing.assert_array_equal(np.flatnonzero(found), range(28, 40))
    np.testing.assert_array_equal(matrix[28:], features_of(range(28, 40)))
    store.put_many(keys_of(store, range(40)), features_of(range(40)))
    np.testing.assert_array_equal(
        store.get_many(keys_of(store, range(40)))[0][3:4], features_of([3])
    )


# ---------------------------------------------------------------- keys


def test_a_key_is_explained(store):
    ours = keys_of(store, [1, 2], "a model", pooling="mean")
    theirs = keys_of(store, [1, 2], "another", pooling="first")
    store.put_many(ours[:1], features_of([1]))
    store.put_many(theirs, features_of([1, 2]))
    explained = store.explain_key(ours[0])
    assert (explained["name"], explained["stored"], explained["damaged"]) == (
        "a model",
        True,
        False,
    )
    assert explained["fingerprint"] == {"weights": "a model", "pooling": "mean"}
    explained = store.explain_key(ours[1].hex())
    assert not explained["stored"]
    assert explained["other_models"] == {
        "another": {"pooling": ("first", "mean"), "weights": ("another", "a model")}
    }
    assert store.explain_key(bytes(32))["name"] is None


def test_two_versions_of_a_model_live_side_by_side(store):
    """One name, two fingerprints, as after an update of a model's weights."""
    old, new = (
        [store.register_model({"weights": version}, name="a model") + bytes([9]) * 16]
        for version in ("old", "new")
    )
    store.put_many(old, features_of([1]))
    store.put_many(new, features_of([2], width=8))
    models = store.stats()["models"]
    assert [model["name"] for model in models] == ["a model", "a model"]
    assert {model["model"]: model["width"] for model in models} == {
        old[0][:16].hex(): 6,
        new[0][:16].hex(): 8,
    }
    np.testing.assert_array_equal(store.get_many(old)[0], features_of([1]))
    explained = store.explain_key(old[0])
    assert explained["fingerprint"] == {"weights": "old"}
    assert explained["other_models"] == {"a model": {"weights": ("new", "old")}}
    assert store.remove(model=old[0][:16].hex()) == 1
    assert len(store.missing(old)) == 1
    np.testing.assert_array_equal(store.get_many(new)[0], features_of([2], width=8))
    assert [model["model"] for model in store.stats()["models"]] == [new[0][:16].hex()]


def test_a_key_is_compared_with_every_version_of_a_model(store):
    keys = [
        store.register_model({"weights": version}, name="a model") + bytes([9]) * 16
        for version in ("1", "2", "3")
    ]
    for key in keys:
        store.put_many([key], features_of([1]))
    others = store.explain_key(keys[0])["other_models"]
    assert sorted(others.values(), key=str) == [
        {"weights": ("2", "1")},
        {"weights": ("3", "1")},
    ]
    assert "a model" in others
    assert any(name.startswith("a model (") for name in others)


def test_the_extractor_tells_its_keys(store):
    models = [
        CallableBackbone(
            lambda rows, power=power: [[len(row) ** power] for row in rows], str(power)
        )
        for power in (1, 2)
    ]
    for model in models:
        model.function.__name__ = "power"
    extractor = FoundationFeatureExtractor(models, cache=store).fit(["a"])
    extractor.precompute(["a", "bb"])
    keys = extractor.store_keys(["bb", "ccc"])
    assert list(keys) == list(extractor.feature_slices_)
    for (stored, absent), width in zip(keys.values(), (2, 4), strict=True):
        assert store.explain_key(stored)["stored"]
        assert not store.explain_key(absent)["stored"]
        assert store.get_many([stored])[0] == width
    assert extractor.set_params(cache=None).store_keys(["a"]) == {}


# ---------------------------------------------------------------- places that cannot be written


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_explained(tmp_path):
    tmp_path.chmod(0o500)
    store = FeatureStore(tmp_path / "store")
    with pytest.raises(PermissionError, match="cache=None to keep features in memory"):
        store.register_model({})


@pytest.mark.parametrize("below", ["", "store"])
def test_a_file_in_the_place_of_the_directory_is_explained(below, tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / below
    with pytest.raises(OSError, match=r"SK_AFT_CACHE\) a directory of your own") as caught:
        FeatureStore(path).register_model({})
    assert str(path) in str(caught.value)


def test_the_home_directory_is_written_as_in_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert FeatureStore("~/x").path == tmp_path / "x"
    monkeypatch.setenv("SK_AFT_CACHE", "~/y")
    assert FeatureStore().path == tmp_path / "y"
    monkeypatch.chdir(tmp_path)
    FeatureStore().register_model({})
    FoundationFeatureExtractor(CallableBackbone(np.abs, "abs"), cache="~/z").fit([[1.0]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["y", "z"]


@pytest.mark.skipif(os.name != "posix", reason="Windows always has a home directory")
@pytest.mark.parametrize("variable", ["", "~/x", None])
def test_without_a_home_directory_the_error_names_what_to_set(variable, monkeypatch):
    def no_such_user(_):
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "SK_AFT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv("SK_AFT_CACHE", variable)
    monkeypatch.setattr("pwd.getpwuid", no_such_user)
    with pytest.raises(RuntimeError, match=r"give cache= \(or the variable SK_AFT_CACHE\)"):
        FeatureStore()


def test_an_empty_variable_is_none_and_an_empty_path_an_error(monkeypatch):
    default = FeatureStore().path
    monkeypatch.delenv("SK_AFT_CACHE")
    unset = FeatureStore().path
    monkeypatch.setenv("SK_AFT_CACHE", "")
    assert FeatureStore().path == unset != default
    with pytest.raises(ValueError, match="empty string"):
        FeatureStore("")
