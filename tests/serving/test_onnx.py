"""Graphs are run with ONNX Runtime."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_iris

from sk_aft import AFTClassifier
from sk_aft._deployment.onnx import export_student
from sk_aft._student._schema import check_rows
from sk_aft.serving._onnx import OnnxNetwork

X, y = load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def fitted():
    return AFTClassifier(beta=0, random_state=0, max_epochs=5).fit(X, y)


@pytest.fixture(scope="module")
def path(fitted, tmp_path_factory):
    directory = tmp_path_factory.mktemp("onnx")
    rows, _ = check_rows(X, fitted._student.schema, owner="")
    export_student(fitted._student, rows, directory, identity="abc")
    return directory / "model.onnx"


def test_outputs_have_their_names(fitted, path):
    network = OnnxNetwork(path)
    assert network.names == ["probabilities", "features"]
    assert network.metadata["identity"] == "abc"
    outputs = network({"numbers": X[:7]})
    np.testing.assert_allclose(outputs["probabilities"], fitted.predict_proba(X[:7]), atol=1e-6)


def test_the_content_in_place_of_the_file(path):
    network = OnnxNetwork("elsewhere/model.onnx", content=path.read_bytes())
    assert network({"numbers": X[:1]})["probabilities"].shape == (1, 3)


def test_several_threads(path):
    network = OnnxNetwork(path)
    alone = [network({"numbers": X[i : i + 1]})["probabilities"] for i in range(len(X))]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda i: network({"numbers": X[i : i + 1]})["probabilities"], range(len(X)))
        )
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "other"])
def test_a_damaged_file_is_named(damage, path, tmp_path, capfd):
    damaged = tmp_path / "model.onnx"
    content = path.read_bytes()
    contents = {"empty": b"", "truncated": content[: len(content) // 2], "other": b"%PDF-1.7"}
    if damage in contents:
        damaged.write_bytes(contents[damage])
    with pytest.raises(ValueError, match=r"model.onnx (is not a readable|holds no metadata)"):
        OnnxNetwork(damaged)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "holds no metadata of sk-aft"),
        ("{", "holds no metadata of sk-aft"),
        ('{"format_version": 2}', r"format version 2, but .* reads 1: upgrade"),
    ],
)
def test_metadata_of_others(value, message, path, tmp_path):
    model = onnx.load(path)
    del model.metadata_props[:]
    if value is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = "sk_aft", value
    onnx.save_model(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=message):
        OnnxNetwork(tmp_path / "model.onnx")


def test_without_onnxruntime_the_error_names_the_pip_command(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        OnnxNetwork(path)


def test_inputs_that_do_not_fit(path):
    with pytest.raises(ValueError, match=r"model.onnx cannot be run on .*\(2, 3\)"):
        OnnxNetwork(path)({"numbers": X[:2, :3]})
