import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sk_aft.preprocessing import (
    ColumnPreprocessor,
    ImageResizer,
    NgramTokenizer,
    make_preprocessor,
)

TEXTS = ["I lost my card", "my cards are gone", "what is a pin?", "I, robot: a card"]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
TABLE = np.array([[1.5, 2], [3, 4], [5, 6], [9, 2]])
FRAME = pd.DataFrame(
    {"a": TABLE[:, 0], "my text": TEXTS, "photo": list(IMAGES), "b": TABLE[:, 1], "city": "Rome"}
)


def test_each_column_is_prepared_as_its_kind_asks_for():
    preprocessor = ColumnPreprocessor().fit(FRAME)
    parts = preprocessor.transform(FRAME)
    assert list(parts) == ["my text", "photo", "city", "numbers"]
    expected = NgramTokenizer().fit_transform(TEXTS)
    np.testing.assert_array_equal(parts["my text"].toarray(), expected.toarray())
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
    parts = preprocessor.transform(FRAME.assign(city="a.png"))  # no path, although it ends like one
    assert parts["city"].nnz == 0
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
