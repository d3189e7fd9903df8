"""The serving part alone, in a fresh environment without PyTorch and scikit-learn."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from tests._deployment.students import student

PROJECT = Path(__file__).parents[2]
# What an environment of Python alone holds.
PREDICT = """
import json, sys
import numpy as np
from sk_aft.serving import load

folder, rows = sys.argv[1], json.load(open(sys.argv[2]))
if sys.argv[3] == "images":
    rows = np.array(rows, dtype=np.uint8)
student = load(folder)
outputs = student.predict_proba(rows) if hasattr(student, "classes_") else student.predict(rows)
for name in ("torch", "skorch", "sklearn", "scipy"):
    assert name not in sys.modules, name
print(json.dumps(np.asarray(outputs).tolist()))
"""


class Environment:
    def __init__(self, directory):
        venv.create(directory, with_pip=True)
        self.python = directory / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        self.packages = directory

    def pip(self, *arguments):
        command = [self.python, "-m", "pip", "install", "--quiet", *arguments]
        subprocess.run(command, check=True)

    def predict(self, name, rows, directory):
        fitted, _ = student(name)
        fitted.save_pretrained(directory / name, onnx=name != "texts")
        file = directory / "rows.json"
        file.write_text(json.dumps(rows))
        command = [self.python, "-c", PREDICT, str(directory / name), str(file), name]
        # Not in the project's directory, whose code would be found first.
        done = subprocess.run(command, capture_output=True, text=True, cwd=directory)
        assert done.returncode == 0, done.stderr
        return np.array(json.loads(done.stdout))


@pytest.mark.slow
def test_the_serving_part_alone(tmp_path):
    environment = Environment(tmp_path / "environment")
    environment.pip("--no-deps", str(PROJECT))
    environment.pip("numpy", "onnxruntime", "pillow")
    fitted, numbers = student("numbers")
    found = environment.predict("numbers", numbers.tolist(), tmp_path)
    np.testing.assert_allclose(found, fitted.predict_proba(numbers), atol=1e-4)
    fitted, images = student("images")
    found = environment.predict("images", images.tolist(), tmp_path)
    np.testing.assert_allclose(found, fitted.predict_proba(images), atol=1e-4)

    environment.pip("tokenizers")
    fitted, texts = student("texts")
    found = environment.predict("texts", texts, tmp_path)
    np.testing.assert_allclose(found, fitted.predict_proba(texts), atol=1e-5)
    fitted, frame = student("text and numbers")
    found = environment.predict("text and numbers", frame.to_dict("records"), tmp_path)
    np.testing.assert_allclose(found, fitted.predict(frame), rtol=1e-4)
