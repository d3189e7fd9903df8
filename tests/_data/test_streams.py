import gzip
import io

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sk_aft._data._streams import ROWS_PER_BATCH, batches_of, is_stream

TEXTS = [f"text {number}" for number in range(20)]
TABLE = pa.table({"text": TEXTS, "label": list(range(20))})


def png(level):
    content = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(content, "PNG")
    return content.getvalue()


def rows_of(X, columns=None):
    batches = list(batches_of(X, columns))
    if columns is None:
        return [row for batch in batches for row in batch]
    return pd.concat(batches, ignore_index=True)


@pytest.fixture
def folder(tmp_path):
    """Two files in each format."""
    for start in (0, 10):
        part = TABLE.slice(start, 10)
        pq.write_table(part, tmp_path / f"{start:02}.parquet")
        pa.feather.write_feather(part, tmp_path / f"{start:02}.feather")
        pa.csv.write_csv(part, tmp_path / f"{start:02}.csv")
    return tmp_path


@pytest.mark.parametrize("pattern", ["*.parquet", "*.feather", "*.csv"])
def test_files_of_a_pattern_are_read_in_the_order_of_their_names(folder, pattern):
    assert rows_of(str(folder / pattern), ["text"]).text.tolist() == TEXTS


def test_a_file_and_a_directory_are_read(folder, tmp_path):
    assert rows_of(folder / "10.csv", ["text"]).text.tolist() == TEXTS[10:]
    pq.write_to_dataset(TABLE, tmp_path / "parts", partition_cols=["label"])
    assert sorted(rows_of(tmp_path / "parts", ["text"]).text) == sorted(TEXTS)


def test_a_compressed_csv_file_is_read(folder):
    content = gzip.compress((folder / "00.csv").read_bytes())
    (folder / "00.csv").unlink()
    (folder / "00.csv.gz").write_bytes(content)
    for X in (str(folder / "00.csv.gz"), str(folder / "*.csv.gz")):
        assert is_stream(X)
        assert rows_of(X, ["text"]).text.tolist() == TEXTS[:10]


def test_arrow_files_are_read_in_both_formats(tmp_path):
    for start in (0, 10):
        with pa.ipc.new_stream(str(tmp_path / f"{start:02}.arrow"), TABLE.schema) as writer:
            writer.write_table(TABLE.slice(start, 10))
    assert rows_of(tmp_path, ["text"]).text.tolist() == TEXTS
    with pa.ipc.new_file(str(tmp_path / "file.ipc"), TABLE.schema) as writer:
        writer.write_table(TABLE)
    assert rows_of(tmp_path / "file.ipc", ["text"]).text.tolist() == TEXTS


def test_a_folder_of_a_saved_data_set_names_the_function_that_loads_it(tmp_path):
    dataset = datasets.Dataset(TABLE)
    dataset.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": dataset}).save_to_disk(tmp_path / "several")
    for name in ("one", "several"):
        with pytest.raises(ValueError, match=r"datasets\.load_from_disk\('"):
            rows_of(tmp_path / name)


def test_files_that_cannot_be_read_are_named(tmp_path):
    for number, text in enumerate(["text\n1\n2\n", "text\nabc\n"]):
        (tmp_path / f"{number}.csv").write_text(text)
    with pytest.raises(ValueError, match=r"1\.csv' cannot be read: .*'abc'.* dtype=\{'text': str"):
        rows_of(tmp_path)
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"bad\.parquet' cannot be read"):
        rows_of(tmp_path / "bad.parquet")


def test_lists_of_numbers_are_the_rows_of_a_table():
    lists = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    for X in (pa.table({"e": lists}), datasets.Dataset.from_dict({"e": lists})):
        (batch,) = batches_of(X)
        np.testing.assert_array_equal(batch, lists)
    with pytest.raises(ValueError, match="have the same length and none is missing"):
        list(batches_of(pa.table({"e": [[1.0], [1.0, 2.0]]})))


