import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    StandardScaler,
)

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.modules import StaticText
from sk_aft.preprocessing import (
    ColumnPreprocessor,
    ImageResizer,
    SubwordTokenizer,
    make_preprocessor,
)

TEXTS = ["I lost my card", "my cards are gone", "what is a pin?", "I, robot: a card"]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
TABLE = np.array([[1.5, 2], [3, 4], [5, 6], [9, 2]])
FRAME = pd.DataFrame(
    {"a": TABLE[:, 0], "my text": TEXTS, "photo": list(IMAGES), "b": TABLE[:, 1], "city": "Rome"}
)


def as_lists(tokens):
    return [of_text.tolist() for of_text in tokens]


def test_each_column_is_prepared_as_its_kind_asks_for():
    preprocessor = ColumnPreprocessor().fit(FRAME)
    parts = preprocessor.transform(FRAME)
    assert list(parts) == ["my text", "photo", "city", "numbers"]
    expected = SubwordTokenizer().fit_transform(TEXTS)
    assert as_lists(parts["my text"]) == as_lists(expected)
    np.testing.assert_array_equal(parts["photo"], ImageResizer().fit_transform(IMAGES))
    np.testing.assert_array_equal(parts["numbers"], StandardScaler().fit_transform(TABLE))
    assert preprocessor.kinds_ == {
        **{"a": "numeric", "my text": "text", "photo": "image", "b": "numeric", "city": "text"}
    }
    assert preprocessor.transformers_[-1][0::2] == ("numbers", ("a", "b"))
    assert preprocessor.feature_names_in_.tolist() == list(FRAME.columns)


def test_columns_are_found_by_their_names():
    preprocessor = ColumnPreprocessor().fit(FRAME)
    expected = preprocessor.transform(FRAME)["numbers"]
    others = FRAME[FRAME.columns[::-1]].assign(more=1)
    np.testing.assert_array_equal(preprocessor.transform(others)["numbers"], expected)
    polars = pl.DataFrame({name: FRAME[name].to_list() for name in ("b", "my text", "a", "city")})
    np.testing.assert_array_equal(
        ColumnPreprocessor().fit(polars).transform(polars)["numbers"], expected[:, ::-1]
    )
    with pytest.raises(ValueError, match="column 'my text' is missing from X"):
        preprocessor.transform(FRAME.drop(columns="my text"))
    with pytest.raises(NotFittedError):
        ColumnPreprocessor().transform(FRAME)


def test_kinds_are_those_of_the_fit():
    preprocessor = ColumnPreprocessor().fit(FRAME)
    cities = dict((name, step) for name, step, _ in preprocessor.transformers_)["city"].tokenizer_
    parts = preprocessor.transform(FRAME.assign(city="a.png"))  # no path, although it ends like one
    assert "".join(cities.decode(parts["city"][0]).split()) == "a.png"
    with pytest.raises(ValueError, match=r"\('a', 'b'\).* not all numbers"):
        preprocessor.transform(FRAME.assign(a="x"))


def test_own_preprocessors_are_cloned_for_each_column():
    words = TfidfVectorizer()
    preprocessor = ColumnPreprocessor(text=words, image=ImageResizer(4), numeric=MinMaxScaler())
    parts = preprocessor.fit_transform(FRAME)
    assert parts["photo"].shape == (4, 1, 4, 4)
    assert parts["numbers"].max() == 1
    assert not hasattr(words, "vocabulary_")
    assert parts["my text"].shape[1] != parts["city"].shape[1]
    assert clone(preprocessor).set_params(image__size=2).image.size == 2
    copy = pickle.loads(pickle.dumps(preprocessor))
    np.testing.assert_array_equal(copy.transform(FRAME)["photo"], parts["photo"])


def test_auto_takes_it_for_frames():
    assert type(make_preprocessor("auto", "frame")) is ColumnPreprocessor
    assert make_preprocessor("auto", "frame", text="auto").text == "auto"


