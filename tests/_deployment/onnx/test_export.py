"""One graph from raw rows to probabilities gives what the student gives in PyTorch."""

import json
import os
import sys
from functools import cache

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, QuantileTransformer, StandardScaler
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft._deployment._tokenizer_files import tokenizer_files
from sk_aft._deployment.onnx import export_student
from sk_aft._student._schema import check_rows
from sk_aft.modules import ResNet
from sk_aft.preprocessing import ColumnPreprocessor
from sk_aft.serving._graph_inputs import GraphInputs
from sk_aft.serving._onnx import OnnxNetwork

RANDOM = np.random.default_rng(0)
WORDS = ["card", "money", "lost", "transfer", "why", "my", "account", "exchange", "rate", "fee"]
TEXTS = [" ".join(RANDOM.choice(WORDS, RANDOM.integers(1, 9))) for _ in range(80)]
TOPICS = np.array(["card" if "card" in text else "other" for text in TEXTS])
OTHER_TEXTS = ["", "card", "unknownwords 😀 ß", " ".join(WORDS * 9), "\ud83d half", *TEXTS[:31]]
IRIS, SPECIES = load_iris(return_X_y=True)
PIXELS, DIGITS = load_digits(return_X_y=True)
GREY = (PIXELS.reshape(-1, 8, 8) * 15).astype(np.uint8)
# From 8 to 64 pixels: one grows, one keeps its size, others shrink.
SIZES = [(8, 8), (32, 32), (31, 40), (64, 64), (50, 33), (64, 64)]
IMAGES = [RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
LITE = {"module__n_blocks": 2, "module__image_size": 32, "max_epochs": 1}


class TwoLayers(nn.Module):
    """Returns logits only."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.body, self.head = nn.Linear(n_inputs, 7), nn.Linear(7, n_outputs)

    def forward(self, inputs):
        return self.head(torch.relu(self.body(inputs)))


class BagOfColumns(nn.Module):
    def __init__(self, n_tokens, n_outputs):
        super().__init__()
        self.bag = nn.EmbeddingBag(n_tokens, 8, mode="sum")
        self.head = nn.Linear(8, n_outputs)

    def forward(self, indices, offsets, weights):
        return self.head(self.bag(indices, offsets, per_sample_weights=weights))


COLUMNS = ("text", "image", "age", "size", "town", "house")


def frame(texts, names=COLUMNS):
    n = len(texts)
    columns = {
        # pyarrow's strings, pandas' own where it is installed, hold no half of a character.
        "text": pd.Series(texts, dtype=object),
        "image": [IMAGES[i % 4 + 1] for i in range(n)],
        "age": np.arange(n) % 17,
        "size": np.linspace(1e5, 2e5, n),
        "town": pd.Categorical([["Bern", "Basel", None][i % 3] for i in range(n)]),
        "house": pd.Categorical([["old", "new"][i % 2] for i in range(n)]),
    }
    return pd.DataFrame({name: columns[name] for name in names})


def other_frame():
    rows = frame(OTHER_TEXTS)
    rows["house"] = pd.Categorical([["old", "unknown", None][i % 3] for i in range(len(rows))])
    rows["image"] = [IMAGES[i % len(IMAGES)] for i in range(len(rows))]
    return rows


def fit(rows, y, estimator=AFTClassifier, **parameters):
    return estimator(**{"beta": 0, "random_state": 0, "max_epochs": 2, **parameters}).fit(rows, y)


def texts(y=TOPICS, estimator=AFTClassifier, **parameters):
    return fit(TEXTS, y, estimator, **parameters), OTHER_TEXTS


def numbers(rows=IRIS, y=SPECIES, estimator=AFTClassifier, **parameters):
    return fit(rows[::2], y[::2], estimator, **parameters), rows[1::2]


HOLES = np.where(np.arange(600).reshape(150, 4) % 7 == 3, np.nan, IRIS)
COLOURED = [np.repeat(image[..., None], 3, axis=2) for image in GREY[:60]]
STUDENTS = {
    "texts": lambda: texts(module__start="random"),
    "texts without pairs": lambda: texts(module__start="random", module__n_vectors=0),
    "texts, regressor": lambda: texts(np.arange(80) * 1e5, AFTRegressor, module__start="random"),
    "texts, transformer": lambda: texts(module="minilm", module__n_layers=1, max_epochs=1),
    "sparse rows": lambda: texts(preprocessor=TfidfVectorizer()),
    "sparse rows, own network": lambda: texts(preprocessor=TfidfVectorizer(), module=BagOfColumns),
    "numbers": numbers,
    "numbers of float32": lambda: numbers(IRIS.astype(np.float32) + 1e3),
    "regressor": lambda: numbers(y=1e5 * IRIS[:, 2] + 1e6, estimator=AFTRegressor),
    "regressor of two": lambda: numbers(y=IRIS[:, :2] * [1, 1e4], estimator=AFTRegressor),
    "own network": lambda: numbers(module=TwoLayers),
    "own scaler": lambda: numbers(preprocessor=StandardScaler(with_mean=False)),
    "imputer": lambda: numbers(
        HOLES, preprocessor=make_pipeline(SimpleImputer(), MinMaxScaler(clip=True))
    ),
    "preprocessed numbers": lambda: numbers(preprocessor=QuantileTransformer(n_quantiles=20)),
    "no preprocessor": lambda: numbers(preprocessor=None),
    "images": lambda: (fit(COLOURED, DIGITS[:60], **LITE), IMAGES),
    "grey images": lambda: (fit(GREY[:60], DIGITS[:60], **LITE), [*GREY[60:90], *IMAGES]),
    "resnet": lambda: (fit(COLOURED, DIGITS[:60], module=ResNet), IMAGES),
    "float images": lambda: (
        fit(GREY[:60] / 255, DIGITS[:60], module=ResNet),
        [*GREY[60:65], *(image / 255 for image in GREY[60:65]), *IMAGES],
    ),
    "standardised images": lambda: (
        fit((GREY[:60] - 100) / 50, DIGITS[:60], module=ResNet),
        [(image - 100) / 50 for image in IMAGES],
    ),
    "frame": lambda: (fit(frame(TEXTS), TOPICS, module__start="random"), other_frame()),
    "frame of two texts": lambda: (
        fit(frame(TEXTS)[["text"]].assign(other=TEXTS[::-1]), TOPICS, module__start="random"),
        pd.DataFrame({"text": OTHER_TEXTS, "other": OTHER_TEXTS[::-1]}, dtype=object),
    ),
    "frame of a text and a category": lambda: (
        fit(frame(TEXTS, ["town", "text"]), TOPICS, module__start="random"),
        frame(OTHER_TEXTS, ["text", "town"]),
    ),
    "frame with an own step": lambda: (
        fit(
            frame(TEXTS, ["text", "age"]),
            TOPICS,
            module__start="random",
            preprocessor=ColumnPreprocessor(numeric=QuantileTransformer(n_quantiles=9)),
        ),
        frame(OTHER_TEXTS, ["text", "age"]),
    ),
    "categories": lambda: (
        fit(
            frame(TEXTS)["house"],
            TOPICS,
            preprocessor=OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        ),
        pd.Series(pd.Categorical(["old", "new", "unknown"] * 11)),
    ),
}


@cache
def student(name):
    """Return a fitted student, and rows that it was not trained on."""
    return STUDENTS[name]()


def checked(fitted, rows):
    state = fitted._student
    return check_rows(rows, state.schema, owner="", allow_nan=state.inputs.allows_nan)[0]


def export(name, directory, **arguments):
    fitted, rows = student(name)
    rows = checked(fitted, rows)
    return export_student(fitted._student, rows, directory, identity="abc", **arguments)


def served(name, directory, rows):
    """Return the outputs of an exported graph, in the order of the rows."""
    fitted, _ = student(name)
    network = OnnxNetwork(directory / "model.onnx")
    tokenizers = tokenizer_files(fitted._student.inputs.preprocessor)
    inputs = GraphInputs(network.metadata["inputs"], lambda file: tokenizers[file].tokenizer_json_)
    outputs = [(indices, network(feeds)) for indices, feeds in inputs.batches(rows)]
    order = np.argsort(np.concatenate([indices for indices, _ in outputs]))
    return {
        key: np.concatenate([piece[key] for _, piece in outputs])[order] for key in network.names
    }


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
def test_the_graph_gives_what_pytorch_gives(name, tmp_path, capfd, recwarn):
    report = export(name, tmp_path / "new" / "onnx")
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    fitted, rows = student(name)
    onnx.checker.check_model(tmp_path / "new/onnx/model.onnx", full_check=True)
    has_8_bits = "images" in name or name in ("resnet", "frame")
    assert max(report["largest_difference"].values()) < (1e-3 if has_8_bits else 1e-5)
    assert report == json.loads((tmp_path / "new/onnx/parity.json").read_text())
    assert sorted(os.listdir(tmp_path / "new/onnx")) == ["model.onnx", "parity.json"]
    network = OnnxNetwork(tmp_path / "new/onnx/model.onnx")
    if any(spec.get("preprocessed") for spec in network.metadata["inputs"]):
        return
    outputs = served(name, tmp_path / "new/onnx", checked(fitted, rows))
    if isinstance(fitted, AFTClassifier):
        probabilities = outputs["probabilities"]
        assert probabilities.dtype == np.float32
        tolerance = 1e-3 if has_8_bits else 1e-5
        np.testing.assert_allclose(probabilities, fitted.predict_proba(rows), atol=tolerance)
        assert network.metadata["classes"] == fitted.classes_.tolist()
    else:
        predictions = outputs["predictions"].reshape(fitted.predict(rows).shape)
        assert predictions.dtype == np.float64
        np.testing.assert_allclose(predictions, fitted.predict(rows), rtol=1e-5)


@pytest.mark.parametrize("name", ["texts", "numbers", "images", "frame", "texts, transformer"])
def test_one_row_has_the_outputs_that_it_has_among_many(name, tmp_path):
    export(name, tmp_path)
    fitted, rows = student(name)
    rows = checked(fitted, rows)
    together = served(name, tmp_path, rows)
    for index in range(4):
        alone = served(name, tmp_path, rows.take(slice(index, index + 1)))
        for key, values in alone.items():
            np.testing.assert_allclose(values[0], together[key][index], atol=2e-5, rtol=1e-5)


def test_what_the_report_and_the_metadata_hold(tmp_path):
    report = export("numbers", tmp_path, labels=SPECIES[1::2])
    fitted, rows = student("numbers")
    assert report["accuracy"]["torch"] == fitted.score(rows, SPECIES[1::2])
    assert report["accuracy"]["onnx"] == report["accuracy"]["torch"]
    assert report["n_rows"] == 32
    assert report["n_rows_scored"] == 75
    assert report["equal_predictions"] == 1
    assert set(report["versions"]) == {"sk-aft", "torch", "onnx", "onnxruntime", "numpy"}
    metadata = OnnxNetwork(tmp_path / "model.onnx").metadata
    assert metadata["identity"] == "abc"
    assert metadata["quantize"] is None
    assert [spec["name"] for spec in metadata["inputs"]] == ["numbers"]


def test_a_regressor_reports_r2(tmp_path):
    labels = 1e5 * IRIS[1::2, 2] + 1e6
    report = export("regressor", tmp_path, labels=labels)
    fitted, rows = student("regressor")
    assert report["r2"]["torch"] == pytest.approx(fitted.score(rows, labels))
    assert report["r2"]["onnx"] == pytest.approx(report["r2"]["torch"], abs=1e-6)


def test_a_frame_has_one_input_a_column(tmp_path):
    export("frame", tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    kinds = {
        value.name: (
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            len(value.type.tensor_type.shape.dim),
        )
        for value in model.graph.input
    }
    assert kinds == {
        "text.tokens": ("INT64", 2),
        "text.lengths": ("INT64", 1),
        "image": ("UINT8", 4),
        "age": ("DOUBLE", 1),
        "size": ("DOUBLE", 1),
        "town": ("STRING", 1),
        "house": ("STRING", 1),
    }


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["features", "probabilities"], ["features_", "probabilities_"]),
        ([1, 2], ["1", "2"]),
        (["network.head.weight", ""], ["_network.head.weight", "_"]),
    ],
)
def test_columns_of_any_name(columns, names, tmp_path):
    rows = pd.DataFrame({columns[0]: TEXTS, columns[1]: np.arange(80.0)})
    fitted = fit(rows, TOPICS, module__start="random")
    report = export_student(fitted._student, checked(fitted, rows), tmp_path, identity="")
    assert max(report["largest_difference"].values()) < 1e-5
    specs = OnnxNetwork(tmp_path / "model.onnx").metadata["inputs"]
    assert [(spec["column"], spec["name"]) for spec in specs] == list(
        zip(columns, names, strict=True)
    )


def test_columns_that_are_neither_strings_nor_numbers_cannot_be_exported(tmp_path):
    days = pd.to_datetime(["2026-01-01", "2026-01-02"])
    rows = pd.DataFrame({days[0]: TEXTS, days[1]: np.arange(80.0)})
    fitted = fit(rows, TOPICS, module__start="random")
    with pytest.raises(ValueError, match=r"2026-01-01.* have to be strings or numbers"):
        export_student(fitted._student, checked(fitted, rows), tmp_path / "new", identity="")
    assert not (tmp_path / "new").exists()


def test_no_row_is_stored(tmp_path):
    secret = "card 4111 1111 1111 1111"
    fitted, _ = student("texts")
    rows = checked(fitted, [secret] * 40)
    export_student(fitted._student, rows, tmp_path, identity="", labels=np.array(["card"] * 40))
    assert all(b"4111" not in path.read_bytes() for path in tmp_path.iterdir())


class WithRandomNumbers(TwoLayers):
    def forward(self, inputs):
        return super().forward(inputs + torch.rand_like(inputs))


class WithAnUnknownOperation(TwoLayers):
    def forward(self, inputs):
        return super().forward(inputs) + torch.linalg.svdvals(inputs).sum()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (WithRandomNumbers, r"largest difference is .* at most 0.0001 is allowed"),
        (WithAnUnknownOperation, "WithAnUnknownOperation cannot be exported to ONNX: .*svd"),
    ],
)
@pytest.mark.parametrize("is_new", [True, False])
def test_a_failure_leaves_nothing_behind(module, message, is_new, tmp_path):
    directory = tmp_path / "onnx"
    if not is_new:
        directory.mkdir()
        (directory / "model.onnx").write_bytes(b"former")
    fitted, rows = numbers(module=module)
    with pytest.raises(ValueError, match=message):
        export_student(fitted._student, checked(fitted, rows), directory, identity="")
    if is_new:
        assert not directory.exists()
    else:
        assert [path.read_bytes() for path in directory.iterdir()] == [b"former"]


def test_an_unknown_type_of_weights(tmp_path):
    with pytest.raises(ValueError, match="quantize='int4' is unknown, expected one of"):
        export("numbers", tmp_path, quantize="int4")


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_without_onnx_the_error_names_the_pip_command(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{name} is needed .* pip install 'sk-aft\[onnx\]'"):
        export("numbers", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_student_is_left_as_it_was(tmp_path):
    fitted, rows = student("images")
    before = fitted.predict_proba(rows)
    hooks = [len(layer._forward_pre_hooks) for layer in fitted.module_.modules()]
    modes = [layer.training for layer in fitted.module_.modules()]
    state = torch.random.get_rng_state()
    export("images", tmp_path)
    np.testing.assert_array_equal(fitted.predict_proba(rows), before)
    assert [len(layer._forward_pre_hooks) for layer in fitted.module_.modules()] == hooks
    assert [layer.training for layer in fitted.module_.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
