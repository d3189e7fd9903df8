import ast
import re
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from sk_aft._deployment._card_facts import CardFacts, Score
from sk_aft._deployment._model_card import measure, model_card
from tests._deployment.students import outputs, student

MINILM = {
    "name": "minilm",
    "type": "SentenceTransformerBackbone",
    "column": None,
    "revision": None,
    "fingerprint": "5d6cfe2b5f3a4e0b9a3c1d2e3f405162",
    "licence": "Apache-2.0",
}
TEXTS = CardFacts(
    is_served=True,
    name="ann/intents",
    estimator="AFTClassifier",
    kind="text",
    network="StaticText",
    n_weights=2_109_000,
    sizes={"config.json": 812, "model.safetensors": 4_200_000, "tokenizer.json": 61_300},
    dtype="float16",
    versions={"sk-aft": "0.2", "torch": "2.13.0"},
    classes=["lost_card", "rate"],
    teachers=[MINILM],
    started_from=MINILM,
    transfer="probe-kd",
    beta=1.0,
    score=Score("accuracy", 0.91234, 3080, "2025-01-31"),
    ms_per_row=0.1234,
    machine="2 cores of a Xeon",
)
IMAGES = replace(
    TEXTS,
    kind="image",
    network="EfficientNetLite",
    image_size=(64, 64),
    graph="float32",
    is_served=True,
)
NUMBERS = replace(TEXTS, kind="numeric", network="MLP", n_columns=3, started_from=None)
MIXED = replace(
    TEXTS, kind="frame", network="MixedNet", columns={"text": "text", "price": "numeric"}
)
REGRESSOR = replace(NUMBERS, estimator="AFTRegressor", classes=None)


def metadata(facts):
    return ModelCard(model_card(facts)).data.to_dict()


def test_the_metadata_is_the_hubs():
    assert metadata(TEXTS) == {
        "library_name": "sk-aft",
        "pipeline_tag": "text-classification",
        "tags": ["sk-aft", "scikit-learn"],
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": "intents",
                "results": [
                    {
                        "task": {"type": "text-classification"},
                        "dataset": {"name": "3080 test rows", "type": "held-out-rows"},
                        "metrics": [{"type": "accuracy", "value": 0.9123}],
                    }
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("facts", "task"),
    [
        (TEXTS, "text-classification"),
        (IMAGES, "image-classification"),
        (NUMBERS, "tabular-classification"),
        (REGRESSOR, "tabular-regression"),
        (replace(MIXED, columns={"a": "category", "b": "numeric"}), "tabular-classification"),
        (MIXED, None),
        (replace(TEXTS, estimator="AFTRegressor"), None),
    ],
)
def test_the_task_follows_the_rows(facts, task):
    assert metadata(facts).get("pipeline_tag") == task


def test_what_is_not_known_is_not_in_the_metadata():
    facts = replace(TEXTS, score=None, started_from=None)
    assert set(metadata(facts)) == {"library_name", "pipeline_tag", "tags"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ann/tiny", {"base_model": "ann/tiny"}),
        ("minilm", {"base_model": "sentence-transformers/all-MiniLM-L6-v2"}),
        ("my-folder", {}),
    ],
)
def test_the_base_model_is_that_of_the_start_and_the_licence_is_the_users(name, expected):
    found = metadata(replace(TEXTS, started_from={**MINILM, "name": name}))
    assert {key: found[key] for key in found if key in ("license", "base_model")} == expected


def test_the_card_tells_all_facts():
    card = model_card(TEXTS)
    assert card.startswith("---\n")
    for fact in (
        "It has 2 classes: `lost_card`, `rate`.",
        "accuracy: **0.9123** on 3,080 test rows, measured on 2025-01-31",
        "2,109,000 weights, stored as float16. The files are 4.3 MB in all",
        "takes 0.12 ms on 2 cores of a Xeon",
        "| model.safetensors | 4.2 MB |",
        "(transfer `probe-kd`, beta 1)",
        f"| minilm | SentenceTransformerBackbone |  |  | {MINILM['fingerprint']} | Apache-2.0 |",
        "Trained with sk-aft 0.2, torch 2.13.0.",
        "the network adds up the vectors",
        "not calibrated",
        "pip install numpy tokenizers\n",
    ):
        assert fact in card, fact
    assert "pixels" not in card


