"""What a linear model reads of the student's rows."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from sk_aft._data._rows import as_rows
from sk_aft._student._linear_columns import linear_columns
from sk_aft.datasets import load_banking77

TEXTS = ["I lost my card", "my card was stolen", "what is the rate", "the rate of the euro"] * 5


def test_texts_are_their_leading_components():
    texts, labels = load_banking77(labels_per_class=8, return_X_y=True)
    rows = np.isin(labels, np.unique(labels)[:10])
    texts, labels = np.asarray(texts, dtype=object)[rows], labels[rows]
    columns = linear_columns(as_rows(texts), seed=0)
    assert columns.dtype == np.float32
    assert columns.shape == (80, 79)
    assert columns.std() == pytest.approx(1, rel=1e-4)
    scores = cross_val_score(LogisticRegression(), columns, labels, cv=4)
    assert scores.mean() > 0.6
    np.testing.assert_array_equal(linear_columns(as_rows(texts), seed=0), columns)


def test_equal_texts_have_equal_columns():
    columns = linear_columns(as_rows(TEXTS), seed=0)
    np.testing.assert_allclose(columns[:4], columns[4:8], atol=1e-5)
    assert np.linalg.matrix_rank(columns) == 4


@pytest.mark.parametrize(
    "texts",
    [
        ["I lost my card"],
        ["", "", ""],
        ["same"] * 4,  # one word
        ["?", "!", "?"],  # one character twice
        ["one", "ask", "буд"],  # none
    ],
)
def test_texts_with_little_in_common_have_none(texts):
    assert linear_columns(as_rows(texts), seed=0) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["我丢了我的卡", "我的卡被偷了", "卡在哪里"], ["汇率是多少", "欧元的汇率", "今天的汇率"]),
        (["?", "??", "?!?"], ["!", "!!", "!!?!"]),
        (["😀", "😀😀", "😀👍"], ["😢", "😢😢", "😢👍"]),
    ],
    ids=["chinese", "symbols", "emojis"],
)
def test_texts_without_words_in_common_are_characters(one, other):
    columns = linear_columns(as_rows([*one, *other]), seed=0)
    assert columns.std() == pytest.approx(1, rel=1e-4)
    model = LogisticRegression().fit(columns, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(model.predict(columns), [0, 0, 0, 1, 1, 1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", ["we lost it", "?!"])
def test_equal_texts_alone_do_not_warn(text):
    columns = linear_columns(as_rows([text] * 4), seed=0)
    np.testing.assert_allclose(columns, columns[[0]].repeat(4, axis=0), atol=1e-6)


def test_a_missing_text_is_an_empty_one():
    missing = linear_columns(as_rows([None, *TEXTS], missing=True), seed=0)
    np.testing.assert_array_equal(missing, linear_columns(as_rows(["", *TEXTS]), seed=0))
    np.testing.assert_allclose(missing[0], 0, atol=1e-6)


def test_numbers_are_standardised():
    numbers = np.random.default_rng(0).normal(5, [1e-3, 1e6], size=(50, 2))
    columns = linear_columns(as_rows(numbers), seed=0)
    expected = (numbers - numbers.mean(axis=0)) / numbers.std(axis=0)
    np.testing.assert_allclose(columns, expected, atol=1e-4)
    assert linear_columns(as_rows(np.arange(6).reshape(3, 2)), seed=0).std() == pytest.approx(1)


def test_numbers_that_are_not_finite_are_the_mean():
    numbers = np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan], [np.inf, np.nan]])
    columns = linear_columns(as_rows(numbers), seed=0)
    np.testing.assert_allclose(columns[:, 0], [-np.sqrt(2), 0, np.sqrt(2), 0], rtol=1e-5)
    np.testing.assert_array_equal(columns[:, 1], 0)


def test_constant_columns_are_zero():
    numbers = np.array([[7.0, 1], [7.0, 2], [7.0, 3]])
    columns = linear_columns(as_rows(numbers), seed=0)
    np.testing.assert_array_equal(columns[:, 0], 0)
    assert columns[:, 1].std() == pytest.approx(1)


def test_categories_are_one_hot():
    frame = pd.DataFrame({"colour": pd.Categorical(["red", "blue", "red", None])})
    columns = linear_columns(as_rows(frame, kind="frame"), seed=0)
    assert columns.shape == (4, 3)
    np.testing.assert_array_equal(columns.sum(axis=1), 1)
    np.testing.assert_array_equal(columns[0], columns[2])
    many = pd.DataFrame({"id": pd.Categorical([f"item {row}" for row in range(1000)])})
    assert linear_columns(as_rows(many, kind="frame"), seed=0).shape == (1000, 100)


def test_a_frame_has_the_columns_of_its_columns():
    frame = pd.DataFrame(
        {
            "text": TEXTS,
            "price": np.arange(20.0),
            "colour": pd.Categorical(["red", "blue"] * 10),
            "alone": [chr(0x4E00 + row) for row in range(20)],  # no character twice
            "image": [np.zeros((4, 4), dtype=np.uint8)] * 20,
        }
    )
    rows = as_rows(frame, kind="frame")
    columns = linear_columns(rows, seed=0)
    text = linear_columns(as_rows(TEXTS), seed=0)
    assert columns.shape == (20, text.shape[1] + 1 + 2)
    np.testing.assert_array_equal(columns[:, : text.shape[1]], text)
    price = columns[:, text.shape[1]]
    np.testing.assert_allclose(price, (np.arange(20) - 9.5) / np.arange(20).std(), rtol=1e-5)
    assert linear_columns(as_rows(frame[["image", "alone"]], kind="frame"), seed=0) is None


def test_columns_that_only_the_users_preprocessor_can_read_are_left_out():
    frame = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=20), "n": np.arange(20.0)})
    assert linear_columns(as_rows(frame, kind="frame"), seed=0).shape == (20, 1)


def test_images_have_none():
    assert linear_columns(as_rows(np.zeros((5, 8, 8), dtype=np.uint8)), seed=0) is None
