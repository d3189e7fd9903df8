"""Deployed students against the estimators that they were saved from."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from joblib import Parallel, delayed
from PIL import Image
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier
from sk_aft.preprocessing import SubwordTokenizer
from sk_aft.serving import ServedClassifier, ServedRegressor, load
from sk_aft.serving._load import NotServableError
from tests._deployment.students import (
    IMAGES,
    IRIS,
    LABELS,
    NAMES,
    NAMES_OF_STUDENTS,
    OTHER_TEXTS,
    TEXTS,
    frame,
    outputs,
    small,
    student,
)

# Their preprocessors are not a part of the graph.
NEED_SCIKIT_LEARN = ("quantiles and components", "sparse rows", "no preprocessor")
NUMPY_ALONE = ("texts", "texts, hidden layer", "texts, regressor")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Function from the name of a student to its folder."""
    directory = tmp_path_factory.mktemp("saved")

    def save(name, **options):
        folder = directory / name
        if not folder.exists() or options:
            onnx = name not in NUMPY_ALONE
            student(name)[0].save_pretrained(folder, **{"onnx": onnx, **options})
        return folder

    return save


@pytest.mark.parametrize("name", [n for n in NAMES_OF_STUDENTS if n not in NEED_SCIKIT_LEARN])
def test_predictions_are_those_of_the_estimator(name, saved):
    fitted, rows = student(name)
    served = load(saved(name))
    assert isinstance(served, ServedClassifier if hasattr(fitted, "classes_") else ServedRegressor)
    found = outputs(served, rows)
    tolerance = 1e-6 if name in NUMPY_ALONE else 1e-4
    np.testing.assert_allclose(found, outputs(fitted, rows), atol=tolerance)
    predicted = served.predict(rows)
    assert predicted.shape == fitted.predict(rows).shape
    if hasattr(fitted, "classes_"):
        np.testing.assert_array_equal(served.classes_, fitted.classes_)
        assert predicted.dtype == fitted.predict(rows).dtype
        np.testing.assert_array_equal(predicted, fitted.predict(rows))


@pytest.mark.parametrize("name", NEED_SCIKIT_LEARN)
def test_preprocessors_that_need_scikit_learn(name, saved):
    with pytest.raises(NotServableError, match="preprocessor is not a part of its graph"):
        load(saved(name))


def test_networks_that_need_a_graph(saved, tmp_path):
    student("numbers")[0].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"MLP, is served by ONNX Runtime, and has no file onnx"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("texts", OTHER_TEXTS[2]),
        ("numbers", IRIS[1]),
        ("numbers", IRIS[1].tolist()),
        ("images", IMAGES[60]),
        ("images", Image.fromarray(IMAGES[60])),
        ("images, mirrored", np.repeat(IMAGES[60][..., None], 3, axis=2)),
        ("columns", frame(OTHER_TEXTS).iloc[2].to_dict()),
        ("text and numbers", {"text": OTHER_TEXTS[2], "age": 2, "other": None}),
    ],
)
def test_one_row_is_an_array_of_one(name, row, saved):
    fitted, rows = student(name)
    many = {"texts": 2, "columns": 2, "text and numbers": 2}.get(name, 0)
    expected = outputs(fitted, rows)[[many]]
    served = load(saved(name))
    if name == "text and numbers":
        np.testing.assert_allclose(served.predict(row), fitted.predict(rows)[[many]], rtol=1e-5)
        return
    found = served.predict_proba(row)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert served.predict(row).shape == (1,)


def test_columns_in_any_container(saved):
    served, rows = load(saved("columns")), frame(OTHER_TEXTS)
    expected = served.predict_proba(rows)
    records = rows.to_dict("records")
    columns = {name: list(column) for name, column in rows.items()}
    shuffled = rows.assign(further=1)[["town", "further", "height", "age", "image", "text"]]
    for same in (records, columns, shuffled, {**columns, "further": [None] * len(rows)}):
        np.testing.assert_array_equal(served.predict_proba(same), expected)
    polars = pl.DataFrame({"text": OTHER_TEXTS, "age": np.arange(5.0)})
    served = load(saved("text and numbers"))
    expected = served.predict(rows[["text", "age"]])
    np.testing.assert_array_equal(served.predict(polars), expected)


def test_tables_in_any_container(saved):
    fitted, rows = student("numbers of a frame")
    served = load(saved("numbers of a frame"))
    expected = fitted.predict_proba(rows)
    dicts = rows.to_dict("records")
    shuffled = rows[["d", "c", "b", "a"]]
    np.testing.assert_allclose(served.predict_proba(dicts[3]), expected[[3]], atol=1e-6)
    for same in (rows, shuffled, rows.to_numpy(), rows.to_numpy().tolist(), dicts, dict(rows)):
        np.testing.assert_allclose(served.predict_proba(same), expected, atol=1e-6)


