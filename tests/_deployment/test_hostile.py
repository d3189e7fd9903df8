"""Folders whose author wants the reader to fetch code, to use all memory, or to crash."""

import json
import resource
import shutil
import socket
import time

import numpy as np
import pytest
from safetensors.numpy import save
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft._deployment._objects import CannotSaveError, Encoder
from sk_aft.serving import load
from sk_aft.serving._arrays import parse_safetensors
from tests._deployment.students import OTHER_TEXTS, TEXTS, small, student
from tests._deployment.test_care import both_refuse, change, change_arrays, sign

LABELS = ["card", "card", "rate", "rate"] * 10


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    student("texts")[0].save_pretrained(folder / "texts")
    student("numbers")[0].save_pretrained(folder / "numbers")
    student("texts, regressor")[0].save_pretrained(folder / "regressor")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "saved")


def estimator_refuses(folder, message):
    with pytest.raises(ValueError, match=message):
        AFTClassifier.from_pretrained(folder)


@pytest.fixture
def addresses(monkeypatch):
    """The hosts that were asked for; there is no network."""
    asked = []

    def refuse(host, *_, **__):
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


@pytest.mark.parametrize("kind", ["bert", "modernbert", "gpt2", "t5"])
def test_encoders_of_a_folder_load_neither_code_nor_kernels(
    kind, encoder_directory, tmp_path, addresses
):
    fitted = small(module=f"hf:{encoder_directory(kind)}", max_epochs=1)
    fitted.set_params(module__n_layers=1).fit(TEXTS, LABELS)
    fitted.save_pretrained(tmp_path)
    expected = fitted.predict_proba(OTHER_TEXTS)
    entries = {
        "auto_map": {"AutoModel": "author/repository--code.Encoder"},
        "_name_or_path": "author/repository",
        "_attn_implementation": "author/kernel",
        "_attn_implementation_internal": "author/kernel",
        "attn_implementation": "author/kernel",
        "quantization_config": {"quant_method": "bitsandbytes"},
    }
    change(tmp_path, lambda c: c["network"]["arguments"]["config"].update(entries))
    loaded = AFTClassifier.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(OTHER_TEXTS), expected)
    assert addresses == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "upernet", "backbone": "author/repository"}, "type 'upernet'"),
        ({"model_type": "dpt", "use_pretrained_backbone": True}, "type 'dpt'"),
        ({"model_type": ["bert"]}, "cannot be read"),
        ({}, "type None"),
        ({"model_type": "bert", "num_hidden_layers": 10**6}, "many more layers"),
        ({"model_type": "t5", "num_decoder_layers": 10**6}, "many more layers"),
        ({"model_type": "bert", "hidden_size": 12 * 10**5}, "do not belong|many more layers"),
    ],
)
def test_encoders_that_are_refused(config, message, folder, addresses):
    arguments = {"config": config, "n_outputs": 2}
    network = {"class": "TransformerText", "arguments": arguments}
    change(folder / "texts", lambda c: c.update(network=network))
    start = time.monotonic()
    estimator_refuses(folder / "texts", message)
    assert time.monotonic() - start < 10
    assert addresses == []


def test_encoders_of_other_types_are_refused_when_saving(tmp_path, monkeypatch):
    fitted, _ = student("transformer")
    config = fitted._student.module.encoder.config
    monkeypatch.setattr(type(config), "model_type", "bert_of_mine")
    with pytest.raises(ValueError, match=r"AFTClassifier cannot be saved .*type 'bert_of_mine'"):
        fitted.save_pretrained(tmp_path / "transformer")
    assert not (tmp_path / "transformer").exists()


def test_large_networks_of_small_files_need_no_memory(folder):
    def enlarge(config):
        config["network"]["arguments"]["hidden_sizes"] = [16_000, 16_000]

    change(folder / "numbers", lambda c: c["network"].update({"class": "MLP"}))
    change(folder / "numbers", enlarge)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    estimator_refuses(folder / "numbers", "weights do not belong to its network")
    assert time.monotonic() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_networks_of_many_layers(folder):
    arguments = {"n_channels": 3, "n_outputs": 2, "widths": [1], "blocks_per_stage": 10**7}
    change(
        folder / "numbers",
        lambda c: c.update(network={"class": "ResNet", "arguments": arguments}),
    )
    estimator_refuses(folder / "numbers", "many more layers than the .* weights in the file")


