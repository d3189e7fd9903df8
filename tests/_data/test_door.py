"""Rows are recognised once, by the extractor or by the student."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

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