def test_images_of_every_form_and_size(saved, tmp_path):
    fitted, _ = student("images")
    served = load(saved("images"))
    random = np.random.default_rng(0)
    arrays = [
        random.integers(256, size=size, dtype=np.uint8) for size in [(8, 8), (40, 9), (5, 77)]
    ]
    arrays.append(random.integers(256, size=(12, 20, 3), dtype=np.uint8))
    expected = fitted.predict_proba(arrays)
    np.testing.assert_allclose(served.predict_proba(arrays), expected, atol=1e-4)
    pictures = [Image.fromarray(array) for array in arrays]
    paths = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    for same in (pictures, paths, [str(p) for p in paths], [p.read_bytes() for p in paths]):
        np.testing.assert_allclose(served.predict_proba(same), expected, atol=1e-4)
    np.testing.assert_allclose(served.predict_proba(paths[3]), expected[[3]], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("texts", [], "0 sample"),
        ("texts", None, "Expected a text or a list of texts, got None"),
        ("texts", 3, "Expected a text or a list of texts, got 3"),
        ("texts", [1, 2], "Expected a text or a list of texts, got a list of int"),
        ("texts", {"text": "a"}, r"Expected a text .*got {'text': 'a'}"),
        ("texts", [np.nan, "a"], "Row 0 of X is missing"),
        ("images", [1, 2], "Expected an image .*got a list of int"),
        ("texts", ["a", None], "Row 1 of X is missing"),
        ("texts", ["a", 3], "mixes types: row 0 is text and row 1"),
        ("texts", IRIS, "Expected text rows, got numeric"),
        ("numbers", IRIS[:, :3], "X has 3 columns, but the student was trained on 4"),
        ("numbers", [[1, 2, np.nan, 4]], "NaN in row 0, column 2"),
        ("numbers", ["a"], "numeric"),
        ("numbers of a frame", pd.DataFrame(IRIS, columns=list("abcx")), "column 'd' is missing"),
        ("images", ["no.png"], "Row 0 .*no.png.* is not a readable image"),
        ("images", IMAGES[:5].reshape(5, -1), r"as flattened images have: give them as an array"),
        ("numbers of a frame", [{"a": 1, "b": "x", "c": 2, "d": 3}], "'b' holds something else"),
        ("numbers of a frame", [{"a": 1, "b": 2}], r"X lacks the columns \['c', 'd'\]"),
        ("columns", [{"text": "a"}], r"X lacks the columns \['image'"),
        ("columns", ["a"], "expected a DataFrame, a dict"),
        ("columns", {"text": ["a"], "image": [], "age": [], "height": [], "town": []}, "lengths"),
        ("text and numbers", [{"text": "a", "age": None}], "column 'age'.*NaN in row 0"),
        ("text and numbers", [{"text": None, "age": 1}], "column 'text'.*missing"),
    ],
)
def test_wrong_rows(name, rows, message, saved):
    served = load(saved(name))
    with pytest.raises(ValueError, match=message):
        served.predict(rows)


