"""Folders that are wrong, truncated, tampered with, newer, or that try to run code."""

import hashlib
import json
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sk_aft import AFTClassifier
from sk_aft.serving import load
from tests._deployment.students import IRIS, OTHER_TEXTS, TwoLayers, student

TEXTS, NUMBERS = "texts", "numbers"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    student("texts")[0].save_pretrained(folder / TEXTS)
    student("numbers")[0].save_pretrained(folder / NUMBERS, onnx=True)
    student("own network")[0].save_pretrained(folder / "own")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "saved")


def change(folder, make):
    """Change the configuration of a folder."""
    config = json.loads((folder / "config.json").read_text())
    make(config)
    (folder / "config.json").write_text(json.dumps(config))


def change_arrays(folder, make):
    """Change the arrays of a folder, and their digest: an author may write what he likes."""
    arrays = load_file(folder / "model.safetensors")
    make(arrays)
    save_file(arrays, folder / "model.safetensors")
    sign(folder, "model.safetensors")


def sign(folder, name):
    content = (folder / name).read_bytes()
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    change(folder, lambda config: config["files"].update({name: entry}))


def both_refuse(folder, message):
    """Assert that the estimator and the served student raise an error."""
    for read in (AFTClassifier.from_pretrained, load):
        with pytest.raises(ValueError, match=message):
            read(folder)


@pytest.mark.parametrize("kind", [TEXTS, NUMBERS])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "onnx/model.onnx"])
def test_damaged_files(kind, name, folder):
    file = folder / kind / name
    if not file.exists():
        return
    readers = [AFTClassifier.from_pretrained, load]
    # Only the served student reads the graph, and it reads nothing else of the network.
    if kind == NUMBERS:
        readers = [load] if name.startswith("onnx") else readers[:1]
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content, message in (
        (whole[:-7], f"has {len(whole) - 7} bytes instead of {len(whole)}: it is truncated"),
        (b"", "has 0 bytes instead of"),
        (bytes(flipped), f"{file.name} was changed after it was saved"),
    ):
        file.write_bytes(content)
        for read in readers:
            with pytest.raises(ValueError, match=message):
                read(folder / kind)
    file.unlink()
    for read in readers:
        with pytest.raises(ValueError, match=f"has no file {name}"):
            read(folder / kind)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no JSON document"),
        ('{"format": "sk-aft', "no JSON document"),
        ("[" * 100_000, "no JSON document"),
        ("[1]", "not the configuration of a student"),
        ('{"model_type": "bert"}', "not the configuration of a student"),
        (
            '{"format": "sk-aft student", "format_version": 2}',
            "version 2, .* 1 to 1: upgrade",
        ),
        ('{"format": "sk-aft student", "format_version": "1"}', "has format version '1'"),
        ('{"format": "sk-aft student", "format_version": true}', "has format version True"),
        ('{"format": "sk-aft student", "format_version": 1}', "damaged .*'class'"),
    ],
)
def test_configurations_that_cannot_be_read(content, message, folder):
    (folder / TEXTS / "config.json").write_text(content)
    both_refuse(folder / TEXTS, message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: c.pop("rows"), "damaged .*'rows'"),
        (lambda c: c.update(rows=[]), "'rows' is a list, not a dict"),
        (lambda c: c.update({"class": "Popen"}), "class is 'Popen', expected one of"),
        (lambda c: c["rows"].update(kind="audio"), "kind 'audio', which is unknown"),
        (lambda c: c["targets"].update(classes=["card"]), "fewer than two classes"),
        (lambda c: c["targets"].update(classes=["a", "b", "c"]), "outputs|damaged"),
        (lambda c: c["targets"].update(dtype="O4x"), "cannot be read"),
        (lambda c: c["network"]["arguments"].update(n_outputs=3), "weights do not belong"),
        (lambda c: c["preprocessor"].update({"$object": "Popen"}), "unknown type 'Popen'|no file"),
        (lambda c: c["preprocessor"]["state"].update(vocab_size={"$eval": "1"}), "kind '.eval'"),
    ],
)
def test_configurations_with_wrong_entries(make, message, folder):
    change(folder / TEXTS, make)
    with pytest.raises(ValueError, match=message):
        AFTClassifier.from_pretrained(folder / TEXTS)


@pytest.mark.parametrize("name", ["../own/config.json", "/etc/passwd", "onnx/../../x", "C:\\x", ""])
def test_paths_cannot_leave_the_folder(name, folder):
    content = (folder / TEXTS / "tokenizer.json").read_bytes()
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def point_elsewhere(config):
        config["preprocessor"]["state"]["tokenizer_json_"] = {"$file": name}
        config["files"][name] = entry

    change(folder / TEXTS, point_elsewhere)
    both_refuse(folder / TEXTS, "not in the folder itself")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a: a.pop("network.head.bias"), "network.head.bias|head.bias|damaged"),
        (lambda a: a.update({"network.head.bias": np.zeros(5, np.float32)}), "shape|outputs|fit"),
        (lambda a: a.update({"network.bag.pairs": np.zeros(1, np.int32)}), "shape|belong|vectors"),
    ],
)
def test_arrays_that_do_not_fit(make, message, folder):
    change_arrays(folder / TEXTS, make)
    both_refuse(folder / TEXTS, message)