def test_missing_files_mixed_formats_and_missing_columns_are_errors(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        rows_of(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"the pattern '\*.csv'"):
        rows_of(folder)
    with pytest.raises(ValueError, match=r"\['review'\] are missing from X, which has \['text'"):
        rows_of(folder / "*.parquet", ["review"])
    with pytest.raises(ValueError, match=r"X has the columns \['text', 'label'\]: say which"):
        rows_of(folder / "*.parquet")


@pytest.mark.parametrize(
    "make",
    [
        lambda: TABLE,
        lambda: pa.dataset.dataset(TABLE),
        lambda: TABLE.to_reader(7),
        lambda: pa.dataset.dataset(TABLE).scanner(batch_size=3),
        lambda: datasets.Dataset(TABLE),
        lambda: datasets.Dataset(TABLE).to_iterable_dataset(),
        lambda: iter(TABLE.to_pylist()),
        lambda: iter(TABLE.to_batches(6)),
        lambda: (TABLE.slice(start, 5).to_pandas() for start in range(0, 20, 5)),
    ],
    ids=["table", "dataset", "reader", "scanner", "hf", "iterable", "dicts", "batches", "frames"],
)
def test_tables_data_sets_and_iterators_give_named_columns(make):
    assert is_stream(make())
    rows = rows_of(make(), ["text"])
    assert rows.text.tolist() == TEXTS


def test_one_column_of_texts_comes_as_a_list():
    for X in (TABLE.select(["text"]), datasets.Dataset(TABLE.select(["text"])), iter(TEXTS)):
        assert rows_of(X) == TEXTS


def test_columns_of_numbers_come_as_a_table():
    numbers = pa.table({"a": [1, 2], "b": [0.5, None]})
    for X in (numbers, datasets.Dataset(numbers)):
        (batch,) = batches_of(X)
        assert list(batch.columns) == ["a", "b"]
        np.testing.assert_array_equal(batch, [[1, 0.5], [2, np.nan]])


def test_missing_texts_stay_none():
    assert rows_of(pa.table({"text": ["a", None]})) == ["a", None]
    assert rows_of(datasets.Dataset.from_dict({"text": ["a", None]})) == ["a", None]


def test_images_of_hugging_face_come_as_the_bytes_of_their_files(tmp_path):
    path = tmp_path / "1.png"
    path.write_bytes(png(1))
    stored = [{"bytes": png(0), "path": "0.png"}, {"bytes": None, "path": str(path)}, None]
    images = datasets.Dataset.from_dict({"image": stored}).cast_column("image", datasets.Image())
    expected = [png(0), str(path), None]
    assert rows_of(images) == expected
    assert rows_of(images.to_iterable_dataset()) == expected
    pq.write_table(images.data.table, tmp_path / "images.parquet")
    assert rows_of(tmp_path / "images.parquet") == expected


def test_a_data_set_with_a_transform_gives_what_the_transform_returns():
    shouted = datasets.Dataset(TABLE.select(["text"])).with_transform(
        lambda batch: {"text": [text.upper() for text in batch["text"]]}
    )
    assert rows_of(shouted) == [text.upper() for text in TEXTS]


def test_selected_rows_of_a_data_set_are_read_in_their_order():
    assert rows_of(datasets.Dataset(TABLE.select(["text"])).select([3, 1])) == ["text 3", "text 1"]


def test_batches_are_bounded_in_rows_and_bytes():
    many = [str(number) for number in range(ROWS_PER_BATCH + 5)]
    for X in (pa.table({"text": many}), iter(many), datasets.Dataset.from_dict({"text": many})):
        assert [len(batch) for batch in batches_of(X)] == [ROWS_PER_BATCH, 5]
    large = (b"x" * (40 << 20) for _ in range(4))
    assert [len(batch) for batch in batches_of(large)] == [2, 2]
    files = pa.table({"file": pa.array([bytes(1 << 20)] * 100, pa.binary())})
    for X in (files, files.to_reader(30), iter([files])):
        assert max(len(batch) for batch in batches_of(X)) <= 64
    arrays = ({"image": np.zeros((1 << 10, 1 << 10), np.uint8)} for _ in range(100))
    assert [len(batch) for batch in batches_of(arrays)] == [64, 36]


def test_transformed_images_are_made_a_few_at_a_time():
    sizes = []

    def make(batch):
        sizes.append(len(batch["text"]))
        return batch

    rows_of(datasets.Dataset.from_dict({"text": TEXTS * 10}).with_transform(make))
    assert max(sizes) <= 64


def test_a_filtered_data_set_is_read():
    filtered = pa.dataset.dataset(TABLE).filter(pa.dataset.field("label") >= 15)
    assert rows_of(filtered, ["text"]).text.tolist() == TEXTS[15:]


def test_an_iterator_may_mix_rows_and_batches():
    assert [list(batch) for batch in batches_of(iter(["a", "b", ["c", "d"], [], "e"]))] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]


def test_collections_in_memory_and_single_texts_are_no_streams():
    for X in (TEXTS, np.zeros((2, 2)), TABLE.to_pandas(), "a text", {"text": TEXTS}, None):
        assert not is_stream(X)
