"""Categories have the same name whatever else is in their column."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sk_aft import AFTClassifier
from sk_aft._data._rows import as_rows

CODES = np.arange(60) % 3
NAMES = ["0", "1", "2"]


def names_of(column):
    return as_rows(column, kind="category", missing=True).values[:, 0].tolist()


@pytest.mark.parametrize("wrap", [lambda x: x, pd.Series, pd.CategoricalIndex, "frame"])
@pytest.mark.parametrize("dtype", [int, np.float32, "Int64", "int8[pyarrow]", object])
def test_numbers_keep_their_names_beside_a_missing_one(wrap, dtype):
    if str(dtype).endswith("[pyarrow]"):
        pytest.importorskip("pyarrow")
    categories = pd.Categorical(
        pd.Series([2, 1, None, 1], dtype="Int64" if dtype is int else dtype)
    )
    column = pd.DataFrame({"c": categories}) if wrap == "frame" else wrap(categories)
    assert names_of(column) == ["2", "1", None, "1"]
    assert names_of(column[:2]) == ["2", "1"]


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        ([1.0, 2.5, np.nan], ["1", "2.5", None]),
        ([True, False, None], ["True", "False", None]),
        (["a", "1.0", None], ["a", "1.0", None]),
        ([None, None], [None, None]),
    ],
)
def test_other_categories_are_named_by_their_text(categories, expected):
    assert names_of(pd.Categorical(categories)) == expected
    assert names_of(pd.DataFrame({"c": pd.Categorical(categories)})) == expected


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["a", "b"])])
def test_categories_of_polars(dtype):
    column = pl.Series("c", ["b", None, "a"], dtype=dtype)
    assert names_of(column) == names_of(column.to_frame()) == ["b", None, "a"]


def test_categories_of_arrow():
    pa = pytest.importorskip("pyarrow")
    for values in ([3, None, 1], ["b", None, "a"]):
        array = pa.array(values).dictionary_encode()
        column = pd.Series(array, dtype=pd.ArrowDtype(array.type))
        assert names_of(column) == [value and str(value) for value in values]


@pytest.mark.parametrize("with_text", [False, True])
@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_student_knows_categories_that_are_numbers_beside_a_missing_one(with_text, missing):
    def frame(values):
        columns = {"c": pd.Categorical(values), "t": ["a text"] * len(values)}
        return pd.DataFrame(columns if with_text else {"c": columns["c"]})

    model = AFTClassifier(beta=0, max_epochs=30, lr=0.01, random_state=0)
    model.fit(frame(CODES), CODES)
    assert model.score(frame(CODES), CODES) == 1
    holed = [missing, *CODES.tolist()]
    np.testing.assert_array_equal(model.predict(frame(holed))[1:], CODES)
    np.testing.assert_array_equal(model.predict(frame(CODES.astype(float))), CODES)


def test_a_missing_category_that_training_had_not_is_zeros():
    frame = pd.DataFrame({"c": pd.Categorical(CODES), "t": ["a text"] * 60})
    model = AFTClassifier(beta=0, max_epochs=2, random_state=0).fit(frame, CODES)
    unknown = model.predict_proba(pd.DataFrame([{"c": "9", "t": "a text"}]))
    for value in (None, np.nan):
        one = pd.DataFrame([{"c": value, "t": "a text"}])
        np.testing.assert_array_equal(model.predict_proba(one), unknown)
    with pytest.raises(ValueError, match="column 't': Row 0 of X is missing"):
        model.predict(pd.DataFrame([{"c": "1", "t": np.nan}]))
