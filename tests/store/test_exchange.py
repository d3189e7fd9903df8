"""Features exported to a file and imported elsewhere."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone
from sk_aft.store import FeatureStore, _exchange, read_features

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

WIDTH = 5
SUFFIXES = [".safetensors", ".parquet"]


def keys_of(store, numbers, **entries):
    prefix = store.register_model({"weights": "a digest", **entries}, name="a model")
    return [prefix + int(number + 1).to_bytes(16, "little") for number in numbers]


def features_of(numbers):
    return np.float32([np.random.default_rng(number).normal(size=WIDTH) for number in numbers])


@pytest.fixture
def store(tmp_path):
    store = FeatureStore(tmp_path / "store")
    store.put_many(keys_of(store, range(30)), features_of(range(30)))
    return store


@pytest.fixture
def elsewhere(tmp_path):
    return FeatureStore(tmp_path / "elsewhere")


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(_exchange, "_PIECE_BYTES", 7 * 4 * WIDTH)


def metadata_of(path):
    if path.suffix == ".parquet":
        return pq.read_schema(path).metadata[b"sk_aft.features"].decode()
    content = path.read_bytes()
    n_header = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + n_header])["__metadata__"]["sk_aft.features"]


def write_again(path, *, text=None, features=None, digests=None):
    """Write a file again with something in it changed."""
    text = metadata_of(path) if text is None else text
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        if features is not None:
            table = table.set_column(1, "features", pa.array(list(features)))
        if digests is not None:
            table = table.set_column(0, "digest", pa.array(digests, pa.binary(16)))
        pq.write_table(table.replace_schema_metadata({"sk_aft.features": text}), path)
        return
    tensors = load_file(path)
    if features is not None:
        tensors["features"] = features
    if digests is not None:
        tensors["digests"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
    save_file(tensors, path, {"sk_aft.features": text})


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_round_trip_is_exact(tmp_path, suffix, dtype):
    ours, theirs = (FeatureStore(tmp_path / name, dtype=dtype) for name in ("ours", "theirs"))
    ours.put_many(keys_of(ours, range(30)), features_of(range(30)))
    path = tmp_path / f"file{suffix}"
    assert ours.export_features(path, model="a model") == 30
    assert theirs.import_features(path) == 30
    keys = keys_of(theirs, range(30))
    matrix, found = theirs.get_many(keys)
    assert found.all()
    np.testing.assert_array_equal(matrix, ours.get_many(keys)[0])
    assert theirs.stats()["models"] == ours.stats()["models"]
    assert theirs.explain_key(keys[0])["fingerprint"] == {"weights": "a digest"}
    assert theirs.verify()["damaged"] == 0
    assert theirs.import_features(path) == 0
    np.testing.assert_array_equal(read_features(path), ours.get_many(keys)[0])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_later_look_ups_find_what_was_imported(tmp_path, suffix):
    texts = [f"text {number}" for number in range(20)]
    ran = []

    def extractor(cache):
        backbone = CallableBackbone(
            lambda rows: [ran.append(row) or [len(row), 1.0] for row in rows], "lengths"
        )
        return FoundationFeatureExtractor(backbone, cache=cache)

    expected = np.asarray(extractor(tmp_path / "here").fit_transform(texts))
    here, there = FeatureStore(tmp_path / "here"), FeatureStore(tmp_path / "there")
    digest = here.stats()["models"][0]["model"]
    here.export_features(tmp_path / f"file{suffix}", model=digest)
    there.import_features(tmp_path / f"file{suffix}")
    ran.clear()
    np.testing.assert_array_equal(extractor(there).fit_transform(texts), expected)
    assert ran == []


def test_a_safetensors_file_is_one_for_other_libraries(store, tmp_path):
    path = tmp_path / "file.safetensors"
    store.export_features(path, model="a model")
    tensors = load_file(path)
    np.testing.assert_array_equal(tensors["features"], features_of(range(30)))
    assert [row.tobytes() for row in tensors["digests"]] == [
        key[16:] for key in keys_of(store, range(30))
    ]
    assert list(tmp_path.glob(".file*")) == []


def test_a_parquet_file_is_one_for_other_libraries(store, tmp_path):
    pd = pytest.importorskip("pandas")
    path = tmp_path / "file.parquet"
    store.export_features(path, model="a model")
    frame = pd.read_parquet(path)
    np.testing.assert_array_equal(np.stack(frame["features"]), features_of(range(30)))
    assert frame["digest"].tolist() == [key[16:] for key in keys_of(store, range(30))]
    assert pq.ParquetFile(path).num_row_groups == 5


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_rows_are_not_exported(store, elsewhere, tmp_path, suffix):
    (features,) = store.path.rglob("*.features")
    content = bytearray(features.read_bytes())
    content[4 * WIDTH * 11 + 3] ^= 1
    features.write_bytes(content)
    path = tmp_path / f"file{suffix}"
    with pytest.warns(UserWarning, match="1 rows are damaged and not in"):
        assert store.export_features(path, model="a model") == 29
    assert elsewhere.import_features(path) == 29
    assert elsewhere.missing(keys_of(elsewhere, range(30))).tolist() == [11]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_that_are_there_are_skipped(store, elsewhere, tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    store.export_features(path, model="a model")
    elsewhere.put_many(keys_of(elsewhere, range(20, 40)), features_of(range(20, 40)))
    assert elsewhere.import_features(path) == 20
    assert elsewhere.stats()["rows"] == 40
    matrix, _ = elsewhere.get_many(keys_of(elsewhere, range(40)))
    np.testing.assert_array_equal(matrix, features_of(range(40)))


def test_a_name_of_two_models_is_ambiguous(store, tmp_path):
    keys = keys_of(store, [1], pooling="mean")
    store.put_many(keys, features_of([1]))
    with pytest.raises(ValueError, match=f"2 models are named 'a model' .*{keys[0][:16].hex()}"):
        store.export_features(tmp_path / "file.parquet", model="a model")
    assert store.export_features(tmp_path / "file.parquet", model=keys[0][:16]) == 1


def test_what_cannot_be_exported_is_explained(store, tmp_path):
    with pytest.raises(ValueError, match=r"expected \.safetensors or \.parquet"):
        store.export_features(tmp_path / "file.csv", model="a model")
    with pytest.raises(ValueError, match="has no model 'b'; it has"):
        store.export_features(tmp_path / "file.parquet", model="b")
    empty = store.register_model({"weights": "none"}, name="empty")
    with pytest.raises(ValueError, match="Model 'empty' has no rows"):
        store.export_features(tmp_path / "file.parquet", model="empty")
    assert empty.hex() in str(list(store.path.iterdir()))
    (description,) = [p for p in store.path.rglob("model.json") if "a digest" in p.read_text()]
    description.unlink()
    with pytest.raises(ValueError, match=r"fingerprint of model .* is not in"):
        store.export_features(tmp_path / "file.parquet", model=keys_of_unregistered())
    assert not (tmp_path / "file.parquet").exists()


def keys_of_unregistered():
    from sk_aft.store import model_digest

    return model_digest({"weights": "a digest"})


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("a digest", "another"), "fingerprint of .* does not match"),
        (lambda text: text.replace("float32", "float16"), "fingerprint of .* does not match"),
        (lambda text: text.replace("float32", "int8"), "dtype or fingerprint of no use"),
        (lambda text: text[:-5], "metadata of .* is damaged"),
        (lambda text: "[]", "metadata of .* is damaged"),
        (lambda text: json.dumps({**json.loads(text), "version": 2}), "is of version 2"),
        (lambda text: json.dumps({**json.loads(text), "name": 3}), "of no use"),
        (lambda text: json.dumps({**json.loads(text), "more": 3}), "metadata of .* is damaged"),
        (lambda text: json.dumps({**json.loads(text), "digest": "xy"}), "metadata of .* is dam"),
    ],
)
def test_a_file_whose_metadata_was_changed_is_refused(
    store, elsewhere, tmp_path, suffix, change, message
):
    path = tmp_path / f"file{suffix}"
    store.export_features(path, model="a model")
    write_again(path, text=change(metadata_of(path)))
    with pytest.raises(ValueError, match=message):
        elsewhere.import_features(path)
    assert not elsewhere.path.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_that_no_store_wrote_are_refused(store, elsewhere, tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    digests = [key[16:] for key in keys_of(store, range(30))]
    for changed, message in (
        ({"features": features_of(range(30)).astype(np.float64) + 1e-12}, "type"),
        ({"digests": [*digests[:20], bytes(16), *digests[21:]]}, "Row 20 of .* a digest of zeros"),
    ):
        store.export_features(path, model="a model")
        write_again(path, **changed)
        with pytest.raises(ValueError, match=message):
            elsewhere.import_features(path)
    features = features_of(range(30))
    features[25, 1] = np.inf
    store.export_features(path, model="a model")
    write_again(path, features=features)
    with pytest.raises(ValueError, match=r"Row 25 of .* has NaN or infinity"):
        elsewhere.import_features(path)
    assert not elsewhere.path.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_lost_its_end_is_refused(store, elsewhere, tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    store.export_features(path, model="a model")
    content = path.read_bytes()
    for n_kept in (len(content) - 1, len(content) // 2, 9, 3, 0):
        path.write_bytes(content[:n_kept])
        with pytest.raises(ValueError, match=r"damaged"):
            elsewhere.import_features(path)
    assert not elsewhere.path.exists()


def test_shapes_that_do_not_fit_each_other_are_refused(store, elsewhere, tmp_path):
    path = tmp_path / "file.safetensors"
    store.export_features(path, model="a model")
    text, tensors = metadata_of(path), load_file(path)
    for changed, message in (
        ({"digests": tensors["digests"][:29]}, r"digests of .* shape \(29, 16\)"),
        ({"digests": tensors["digests"].astype(np.int32)}, "of type I32"),
        ({"features": tensors["features"][:, 0].copy()}, r"features of .* shape \(30,\)"),
        ({"more": tensors["digests"].copy()}, "has the tensors"),
    ):
        save_file({**tensors, **changed}, path, {"sk_aft.features": text})
        with pytest.raises(ValueError, match=message):
            elsewhere.import_features(path)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"was not written by .*read_features"):
        elsewhere.import_features(path)
    pq.write_table(pa.table({"features": [[1.0]]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="was not written by"):
        elsewhere.import_features(tmp_path / "other.parquet")
    assert not elsewhere.path.exists()


def test_ragged_null_or_missing_columns_are_refused(store, elsewhere, tmp_path):
    path = tmp_path / "file.parquet"
    store.export_features(path, model="a model")
    text, table = metadata_of(path), pq.read_table(path)
    lists = [list(map(float, row)) for row in features_of(range(30))]
    for features, message in (
        ([*lists[:20], [1.0], *lists[21:]], "Row 20 of the features in .* has 1 numbers"),
        ([*lists[:20], None, *lists[21:]], "rows that are null"),
    ):
        columns = {
            "digest": table["digest"],
            "features": pa.array(features, pa.list_(pa.float32())),
        }
        pq.write_table(pa.table(columns).replace_schema_metadata({"sk_aft.features": text}), path)
        with pytest.raises(ValueError, match=message):
            elsewhere.import_features(path)
    without = table.select(["features"])
    pq.write_table(without.replace_schema_metadata({"sk_aft.features": text}), path)
    with pytest.raises(ValueError, match="no column 'digest' of 16 bytes"):
        elsewhere.import_features(path)
    assert not elsewhere.path.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_width_is_refused_before_anything_is_written(store, elsewhere, tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    store.export_features(path, model="a model")
    elsewhere.put_many(keys_of(elsewhere, [99]), np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"holds 5 features per row of model 'a model', but .* 3"):
        elsewhere.import_features(path)
    assert elsewhere.stats()["rows"] == 1


def test_a_file_that_is_not_there_is_named(elsewhere, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.parquet"):
        elsewhere.import_features(tmp_path / "nowhere.parquet")
    with pytest.raises(ValueError, match="names no format of features"):
        elsewhere.import_features(tmp_path / "file.npy")


def test_an_export_that_fails_keeps_the_old_file(store, tmp_path, monkeypatch):
    path = tmp_path / "file.safetensors"
    store.export_features(path, model="a model")
    before = path.read_bytes()
    store.put_many(keys_of(store, [77]), features_of([77]))
    (features,) = store.path.rglob("*.features")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sk_aft.store._model_rows.ModelRows.intact", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.export_features(path, model="a model")
    assert path.read_bytes() == before
    assert features.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file.safetensors", "store"]


def test_a_small_file_of_a_huge_list_is_refused_before_it_is_decoded(store, elsewhere, tmp_path):
    path = tmp_path / "features.parquet"
    store.export_features(path, model="a model")
    n_features = 2_000_000
    metadata = pq.read_schema(path).metadata
    values = pa.array(np.zeros(n_features, np.float32))
    columns = {
        "digest": pa.array([bytes(range(16))], pa.binary(16)),
        "features": pa.FixedSizeListArray.from_arrays(values, n_features),
    }
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match="2,000,000 features in each row: expected at most 1,000"):
        elsewhere.import_features(path)
    assert elsewhere.stats()["rows"] == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_of_a_million_brackets_is_damaged(store, elsewhere, tmp_path, suffix):
    path = tmp_path / f"features{suffix}"
    store.export_features(path, model="a model")
    content = json.loads(metadata_of(path)) | {"fingerprint": "HERE"}
    text = json.dumps(content).replace('"HERE"', "[" * 200_000 + "]" * 200_000)
    write_again(path, text=text)
    with pytest.raises(ValueError, match="is damaged"):
        elsewhere.import_features(path)
