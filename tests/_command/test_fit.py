import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sk_aft import AFTClassifier
from sk_aft._command import main
from sk_aft._command._column import read_column
from sk_aft.serving import load
from tests._command.files import (
    TEXTS,
    read_csv,
    texts_of,
    write_csv,
    write_images,
    write_json_lines,
)

PROJECT = Path(__file__).parents[2]
OTHERS = ["what is the exchange rate", "a lost card", "fees", "the card came"]
QUICK = ("--teacher", "none", "--max-epochs", "2")


def fit(*arguments):
    assert main(["fit", *map(str, arguments)]) == 0


def refused(capsys, *arguments, status=1):
    """Return the message of a command that fails before any work, of one line."""
    assert main(["fit", *map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@pytest.fixture
def texts(tmp_path):
    return write_csv(tmp_path / "rows.csv", texts_of(48, 40))


def test_a_student_of_texts_is_taught_saved_and_predicts(texts, tmp_path, capsys):
    more = write_json_lines(tmp_path / "more.jsonl", [{"review": f"a fee {n}"} for n in range(8)])
    out = tmp_path / "model"
    fit(
        *(texts, "--text", "review", "--label", "topic", "--unlabeled", more),
        *("--out", out, "--test-fraction", "0.2", "--dtype", "float16"),
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "Data: 40 labelled rows of 2 classes ('card', 'rate'), and 16 rows without a label."
    )
    assert "It learned from the labels and from these teachers, with their weights: " in printed[2]
    assert re.search(r"minilm \(layer \d+\) \d\.\d\d", printed[2])
    assert printed[3] == "Held-out accuracy: 1.000 (8 rows)."
    assert printed[-2].startswith(f"Saved: {out}/ (")
    command = printed[-1].removeprefix("Predict: python -m sk_aft ").split()
    assert command[:3] == ["predict", str(out), "new.csv"]
    assert load(out).predict(TEXTS).tolist() == ["card", "card", "rate", "rate"]
    config = json.loads((out / "config.json").read_text())
    assert (config["dtype"], config["measured"]["score"]["n_rows"]) == ("float16", 8)
    command[2] = str(texts)
    command[-1] = str(tmp_path / "predictions.csv")
    assert main(command) == 0
    rows = read_csv(tmp_path / "predictions.csv")
    assert all(row["prediction"] == row["topic"] for row in rows[:40])


def test_the_column_that_was_trained_on_is_predicted(texts, tmp_path, capsys):
    out = tmp_path / "model"
    fit(texts, "--text", "review", "--label", "topic", "--out", out, *QUICK)
    new = write_csv(tmp_path / "new.csv", {"note": OTHERS, "review": TEXTS})

    def predicted(*arguments):
        assert main(["predict", str(out), str(new), *arguments]) == 0
        return [row["prediction"] for row in read_csv(tmp_path / "out.csv")]

    target = ("--out", str(tmp_path / "out.csv"))
    student = load(out)
    assert predicted(*target) == student.predict(TEXTS).tolist()
    assert predicted(*target, "--text", "note") == student.predict(OTHERS).tolist()
    # Another student in the same folder may read another column.
    AFTClassifier(beta=0, max_epochs=1).fit(OTHERS, [0, 1, 0, 1]).save_pretrained(out, onnx=False)
    capsys.readouterr()
    assert main(["predict", str(out), str(new), *target]) == 1
    assert "Say so with --text COLUMN" in capsys.readouterr().err
    # A student that is fitted anew is remembered anew, or forgotten if it knows its columns.
    fit(texts, "--text", "review", "--label", "topic", "--out", out, *QUICK)
    assert json.loads((out / "command_line.json").read_text())["text"] == "review"
    rows = write_csv(tmp_path / "n.csv", {"a": [*range(8)], "y": ["u", "v"] * 4})
    fit(rows, "--label", "y", "--out", out, *QUICK)
    assert not (out / "command_line.json").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"version": 2, "text": "review"}', "[" * 10**5])
def test_a_remembered_column_that_cannot_be_read_is_not_used(content, tmp_path):
    (tmp_path / "command_line.json").write_text(content)
    assert read_column(tmp_path, "text", "a student") is None


def test_integer_labels_stay_integers_where_some_are_missing(tmp_path):
    frame = pd.DataFrame({"text": TEXTS * 3, "stars": [1, 1, 5, 5] * 2 + [None] * 4})
    frame.to_parquet(tmp_path / "rows.parquet")
    fit(tmp_path / "rows.parquet", "--label", "stars", "--out", tmp_path / "model", *QUICK)
    assert load(tmp_path / "model").predict(TEXTS).tolist() == [1, 1, 5, 5]


def test_texts_as_labels_stay_as_they_are_written(tmp_path):
    rows = write_csv(tmp_path / "rows.csv", {"text": TEXTS * 3, "y": ["01", "01", "2", "2"] * 3})
    fit(rows, "--text", "text", "--label", "y", "--out", tmp_path / "model", *QUICK)
    assert load(tmp_path / "model").classes_.tolist() == ["01", "2"]


def test_a_table_of_numbers_with_holes_is_taught_by_gradient_boosting(tmp_path, capsys):
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 2)).round(3)
    columns = {"a": ["" if n % 9 == 0 else v for n, v in enumerate(x[:, 0])], "b": x[:, 1]}
    rows = write_csv(tmp_path / "rows.csv", {**columns, "y": 3 * x[:, 1] + 1})
    test = write_csv(tmp_path / "test.csv", {**columns, "y": 3 * x[:, 1] + 1})
    out = tmp_path / "model"
    fit(rows, "--label", "y", "--task", "regression", "--test", test, "--out", out)
    printed = capsys.readouterr().out
    assert "Columns: numbers 'a', 'b'." in printed
    assert re.search(r"the teacher's predictions \d\.\d\d", printed)
    score = float(printed.split("Held-out R²: ")[1].split()[0])
    assert score > 0.8
    assert (out / "onnx" / "model.onnx").exists()
    assert main(["predict", str(out), str(rows), "--out", str(tmp_path / "out.csv")]) == 0
    found = pd.read_csv(tmp_path / "out.csv")
    assert np.corrcoef(found["prediction"], found["y"])[0, 1] > 0.9


