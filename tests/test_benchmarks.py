"""The benchmarks: fair choice of settings, stored runs, correct tables."""

import ast
import json
import sys
from pathlib import Path

import pytest

from benchmarks.default_transfer import main as default_transfer
from benchmarks.speed._served_models import TEXT_LABELS, TEXTS
from benchmarks.speed.serving import TEXT_MODELS, measured, row, table
from benchmarks.student_sizes import RESULTS as SIZES
from benchmarks.student_sizes import table as table_of_sizes
from sk_aft import AFTClassifier

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_a_deployed_student_is_measured_without_pytorch(tmp_path):
    rows, labels = ["my card is lost", "the exchange rate", "my card"] * 100, ["a", "b", "a"] * 100
    student = AFTClassifier(beta=0, module__start="random", max_epochs=1, random_state=0)
    student.fit(rows, labels).save_pretrained(tmp_path / "static_int8", dtype="int8")
    (tmp_path / TEXTS).write_text(json.dumps(rows))
    (tmp_path / TEXT_LABELS).write_text(json.dumps(labels))
    found = measured("static_int8", "served", tmp_path)
    assert found["accuracy"] == 100 * student.score(rows, labels)
    assert 10 < found["resident_mb"] < 200  # PyTorch alone needs more
    assert 10 < found["packages_mb"] < 300
    assert 0 < found["ms_in_batches"] < found["ms_alone"] < 1e3 * found["seconds"]
    figure = row("static_int8", TEXT_MODELS["static_int8"], [found], tmp_path)
    assert figure["files_mb"] == pytest.approx(
        sum(path.stat().st_size for path in (tmp_path / "static_int8").iterdir()) / 1e6, abs=0.051
    )
    *_, line = table([figure]).splitlines()
    assert line.startswith(f"| static student, int8 | {figure['files_mb']:g} |")
    assert line.endswith(f"| {found['accuracy']:g} |")


def test_sizes_in_the_docs_are_those_of_the_results():
    page = (BENCHMARKS.parent / "docs" / "guide" / "deployment.md").read_text(encoding="utf-8")
    of_docs = page.split("<!-- student sizes -->")[1].split("<!-- end -->")[0]
    assert of_docs.strip() == table_of_sizes([json.loads(line) for line in SIZES.open()])


def private_imports(source):
    """Return what a source imports from sk_aft that has an underscore in front."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return [".".join(of) for of in parts if of[0] == "sk_aft" and any(p[0] == "_" for p in of)]


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_public_names_only(path):
    assert not private_imports(path.read_text())


def test_private_names_are_found_wherever_the_imports_stand():
    source = "def late():\n    import sk_aft._data\nfrom sk_aft.store import _store, FeatureStore"
    assert set(private_imports(source)) == {"sk_aft._data", "sk_aft.store._store"}


@pytest.mark.filterwarnings("error")
def test_the_table_of_the_default_transfer(tmp_path, monkeypatch, capsys):
    path = tmp_path / "lines.jsonl"
    errors = {"student alone": [10.0, 10.0, 10.0], "default": [4.0, 0.0, 0.0]}
    errors["pool of two layers"] = [5.0]
    lines = [
        {"task": "trec:10", "method": method, "seed": 10 + number, "error": error}
        for method, of_seeds in errors.items()
        for number, error in enumerate(of_seeds)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(
        sys, "argv", ["default_transfer", "--table", "--seeds", "3", "--results", str(path)]
    )
    default_transfer()
    text = " ".join(capsys.readouterr().out.split())
    assert "default mean 0.13 trec 1.33 +- 1.33 0.13 +- 0.13 (3)" in text
    assert "pool of two layers mean 0.50 trec 5.00 0.50 +- 0.00 (1)" in text
