"""Rows become the arrays that a graph reads, without PyTorch and scikit-learn."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse

from sk_aft._data._rows import Rows, as_rows
from sk_aft.preprocessing import SubwordTokenizer
from sk_aft.serving._graph_inputs import MISSING, GraphInputs

TEXT = {
    "name": "text",
    "kind": "text",
    "column": None,
    "tokenizer": "tokenizer.json",
    "max_length": 20,
    "names": ["tokens", "lengths"],
}
IMAGE = {
    "name": "images",
    "kind": "image",
    "column": None,
    "dtype": "uint8",
    "n_channels": 3,
    "size": [8, 8],
    "float_range": None,
    "whole_range": "levels",
}
NUMBERS = {"name": "numbers", "kind": "numeric", "column": None, "allows_nan": False}
CATEGORY = {"name": "town", "kind": "category", "column": "town", "missing": MISSING}
TOKENIZER = SubwordTokenizer().fit(["my card my card", "a rate a rate"])


def batches(specs, rows, **arguments):
    inputs = GraphInputs(specs, lambda file: TOKENIZER.tokenizer_json_)
    return list(inputs.batches(rows, **arguments))


def picture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def as_png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_texts_of_similar_length_share_a_batch():
    texts = ["my card " * 4, "a", "", "my rate", "card?", "my card " * 30]
    with pytest.warns(UserWarning, match="1 of 6 texts have more than max_length=20 tokens"):
        found = batches([TEXT], as_rows(texts))
    expected = [TOKENIZER.tokenizer_.encode(text).ids[:20] for text in texts]
    assert sorted(np.concatenate([indices for indices, _ in found])) == list(range(6))
    assert len(found) > 1
    for indices, feeds in found:
        assert feeds["tokens"].dtype == feeds["lengths"].dtype == np.int64
        assert feeds["tokens"].shape == (len(indices), max(feeds["lengths"].max(), 1))
        for row, index in enumerate(indices):
            n_tokens = feeds["lengths"][row]
            assert n_tokens == len(expected[index])
            assert not feeds["tokens"][row, n_tokens:].any()


def test_images_of_one_size_share_a_batch():
    sizes = [(9, 5, 3), (8, 8, 3), (9, 5, 3), (8, 8), (8, 8, 3)]
    images = [picture(size, seed) for seed, size in enumerate(sizes)]
    found = batches([IMAGE], as_rows(images))
    assert sorted(tuple(indices) for indices, _ in found) == [(0, 2), (1, 3, 4)]
    for indices, feeds in found:
        assert feeds["images"].dtype == np.uint8
        for row, index in enumerate(indices):
            expected = images[index]
            expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, 2)
            np.testing.assert_array_equal(feeds["images"][row], expected)


@pytest.mark.parametrize("encode", [as_png, Image.fromarray, lambda pixels: pixels / 255])
def test_encoded_images_and_floats_are_the_same_pixels(encode):
    images = [picture((9, 5, 3), seed) for seed in range(3)]
    ((_, feeds),) = batches([IMAGE], as_rows([encode(image) for image in images]))
    np.testing.assert_array_equal(feeds["images"], images)


def test_large_images_are_in_smaller_batches():
    found = batches([IMAGE], as_rows(np.zeros((5, 1024, 1024, 3), dtype=np.uint8) + 2))
    assert [len(indices) for indices, _ in found] == [2, 2, 1]


def test_floats_tell_which_images_were_of_8_bits():
    spec = {**IMAGE, "dtype": "float32", "float_range": "fractions", "is_8_bit": "are 8 bit"}
    images = [picture((8, 8, 3)), picture((8, 8, 3)).astype(float) / 256]
    ((_, feeds),) = batches([spec], as_rows(images))
    assert feeds["are 8 bit"].tolist() == [True, False]
    assert feeds["images"].dtype == np.float32
    np.testing.assert_allclose(feeds["images"][0], images[0] / 255, rtol=1e-6)
    np.testing.assert_allclose(feeds["images"][1], images[1], rtol=1e-6)


def test_columns_of_a_frame():
    specs = [
        {**TEXT, "column": "text"},
        {**IMAGE, "column": "image"},
        {**NUMBERS, "column": "age", "name": "age"},
        CATEGORY,
    ]
    rows = pd.DataFrame(
        {
            "other": [1, 2, 3],
            "town": pd.Categorical(["Bern", None, "Basel"]),
            "text": ["my card", "my rate", "a card"],
            "age": [1, 2, True],
            "image": [picture((8, 8, 3)), picture((6, 7, 3)), picture((8, 8, 3))],
        }
    )
    found = batches(specs, as_rows(rows, kind="frame"))
    assert [indices.tolist() for indices, _ in found] == [[1], [0, 2]]
    feeds = found[1][1]
    assert feeds["age"].dtype == np.float64
    assert feeds["age"].tolist() == [1, 1]
    assert feeds["town"].tolist() == ["Bern", "Basel"]
    assert found[0][1]["town"].tolist() == [MISSING]
    assert set(feeds) == {"tokens", "lengths", "images", "age", "town"}


@pytest.mark.parametrize("is_sparse", [True, False])
def test_sparse_rows(is_sparse):
    dense = np.array([[0, 2.5, 0, 1], [0, 0, 0, 0], [3, 0, 0, 0]])
    spec = {"name": "sparse", "kind": "sparse", "column": None, "preprocessed": True}
    spec["names"] = ["columns", "values"]
    rows = Rows("text", sparse.csr_matrix(dense) if is_sparse else dense)
    ((indices, feeds),) = batches([spec], rows)
    found = np.zeros((3, 4), dtype=np.float32)
    for row, index in enumerate(indices):
        np.add.at(found[index], feeds["columns"][row], feeds["values"][row])
    np.testing.assert_array_equal(found, dense)


def test_preprocessed_parts():
    specs = [
        {"name": "a", "kind": "array", "column": "a", "shape": [2], "dtype": "float32"},
        {"name": "b", "kind": "sequence", "column": "b", "names": ["b.tokens", "b.lengths"]},
    ]
    specs = [{**spec, "preprocessed": True} for spec in specs]
    values = {"a": [[1, 2], [3, 4]], "b": [np.array([5, 6]), np.array([7])]}
    ((indices, feeds),) = batches(specs, Rows("frame", values))
    order = np.argsort(indices)
    assert feeds["a"].dtype == np.float32
    assert feeds["a"][order].tolist() == [[1, 2], [3, 4]]
    assert feeds["b.tokens"][order].tolist() == [[5, 6], [7, 0]]


@pytest.mark.parametrize(
    ("specs", "rows", "message"),
    [
        ([NUMBERS], [[1.0, np.nan]], "NaN in row 0, column 1"),
        ([TEXT], [[1.0, 2.0]], "Expected text rows, got numeric rows"),
        ([IMAGE], [b"no picture"], r"Row 0 \(bytes\) is not a readable image"),
        ([IMAGE], [picture((8, 8, 3)), picture((8, 8, 2))], "Row 1 is an image with 2 bands"),
        ([IMAGE], [picture((8, 8, 3)) / 255 - 0.5], "partly negative"),
        (
            [{**IMAGE, "column": "image"}],
            pd.DataFrame({"image": [b"no picture"]}),
            r"column 'image': Row 0 \(bytes\) is not a readable image",
        ),
        (
            [{**TEXT, "column": "text"}],
            pd.DataFrame({"text": ["card", None]}),
            "column 'text': Row 1 of X is missing",
        ),
        ([CATEGORY], pd.DataFrame({"city": ["Bern"]}), "column 'town' is missing from X"),
        (
            [{"name": "x", "kind": "array", "column": None, "shape": [3], "preprocessed": True}],
            [[1.0, 2.0]],
            r"reads preprocessed rows of shape \(n_rows, 3\), got \(1, 2\)",
        ),
    ],
)
def test_rows_that_cannot_be_read_are_named(specs, rows, message):
    kind = "frame" if isinstance(rows, pd.DataFrame) else None
    with pytest.raises(ValueError, match=message):
        batches(specs, as_rows(rows, kind=kind))


def test_neither_pytorch_nor_scikit_learn_is_imported():
    code = """
import sys
for name in ("torch", "sklearn", "skorch", "scipy", "onnxruntime", "PIL"):
    sys.modules[name] = None
import numpy as np
from sk_aft._data._rows import as_rows
from sk_aft.serving import _onnx
from sk_aft.serving._graph_inputs import GraphInputs
spec = {"name": "x", "kind": "numeric", "column": None, "allows_nan": False}
((_, feeds),) = GraphInputs([spec], None).batches(as_rows([[1, 2]]))
print(feeds["x"].tolist())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[[1.0, 2.0]]\n", "")
