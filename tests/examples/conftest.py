"""A folder of a small student of texts, and the packages of npm of an example."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from sk_aft import AFTClassifier
from sk_aft.datasets import load_banking77

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="session")
def examples():
    """The folder of the examples."""
    return EXAMPLES


@pytest.fixture(scope="session")
def intents(tmp_path_factory):
    """A student of 200 texts, saved with a graph, and the 77 texts of its parity report."""
    texts, labels = load_banking77(labels_per_class=10, return_X_y=True)
    test_texts, test_labels = load_banking77(subset="test", return_X_y=True)
    student = AFTClassifier(beta=0, module__start="random", max_epochs=5, random_state=0)
    student.fit(texts[:200], labels[:200])
    folder = tmp_path_factory.mktemp("exported") / "intents"
    one_line = [" ".join(text.split()) for text in test_texts[::40]]
    student.save_pretrained(folder, X_test=one_line, y_test=test_labels[::40], onnx=True)
    parity = json.loads((folder / "onnx" / "parity.json").read_text())
    return SimpleNamespace(folder=folder, texts=one_line, parity=parity)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Function from the name of an example to a copy of it in which ``npm ci`` has run."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed: node and npm are needed")
    copies = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, copies, dirs_exist_ok=True, ignore=lambda *_: ["node_modules"])

    def install(name):
        if not (copies / name / "node_modules").exists():
            run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], copies / name)
        return copies / name

    return install


def run(command, directory):
    """Return what a command prints."""
    done = subprocess.run(
        list(map(str, command)), cwd=directory, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def printed_by():
    """Function from a command and a directory to what it prints."""
    return run
