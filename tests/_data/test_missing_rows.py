"""Missing rows: masked for the teacher, named in errors of the student."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.preprocessing import ColumnPreprocessor, SubwordTokenizer

N = 40
Y = np.arange(N) % 2
TEXTS = [("a word" if label else "two more words") + f" {row}" for row, label in enumerate(Y)]
NUMBERS = np.random.default_rng(0).normal(size=(N, 3)) + 5 * Y[:, None]
IMAGES = list(np.random.default_rng(0).integers(0, 255, (N, 8, 8), dtype=np.uint8))


def lengths(texts):
    return np.array([[len(text), text.count("o")] for text in texts], dtype=float)


def brightness(images):
    return np.array([[np.mean(image), np.std(image)] for image in images])


def means(table):
    return np.asarray(table)[:, :2] * 2


def without(values, row=3, missing=None):
    values = list(values)
    values[row] = missing
    return values


def student(**parameters):
    return AFTClassifier(**{"beta": 1, "max_epochs": 20, "random_state": 0, **parameters})


INCOMPLETE = {
    "texts": (lengths, without(TEXTS)),
    "first text": (lengths, without(TEXTS, 0)),
    "NaN text": (lengths, pd.Series(without(TEXTS, 3, np.nan))),
    "string column": (lengths, pd.DataFrame({"t": pd.array(without(TEXTS), dtype="string")})),
    "polars": (lengths, pl.Series(without(TEXTS))),
    "arrays": (brightness, without(IMAGES)),
    "PIL images": (brightness, without([Image.fromarray(image) for image in IMAGES], 0)),
    "numbers": (means, np.where(np.arange(N)[:, None] == 3, np.nan, NUMBERS)),
    "PCA": (PCA(2).fit(NUMBERS), np.where(np.arange(N)[:, None] == 3, np.nan, NUMBERS)),
    "Int64": (means, pd.DataFrame({"a": without(range(N)), "b": range(N)}, dtype="Int64")),
}


@pytest.mark.parametrize(("model", "X"), INCOMPLETE.values(), ids=INCOMPLETE)
@pytest.mark.parametrize("cache", ["auto", None])
def test_rows_that_are_missing_are_masked_or_named(model, X, cache):
    row = 0 if X is INCOMPLETE["first text"][1] or X is INCOMPLETE["PIL images"][1] else 3
    with pytest.raises(ValueError, match=rf"(Row|row) {row}.*on_error='mask'"):
        FoundationFeatureExtractor(model, cache=cache).fit_transform(X)
    extractor = FoundationFeatureExtractor(model, cache=cache, on_error="mask")
    with pytest.warns(UserWarning, match="1 of 40 rows have no features"):
        rows = extractor.fit_transform(X)
    assert np.flatnonzero(rows.missing_mask).tolist() == [row]
    assert np.isnan(rows.features[row]).all()
    assert np.isfinite(np.delete(rows.features, row, axis=0)).all()
    with pytest.raises(ValueError, match=rf"(?i)row {row}.*fill it"):
        student().fit(rows, Y)


FRAME = pd.DataFrame({"text": TEXTS, "image": IMAGES, "x": NUMBERS[:, 0], "z": NUMBERS[:, 1]})
IMPUTED = make_pipeline(SimpleImputer(), StandardScaler())


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_missing_values_of_a_frame_are_masked_for_the_models_that_read_them(library):
    frame = FRAME.drop(columns="image").assign(text=without(TEXTS), x=without(NUMBERS[:, 0], 5))
    if library == "polars":
        texts, x = without(TEXTS), without(NUMBERS[:, 0].tolist(), 5)
        frame = pl.DataFrame({"text": texts, "x": x, "z": NUMBERS[:, 1]})
    models = {"text": lengths, ("x", "z"): means}
    with pytest.raises(ValueError, match=r"column 'text': Row 3 of X is missing.*fill it.*'mask'"):
        FoundationFeatureExtractor(models).fit_transform(frame)
    with pytest.raises(ValueError, match=r"Row 5 of X holds nan in column 'x'.*'mask'"):
        FoundationFeatureExtractor({("x", "z"): means}).fit_transform(frame)
    with pytest.warns(UserWarning, match="1 of 40 rows have no features"):
        rows = FoundationFeatureExtractor(models, on_error="mask").fit_transform(frame)
    assert np.flatnonzero(rows.missing_mask).tolist() == [3, 5]
    with pytest.raises(ValueError, match=r"column 'text': Row 3 of X is missing .*fill it"):
        student().fit(rows, Y)
    with pytest.warns(UserWarning, match="1 of 40 rows have no features"):
        rows = FoundationFeatureExtractor(models, on_error="mask", inputs=["x", "z"]).fit_transform(
            frame
        )
    with pytest.raises(ValueError, match=r"NaN in row 5, column .*fill it, .*SimpleImputer"):
        student().fit(rows, Y)
    assert student(preprocessor=IMPUTED).fit(rows, Y).score(rows, Y) > 0.8


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_images_of_a_frame_are_masked(missing):
    frame = FRAME.assign(image=without(IMAGES, 3, missing))
    models = {"image": brightness, "text": lengths}
    with pytest.raises(ValueError, match="column 'image': Row 3 of X is missing"):
        FoundationFeatureExtractor(models).fit(frame)
    extractor = FoundationFeatureExtractor(models, on_error="mask", inputs="text")
    with pytest.warns(UserWarning, match="1 of 40 rows have no features of model 'brightness'"):
        rows = extractor.fit_transform(frame)
    assert np.flatnonzero(rows.missing_mask).tolist() == [3]
    fitted = student().fit(rows, Y)
    assert fitted.score(TEXTS, Y) == 1
    np.testing.assert_array_equal(fitted.predict(extractor.transform(frame)), fitted.predict(TEXTS))


def test_a_preprocessor_of_the_users_own_may_fill_what_the_teacher_lacks():
    extractor = FoundationFeatureExtractor(lengths, on_error="mask")
    with pytest.warns(UserWarning, match="1 of 40 rows"):
        rows = extractor.fit_transform(without(TEXTS))
    fill = FunctionTransformer(lambda texts: np.array([t or "" for t in texts], dtype=object))
    fitted = student(preprocessor=make_pipeline(fill, SubwordTokenizer())).fit(rows, Y)
    assert fitted.score(TEXTS, Y) == 1
    assert fitted.predict(without(TEXTS)).shape == (N,)


def test_a_frame_with_missing_numbers_is_imputed_from_end_to_end():
    frame = FRAME[["text", "x"]].assign(x=without(NUMBERS[:, 0], 5))
    pipe = make_pipeline(
        FoundationFeatureExtractor({"text": lengths}),
        student(preprocessor=ColumnPreprocessor(numeric=IMPUTED)),
    )
    assert pipe.fit(frame, Y).score(frame, Y) == 1
    with pytest.raises(ValueError, match=r"NaN in row 5, column 'x': fill it.*SimpleImputer"):
        make_pipeline(FoundationFeatureExtractor({"text": lengths}), student()).fit(frame, Y)


@pytest.mark.parametrize(
    "X",
    [
        pd.DataFrame({"a": pd.array([1, None] * 20, "Int64"), "b": NUMBERS[:, 0]}),
        pd.DataFrame({"a": pd.array([True, None] * 20, "boolean"), "b": NUMBERS[:, 0]}),
        pl.DataFrame({"a": [1, None] * 20, "b": NUMBERS[:, 0]}),
        [[row, None if row % 2 else 1] for row in range(N)],
    ],
)
def test_a_table_with_a_hole_says_how_to_impute_and_can_be(X):
    with pytest.raises(ValueError, match=r"NaN in row 1, column ('a'|1): fill it.*SimpleImputer"):
        AFTClassifier(beta=0).fit(X, Y)
    fitted = AFTClassifier(beta=0, max_epochs=2, preprocessor=IMPUTED).fit(X, Y)
    assert fitted.predict(X).shape == (N,)


# ---------------------------------------------------------------- texts that end like files

NAMES = ["invoice_2020.png", "cat_photo.png"] * 20


def test_texts_that_all_end_like_files_are_texts_where_the_model_reads_texts():
    frame = pd.DataFrame({"name": NAMES, "x": NUMBERS[:, 0]})
    for X, model in ((NAMES, "minilm"), (frame, {"name": "minilm"})):
        extractor = FoundationFeatureExtractor(model)
        for rows in (extractor.fit_transform(X), extractor.transform(X)):
            fitted = student(beta=0.1).fit(rows, Y)
            assert fitted.score(X, Y) == 1
            np.testing.assert_array_equal(fitted.predict(rows[:3]), Y[:3])
    extractor = FoundationFeatureExtractor({"name": "minilm"}, inputs="name")
    assert student(beta=0.1).fit(extractor.fit_transform(frame), Y).score(NAMES, Y) == 1


def test_a_plain_student_takes_them_for_files_and_says_so():
    message = (
        r"Row 0 \('invoice_2020.png'\) is not a readable image.*preprocessor=.*SubwordTokenizer"
    )
    with pytest.raises(ValueError, match=message):
        AFTClassifier(beta=0).fit(NAMES, Y)
    texts = AFTClassifier(beta=0, preprocessor=SubwordTokenizer(), random_state=0).fit(NAMES, Y)
    assert texts.score(NAMES, Y) == 1
    assert texts.predict(["cat_photo.png", "a cat_photo"]).tolist() == [1, 1]


# ---------------------------------------------------------------- one row, without its numbers


IMPUTED = make_pipeline(SimpleImputer(), StandardScaler())
TABLE = pd.DataFrame(NUMBERS[:, :2], columns=["a", "b"])


@pytest.mark.parametrize("value", [None, np.nan, pd.NA])
@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "t"]])
def test_a_record_without_a_number_is_imputed(names, library, value):
    frame = TABLE.assign(t=["some words", "other words"] * 20)[names]
    is_mixed = "t" in names
    preprocessor = {"preprocessor__numeric" if is_mixed else "preprocessor": IMPUTED}
    model = student(beta=0, **preprocessor).fit(frame, Y)
    record = {"a": value, "b": 1.0, "t": "some words"}
    record = {name: record[name] for name in names}
    mean = pd.DataFrame([{**record, "a": TABLE["a"].mean()}])
    if library == "polars":
        one = pl.DataFrame({name: [None if name == "a" else record[name]] for name in names})
    else:
        one = pd.DataFrame([record])
    np.testing.assert_allclose(model.predict_proba(one), model.predict_proba(mean), rtol=1e-4)


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "t"]])
def test_without_an_imputer_row_and_column_are_named(names):
    frame = TABLE.assign(t=["some words", "other words"] * 20)[names]
    model = student(beta=0).fit(frame, Y)
    one = pd.DataFrame([{"a": None, "b": 1.0, "t": "some words"}])[names]
    with pytest.raises(ValueError, match=r"NaN in row 0, column 'a': fill it, .*SimpleImputer"):
        model.predict(one)


@pytest.mark.parametrize("hole", [[[None, None]], np.array([[None, None]])])
def test_a_list_without_any_number_is_imputed(hole):
    model = student(beta=0, preprocessor=IMPUTED).fit(NUMBERS[:, :2], Y)
    mean = model.predict_proba(NUMBERS[:, :2].mean(axis=0, keepdims=True))
    np.testing.assert_allclose(model.predict_proba(hole), mean, rtol=1e-4)