def test_what_is_missing_is_said_with_its_column():
    with pytest.raises(ValueError, match="column 'city': Row 2 of X is missing"):
        ColumnPreprocessor().fit(FRAME.assign(city=["Rome", "Oslo", None, "Bonn"]))


# ---------------------------------------------------------------- categories

CATEGORIES = pd.DataFrame(
    {"color": pd.Categorical(["red", "blue", "red", None]), "size": pd.Categorical([1, 2, 1, 2])}
)


def test_categories_are_encoded_one_hot_beside_the_numbers():
    frame = CATEGORIES.assign(a=TABLE[:, 0])
    preprocessor = ColumnPreprocessor().fit(frame)
    assert preprocessor.kinds_ == {"color": "category", "size": "category", "a": "numeric"}
    parts = preprocessor.transform(frame)
    assert list(parts) == ["numbers"]
    one_hot = [[0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 1]]
    np.testing.assert_array_equal(parts["numbers"][:, 1:], one_hot)
    scaled = StandardScaler().fit_transform(TABLE[:, :1])
    np.testing.assert_array_equal(parts["numbers"][:, :1], scaled)


def test_categories_that_are_not_known_are_zeros():
    preprocessor = ColumnPreprocessor().fit(CATEGORIES[:3])
    encoded = preprocessor.transform(
        CATEGORIES.assign(color=pd.Categorical(["new", None, "a", "b"]))
    )
    np.testing.assert_array_equal(encoded["numbers"][:, :2], np.zeros((4, 2)))


def test_categories_may_come_as_strings_at_prediction():
    preprocessor = ColumnPreprocessor().fit(CATEGORIES)
    expected = preprocessor.transform(CATEGORIES)["numbers"]
    strings = pd.DataFrame({"size": ["1", "2", "1", "2"], "color": ["red", "blue", "red", None]})
    np.testing.assert_array_equal(preprocessor.transform(strings)["numbers"], expected)
    with pytest.raises(ValueError, match=r"column 'size': .*got numeric.*astype\('category'\)"):
        preprocessor.transform(CATEGORIES.assign(size=1))


def test_an_own_encoder_may_be_sparse_or_group_categories():
    encoder = OneHotEncoder(max_categories=2, handle_unknown="infrequent_if_exist")
    preprocessor = ColumnPreprocessor(category=encoder).fit(CATEGORIES.assign(a=1.0))
    assert preprocessor.transform(CATEGORIES.assign(a=1.0))["numbers"].shape == (4, 5)
    assert make_preprocessor("auto", "category", max_categories=2).max_categories == 2


@pytest.mark.parametrize(
    "X",
    [
        CATEGORIES,
        CATEGORIES["color"],
        CATEGORIES[["color"]],
        CATEGORIES.assign(a=1.5),
        CATEGORIES.assign(text=TEXTS),
        pl.Series(["red", "blue", "red", None], dtype=pl.Enum(["red", "blue"])),
        pl.DataFrame({"color": ["red", "blue", "red", None]}, schema={"color": pl.Categorical}),
    ],
)
def test_students_learn_categories(X):
    y = np.array([0, 1, 0, 2])
    student = AFTClassifier(beta=0, max_epochs=100, random_state=0).fit(X, y)
    np.testing.assert_array_equal(student.predict(X), y)
    assert not isinstance(student.module_, StaticText)
    again = pickle.loads(pickle.dumps(student))
    np.testing.assert_array_equal(again.predict_proba(X), student.predict_proba(X))
    np.testing.assert_array_equal(student.predict(X[1:3]), y[1:3])


def test_a_model_of_texts_reads_the_text_of_categories():
    def lengths(texts):
        return np.array([[len(text)] for text in texts])

    color = CATEGORIES["color"][:3]
    frame = CATEGORIES[:3].assign(a=1.0)
    for model, X in ((lengths, color), ({"color": lengths}, frame)):
        rows = FoundationFeatureExtractor(model).fit_transform(X)
        np.testing.assert_array_equal(rows.features, [[3], [4], [3]])
        student = AFTClassifier(beta=1, max_epochs=2, random_state=0).fit(rows, [0, 1, 0])
        assert not isinstance(student.module_, StaticText)