def header(document):
    return len(document).to_bytes(8, "little") + document


@pytest.mark.parametrize(
    "content",
    [
        b"short",
        (2**40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
        header(b'{"a":{"dtype":"X32","shape":[0],"data_offsets":[0,0]}}'),
        header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0]}}'),
        header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,0]}}'),
    ],
)
def test_files_that_are_no_safetensors(content, folder):
    (folder / TEXTS / "model.safetensors").write_bytes(content)
    sign(folder / TEXTS, "model.safetensors")
    both_refuse(folder / TEXTS, "model.safetensors cannot be read: ")


def test_a_graph_of_another_student(folder):
    shutil.copytree(folder / NUMBERS / "onnx", folder / TEXTS / "onnx")
    other, _ = student("int labels")
    other.save_pretrained(folder / "other", onnx=True)
    shutil.copy(folder / "other/onnx/model.onnx", folder / NUMBERS / "onnx")
    sign(folder / NUMBERS, "onnx/model.onnx")
    with pytest.raises(ValueError, match=r"exported from another student than model.safetensors"):
        load(folder / NUMBERS)
    np.testing.assert_array_equal(  # a graph that the configuration does not name is not read
        load(folder / TEXTS).predict(OTHER_TEXTS), student("texts")[0].predict(OTHER_TEXTS)
    )


def test_a_folder_without_a_student(tmp_path):
    for read in (AFTClassifier.from_pretrained, load):
        with pytest.raises(FileNotFoundError, match="holds no config"):
            read(tmp_path)


def test_own_networks_load_only_if_they_are_trusted(folder):
    fitted, rows = student("own network")
    path = "tests._deployment.students:TwoLayers"
    expected = fitted.predict_proba(rows)
    for trust in ([TwoLayers], TwoLayers, [path], path):
        loaded = AFTClassifier.from_pretrained(folder / "own", trust=trust)
        np.testing.assert_array_equal(loaded.predict_proba(rows), expected)
        assert loaded.module is TwoLayers
    for trust in ((), ["tests._deployment.students:Other"], [dict]):
        with pytest.raises(ValueError, match=f"pass trust=..{path}"):
            AFTClassifier.from_pretrained(folder / "own", trust=trust)
    with pytest.raises(ValueError, match="served by ONNX Runtime, and has no file onnx"):
        load(folder / "own")


@pytest.fixture
def bomb(tmp_path, monkeypatch):
    """A module that leaves a trace when it is imported."""
    (tmp_path / "sk_aft_bomb.py").write_text(
        f"open({str(tmp_path / 'exploded')!r}, 'w').close()\nclass Bomb: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "exploded"
    sys.modules.pop("sk_aft_bomb", None)


@pytest.mark.parametrize(
    "place",
    [
        lambda c: c["network"].update({"class": "sk_aft_bomb:Bomb"}),
        lambda c: c["parameters"].update(criterion={"$class": "sk_aft_bomb:Bomb"}),
        lambda c: c["parameters"].update(criterion={"$class": "torch.nn.sk_aft_bomb:Bomb"}),
        lambda c: c["parameters"].update(criterion={"$object": "sk_aft_bomb:Bomb", "state": {}}),
        lambda c: c.update(preprocessor={"$object": "sk_aft_bomb:Bomb", "state": {}}),
        lambda c: c["network"].update({"class": "torch.nn:Linear", "arguments": {}}),
        lambda c: c["parameters"].update(criterion={"$class": "torch.nn.modules:os"}),
    ],
)
def test_nothing_that_a_folder_names_is_imported(place, folder, bomb):
    change(folder / TEXTS, place)
    with pytest.raises(ValueError, match=r"is not loaded|does not exist|unknown type"):
        AFTClassifier.from_pretrained(folder / TEXTS)
    assert not bomb.exists()
    assert "sk_aft_bomb" not in sys.modules


def test_a_pipeline_with_a_cache_of_files_is_refused(tmp_path):
    fitted, _ = student("imputer")
    fitted.save_pretrained(tmp_path)
    change(tmp_path, lambda c: c["preprocessor"]["state"].update(memory=str(tmp_path)))
    with pytest.raises(ValueError, match="a pipeline with a cache of files"):
        AFTClassifier.from_pretrained(tmp_path)


def test_unknown_parameters(folder):
    change(folder / NUMBERS, lambda c: c["parameters"].update(temperature=2))
    with pytest.raises(ValueError, match=r"does not know .*temperature.*newer version"):
        AFTClassifier.from_pretrained(folder / NUMBERS)


def test_rows_are_checked_as_in_training(folder):
    loaded = AFTClassifier.from_pretrained(folder / NUMBERS)
    with pytest.raises(ValueError, match="X has 3 features, but AFTClassifier is expecting 4"):
        loaded.predict(IRIS[:, :3])