def test_columns_of_several_kinds(tmp_path):
    n = 24
    columns = {
        "text": [f"{TEXTS[row % 4]} {row}" for row in range(n)],
        "age": range(n),
        "town": ["Bern", "Basel"] * (n // 2),
        "y": ["a", "a", "b", "b"] * (n // 4),
    }
    rows = write_csv(tmp_path / "rows.csv", columns)
    out = tmp_path / "model"
    fit(rows, "--label", "y", "--out", out, "--max-epochs", 2, "--quiet")
    config = json.loads((out / "config.json").read_text())
    assert config["rows"]["columns"] == ["text", "age", "town"]
    kinds = config["preprocessor"]["state"]["kinds_"]
    assert kinds == {"text": "text", "age": "numeric", "town": "category"}
    assert config["transfer"]["method"] == "pooled-kd"
    assert main(["predict", str(out), str(rows), "--out", str(tmp_path / "out.csv")]) == 0
    assert len(read_csv(tmp_path / "out.csv")) == n


def test_a_folder_of_images(tmp_path, capsys):
    for brightness, name in enumerate(("dark", "light")):
        write_images(tmp_path / "pictures" / name, 6, seed=brightness, brightness=150 * brightness)
    write_images(tmp_path / "more", 4)
    out = tmp_path / "model"
    pictures = tmp_path / "pictures"
    fit(pictures, "--unlabeled", tmp_path / "more", "--out", out, "--max-epochs", 3)
    assert "effnet-lite2" in capsys.readouterr().out
    assert main(["predict", str(out), str(pictures), "--out", str(tmp_path / "out.csv")]) == 0
    rows = read_csv(tmp_path / "out.csv")
    assert all(Path(row["path"]).parent.name == row["prediction"] for row in rows)


def test_quiet_prints_only_where_the_student_is(texts, tmp_path, capsys):
    out = tmp_path / "model"
    fit(texts, "--text", "review", "--label", "topic", "--out", out, *QUICK, "--quiet")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Saved: ")


def test_a_student_that_was_saved_there_before_is_replaced(texts, tmp_path):
    arguments = (texts, "--text", "review", "--label", "topic", "--out", tmp_path / "m", *QUICK)
    fit(*arguments)
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    fit(*arguments, "--seed", 1)
    assert (tmp_path / "m" / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "topics"], "has no column 'topics': did you mean 'topic'?"),
        (["--label", "topic", "--teacher", "effnet-lite0"], "'effnet-lite0' reads images"),
        (["--label", "topic", "--teacher", "minilmm"], "minilm"),
        (["--label", "topic", "--teacher", "none", "--fine-tune"], "--fine-tune needs a teacher"),
        (["--label", "topic", "--teacher", "none", "--teacher", "minilm"], "excludes other"),
        (["--label", "topic", "--unlabeled", "none.csv"], "There is no file 'none.csv'"),
        (["--label", "topic", "--test", "none.csv"], "There is no file 'none.csv'"),
        (["--label", "topic", "--test-fraction", "0.99"], "fewer than two different labels"),
        (["--label", "review"], "looks like names or texts"),
    ],
)
def test_mistakes_are_named_before_any_work(arguments, message, texts, tmp_path, capsys):
    line = refused(capsys, texts, "--out", tmp_path / "model", *arguments)
    assert message in line
    assert not (tmp_path / "model").exists()


