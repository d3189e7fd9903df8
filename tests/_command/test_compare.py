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


def digits(number):
    """Return how many significant digits a number is written with."""
    return len(number.split("e")[0].replace(".", "").strip("-").strip("0"))


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
    assert "\nprobe: Foundation features + logistic regression\n" in printed
    assert all(digits(row["score"]) <= 6 for row in rows)
    assert "Not compared" not in printed
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
    assert "Numbers are missing in 'a' (1 row of 'a')" in line


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
    long = "added-" + "very-" * 30
    rows = {
        "student-alone": ["Student alone", 0.9, 0.01, 0.0, 0.0, 12.34, 8.6, 0.116, 0.0534],
        long: ["A very " + "long " * 30, 0.8, nan, -0.1, nan, 1234.5, 90.93, 100.4, nan],
    }
    names = ["title", "score", "standard_error", "gain", "gain_standard_error", "fit_seconds"]
    names += ["megabytes", "ms_per_row", "ms_per_row_of_256"]
    table = format_table(pd.DataFrame.from_dict(rows, orient="index", columns=names)).splitlines()
    assert all(len(line) <= 100 for line in table)
    costs = ["12.3", "8.60", "0.12", "0.05"]
    assert table[2].split() == ["student-alone", "0.900", "±", "0.010", *costs]
    assert table[3].split()[-5:] == ["0.800", "-0.100", "1,234", "90.9", "100"]
    assert table[4].strip().startswith("very-very")  # the rest of a long name
    legend = " ".join(" ".join(table).split("One thread.")[1].split())
    assert legend.startswith("student-alone: Student alone ")
    assert legend.endswith("long " * 29 + "long")  # no title is cut


def test_candidates_that_were_left_out_are_printed_with_the_reason(tmp_path, capsys):
    random = np.random.default_rng(0)
    columns = {"text": [f"a {n}" for n in range(24)], "y": random.normal(size=24).round(2)}
    rows = write_csv(tmp_path / "rows.csv", columns)
    arguments = ["--text", "text", "--label", "y", "--task", "regression", "--cv", "2"]
    arguments += ["--time-budget", "0.1s", "--out", str(tmp_path / "r"), "--quiet"]
    assert main(["compare", str(rows), *arguments]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Not compared: pseudo-labels (there are no rows without a label); " in printed
    numbers = {"a": random.normal(size=24), "b": random.normal(size=24), "y": ["u", "v"] * 12}
    rows = write_csv(tmp_path / "numbers.csv", numbers)
    arguments = ["--label", "y", *arguments[-7:]]
    assert main(["compare", str(rows), *arguments]) == 0
    missed = capsys.readouterr().out.split("Not compared: ")[1]
    assert missed.startswith("student-of-tuned (expected to take")
    assert "probe" not in missed  # it reads no numbers


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
