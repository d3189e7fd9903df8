import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sk_aft._command import main
from sk_aft._command._demo import DEMOS, draw
from sk_aft._command._report import format_table
from tests._command.files import texts_of, write_csv, write_images

PROJECT = Path(__file__).parents[2]


def refused(capsys, *arguments):
    """Return the message of a command that fails before any work, of one line."""
    assert main(["compare", *map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@pytest.fixture
def texts(tmp_path):
    return write_csv(tmp_path / "rows.csv", texts_of(28, 24))


def test_a_comparison_is_printed_and_written(texts, tmp_path, capsys):
    more = write_csv(tmp_path / "more.csv", {"review": ["a fee", "a card"]})
    out = tmp_path / "report"
    arguments = [texts, "--text", "review", "--label", "topic", "--unlabeled", more]
    arguments += ["--cv", 2, "--candidates", "tf-idf,probe", "--out", out]
    assert main(["compare", *map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert "24 labelled rows of 2 classes ('card', 'rate'), and 6 rows without a label" in printed
    assert "Expected time" in printed
    assert max(map(len, printed.split("ms/row")[1].split("score:")[0].splitlines())) <= 100
    assert f"Report: {out / 'index.html'}" in printed
    with (out / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["candidate"] for row in rows} == {"tf-idf", "probe"}
    assert all(row["title"].split()[0] in printed for row in rows)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Does transfer pay on rows.csv?" in page
    assert "<svg" in (out / "plot.svg").read_text(encoding="utf-8")
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "plot.svg", "table.csv"]
    # A second run replaces the report, and reads the fits from the cache.
    assert main(["compare", *map(str, arguments), "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("\ncandidate")


def test_a_student_with_another_network_is_compared_too(tmp_path, capsys):
    random = np.random.default_rng(0)
    columns = {"a": random.normal(size=40), "b": random.normal(size=40), "y": ["u", "v"] * 20}
    rows = write_csv(tmp_path / "rows.csv", columns)
    arguments = [
        "--label",
        "y",
        "--cv",
        "2",
        "--candidates",
        "linear,student-alone",
        "--student",
        "auto",
    ]
    assert main(["compare", str(rows), *arguments, "--out", str(tmp_path / "r")]) == 0
    frame = pd.read_csv(tmp_path / "r" / "table.csv", index_col=0)
    assert sorted(frame.index) == ["linear", "student-alone", "student-auto"]
    assert "Columns: numbers 'a', 'b'." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "topik"], "did you mean 'topic'?"),
        (["--label", "topic", "--cv", "13"], "13 folds are more than the 12 rows of the largest"),
        (["--label", "topic", "--scoring", "acuracy"], "did you mean 'accuracy'?"),
        (["--label", "topic", "--teacher", "effnet-lite2"], "'effnet-lite2' reads images"),
    ],
)
def test_mistakes_are_named_before_any_work(arguments, message, texts, tmp_path, capsys):
    assert message in refused(capsys, texts, "--out", tmp_path / "report", *arguments)
    assert not (tmp_path / "report").exists()


def test_unknown_candidates_are_named(texts, tmp_path, capsys):
    arguments = [texts, "--text", "review", "--label", "topic", "--quiet"]
    arguments += ["--candidates", "tfidf", "--cv", "2", "--out", tmp_path / "report"]
    assert "Did you mean 'tf-idf'?" in refused(capsys, *arguments)


def test_folders_and_data_that_cannot_be_used(texts, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    line = refused(capsys, texts, "--label", "topic", "--out", tmp_path / "full")
    assert "holds other files, 'notes.txt'" in line
    write_images(tmp_path / "one class" / "cats", 3)
    line = refused(capsys, tmp_path / "one class", "--out", tmp_path / "report")
    assert "only images of 'cats'" in line
    rows = write_csv(tmp_path / "n.csv", {"a": [1, "", 3, 4], "y": ["u", "v", "u", "v"]})
    line = refused(capsys, rows, "--label", "y", "--cv", "2", "--out", tmp_path / "report")
    assert "Numbers are missing in 'a' (1 row of the first)" in line


def test_a_missing_package_is_named_before_any_work(texts, tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None; from sk_aft._command import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["compare", texts, "--label", "topic", "--out", tmp_path / "report"]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "pip install 'sk-aft[demo]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_table_fits_a_narrow_terminal():
    nan = float("nan")
    rows = {
        "student-alone": ["Student alone", 0.9, 0.01, 0.0, 0.0, 12.34, 8.6, 0.116, 0.0534],
        "other": ["A very " + "long " * 30, 0.8, nan, -0.1, nan, 1234.5, 90.93, 100.4, nan],
    }
    names = ["title", "score", "standard_error", "gain", "gain_standard_error", "fit_seconds"]
    names += ["megabytes", "ms_per_row", "ms_per_row_of_256"]
    table = format_table(pd.DataFrame.from_dict(rows, orient="index", columns=names)).splitlines()
    assert all(len(line) <= 100 for line in table)
    costs = ["12.3", "8.60", "0.12", "0.05"]
    assert table[2].split() == ["Student", "alone", "0.900", "±", "0.010", *costs]
    assert table[3].split()[-5:] == ["0.800", "-0.100", "1,234", "90.9", "100"]
    assert table[4].strip().startswith("long long")  # the rest of a long name


@pytest.mark.parametrize("name", [None, "images"])
def test_the_comparison_of_the_package_draws_as_many_rows_of_each_class(name):
    X, y, X_unlabeled = draw(DEMOS[name])
    assert set(np.unique(y, return_counts=True)[1]) == {DEMOS[name].labels_per_class}
    assert len(X) == len(y)
    assert len(X_unlabeled) == DEMOS[name].n_unlabeled


def test_the_comparison_of_the_package_needs_a_free_folder(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    for command in ([], ["images"]):
        assert main([*command, "--out", str(tmp_path)]) == 1
        assert "holds other files, 'notes.txt'" in capsys.readouterr().err
