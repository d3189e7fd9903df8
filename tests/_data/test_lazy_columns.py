import gc
import os
import pickle
import resource
import signal
import subprocess
import sys

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sk_aft._data._lazy_columns import LazyColumn, LazyFrame
from sk_aft._data._opened_streams import opened
from sk_aft._data._rows import as_rows

TEXTS = [f"text {number}" for number in range(20)]


@pytest.fixture
def column():
    return opened(datasets.Dataset.from_dict({"text": TEXTS}))


def test_a_column_is_indexed_as_an_array(column):
    expected = np.array(TEXTS, dtype=object)
    assert column[3] == "text 3"
    assert column[-1] == "text 19"
    for key in (slice(2, 9, 3), [4, 0, 4], np.arange(20) % 3 == 0, slice(5, 5)):
        assert list(column[key]) == list(expected[key])
    assert list(column[5:][[1, 0]]) == ["text 6", "text 5"]
    np.testing.assert_array_equal(np.asarray(column), expected)
    assert (column.shape, column.ndim, column.dtype) == ((20,), 1, object)


def test_columns_are_chained_with_arrays(column):
    chained = LazyColumn.chained([np.array(["a", None], dtype=object), column[:2], column[5:6]])
    assert list(chained) == ["a", None, "text 0", "text 1", "text 5"]
    assert list(chained[[4, 1, 2]]) == ["text 5", None, "text 0"]


def test_a_stream_is_kept_in_a_temporary_file_while_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    column = opened(iter(TEXTS))
    copied = pickle.loads(pickle.dumps(column))
    some = column[3:5]
    del column
    assert list(copied) == TEXTS
    assert list(some) == TEXTS[3:5]
    del copied
    assert len(os.listdir(tmp_path)) == 1
    del some
    gc.collect()
    assert os.listdir(tmp_path) == []


def test_a_temporary_file_is_removed_if_the_stream_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fails():
        yield from TEXTS
        raise OSError("the connection was lost")

    with pytest.raises(OSError, match="connection was lost"):
        opened(fails())
    assert os.listdir(tmp_path) == []


READS_A_STREAM = """
from sk_aft._data._opened_streams import opened
column = opened(iter(["a", "b"]))
print("ready", flush=True)
input()
"""


def test_temporary_files_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", READS_A_STREAM],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    (theirs,) = os.listdir(tmp_path)
    mine = opened(iter(TEXTS))
    assert theirs in os.listdir(tmp_path)
    assert len(os.listdir(tmp_path)) == 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert theirs in os.listdir(tmp_path)
    others = opened(iter(TEXTS))
    assert theirs not in os.listdir(tmp_path)
    assert list(mine) == list(others) == TEXTS


