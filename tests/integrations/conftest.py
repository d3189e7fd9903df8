"""Questions in four classes, which a student tells apart after few epochs."""

import functools
import json
import os

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.datasets import load_banking77

# MLflow reports its use over the network unless told not to, and reads this when it is imported.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

CLASSES = ["age_limit", "atm_support", "card_linking", "change_pin"]


def load_questions(**options):
    texts, labels = load_banking77(**options, return_X_y=True)
    some = np.isin(labels, CLASSES)
    return pd.DataFrame({"text": np.array(texts, dtype=object)[some]}), labels[some]


@pytest.fixture(autouse=True)
def _cache_of_the_test():
    """Tests here share the session's cache, so that each text is embedded once."""


@pytest.fixture(scope="session")
def questions():
    """140 texts in a DataFrame with one column, and their labels."""
    return load_questions(labels_per_class=35)


@pytest.fixture(scope="session")
def test_questions():
    """160 other texts of the same classes, and their labels."""
    return load_questions(subset="test")


@pytest.fixture
def pipe():
    student = AFTClassifier(max_epochs=20, random_state=0)
    return make_pipeline(FoundationFeatureExtractor("minilm"), student)


@pytest.fixture(scope="session")
def fitted(questions):
    student = AFTClassifier(max_epochs=20, random_state=0)
    return make_pipeline(FoundationFeatureExtractor("minilm"), student).fit(*questions)


def count_letters(texts, log):
    with open(log, "a") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)
    return np.array([[text.count(letter) for letter in "acdefhilmnoprst"] for text in texts])


@pytest.fixture
def model(tmp_path):
    """A foundation model that writes down every text that it is run on."""
    return functools.partial(count_letters, log=tmp_path / "texts")


@pytest.fixture
def texts_read(tmp_path):
    """Return the texts that `model` was run on."""
    return lambda: [json.loads(line) for line in (tmp_path / "texts").open()]
