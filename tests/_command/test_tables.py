import numpy as np
import pandas as pd
import pytest

from sk_aft._command._arguments import build_parser
from sk_aft._command._describe import describe_data
from sk_aft._command._messages import CommandError
from sk_aft._command._tables import read_test_data, read_training_data
from tests._command.files import texts_of, write_csv, write_images, write_json_lines


def options(*arguments):
    return build_parser().parse_args(["fit", *map(str, arguments), "--out", "unused"])


def read(*arguments):
    return read_training_data(options(*arguments))


@pytest.fixture
def mixed(tmp_path):
    n = 40
    columns = {
        "": range(n),  # pandas' index
        "text": [f"a text {row}" for row in range(n)],
        "age": ["NA" if row == 3 else row / 2 for row in range(n)],
        "town": [["Bern", "Basel", ""][row % 3] for row in range(n)],
        "code": [f"{row:03}" for row in range(n)],
        "picture": [str(path.relative_to(tmp_path)) for path in write_images(tmp_path / "p", n)],
        "nothing": [""] * n,
        "y": [["a", "b", ""][row % 3] for row in range(n)],
    }
    return write_csv(tmp_path / "mixed.csv", columns)


def test_one_column_of_texts_is_a_list(tmp_path):
    path = write_csv(tmp_path / "rows.csv", texts_of(8, 6))
    data = read(path, "--label", "topic")
    assert list(data.X) == texts_of(6)["review"]
    assert data.labels.targets.tolist() == texts_of(6)["topic"]
    assert data.X_unlabeled == texts_of(8)["review"][6:]


def test_columns_are_recognised_by_what_they_hold(mixed, tmp_path):
    data = read(mixed, "--label", "y")
    assert data.kinds == {
        "text": "text",
        "age": "numeric",
        "town": "category",
        "code": "text",
        "picture": "image",
    }
    assert data.left_out == ["", "nothing"]
    assert np.isnan(data.rows["age"]).sum() == 1
    assert isinstance(data.rows["town"].dtype, pd.CategoricalDtype)
    assert data.rows["picture"].iloc[0] == tmp_path / "p" / "0.png"
    assert len(data.X) == 27
    assert data.n_unlabeled == 13


def test_named_columns_are_read_and_no_others(mixed):
    data = read(mixed, "--label", "y", "--text", "town", "--category", "code", "--number", "age")
    assert data.kinds == {"town": "text", "code": "category", "age": "numeric"}
    assert read(mixed, "--label", "y", "--image", "picture").X[0].name == "0.png"


def test_columns_of_json_lines_are_read_by_their_types(tmp_path):
    records = [{"a": row, "b": str(row), "y": bool(row % 2)} for row in range(12)]
    data = read(write_json_lines(tmp_path / "rows.jsonl", records), "--label", "y")
    assert data.kinds == {"a": "numeric", "b": "text"}
    assert data.labels.targets.dtype == bool


def test_unlabeled_rows_of_another_file_have_the_same_categories(tmp_path):
    columns = {"town": ["Bern", "Basel"] * 10, "age": [*range(20)], "y": ["a", "b"] * 10}
    path = write_csv(tmp_path / "rows.csv", columns)
    more = {"age": [1, 2], "town": ["Bern", "Olten"], "other": [0, 0]}
    pd.DataFrame(more).to_parquet(tmp_path / "more.parquet")
    data = read(path, "--label", "y", "--unlabeled", tmp_path / "more.parquet")
    assert data.n_unlabeled == 2
    assert data.X["town"].dtype == data.X_unlabeled["town"].dtype
    assert data.X_unlabeled["town"].tolist() == ["Bern", "Olten"]


def test_folders_of_images_are_classes(tmp_path):
    for name in ("cats", "dogs"):
        write_images(tmp_path / "pictures" / name, 2)
    (beside,) = write_images(tmp_path / "pictures", 1)
    write_images(tmp_path / "more" / "deep", 3)
    data = read(tmp_path / "pictures", "--unlabeled", tmp_path / "more")
    assert data.labels.targets.tolist() == ["cats", "cats", "dogs", "dogs"]
    assert data.X[0] == tmp_path / "pictures" / "cats" / "0.png"
    assert data.X_unlabeled[0] == beside
    assert data.n_unlabeled == 4


def test_rows_to_test_on(tmp_path):
    path = write_csv(tmp_path / "rows.csv", texts_of(8))
    test = write_csv(tmp_path / "test.csv", texts_of(5, 4))
    given = options(path, "--label", "topic", "--test", test)
    X, y = read_test_data(given, read_training_data(given))
    assert (X, y.tolist()) == (texts_of(4)["review"], texts_of(4)["topic"])
    write_csv(test, {"review": ["x", "y"], "topic": ["card", "fee"]})
    with pytest.raises(CommandError, match=r"labels that no training row has, 'fee'"):
        read_test_data(given, read_training_data(given))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "topik"], r"has no column 'topik': did you mean 'topic'\? It has 'review'"),
        (["--label", "topic", "--text", "text"], "has no column 'text'"),
        (["--label", "topic", "--text", "topic"], "is the label"),
        (["--label", "topic", "--text", "review", "--image", "review"], "named twice"),
        (["--label", "topic", "--number", "review"], r"row 1: 'my card is lost 0' in 'review' is"),
        (["--label", "topic", "--image", "review"], r"8 images of 8 cannot be read.*no such file"),
    ],
)
def test_columns_that_cannot_be_used(arguments, message, tmp_path):
    path = write_csv(tmp_path / "rows.csv", texts_of(8))
    with pytest.raises(CommandError, match=message):
        read(path, *arguments)