def test_long_texts_are_cut_with_a_warning(saved):
    served = load(saved("texts"))
    with pytest.warns(UserWarning, match="1 of 2 texts have more than max_length=4096"):
        found = served.predict_proba(["card " * 5000, "card"])
    with pytest.warns(UserWarning, match="max_length"):
        expected = student("texts")[0].predict_proba(["card " * 5000, "card"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_threads(saved):
    for name in ("texts", "numbers", "columns"):
        served, rows = load(saved(name)), student(name)[1]
        expected = served.predict_proba(rows)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda _: served.predict_proba(rows), range(64)):  # noqa: B023
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_smaller_number_formats(dtype, tmp_path):
    fitted, _ = student("texts")
    fitted.save_pretrained(tmp_path, dtype=dtype)
    expected = AFTClassifier.from_pretrained(tmp_path).predict_proba(OTHER_TEXTS)
    np.testing.assert_allclose(load(tmp_path).predict_proba(OTHER_TEXTS), expected, atol=1e-6)


# None in sys.modules makes an import fail.
WITHOUT = """
import sys
for name in ("torch", "skorch", "sklearn", "scipy", "pandas", "safetensors", "joblib", "skops"):
    sys.modules[name] = None
import sk_aft
from sk_aft.serving import load

for folder, rows in zip(sys.argv[1::2], sys.argv[2::2]):
    print(load(folder).predict(eval(rows)).tolist())
"""


def test_serving_imports_neither_pytorch_nor_scikit_learn(saved):
    image = "__import__('numpy').zeros((8, 8), dtype='uint8')"
    rows = {
        "texts": "['card']",
        "transformer": "['card']",
        "numbers": "[[1.0, 2, 3, 4]]",
        "images": image,
        "columns": f"{{'text': 'card', 'image': {image}, 'age': 1, 'height': 2, 'town': 'Bern'}}",
        "text and numbers": "[{'text': 'card', 'age': 3}]",
    }
    arguments = [argument for name, row in rows.items() for argument in (saved(name), row)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(rows)


def test_import_of_the_package_is_lazy():
    code = "import sys, sk_aft; print(dir(sk_aft), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'AFTClassifier'" in done.stdout
    assert done.stdout.endswith("False\n")
    with pytest.raises(ImportError, match="cannot import name 'Unknown'"):
        from sk_aft import Unknown  # noqa: F401


def test_the_score_of_the_card_is_that_of_the_served_student(tmp_path):
    fitted, _ = student("numbers")
    report = fitted.export_onnx(tmp_path, IRIS, NAMES, quantize="int8")
    score = (load(tmp_path).predict(IRIS) == NAMES).mean()
    assert report["accuracy"]["onnx"] == pytest.approx(score)


def test_two_columns_of_texts_of_unlike_lengths(tmp_path):
    words = ["where", "my", "card", "is", "not", "lost", "the", "exchange", "rate", "of"]
    random = np.random.default_rng(0)

    def texts(n, most):
        return [" ".join(random.choice(words, random.integers(1, most))) for _ in range(n)]

    table = pd.DataFrame({"text": TEXTS, "other": TEXTS[::-1]})
    fitted = small(module__start="random").fit(table, LABELS)
    fitted.save_pretrained(tmp_path, onnx=True)
    served = load(tmp_path)
    for n in [1, 2, 3, 5] * 10:
        rows = pd.DataFrame({"text": texts(n, 20), "other": texts(n, 8)})
        np.testing.assert_allclose(
            served.predict_proba(rows), fitted.predict_proba(rows), atol=1e-4
        )


def test_columns_named_as_the_parts_of_a_graph_are(tmp_path):
    table = frame()[["age", "town"]].rename(columns={"age": "location", "town": "numeric"})
    fitted = small().fit(table, LABELS)
    fitted.save_pretrained(tmp_path, onnx=True)
    np.testing.assert_allclose(
        load(tmp_path).predict_proba(table), fitted.predict_proba(table), atol=1e-4
    )


@pytest.mark.parametrize("name", ["texts", "numbers", "images"])
def test_probabilities_are_float64_and_sum_to_1(name, saved):
    fitted, rows = student(name)
    found = load(saved(name)).predict_proba(rows)
    assert found.dtype == fitted.predict_proba(rows).dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("name", ["texts", "numbers", "columns", "texts, regressor"])
def test_a_pickled_copy_predicts_the_same(name, saved, monkeypatch):
    folder = saved(name)
    monkeypatch.chdir(folder.parent)
    content = pickle.dumps(load(Path(folder.name)))
    assert len(content) < 1000
    monkeypatch.chdir("/")
    rows = student(name)[1]
    found, expected = outputs(pickle.loads(content), rows), outputs(load(folder), rows)
    np.testing.assert_array_equal(found, expected)


def test_in_processes_of_joblib(saved):
    rows, served = student("numbers")[1], load(saved("numbers"))
    (found,) = Parallel(n_jobs=2)([delayed(served.predict)(rows)])
    np.testing.assert_array_equal(found, served.predict(rows))


def test_a_tokenizer_in_a_pipeline(tmp_path):
    steps = make_pipeline("passthrough", SubwordTokenizer(vocab_size=300))
    fitted = small(preprocessor=steps, module__start="random").fit(TEXTS, LABELS)
    fitted.save_pretrained(tmp_path, onnx=True)
    with pytest.raises(NotServableError, match=r"Pipeline .* train with SubwordTokenizer alone"):
        load(tmp_path)


def test_the_warning_of_long_texts_names_the_line_of_the_caller(saved):
    fitted, long = student("texts")[0], ["card " * 5000]
    tokenizer = SubwordTokenizer(max_length=20).fit(TEXTS)
    for call in (
        lambda: load(saved("texts")).predict(long),
        lambda: fitted.predict_proba(long),
        lambda: small(module__start="random").fit(long * 2 + TEXTS, [*LABELS[:2], *LABELS]),
        lambda: tokenizer.transform(long),
    ):
        with pytest.warns(UserWarning, match="texts have more than max_length") as warned:
            call()
        assert [warning.filename for warning in warned] == [__file__]