def test_folders_that_hold_something_else(texts, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    arguments = (texts, "--label", "topic", "--out")
    assert "holds other files, 'notes.txt'" in refused(capsys, *arguments, tmp_path / "full")
    assert "is a file: give the name of a folder" in refused(capsys, *arguments, texts)
    (tmp_path / "full" / "config.json").write_text("{}")
    assert "holds something else" in refused(capsys, *arguments, tmp_path / "full")


def test_missing_numbers_beside_other_columns(tmp_path, capsys):
    columns = {"town": ["a", "b"] * 10, "age": [*range(19), ""], "y": ["x", "y"] * 10}
    rows = write_csv(tmp_path / "rows.csv", columns)
    line = refused(capsys, rows, "--label", "y", "--out", tmp_path / "model")
    assert "Numbers are missing in 'age' (1 row of 'age')" in line


def test_regression_by_a_fine_tuned_teacher(tmp_path, capsys):
    rows = write_csv(tmp_path / "rows.csv", {"text": TEXTS * 3, "y": np.arange(12) / 10})
    arguments = (rows, "--text", "text", "--label", "y", "--task", "regression", "--fine-tune")
    line = refused(capsys, *arguments, "--out", tmp_path / "model")
    assert "--fine-tune learns classes" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FILE"], "--label COLUMN is needed"),
        (["FOLDER", "--label", "topic"], "--label names a column, and"),
        (["FOLDER", "--missing-label", "x"], "--missing-label names a column, and"),
        (["FOLDER", "--task", "regression"], "is a folder of images"),
    ],
)
def test_arguments_that_contradict_each_other(arguments, message, texts, tmp_path, capsys):
    paths = {"FILE": texts, "FOLDER": tmp_path}
    given = [paths.get(argument, argument) for argument in arguments]
    assert message in refused(capsys, *given, "--out", tmp_path / "model", status=2)


@pytest.mark.skipif(find_spec("resource") is None, reason="signals of POSIX")
def test_an_interruption_says_that_it_can_be_resumed(texts, tmp_path):
    command = [sys.executable, "-m", "sk_aft", "fit", texts, "--text", "review"]
    command += ["--label", "topic", "--out", tmp_path / "model", "--teacher", "none"]
    run = subprocess.Popen(
        [*command, "--max-epochs", "500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    while run.stdout.readline() != "Training the student ...\n":
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate()
    assert run.returncode == 130
    assert errors.startswith("Interrupted. Features that were computed are kept: the same")
    assert not (tmp_path / "model").exists()