def scales(shape, dtype=np.int8):
    def make(arrays):
        arrays["network.bag.weight"] = np.zeros((1, 9), dtype)
        arrays["network.bag.weight:scale"] = np.zeros(shape, np.float32)

    return make


@pytest.mark.parametrize(
    "make",
    [scales(10**6), scales((1, 1)), scales(()), scales(1, np.float32), scales(1, np.int64)],
)
def test_scales_that_do_not_belong_to_an_array(make, folder):
    change_arrays(folder / "texts", make)
    both_refuse(folder / "texts", "the scales of 'network.bag.weight' do not belong to it")


def entries(*offsets, n_bytes):
    document = json.dumps(
        {
            f"network.{place}": {"dtype": "U8", "shape": [b - a], "data_offsets": [a, b]}
            for place, (a, b) in enumerate(offsets)
        }
    ).encode()
    return len(document).to_bytes(8, "little") + document + bytes(n_bytes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (entries((0, 8), (0, 8), n_bytes=8), "overlap or leave gaps"),
        (entries((0, 8), (4, 12), n_bytes=12), "overlap or leave gaps"),
        (entries((0, 4), (8, 12), n_bytes=12), "overlap or leave gaps"),
        (entries((0, 4), n_bytes=12), "longer or shorter than the file"),
        (entries((0, 2**70), n_bytes=12), "longer or shorter than the file"),
        ((100_000_001).to_bytes(8, "little") + bytes(10), "100 MB"),
    ],
)
def test_arrays_that_overlap(content, message, folder):
    (folder / "texts/model.safetensors").write_bytes(content)
    sign(folder / "texts", "model.safetensors")
    both_refuse(folder / "texts", f"model.safetensors cannot be read: .*{message}")


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_unsigned_numbers_are_read(dtype):
    values = np.array([0, np.iinfo(dtype).max], dtype)
    read = parse_safetensors(save({"x": values}))["x"]
    np.testing.assert_array_equal(read, values)
    assert read.dtype == dtype


def saved_vectorizer(directory, vectorizer):
    small(preprocessor=vectorizer).fit(TEXTS, LABELS).save_pretrained(directory)
    return directory


def renumbered(value):
    def make(config):
        words = config["preprocessor"]["state"]["vocabulary_"]
        words.update(dict.fromkeys(words, value))

    return make


def preprocessor(**attributes):
    return lambda config: config["preprocessor"]["state"].update(attributes)


_SPARSE = {"$sparse": [], "shape": [1, 10**12], "format": "csc"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (renumbered(2**31 - 5), "does not number its words from 0"),
        (renumbered(-5), "does not number its words from 0"),
        (renumbered(0), "does not number its words from 0"),
        (preprocessor(input="filename"), "reads files"),
        (preprocessor(transform="x"), "method 'transform' is replaced"),
        (preprocessor(__class__="x"), "method '__class__' is replaced"),
        (preprocessor(analyzer="bytes"), "'analyzer' parameter"),
        (preprocessor(analyzer={"$class": "torch.nn:ReLU"}), "outside of its parameters"),
        (preprocessor(x=_SPARSE), "format 'csc', not csr"),
        (preprocessor(x={"$scalar": 10**11, "dtype": "V1"}), "number of dtype 'V1'"),
    ],
)
def test_vectorizers_with_wrong_attributes(make, message, tmp_path):
    change(saved_vectorizer(tmp_path, CountVectorizer()), make)
    estimator_refuses(tmp_path, message)


def test_hashes_into_no_column(tmp_path):
    saved_vectorizer(tmp_path, HashingVectorizer(n_features=64))
    change(tmp_path, preprocessor(n_features=0))
    estimator_refuses(tmp_path, "'n_features' parameter .* must be an int in the range")


def nested(n, value=None):
    for _ in range(n):
        value = {"$scalar": value, "dtype": "i8"}
    return value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (preprocessor(x=nested(700)), "damaged .RecursionError"),
        (lambda c: c["parameters"].update(device="meta"), "device is 'meta'"),
        (lambda c: c["parameters"].update(device="meta:0"), "device is 'meta'"),
    ],
)
def test_entries_that_the_estimator_refuses(make, message, folder):
    change(folder / "texts", make)
    estimator_refuses(folder / "texts", message)


