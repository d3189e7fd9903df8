"""Features read from files."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from sk_aft.store import read_features

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")

FEATURES = np.random.default_rng(0).normal(size=(5000, 6)).astype(np.float32)
TYPES = {
    "list": pa.list_(pa.float32()),
    "large_list": pa.large_list(pa.float32()),
    "fixed_size_list": pa.list_(pa.float32(), 6),
}


def column_of(matrix, kind="list"):
    return pa.array([None if row is None else list(map(float, row)) for row in matrix], TYPES[kind])


def table_of(matrix, kind="list"):
    return pa.table({"id": np.arange(len(matrix)), "features": column_of(matrix, kind)})


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("row_group_size", [5000, 333])
def test_a_column_of_parquet_is_read(tmp_path, kind, row_group_size):
    path = tmp_path / "rows.parquet"
    pq.write_table(table_of(FEATURES, kind), path, row_group_size=row_group_size)
    features = read_features(path)
    assert features.dtype == np.float32
    assert features.flags.c_contiguous
    np.testing.assert_array_equal(features, FEATURES)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_null_rows_are_nan(tmp_path, kind, suffix):
    rows = [None, None, *FEATURES[:3000], None, *FEATURES[3000:4000], None]
    try:
        write(table_of(rows, kind), tmp_path / f"rows{suffix}", 700)
    except pa.ArrowNotImplementedError:
        pytest.skip("this version of pyarrow cannot write null rows of this type")
    features = read_features(tmp_path / f"rows{suffix}")
    missing = [i for i, row in enumerate(rows) if row is None]
    assert np.isnan(features[missing]).all()
    np.testing.assert_array_equal(np.delete(features, missing, axis=0), FEATURES[:4000])


def write(table, path, rows_per_batch=None):
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows_per_batch)
    else:
        feather.write_feather(table, path, compression="uncompressed", chunksize=rows_per_batch)


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_files_of_data_frames_are_read(tmp_path, library, suffix):
    module = pytest.importorskip(library)
    frame = module.DataFrame({"id": range(50), "features": list(FEATURES[:50])})
    path = tmp_path / f"rows{suffix}"
    names = {
        ("pandas", ".parquet"): "to_parquet",
        ("pandas", ".feather"): "to_feather",
        ("polars", ".parquet"): "write_parquet",
        ("polars", ".feather"): "write_ipc",
    }
    getattr(frame, names[library, suffix])(path)
    np.testing.assert_array_equal(read_features(path), FEATURES[:50])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_of_numbers_are_converted(tmp_path, dtype):
    matrix = FEATURES[:40].astype(dtype)
    lists = pa.ListArray.from_arrays(np.arange(0, 246, 6), pa.array(matrix.reshape(-1)))
    feather.write_feather(pa.table({"features": lists}), tmp_path / "rows.feather")
    np.save(tmp_path / "rows.npy", matrix)
    save_file({"features": matrix}, tmp_path / "rows.safetensors")
    paths = [tmp_path / f"rows.{suffix}" for suffix in ("feather", "npy", "safetensors")]
    if dtype == np.float64:
        pq.write_table(pa.table({"features": lists}), tmp_path / "rows.parquet")
        paths.append(tmp_path / "rows.parquet")
    for path in paths:
        features = read_features(path)
        assert (features.dtype, type(features)) == (np.float32, np.ndarray)
        np.testing.assert_array_equal(features, matrix.astype(np.float32))


def test_bfloat16_is_read(tmp_path):
    import torch

    tensor = torch.from_numpy(FEATURES[:9]).bfloat16()
    save_torch({"features": tensor}, tmp_path / "rows.safetensors")
    np.testing.assert_array_equal(
        read_features(tmp_path / "rows.safetensors"), tensor.float().numpy()
    )


def test_files_of_a_cluster_are_read_in_the_order_in_which_pandas_reads_them(tmp_path):
    """That is part.10 before part.2. Spark writes a _SUCCESS beside the parts."""
    for number in range(12):
        rows = FEATURES[number * 10 : number * 10 + 10]
        table = table_of(rows).append_column("row", [np.arange(number * 10, number * 10 + 10)])
        pq.write_table(table, tmp_path / f"part.{number}.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "_metadata.parquet").touch()
    (tmp_path / ".part.0.parquet.crc").touch()
    order = pd.read_parquet(tmp_path, columns=["row"]).row.to_numpy()
    assert order[10] == 10
    assert order[20] == 100
    np.testing.assert_array_equal(read_features(tmp_path), FEATURES[order])
    np.testing.assert_array_equal(read_features(f"{tmp_path}/part.*.parquet"), FEATURES[order])
    np.testing.assert_array_equal(read_features(f"{tmp_path}/part.1*.parquet"), np.concatenate(
        [FEATURES[10:20], FEATURES[100:120]]))  # fmt: skip


def test_a_part_without_rows_or_without_features_is_read(tmp_path):
    pq.write_table(table_of(FEATURES[:0]), tmp_path / "0.parquet")
    pq.write_table(pa.table({"features": pa.nulls(3)}), tmp_path / "1.parquet")
    pq.write_table(table_of(FEATURES[:5]), tmp_path / "2.parquet")
    features = read_features(tmp_path)
    assert np.isnan(features[:3]).all()
    np.testing.assert_array_equal(features[3:], FEATURES[:5])
    (tmp_path / "2.parquet").unlink()
    with pytest.raises(ValueError, match="has no row with features"):
        read_features(tmp_path)


# ---------------------------------------------------------------- memory-mapped


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "arrow", "stream.arrow"])
@pytest.mark.parametrize("kind", ["list", "fixed_size_list"])
def test_what_can_be_is_memory_mapped(tmp_path, suffix, kind):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "npy":
        np.save(path, FEATURES)
    elif suffix == "safetensors":
        save_file({"other": np.ones(3), "features": FEATURES}, path)
    elif suffix == "arrow":
        write(table_of(FEATURES, kind), path)
    else:
        table = table_of(FEATURES, kind)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    features = read_features(path)
    assert isinstance(features, np.memmap)
    assert not features.flags.writeable
    np.testing.assert_array_equal(features, FEATURES)
    found = Parallel(n_jobs=2)(delayed(where_it_is)(features, i) for i in range(2))
    assert found == [(str(path), features[i].tolist()) for i in range(2)]


def where_it_is(features, row):
    """Return the file that an array of another process is mapped from, and a row."""
    while not hasattr(features, "filename"):
        features = features.base
    return str(features.filename), features[row].tolist()


@pytest.mark.parametrize("compression", ["lz4", "zstd", "uncompressed"])
def test_arrow_files_of_several_batches_are_read(tmp_path, compression):
    table = table_of(FEATURES)
    feather.write_feather(table, tmp_path / "a.feather", compression=compression, chunksize=512)
    feather.write_feather(table, tmp_path / "b.feather", compression=compression, chunksize=5000)
    for name in ("a.feather", "b.feather"):
        np.testing.assert_array_equal(read_features(tmp_path / name), FEATURES)
    both = read_features(tmp_path)
    np.testing.assert_array_equal(both, np.concatenate([FEATURES, FEATURES]))


MEASURE = """
import resource, sys
import numpy as np, pyarrow.parquet, pyarrow.compute
from sk_aft.store import read_features
read_features(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
features = read_features(sys.argv[1])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 / features.nbytes, float(features.sum()))
"""


def test_parquet_takes_the_memory_of_the_result_once(tmp_path):
    """Whatever the row groups are; pyarrow alone takes five times as much for one of this size."""
    pytest.importorskip("resource")
    matrix = np.random.default_rng(0).random((40_000, 1000), dtype=np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), 1000)
    table = pa.table({"features": lists.cast(pa.list_(pa.float32()))})
    pq.write_table(table.slice(0, 10), tmp_path / "small.parquet")
    for rows_per_group in (40_000, 5_000):
        pq.write_table(table, tmp_path / "large.parquet", row_group_size=rows_per_group)
        paths = [str(tmp_path / name) for name in ("large.parquet", "small.parquet")]
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, timeout=120
        )
        ratio, total = map(float, done.stdout.split())
        assert total == pytest.approx(matrix.sum(), rel=1e-3)
        assert ratio < 1.3


# ---------------------------------------------------------------- errors


def test_a_missing_column_is_named_beside_those_there_are(tmp_path):
    for path in (tmp_path / "rows.parquet", tmp_path / "rows.arrow"):
        write(table_of(FEATURES[:3]), path)
        with pytest.raises(ValueError, match=r"no column 'vector'; it has \['id', 'features'\]"):
            read_features(path, "vector")
    save_file({"a": FEATURES, "b": FEATURES}, tmp_path / "rows.safetensors")
    with pytest.raises(ValueError, match=r"no tensor 'features'; it has \['a', 'b'\]"):
        read_features(tmp_path / "rows.safetensors")
    np.testing.assert_array_equal(read_features(tmp_path / "rows.safetensors", "b"), FEATURES)


@pytest.mark.parametrize(
    ("values", "type_", "message"),
    [
        ([1.0, 2.0], pa.float32(), "is of type float: expected lists of floating"),
        (["a", "b"], pa.string(), "is of type string: expected lists"),
        ([["a"], ["b"]], pa.list_(pa.string()), "expected lists of floating-point numbers"),
        ([[1.0, 2.0], [3.0]], pa.list_(pa.float32()), "Row 1 of .* 1 numbers, but the first has 2"),
        ([None, [1.0], None, []], pa.list_(pa.float32()), "Row 3 of .* has 0 numbers"),
        ([[], []], pa.list_(pa.float32()), "Row 0 of .* has 0 numbers"),
        ([[1.0, None], [1.0, 2.0]], pa.list_(pa.float32()), "holds null instead of a number"),
        ([None, None], pa.list_(pa.float32()), "has no row with features"),
        ([], pa.list_(pa.float32()), "has no row with features"),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_columns_that_hold_no_features_are_refused(tmp_path, values, type_, message, suffix):
    write(pa.table({"features": pa.array(values, type_)}), tmp_path / f"rows{suffix}")
    with pytest.raises(ValueError, match=message):
        read_features(tmp_path / f"rows{suffix}")


def test_files_of_different_widths_are_refused(tmp_path):
    pq.write_table(table_of(FEATURES[:3]), tmp_path / "0.parquet")
    pq.write_table(table_of(FEATURES[:3, :4]), tmp_path / "1.parquet")
    with pytest.raises(ValueError, match=r"Row 0 .* in .*1\.parquet has 4 numbers, but .* has 6"):
        read_features(tmp_path)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".npy", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"abc", b"PAR1" + bytes(200) + b"PAR1", bytes(50)])
def test_files_that_are_something_else_are_refused(tmp_path, suffix, content):
    (tmp_path / f"rows{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"rows{suffix} ")):
        read_features(tmp_path / f"rows{suffix}")


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "rows.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not an array of numbers"):
        read_features(tmp_path / "rows.npy")


@pytest.mark.parametrize(
    "array", [np.ones(3), np.ones((2, 2), int), np.ones((2, 0)), np.ones((1, 1, 1))]
)
def test_arrays_of_another_shape_or_type_are_refused(tmp_path, array):
    np.save(tmp_path / "rows.npy", array)
    save_file({"features": array}, tmp_path / "rows.safetensors")
    with pytest.raises(ValueError, match="expected floating-point numbers of shape"):
        read_features(tmp_path / "rows.npy")
    with pytest.raises(ValueError, match="expected"):
        read_features(tmp_path / "rows.safetensors")


def test_paths_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        read_features(tmp_path / "nowhere.parquet")
    with pytest.raises(FileNotFoundError, match=r"There (are no files of|is no file at)"):
        read_features(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There (are no files of|is no file at)"):
        read_features(tmp_path / "*.parquet")
    (tmp_path / "rows.csv").touch()
    with pytest.raises(ValueError, match=r"expected one file of \.parquet, .*\.safetensors"):
        read_features(tmp_path / "rows.csv")
    write(table_of(FEATURES[:3]), tmp_path / "a.parquet")
    write(table_of(FEATURES[:3]), tmp_path / "a.arrow")
    with pytest.raises(ValueError, match="expected files of one suffix"):
        read_features(tmp_path)