def test_files_without_rows_or_columns_to_learn_from(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,topic\n")
    with pytest.raises(CommandError, match="has columns and no rows"):
        read(path, "--label", "topic")
    path.write_text("topic\na\nb\n")
    with pytest.raises(CommandError, match="no column to learn from beside 'topic'"):
        read(path, "--label", "topic")


def test_columns_that_are_neither_texts_nor_numbers(tmp_path):
    path = write_json_lines(tmp_path / "rows.jsonl", [{"a": [1], "y": 0}, {"a": [2], "y": 1}])
    with pytest.raises(CommandError, match=r"column 'a' of .* holds a list"):
        read(path, "--label", "y")


def test_other_rows_that_lack_a_column(tmp_path):
    path = write_csv(tmp_path / "rows.csv", texts_of(8))
    more = write_csv(tmp_path / "more.csv", {"reviews": ["x"]})
    with pytest.raises(CommandError, match=r"--unlabeled .* no column 'review': did you mean"):
        read(path, "--label", "topic", "--unlabeled", more)
    with pytest.raises(CommandError, match="is a folder: expected a file with 'review'"):
        read(path, "--label", "topic", "--unlabeled", tmp_path)


def test_folders_of_images_that_cannot_be_used(tmp_path):
    (image,) = write_images(tmp_path / "cats", 1)
    with pytest.raises(CommandError, match=r"only images of 'cats': expected a folder"):
        read(tmp_path)
    other = tmp_path / "dogs" / "0.png"
    other.parent.mkdir()
    other.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(CommandError, match=r"1 image of 2 cannot be read, the first is .*dogs"):
        read(tmp_path)
    other.write_text("text")
    with pytest.raises(CommandError, match=r"it is no image"):
        read(tmp_path)


def test_cells_that_name_no_image(tmp_path):
    (path,) = write_images(tmp_path, 1)
    table = write_csv(tmp_path / "rows.csv", {"image": [path.name, ""], "y": ["a", "b"]})
    with pytest.raises(CommandError, match=r"row 2: the column 'image' names no image"):
        read(table, "--label", "y", "--image", "image")


def test_images_in_the_cells_of_parquet(tmp_path):
    content = write_images(tmp_path, 1)[0].read_bytes()
    cells = [{"bytes": content, "path": None}] * 2
    pd.DataFrame({"image": cells, "y": ["a", "b"]}).to_parquet(tmp_path / "rows.parquet")
    data = read(tmp_path / "rows.parquet", "--label", "y", "--image", "image")
    assert list(data.X) == [content, content]


def test_columns_of_numbers_that_look_like_identifiers_are_hinted_at(tmp_path):
    columns = {
        "id": range(5, 17),
        "age": [20, *range(20, 31)],
        "size": [n + 0.5 for n in range(12)],
    }
    path = write_csv(tmp_path / "rows.csv", {**columns, "y": ["a", "b"] * 6})
    (hint,) = read(path, "--label", "y").hints
    assert hint.startswith("'id' looks like an identifier: to leave it out, name the columns")
    assert read(path, "--label", "y", "--number", "id", "--number", "age").hints == []
    few = write_csv(tmp_path / "few.csv", {"id": range(4), "y": ["a", "b"] * 2})
    assert read(few, "--label", "y").hints == []
    two = write_csv(tmp_path / "two.csv", {"i": range(12), "j": range(12), "y": ["a", "b"] * 6})
    (hint,) = read(two, "--label", "y").hints
    assert hint.startswith("'i', 'j' look like identifiers: to leave them out, name")


def test_labels_of_rows_that_are_said_to_have_none_are_counted(tmp_path):
    path = write_csv(tmp_path / "rows.csv", texts_of(8))
    more = write_csv(
        tmp_path / "more.csv", {"review": list("abcd"), "topic": ["card", "", "?", " "]}
    )
    arguments = (path, "--label", "topic", "--text", "review", "--unlabeled", more)
    data = read(*arguments)
    assert data.hints == [f"--unlabeled {more}: 2 labels in 'topic' are ignored."]
    assert describe_data(data)[-1] == data.hints[0]
    assert data.n_unlabeled == 4
    with pytest.warns(UserWarning, match=r"No row of 'topic' is marked by --missing-label '\?'"):
        data = read(*arguments, "--missing-label", "?")
    assert data.hints == [f"--unlabeled {more}: 1 label in 'topic' is ignored."]
    assert read(path, "--label", "topic", "--text", "review").hints == []
