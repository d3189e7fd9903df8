"""Digits with few labels, and students of them."""

import matplotlib
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="session")
def digits():
    """300 rows, of which every third has a label; -1 marks the others."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300].copy()
    y[[row for row in range(300) if row % 3]] = -1
    X.flags.writeable = y.flags.writeable = False
    return X, y


@pytest.fixture(scope="session")
def make_pipe(digits):
    """Function from parameters of a student to a pipeline of two teachers and this student."""
    teachers = [PCA(8).fit(digits[0]), PCA(3).fit(digits[0])]

    def make(**parameters):
        parameters = {"max_epochs": 3, "missing_label": -1, "random_state": 0, **parameters}
        return make_pipeline(
            FoundationFeatureExtractor(teachers, cache=None), AFTClassifier(**parameters)
        )

    return make


@pytest.fixture(scope="session")
def pipe(make_pipe, digits):
    return make_pipe().fit(*digits)
