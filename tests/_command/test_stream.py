import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sk_aft._command._messages import CommandError
from sk_aft._command._stream import image_paths, open_table
from tests._command.files import write_csv, write_images, write_json_lines

COLUMNS = {"text": ["a", 'b, "c"', "", "line\nbreak", "é"], "number": ["1", "2.5", "", "x", "01"]}


def whole(path, n_rows=2):
    table = open_table(path)
    batches = list(table.read(n_rows))
    assert all(len(next(iter(batch.values()))) <= n_rows for batch in batches)
    return {name: [cell for batch in batches for cell in batch[name]] for name in table.columns}


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".tsv", "\t")])
def test_cells_of_csv_are_read_as_they_are_written(suffix, delimiter, tmp_path):
    path = write_csv(tmp_path / f"rows{suffix}", COLUMNS, delimiter=delimiter)
    assert whole(path) == COLUMNS
    assert open_table(path).are_texts


def test_a_mark_of_the_encoding_and_blank_lines_are_no_data(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4\r\n")
    assert whole(path) == {"a": ["1", "3"], "b": ["2", "4"]}


def test_json_lines_keep_their_types_and_lines_may_lack_columns(tmp_path):
    records = [{"a": 1, "b": None}, {"a": 2.5, "b": "x"}, {"a": True}]
    path = write_json_lines(tmp_path / "rows.jsonl", records)
    assert whole(path, n_rows=3) == {"a": [1, 2.5, True], "b": [None, "x", None]}


def test_parquet_keeps_its_types_and_categories(tmp_path):
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", None, "y"]})
    frame["c"] = frame["b"].astype("category")
    frame.to_parquet(tmp_path / "rows.parquet")
    assert whole(tmp_path / "rows.parquet")["b"] == ["x", None, "y"]
    assert open_table(tmp_path / "rows.parquet").categories == {"c"}


def test_images_are_found_in_folders_and_hidden_files_are_not(tmp_path):
    write_images(tmp_path / "b", 2)
    write_images(tmp_path / ".hidden", 1)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "b" / "._0.png").write_text("no image")
    assert image_paths(tmp_path) == [tmp_path / "b" / "0.png", tmp_path / "b" / "1.png"]
    assert whole(tmp_path) == {"path": [str(tmp_path / "b" / f"{n}.png") for n in range(2)]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"", "is empty"),
        ("rows.jsonl", b"\n\n", "is empty"),
        ("rows.xlsx", b"x", r"unknown format: expected \.csv"),
        ("rows.csv", b"a,a\n1,2\n", "2 columns named 'a': rename one"),
        ("rows.csv", b"a,b\n1,2\n1,2,3\n", r"line 3: it has 3 cells, and the first line has 2"),
        ("rows.csv", b'a,b\n1,"2\n3,4\n', "Is a quote not closed"),
        ("rows.csv", "a\né\n".encode("latin-1"), r"not encoded in UTF-8 \(byte 0xe9\).*iconv"),
        ("rows.jsonl", b'{"a": 1}\nno\n', "line 2 is no JSON object"),
        ("rows.json", b'[{"a": 1}]', r"is a JSON list.* jq -c"),
        ("rows.json", b'[\n{"a": 1}\n]\n', r"line 1 is no JSON object.* jq -c"),
        ("rows.parquet", b"PAR1 cut", "cannot be read as Parquet, or is truncated"),
    ],
)
def test_files_that_cannot_be_read_say_why(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CommandError, match=message):
        list(open_table(tmp_path / name).read(10))


def test_a_truncated_parquet_file(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": list(range(1000))}), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CommandError, match="truncated"):
        open_table(path)


def test_missing_files_and_folders_without_images(tmp_path):
    with pytest.raises(CommandError, match="There is no file"):
        open_table(tmp_path / "none.csv")
    with pytest.raises(CommandError, match="holds no image"):
        open_table(tmp_path)


def test_a_line_with_a_further_column_is_part_of_its_batch(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\n" + json.dumps({"a": 2, "b": 3}))
    assert list(open_table(path).read(5)) == [{"a": [1, 2], "b": [None, 3]}]
