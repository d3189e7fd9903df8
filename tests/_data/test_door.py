"""Rows are recognised once, by the extractor or by the student."""

from datetime import time

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch.utils.data import DataLoader, TensorDataset

from sk_aft import AFTClassifier, FoundationFeatureExtractor

TEXTS = ["open an account", "close the account", "a lost card", "my card"] * 15
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
LABELS = np.arange(60) % 2


class Counted:
    """A container that counts how often somebody asks what is in it."""

    def __init__(self, rows):
        self.rows = rows
        self.n_looks = 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        return Counted(self.rows[key])

    def to_numpy(self):
        self.n_looks += 1
        return np.asarray(self.rows)


class CountedFrame(pd.DataFrame):
    """A DataFrame that counts how often somebody takes a column."""

    looks: dict = {}

    def __getitem__(self, key):
        for column in key if isinstance(key, list) else [key]:
            CountedFrame.looks[column] = CountedFrame.looks.get(column, 0) + 1
        return super().__getitem__(key)


def mean_of(rows):
    return np.array([[len(str(row)), np.sum(np.char.count(str(row), "a"))] for row in rows])


@pytest.mark.parametrize("values", [TEXTS, IMAGES], ids=["texts", "images"])
def test_a_pipeline_looks_at_its_rows_once_in_fit_and_once_in_predict(values):
    pipe = make_pipeline(
        FoundationFeatureExtractor(mean_of, cache=None),
        AFTClassifier(beta=1, max_epochs=1, early_stopping=True, random_state=0),
    )
    rows = Counted(values)
    pipe.fit(rows, LABELS)
    assert rows.n_looks == 1
    seen = Counted(values)
    pipe.predict(seen)
    assert seen.n_looks == 1


@pytest.mark.parametrize("values", [TEXTS, IMAGES], ids=["texts", "images"])
def test_so_does_a_student_alone(values):
    model = AFTClassifier(beta=0, max_epochs=1, random_state=0)
    rows = Counted(values)
    model.fit(rows, LABELS)
    assert rows.n_looks == 1
    model.predict(rows)
    assert rows.n_looks == 2


def test_a_column_that_teacher_and_student_read_is_taken_once():
    frame = CountedFrame({"text": TEXTS, "image": list(IMAGES), "total": np.arange(60.0)})
    pipe = make_pipeline(
        FoundationFeatureExtractor({"text": mean_of}, cache=None),
        AFTClassifier(beta=1, max_epochs=1, random_state=0),
    )
    CountedFrame.looks = {}
    pipe.fit(frame, LABELS)
    assert CountedFrame.looks == {"text": 1}  # what is sliced for training is a plain DataFrame


def test_messages_number_the_rows_as_they_were_given():
    rows = [np.zeros((8, 8), np.uint8)] * 40
    rows[33] = np.full((8, 8), 70_000)  # no pixel is as bright
    with pytest.raises(ValueError, match="0 to 65535"):
        AFTClassifier(beta=0, max_epochs=1).fit(rows, LABELS[:40])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": 1, "b": 2}.keys(), "X is a dict_keys: make it a list"),
        ({"a": 1, "b": 2}.values(), "X is a dict_values: make it a list"),
        ({"a": 1, "b": 2}.items(), "X is a dict_items: make it a list"),
        ({"a", "b"}, "X is a set, whose rows have no order: give a list"),
        (DataLoader(TensorDataset(torch.ones(8, 2))), r"X is a DataLoader, .* with iter\(X\)"),
    ],
)
def test_what_is_no_list_says_how_to_make_one(rows, message):
    for estimator in (AFTClassifier(), FoundationFeatureExtractor(mean_of)):
        with pytest.raises(ValueError, match=message):
            estimator.fit(rows, [0, 1])


@pytest.mark.parametrize("beside", [{}, {"number": [1.0, 2.0]}, {"text": ["a", "b"]}])
@pytest.mark.parametrize(
    "dates",
    [
        pd.period_range("2020-01", periods=2, freq="M"),
        pd.date_range("2020", periods=2),
        [time(12, 30), time(13)],
    ],
)
def test_dates_and_periods_say_how_to_make_numbers_of_them(dates, beside):
    frame = pd.DataFrame({"when": dates, **beside})
    message = r"dates and times are not numbers: .*\.dt\.days.*to_timestamp\(\) converts per"
    with pytest.raises(ValueError, match=message):
        AFTClassifier(beta=0).fit(frame, [0, 1])