def test_unlabeled_rows_may_have_other_categories():
    def lengths(texts):
        return np.array([[len(text)] for text in texts])

    frame = CATEGORIES[:3].assign(text=TEXTS[:3])
    extractor = FoundationFeatureExtractor({"text": lengths}).fit(frame)
    further = extractor.transform(frame.assign(color=pd.Categorical(["green", "red", "black"])))
    student = AFTClassifier(beta=1, max_epochs=2, random_state=0)
    student.fit(extractor.transform(frame), [0, 1, 0], X_unlabeled=further)
    assert student.preprocessor_.kinds_["color"] == "category"


# ---------------------------------------------------------------- what is missing, or changed


def test_numbers_that_are_missing_say_how_to_impute():
    message = r"NaN in row 1, column 'b': fill it, .*numeric=make_pipeline\(SimpleImputer"
    for missing in (np.nan, None, pd.NA):
        frame = FRAME.assign(b=[1, missing, 2, 3])
        with pytest.raises(ValueError, match=message):
            ColumnPreprocessor().fit(frame)
        with pytest.raises(ValueError, match=message):
            ColumnPreprocessor().fit(FRAME).transform(frame)
        imputed = make_pipeline(SimpleImputer(), StandardScaler())
        numbers = ColumnPreprocessor(numeric=imputed).fit_transform(frame)["numbers"]
        np.testing.assert_allclose(numbers[1, 1], 0, atol=1e-12)


def test_an_own_preprocessor_may_fill_texts_that_are_missing():
    frame = FRAME.assign(city=["Rome", None, "Rome", "Rome"])
    fill = FunctionTransformer(lambda texts: np.array([t or "" for t in texts], dtype=object))
    filled = ColumnPreprocessor(text=make_pipeline(fill, SubwordTokenizer())).fit_transform(frame)
    expected = ColumnPreprocessor().fit_transform(frame.fillna({"city": ""}))
    assert as_lists(filled["city"]) == as_lists(expected["city"])
    assert len(filled["city"][1]) == 0
    with pytest.raises(ValueError, match="column 'city': Row 1 of X is missing"):
        ColumnPreprocessor(text=TfidfVectorizer()).fit(frame)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([None] * 4, "column 'new': Row 0 of X is missing .* All 4 rows are"),
        (
            ["a", 2.5, "b", 1],
            r"column 'new': X mixes types: row 0 is text and row 1 .*astype\(str\)",
        ),
        ([b"a"] * 4, r"column 'new': Row 0 \(bytes\) is not a readable image"),
        ([[1, 2]] * 4, "column 'new': Row 0 of X is of type list"),
        (["", " ", "", ""], "column 'new': The training texts have no words"),
    ],
)
def test_columns_that_cannot_be_read_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        ColumnPreprocessor().fit(FRAME.assign(new=values))


def test_columns_that_changed_their_kind_are_named():
    frame = pd.DataFrame({"x": [1.0, 2, 3, 4], "t": TEXTS})
    preprocessor = ColumnPreprocessor().fit(frame)
    with pytest.raises(ValueError, match=r"column 'x': .*got text rows.*astype\(float\)"):
        preprocessor.transform(frame.assign(x="1"))
    with pytest.raises(ValueError, match=r"column 't': .*got numeric rows.*astype\(str\)"):
        preprocessor.transform(frame.assign(t=1))
    numbers = pd.DataFrame(TABLE, columns=["a", "b"])
    student = AFTClassifier(beta=0, max_epochs=1).fit(numbers, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"not all numbers, for example 'b': .*astype\(float\)"):
        student.predict(numbers.assign(b="2"))