def test_a_full_disk_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OSError, match=r"is full: .* TMPDIR .* datasets\.Dataset"):
            opened(f"{number}" * 1000 for number in range(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_a_pickle_of_a_file_holds_its_path_only(tmp_path):
    long = ["a long text " * 100 + str(number) for number in range(200)]
    datasets.Dataset.from_dict({"text": long}).save_to_disk(tmp_path)
    column = opened(datasets.load_from_disk(tmp_path))
    pickled = pickle.dumps(column)
    assert len(pickled) < 20_000
    assert list(pickle.loads(pickled)[198:]) == long[198:]


def test_a_frame_gives_columns_and_rows():
    dataset = datasets.Dataset.from_dict({"text": TEXTS, "size": list(range(20)), "x": TEXTS})
    frame = opened(dataset, ["text", "size"])
    assert (frame.columns, frame.shape) == (["text", "size"], (20, 2))
    some = frame[np.array([7, 2])]
    assert list(some["text"]) == ["text 7", "text 2"]
    assert some["size"].tolist() == [7, 2]
    loaded = some[["size"]].loaded()
    assert loaded.to_dict("list") == {"size": [7, 2]}
    assert isinstance(frame["text"], LazyColumn)
    assert isinstance(frame[["text"]], LazyFrame)


def test_rows_of_a_stream_are_recognised():
    assert as_rows(datasets.Dataset.from_dict({"text": TEXTS})).kind == "text"
    assert as_rows(pa.table({"path": ["a.png", "b.PNG"]})).kind == "image"
    assert as_rows(pa.table({"file": [b"1", None]}), missing=True).kind == "image"
    assert as_rows(pa.table({"a": [1, 2], "b": [3, 4]})).kind == "numeric"
    with pytest.raises(ValueError, match="Row 1 of X is missing"):
        as_rows(pa.table({"text": ["a", None]}))
    with pytest.raises(ValueError, match="minimum of 1"):
        as_rows(pa.table({"text": pa.array([], pa.string())}))


def test_rows_in_memory_and_of_a_file_are_joined():
    rows = as_rows(TEXTS[:2]).concat(as_rows(iter(TEXTS[2:4])))
    assert rows.is_lazy
    assert list(rows.values) == TEXTS[:4]
    assert not rows.loaded().is_lazy
    assert [len(piece) for piece in rows.pieces()] == [4]


def test_the_mask_of_missing_values_follows_every_selection():
    texts = ["a", None, "b", None, "c"]
    dataset = datasets.Dataset.from_dict({"text": texts})
    column = opened(dataset)
    np.testing.assert_array_equal(column.missing_mask, [False, True, False, True, False])
    np.testing.assert_array_equal(column[[3, 0]].missing_mask, [True, False])
    np.testing.assert_array_equal(opened(dataset.select([1, 4])).missing_mask, [True, False])
    chained = LazyColumn.chained([np.array([None, "x"], dtype=object), column[1:3]])
    np.testing.assert_array_equal(chained[1:].missing_mask, [False, True, False])
    assert chained.holds_strings


def test_images_without_bytes_and_path_are_missing():
    images = [{"bytes": b"1", "path": None}, None, {"bytes": None, "path": None}]
    images.append({"bytes": None, "path": "a file without a suffix"})
    dataset = datasets.Dataset.from_dict({"image": images}).cast_column("image", datasets.Image())
    rows = as_rows(dataset, missing=True)
    assert rows.kind == "image"
    assert not rows.holds_strings
    np.testing.assert_array_equal(rows.missing_mask, [False, True, True, False])


class CountingDataset(datasets.Dataset):
    """Counts the rows whose values are handed out."""

    n_read = 0

    def __getitem__(self, key):
        table = super().__getitem__(key)
        CountingDataset.n_read += len(table)
        return table


def test_files_are_not_read_to_recognise_them():
    files = pa.table({"file": [b"1", None, b"2"] * 20})
    frame = LazyFrame(CountingDataset(files))
    CountingDataset.n_read = 0
    rows = as_rows(frame, missing=True)
    assert rows.missing_mask.sum() == 20
    assert not rows.holds_strings
    assert rows.read_as("image") is rows
    assert CountingDataset.n_read == 0
    assert len(rows.loaded()) == CountingDataset.n_read == 60


@pytest.mark.parametrize("library", [pd, pl])
def test_batches_may_be_frames_and_series_of_any_library(library):
    frames = (library.DataFrame({"text": [text], "size": [1]}) for text in TEXTS)
    frame = opened(frames, ["text"])
    assert (frame.columns, list(frame["text"])) == (["text"], TEXTS)
    assert list(opened(library.Series([text]) for text in TEXTS)) == TEXTS


def test_the_types_of_batches_are_widened():
    frames = [
        pd.DataFrame({"text": [None], "size": [1], "price": [None]}),
        pd.DataFrame({"size": [2.5], "price": [3], "text": ["a"]}),
        pd.DataFrame({"text": ["b"], "size": [None], "price": [4]}),
    ]
    loaded = opened(iter(frames), ["text", "size", "price"]).loaded()
    assert loaded.text.tolist() == [None, "a", "b"]
    np.testing.assert_array_equal(loaded["size"], [1, 2.5, np.nan])
    np.testing.assert_array_equal(loaded.price, [np.nan, 3, 4])
    assert list(opened(iter([[None, None], ["a"]]))) == [None, None, "a"]


def test_batches_that_cannot_be_joined_are_errors():
    with pytest.raises(ValueError, match=r"batches whose types differ: .*string vs int64"):
        opened(pd.DataFrame({"a": values}) for values in (["x"], [1]))
    with pytest.raises(ValueError, match=r"different columns: \['a'\] and \['b'\]"):
        opened(pd.DataFrame({name: [1]}) for name in "ab")


def test_arrays_and_lists_of_numbers_are_tables():
    table = np.arange(12.0).reshape(6, 2)
    dataset = datasets.Dataset.from_dict({"e": table.tolist()})
    for X in (iter([table[:4], table[4:]]), dataset, pa.table({"e": table.tolist()})):
        rows = as_rows(X)
        assert rows.kind == "numeric"
        np.testing.assert_array_equal(rows.values, table)
    np.testing.assert_array_equal(as_rows(iter([table[:4].astype(int), table[4:]])).values, table)


def test_a_table_in_memory_is_a_frame():
    table = pa.table({"text": TEXTS, "size": range(20)})
    for X in (table, table.to_batches()[0]):
        pd.testing.assert_frame_equal(opened(X), table.to_pandas(), check_dtype=False)
