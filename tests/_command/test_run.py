import subprocess
import sys
from pathlib import Path

import pytest

from sk_aft._command import main
from sk_aft._command._arguments import build_parser, duration
from sk_aft._command._messages import counted, did_you_mean, listed
from tests._command.files import texts_of, write_csv

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2 min", 120)]
)
def test_times_are_written_with_or_without_a_unit(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "arguments",
    [
        ["sounds"],
        ["compare", "rows.csv"],
        ["compare", "rows.csv", "--out", "r", "--cv", "1"],
        ["compare", "rows.csv", "--out", "r", "--time-budget", "soon"],
        ["fit", "rows.csv", "--out", "m", "--test-fraction", "2"],
        ["fit", "rows.csv", "--out", "m", "--test-fraction", ".2", "--test", "test.csv"],
        ["fit", "rows.csv", "--out", "m", "--max-epochs", "0"],
        ["predict", "model", "rows.csv"],
        ["predict", "model", "rows.csv", "--out", "o.csv", "--text", "a", "--image", "b"],
    ],
)
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: python -m sk_aft" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["compare"], ["fit"], ["predict"], ["images"]])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    assert "--out" in capsys.readouterr().out


def test_the_help_has_an_example_of_every_command():
    shown = build_parser().format_help()
    for command in ("compare data.csv", "fit data.csv", "predict model/", "images "):
        assert f"python -m sk_aft {command}" in shown


def test_a_process_ends_with_the_status_and_one_line(tmp_path):
    rows = write_csv(tmp_path / "rows.csv", texts_of(8))
    for arguments, status in (
        (["fit", rows, "--label", "none", "--out", tmp_path / "m"], 1),
        (["fit", rows, "--out", tmp_path / "m"], 2),
    ):
        command = [sys.executable, "-m", "sk_aft", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
        assert done.returncode == status
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1


def test_a_serving_environment_is_told_what_training_needs(tmp_path):
    rows = write_csv(tmp_path / "rows.csv", texts_of(8))
    code = (
        "import sys; sys.modules['sklearn'] = None; from sk_aft._command import main; "
        f"sys.exit(main(['fit', {str(rows)!r}, '--label', 'y', '--out', 'm']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 1
    assert "pip install 'sk-aft[demo]'" in done.stderr


def test_help_imports_neither_pytorch_nor_scikit_learn():
    code = (
        "import sys; from sk_aft._command._arguments import build_parser; import sk_aft._command; "
        "build_parser().format_help(); print({'torch', 'sklearn', 'pandas'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout == "set()\n"


def test_a_wrong_column_is_named_before_pytorch_is_imported(tmp_path):
    path = write_csv(tmp_path / "rows.csv", texts_of(4))
    code = (
        "import sys; from sk_aft._command import main; "
        f"main(['fit', {str(path)!r}, '--label', 'topik', '--out', 'm']); "
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "did you mean 'topic'?" in run.stderr
    assert run.stdout.strip() == "False"


def test_words_of_messages():
    assert [counted(1, "row"), counted(2000, "row")] == ["1 row", "2,000 rows"]
    assert counted(2, "class") == "2 classes"
    assert listed("ab") == "'a', 'b'"
    assert listed(range(14)).endswith("'11' and 2 more")
    assert did_you_mean("Star", ["stars", "x"]) == ": did you mean 'stars'? It has 'stars', 'x'."
    assert did_you_mean("q", ["x"]) == ". It has 'x'."