def test_an_example_of_many_columns_has_short_lines():
    columns = {f"column {number}": "numeric" for number in range(70)}
    card = model_card(replace(MIXED, columns=columns))
    example = card.split("rows = ")[1].split("student.predict")[0]
    assert max(map(len, example.splitlines())) < 100
    assert list(ast.literal_eval(example.split("\nrows = ")[0])[0]) == list(columns)


def test_what_was_not_measured_is_said():
    card = model_card(replace(TEXTS, score=None, ms_per_row=None, transfer=None, teachers=[]))
    assert "It was not measured." in card
    assert "The time of a prediction was not measured." in card
    assert "It learned from its labels only" in card


def test_each_kind_of_rows_has_its_own_limits():
    assert "resized to 64 x 64 pixels" in model_card(IMAGES)
    assert "pip install numpy onnxruntime pillow\n" in model_card(IMAGES)
    card = model_card(REGRESSOR)
    assert "does not extrapolate" in card
    assert "calibrated" not in card
    assert "predict_proba" not in card


def test_a_network_without_a_graph_is_not_said_to_be_served():
    card = model_card(replace(NUMBERS, is_served=False))
    assert "from sk_aft.serving import load" not in card
    assert "`save_pretrained(..., onnx=True)` adds it" in card


@pytest.mark.parametrize(
    ("name", "n_blocks"),
    [
        ("texts", 2),
        ("numbers", 2),
        ("numbers of a frame", 2),
        ("regressor", 2),
        ("columns", 2),
        ("text and numbers", 2),
        ("own network", 2),
        ("sparse rows", 1),
    ],
)
def test_the_code_of_a_card_runs(name, n_blocks, tmp_path, monkeypatch):
    student(name)[0].save_pretrained(tmp_path / "saved", onnx=name != "texts")
    Image.new("L", (8, 8)).save(tmp_path / "picture.png")
    card = (tmp_path / "saved" / "README.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == n_blocks
    monkeypatch.chdir(tmp_path)
    found = []
    for block in blocks:
        names = {}
        exec(block, names)
        found.append(outputs(names["student"], names["rows"]))
    np.testing.assert_allclose(found[0], found[-1], atol=1e-4)


def test_the_card_of_a_table_names_its_columns(tmp_path):
    student("numbers of a frame")[0].save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "Its columns are, in this order: `a`, `b`, `c`, `d`." in card


def test_the_card_tells_both_number_formats_and_what_was_measured(tmp_path):
    fitted, rows = student("hidden layers")
    fitted.save_pretrained(tmp_path, onnx="float32", dtype="float16", X_test=rows)
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "stored as float16, and as float32 in the ONNX graph" in card
    assert "ms with sk_aft.serving on " in card


def test_many_classes_are_cut_and_odd_ones_stay_in_their_line():
    card = model_card(replace(TEXTS, classes=[f"class {i}" for i in range(77)]))
    assert "It has 77 classes: `class 0`," in card
    assert "`class 19` and 57 more, listed in `config.json`." in card
    card = model_card(replace(TEXTS, classes=np.array(["a`b\n# c", "d"])))
    assert "It has 2 classes: `a'b # c`, `d`." in card
    card = model_card(replace(TEXTS, classes=[[0, 1], [0, 1, 2]]))
    assert "It has 2 targets, of 2, 3 classes" in card


def test_teachers_of_columns_and_arrays():
    column = {**MINILM, "column": ["title", "a|b"], "licence": None}
    array = {name: None for name in MINILM} | {"type": "array"}
    card = model_card(replace(TEXTS, teachers=[column, array]))
    assert "| title, a\\|b |" in card
    assert "| features given as an array | array |  |  |  | unknown |" in card


def test_without_huggingface_hub_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"pip install 'sk-aft\[hub\]'"):
        model_card(TEXTS)


@pytest.mark.parametrize(
    "rows", [["a", "b"], np.zeros((2, 3)), pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})]
)
def test_measure_is_the_median_of_single_rows(rows):
    lengths = []

    def predict(some):
        lengths.append(len(some))
        time.sleep(0.2 if len(lengths) == 1 else 0.002)

    start = time.perf_counter()
    assert 2 <= measure(predict, rows) < 20
    assert time.perf_counter() - start < 1.5
    assert set(lengths) == {1}
    assert len(lengths) > 10
