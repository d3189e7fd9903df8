import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sk_aft._command import main
from tests._command.files import read_csv, write_csv, write_images, write_json_lines
from tests._deployment.students import IRIS, OTHER_TEXTS, TEXTS, frame, student

PROJECT = Path(__file__).parents[2]
# None in sys.modules makes an import fail.
ALONE = """
import sys
for name in ("torch", "skorch", "sklearn", "scipy", "pandas", "joblib", "tqdm", "safetensors"):
    sys.modules[name] = None
from sk_aft._command import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Function from the name of a student to its folder."""
    directory = tmp_path_factory.mktemp("saved")

    def save(name):
        if not (directory / name).exists():
            student(name)[0].save_pretrained(directory / name, onnx="texts" not in name)
        return directory / name

    return save


def predict(*arguments):
    assert main(["predict", *map(str, arguments)]) == 0


def refused(capsys, *arguments):
    """Return the message of a command that fails, of one line."""
    assert main(["predict", *map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def alone(*arguments):
    """Run a command where the packages of training cannot be imported."""
    command = [sys.executable, "-c", ALONE, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_predictions_stand_beside_the_columns_of_the_file(saved, tmp_path, capsys):
    rows = write_csv(tmp_path / "new.csv", {"id": range(5), "text": OTHER_TEXTS})
    predict(saved("texts"), rows, "--out", tmp_path / "out.csv")
    found = read_csv(tmp_path / "out.csv")
    fitted = student("texts")[0]
    assert [*found[0]] == ["id", "text", "prediction", "probability"]
    assert [row["text"] for row in found] == OTHER_TEXTS
    assert [row["prediction"] for row in found] == fitted.predict(OTHER_TEXTS).tolist()
    best = fitted.predict_proba(OTHER_TEXTS).max(axis=1)
    np.testing.assert_allclose([float(row["probability"]) for row in found], best, atol=1e-5)
    assert capsys.readouterr().err == f"5 rows -> {tmp_path / 'out.csv'}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]


def test_columns_to_keep_and_probabilities_of_all_classes(saved, tmp_path):
    rows = write_csv(tmp_path / "new.csv", {"id": range(5), "text": OTHER_TEXTS})
    out = tmp_path / "new" / "out.jsonl"
    predict(saved("texts"), rows, "--out", out, "--keep", "id", "--probabilities")
    records = [json.loads(line) for line in out.read_text().splitlines()]
    names = ["id", "prediction", "probability", "probability_card", "probability_rate"]
    assert [*records[0]] == names
    assert all(r["probability_card"] + r["probability_rate"] == pytest.approx(1) for r in records)
    predict(saved("texts"), rows, "--out", out, "--keep")
    assert [*json.loads(out.read_text().splitlines()[0])] == ["prediction", "probability"]


@pytest.mark.parametrize("name", ["texts", "images", "numbers of a frame", "text and numbers"])
def test_only_the_packages_of_serving_are_needed(name, saved, tmp_path):
    fitted, rows = student(name)
    source, out = tmp_path / "new.csv", tmp_path / "out.csv"
    if name == "texts":
        write_csv(source, {"text": rows})
    elif name == "images":
        paths = write_images(tmp_path / "pictures", 3)
        source, rows = tmp_path / "pictures", paths
    else:
        rows = pd.DataFrame(rows)
        rows.to_csv(source, index=False)
    done = alone("predict", saved(name), source, "--out", out)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    found = [row["prediction"] for row in read_csv(out)]
    expected = fitted.predict(rows)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(np.array(found, dtype=float), expected, rtol=1e-4)
    else:
        assert found == expected.astype(str).tolist()
    if name == "images":
        assert [row["path"] for row in read_csv(out)] == list(map(str, paths))


def test_a_missing_package_is_named(saved, tmp_path):
    rows = tmp_path / "new.parquet"
    pd.DataFrame({"text": OTHER_TEXTS}).to_parquet(rows)
    code = ALONE.replace('"torch",', '"torch", "pyarrow",')
    command = [sys.executable, "-c", code, "predict", saved("texts"), rows, "--out", "-"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 1
    assert "pyarrow is needed to read" in done.stderr
    assert "pip install pyarrow" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_formats_agree(saved, tmp_path):
    rows = frame(OTHER_TEXTS)[["text", "age"]]
    rows.to_csv(tmp_path / "a.csv", index=False)
    rows.to_parquet(tmp_path / "a.parquet")
    write_json_lines(tmp_path / "a.jsonl", rows.to_dict("records"))
    written = []
    for suffix in ("csv", "parquet", "jsonl"):
        predict(saved("text and numbers"), tmp_path / f"a.{suffix}", "--out", tmp_path / "o.csv")
        written.append([row["prediction"] for row in read_csv(tmp_path / "o.csv")])
    assert written[0] == written[1] == written[2]


def test_files_that_are_longer_than_a_batch(saved, tmp_path):
    texts = [f"{TEXTS[row % 4]} {row}" for row in range(2500)]
    rows = write_csv(tmp_path / "new.csv", {"text": texts})
    predict(saved("texts"), rows, "--out", tmp_path / "out.csv")
    found = [row["prediction"] for row in read_csv(tmp_path / "out.csv")]
    assert found == student("texts")[0].predict(texts).tolist()


def test_memory_does_not_grow_with_the_file(saved, tmp_path):
    row = {"text": "where is my card", "other": "x" * 2000}
    small = write_json_lines(tmp_path / "small.jsonl", [row] * 2000)
    large = write_json_lines(tmp_path / "large.jsonl", [row] * 20000)  # 40 MB

    def peak(path):
        code = ALONE.replace(
            "sys.exit(main(sys.argv[1:]))",
            "main(sys.argv[1:]); import resource; "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)",
        )
        arguments = ["predict", saved("texts"), path, "--out", tmp_path / "o.csv", "--text", "text"]
        command = [sys.executable, "-c", code, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        return int(done.stdout)

    assert peak(large) < peak(small) + 10_000  # kilobytes


def test_images_whose_paths_are_in_a_table(saved, tmp_path):
    paths = write_images(tmp_path / "pictures", 2)
    names = [str(path.relative_to(tmp_path)) for path in paths]
    rows = write_csv(tmp_path / "new.csv", {"file": names, "n": [1, 2]})
    predict(saved("images"), rows, "--out", tmp_path / "out.csv")
    found = [row["prediction"] for row in read_csv(tmp_path / "out.csv")]
    assert found == student("images")[0].predict(paths).astype(str).tolist()


def test_images_in_the_cells_of_parquet_are_not_written_again(saved, tmp_path):
    cells = [{"bytes": path.read_bytes()} for path in write_images(tmp_path, 2)]
    pd.DataFrame({"id": [7, 8], "image": cells}).to_parquet(tmp_path / "new.parquet")
    predict(saved("images"), tmp_path / "new.parquet", "--out", tmp_path / "out.csv")
    assert [*read_csv(tmp_path / "out.csv")[0]] == ["id", "prediction", "probability"]


def test_categories_numbers_and_empty_cells_of_a_table(saved, tmp_path):
    fitted, _ = student("columns")
    rows = frame().head(6)
    write_images(tmp_path, 6)
    rows["image"] = [f"{row}.png" for row in range(6)]
    rows.to_csv(tmp_path / "new.csv", index=False)
    predict(saved("columns"), tmp_path / "new.csv", "--out", tmp_path / "out.csv")
    rows["image"] = [str(tmp_path / name) for name in rows["image"]]
    found = [row["prediction"] for row in read_csv(tmp_path / "out.csv")]
    assert found == fitted.predict(rows).tolist()


def test_a_regressor_of_two_targets(saved, tmp_path):
    names = [f"x{column}" for column in range(4)]
    pd.DataFrame(IRIS[:5], columns=names).to_csv(tmp_path / "new.csv", index=False)
    predict(saved("regressor of two"), tmp_path / "new.csv", "--out", tmp_path / "o.csv", "--keep")
    found = pd.read_csv(tmp_path / "o.csv")
    assert list(found.columns) == ["prediction_1", "prediction_2"]
    expected = student("regressor of two")[0].predict(IRIS[:5])
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({"a": ["x"], "b": ["y"]}, [], r"Which column of .* holds the texts? Say so with --text"),
        ({"text": ["x"]}, ["--text", "texts"], "did you mean 'text'?"),
        ({"text": ["x"]}, ["--keep", "id"], "has no column 'id'"),
        ({"text": ["x"], "prediction": ["y"]}, ["--text", "text"], "'prediction' already"),
        ({"text": []}, [], "has no rows"),
    ],
)
def test_files_that_cannot_be_predicted(columns, arguments, message, saved, tmp_path, capsys):
    rows = write_csv(tmp_path / "new.csv", columns)
    line = refused(capsys, saved("texts"), rows, "--out", tmp_path / "out.csv", *arguments)
    assert message.replace(".* ", "") in line.replace(f"{rows} ", "")
    assert not (tmp_path / "out.csv").exists()


def test_cells_that_are_no_numbers_are_named_by_their_row(saved, tmp_path, capsys):
    rows = [*({"text": "a", "age": 1} for _ in range(1500)), {"text": "a", "age": "old"}]
    path = write_json_lines(tmp_path / "new.jsonl", rows)
    out = tmp_path / "out.csv"
    line = refused(capsys, saved("text and numbers"), path, "--out", out)
    assert "row 1501, column 'age': 'old' is not a number" in line
    rows[-1]["age"] = None
    write_json_lines(path, rows)
    line = refused(capsys, saved("text and numbers"), path, "--out", out)
    assert "NaN in row 1501, column 'age'" in line
    assert [p.name for p in tmp_path.iterdir()] == ["new.jsonl"]


def test_columns_that_the_student_reads_have_to_be_there(saved, tmp_path, capsys):
    rows = write_csv(tmp_path / "new.csv", {"text": ["a"], "Age": [1]})
    line = refused(capsys, saved("text and numbers"), rows, "--out", tmp_path / "out.csv")
    assert "has no column 'age': did you mean 'Age'?" in line
    line = refused(capsys, saved("numbers"), rows, "--out", tmp_path / "out.csv")
    assert "the student reads 4 columns of numbers" in line


def test_broken_images_are_named_by_their_row(saved, tmp_path, capsys):
    paths = write_images(tmp_path / "pictures", 70)
    paths[66].write_bytes(b"no image")
    line = refused(capsys, saved("images"), tmp_path / "pictures", "--out", tmp_path / "o.csv")
    row = sorted(paths).index(paths[66]) + 1
    assert f"ow {row} " in line
    assert str(paths[66]) in line


@pytest.mark.parametrize(
    ("model", "out", "message"),
    [
        ("none", "out.csv", "There is no directory"),
        ("", "out.csv", "holds no config.json"),
        ("texts", "out.xlsx", "is of an unknown format"),
        ("texts", "new.csv", "is the file to predict"),
        ("texts", "folder.csv", "is a folder"),
    ],
)
def test_folders_and_outputs_that_cannot_be_used(model, out, message, saved, tmp_path, capsys):
    rows = write_csv(tmp_path / "new.csv", {"text": ["a"]})
    (tmp_path / "folder.csv").mkdir()
    folder = saved("texts") if model == "texts" else tmp_path / model
    assert message in refused(capsys, folder, rows, "--out", tmp_path / out)
    assert read_csv(rows) == [{"text": "a"}]


def test_later_lines_with_other_columns(saved, tmp_path, capsys):
    records = [*({"text": "a"} for _ in range(1100)), {"text": "a", "id": 5}]
    rows = write_json_lines(tmp_path / "new.jsonl", records)
    line = refused(capsys, saved("texts"), rows, "--out", tmp_path / "out.csv", "--text", "text")
    assert "has rows with 'id', which the first rows lack" in line
    predict(saved("texts"), rows, "--out", tmp_path / "o.csv", "--text", "text", "--keep", "text")
    assert len(read_csv(tmp_path / "o.csv")) == 1101


def test_a_closed_pipe_ends_quietly(saved, tmp_path):
    rows = write_csv(tmp_path / "new.csv", {"text": ["where is my card"] * 20000})
    command = [sys.executable, "-m", "sk_aft", "predict", saved("texts"), rows, "--out", "-"]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT
    )
    assert run.stdout.readline() == "text,prediction,probability\n"
    run.stdout.close()
    assert run.stderr.read() == ""
    assert run.wait() == 141
    run.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interruption_leaves_no_file(saved, tmp_path):
    out = tmp_path / "out.csv"
    code = (
        "import sys; from sk_aft._command import _predict, main; "
        "print('ready', flush=True); sys.stdin.read(1); sys.exit(main(sys.argv[1:]))"
    )
    rows = write_csv(tmp_path / "new.csv", {"text": ["where is my card " * 100] * 6000})
    command = [sys.executable, "-c", code, "predict", saved("texts"), rows, "--out", out]
    run = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert run.stdout.readline() == "ready\n"
    run.stdin.write("x")
    run.stdin.flush()
    while not list(tmp_path.glob(".out.csv.*.part")):
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate()
    assert run.returncode == 130
    assert errors == "Interrupted. No file was written.\n"
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))