def classes(*labels, dtype="str"):
    return lambda config: config["targets"].update(classes=list(labels), dtype=dtype)


def in_files(**entry):
    return lambda config: config["files"]["model.safetensors"].update(entry)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (classes("rate", "card"), "classes are not sorted and different"),
        (classes("card", "card"), "classes are not sorted and different"),
        (classes(["a"], ["b"], dtype="object"), "damaged|not sorted"),
        (classes(300, 400, dtype="int8"), "damaged .OverflowError|not sorted"),
        (classes(*map(str, range(2000)), "x" * 10**5), "2001 strings are too long|2001 classes"),
        (classes("a", "b", dtype="U100000000"), "dtype 'U100000000', which is unknown"),
        (preprocessor(max_length=-1), "max_length"),
        (preprocessor(max_length=0), "max_length"),
        (preprocessor(max_length="a"), "max_length"),
        (in_files(size="1"), "no size and SHA-256 of the file 'model.safetensors'"),
        (in_files(sha256="x"), "no size and SHA-256 of the file 'model.safetensors'"),
        (lambda c: c["files"].update({"model.safetensors": [1]}), "damaged"),
    ],
)
def test_entries_that_both_refuse(make, message, folder):
    change(folder / "texts", make)
    both_refuse(folder / "texts", message)


def vocabulary(document):
    words = document["model"]["vocab"]
    words.update({word: token + 10**6 for word, token in words.items()})


def added(document):
    token = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    document["added_tokens"] = [{"id": 10**5, "content": "zzz", **token}]


def unknown(document):
    document["model"] = {"type": "Unigram", "unk_id": 5, "vocab": [["a", 0.0]]}


def template(document):
    first = {"SpecialToken": {"id": "X", "type_id": 0}}
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"X": {"id": "X", "ids": [10**7], "tokens": ["a"]}},
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (dict.clear, "its tokenizer cannot be opened"),
        (unknown, "its tokenizer cannot be opened"),
        (vocabulary, "more tokens than there are vectors|cannot be opened"),
        (added, "more tokens than there are vectors|cannot be opened"),
        (template, "more tokens than there are vectors"),
    ],
)
def test_tokenizers_that_are_refused(make, message, folder):
    file = folder / "texts/tokenizer.json"
    document = json.loads(file.read_text())
    make(document)
    file.write_text(json.dumps(document))
    sign(folder / "texts", "tokenizer.json")
    both_refuse(folder / "texts", message)


@pytest.mark.parametrize("name", ["bag.log_weights", "norm.weight", "norm.bias", "head.bias"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_shapes_of_static_networks(name, shape, folder):
    array = {f"network.{name}": np.zeros(shape, np.float32)}
    change_arrays(folder / "texts", lambda arrays: arrays.update(array))
    both_refuse(folder / "texts", "fit together|do not belong|damaged")


def test_scales_of_targets(folder):
    scale = {"targets.scale": np.ones((1, 1))}
    change_arrays(folder / "regressor", lambda arrays: arrays.update(scale))
    for read in (AFTRegressor.from_pretrained, load):
        with pytest.raises(ValueError, match="another number of targets than their scales"):
            read(folder / "regressor")


def test_graphs_with_other_outputs(folder):
    onnx = pytest.importorskip("onnx")
    student("numbers")[0].save_pretrained(folder / "numbers", onnx=True)
    file = folder / "numbers/onnx/model.onnx"
    graph = onnx.load(file)
    for value in graph.graph.output:
        value.name = value.name.replace("probabilities", "other")
    for node in graph.graph.node:
        node.output[:] = ["other" if name == "probabilities" else name for name in node.output]
    onnx.save(graph, file)
    sign(folder / "numbers", "onnx/model.onnx")
    with pytest.raises(ValueError, match=r"its graph has the outputs .*'other'"):
        load(folder / "numbers")


@pytest.mark.parametrize("trust", [7, None, b"a:B", {"a:B": 1}, ["a:B", 3]])
def test_trust_of_another_type(trust, folder):
    with pytest.raises(TypeError, match=r"trust=.*: expected a class or function, its path"):
        AFTClassifier.from_pretrained(folder / "texts", trust=trust)


def test_text_that_no_file_can_hold():
    with pytest.raises(CannotSaveError, match=r"'\\ud800', which is not valid Unicode"):
        Encoder("x").describe(["a", "\ud800"])
