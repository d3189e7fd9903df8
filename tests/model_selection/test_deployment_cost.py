import time

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sk_aft import (
    AFTClassifier,
    AFTRegressor,
    FineTunedFeatureExtractor,
    FoundationFeatureExtractor,
)
from sk_aft._data._rows import as_rows
from sk_aft.datasets import load_banking77
from sk_aft.model_selection._comparison._deployment_cost import deployed, deployment_cost
from sk_aft.model_selection._comparison._rivals import rivals

STUDENT = {"beta": 0, "max_epochs": 1, "random_state": 0}


def shapes_of(texts):
    return np.array([[len(text), text.count(" ")] for text in texts])


def as_scaled(X):
    return X / 10


class Slow(ClassifierMixin, BaseEstimator):
    """Takes 20 ms for each row."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        time.sleep(0.02 * len(X))
        return np.repeat(self.classes_[0], len(X))


@pytest.fixture(scope="module")
def texts():
    rows, names = load_banking77(return_X_y=True)
    picked = np.random.default_rng(0).permutation(len(rows))[:300]
    return [rows[row] for row in picked], np.array([names[row][0] > "d" for row in picked])


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def rivals_of(X, **parameters):
    sizes = {"n_labeled": len(X), "n_smallest_class": 10, "random_state": 0}
    found = rivals(as_rows(X, frames=True), "classification", **sizes, **parameters)
    return {candidate.name: candidate.estimator for candidate in found}


def size_of(estimator, path):
    joblib.dump(estimator, path)
    return path.stat().st_size / 1e6


def n_weights(module):
    return sum(weight.numel() for weight in module.parameters())


def test_a_student_of_texts_is_served_with_numpy(texts, tmp_path):
    X, y = texts
    pipeline = make_pipeline(FoundationFeatureExtractor(shapes_of), AFTClassifier(**STUDENT))
    pipeline.fit(X[:60], y[:60])
    assert deployed(pipeline) is pipeline[-1]
    cost = deployment_cost(pipeline, X[60:])
    assert (cost.packages, cost.served) == ("numpy, tokenizers", "folder")
    pipeline[-1].save_pretrained(tmp_path)
    n_bytes = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert cost.megabytes == pytest.approx(n_bytes / 1e6, rel=0.01)
    assert 0 < cost.ms_per_row < 50
    assert 0 < cost.ms_per_row_of_256 < 50


def test_other_students_are_served_with_onnx_runtime(iris, tmp_path):
    X, y = iris
    search = GridSearchCV(AFTClassifier(**STUDENT), {"lr": [1e-3, 1e-2]}, cv=2).fit(X, y)
    assert deployed(search) is search.best_estimator_
    cost = deployment_cost(search, X)
    assert (cost.packages, cost.served) == ("numpy, onnxruntime", "folder")
    search.best_estimator_.save_pretrained(tmp_path, onnx=True)
    (tmp_path / "model.safetensors").unlink()  # the graph has its own weights
    n_bytes = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert cost.megabytes == pytest.approx(n_bytes / 1e6, rel=0.1)


def test_students_of_images_and_frames_need_what_reads_their_columns(texts):
    X, y = load_digits(return_X_y=True)
    student = AFTClassifier(**STUDENT).fit(X[:64].reshape(-1, 8, 8), y[:64])
    cost = deployment_cost(student, X[:64].reshape(-1, 8, 8))
    assert cost.packages == "numpy, onnxruntime, pillow"
    X, y = texts
    frame = pd.DataFrame({"text": X, "size": [float(len(text)) for text in X]})
    regressor = AFTRegressor(**STUDENT).fit(frame[:64], np.arange(64.0))
    cost = deployment_cost(make_pipeline(regressor), frame)
    assert (cost.packages, cost.served) == ("numpy, onnxruntime, tokenizers", "folder")


def test_a_student_is_measured_on_the_column_that_it_reads(texts):
    X, y = texts
    frame = pd.DataFrame({"text": X, "other": 0})
    extractor = FoundationFeatureExtractor({"text": shapes_of}, inputs="text")
    pipeline = make_pipeline(extractor, AFTClassifier(**STUDENT)).fit(frame[:60], y[:60])
    assert deployment_cost(pipeline, frame).packages == "numpy, tokenizers"


def test_a_student_that_cannot_be_a_folder_is_a_pickle(iris, tmp_path):
    X, y = iris
    student = AFTClassifier(preprocessor=FunctionTransformer(as_scaled), **STUDENT).fit(X, y)
    cost = deployment_cost(student, X)
    assert (cost.packages, cost.served) == ("scikit-learn, skorch, torch", "pickle")
    assert cost.megabytes == pytest.approx(size_of(student, tmp_path / "student"), rel=0.01)


def test_steps_before_the_extractor_are_deployed_with_the_student(iris):
    X, y = iris
    steps = (StandardScaler(), FoundationFeatureExtractor(as_scaled), AFTClassifier(**STUDENT))
    pipeline = make_pipeline(*steps).fit(X, y)
    served = deployed(pipeline)
    assert [type(step) for step in served] == [StandardScaler, AFTClassifier]
    assert (served.predict(X) == pipeline.predict(X)).all()
    assert deployment_cost(pipeline, X).served == "pickle"


def test_rivals_are_deployed_without_their_search(texts, tmp_path):
    X, y = texts
    found = rivals_of(X, model=shapes_of, has_unlabeled=True, missing_label=-1)
    for name in ("tf-idf", "static-embeddings", "pseudo-labels"):
        fitted = found[name].fit(X[:60], y[:60].astype(int))
        served = deployed(fitted)
        assert isinstance(served[-1], LogisticRegression)
        assert (served.predict(X) == fitted.predict(X)).all()
        cost = deployment_cost(fitted, X)
        assert (cost.packages, cost.served) == ("scikit-learn", "pickle")
        assert cost.megabytes == pytest.approx(size_of(served, tmp_path / name))


def test_histograms_of_gradients_need_scikit_image():
    pytest.importorskip("skimage")
    X, y = load_digits(return_X_y=True)
    X = X[:60].reshape(-1, 8, 8)
    fitted = rivals_of(X, model=None)["hog-svm"].fit(X, y[:60])
    assert deployment_cost(fitted, X).packages == "scikit-image, scikit-learn"


def test_a_probe_counts_the_weights_and_the_packages_of_its_model(texts, tmp_path):
    X, y = texts
    probe = make_pipeline(FoundationFeatureExtractor("minilm", verbose=1), LogisticRegression())
    probe.fit(X[:20], y[:20])
    served = deployed(probe)
    assert (served[0].cache, served[0].verbose) == (None, 0)
    assert probe[0].cache == "auto"
    cost = deployment_cost(probe, X)
    model, _ = probe[0].backbones_[0].loaded(torch.device("cpu"))
    expected = 4 * n_weights(model) / 1e6 + size_of(served, tmp_path / "probe")
    assert cost.megabytes == pytest.approx(expected, rel=1e-3)
    assert cost.megabytes > 90
    assert cost.packages == "scikit-learn, sentence-transformers, torch, transformers"


def test_a_model_in_the_pickle_counts_once(iris):
    X, y = iris
    module = torch.nn.Sequential(torch.nn.Linear(4, 100_000), torch.nn.Linear(100_000, 2))
    probe = make_pipeline(FoundationFeatureExtractor(module), LogisticRegression()).fit(X, y)
    cost = deployment_cost(probe, X)
    assert cost.megabytes == pytest.approx(4 * n_weights(module) / 1e6, rel=0.01)
    assert cost.packages == "scikit-learn, torch"


def test_a_tuned_model_counts_once(texts, encoder_directory):
    X, y = [text[:20] for text in texts[0]], texts[1]
    name = f"hf:{encoder_directory('bert')}"
    sizes = []
    for extractor in (
        FoundationFeatureExtractor(name),
        FineTunedFeatureExtractor(name, objective="linear", n_steps=2, random_state=0),
    ):
        probe = make_pipeline(extractor, LogisticRegression(max_iter=1000)).fit(X[:20], y[:20])
        cost = deployment_cost(probe, X[:30])
        assert cost.packages == "scikit-learn, torch, transformers"
        sizes.append(cost.megabytes)
    assert sizes[1] == pytest.approx(sizes[0], abs=0.04)


@pytest.mark.parametrize("nest", ["union", "columns", "voting"])
def test_the_foundation_model_runs_for_every_row(texts, nest):
    X, y = texts
    n_run = 0

    def counted(rows):
        nonlocal n_run
        n_run += len(rows)
        return shapes_of(rows)

    extractor = FoundationFeatureExtractor(counted)
    if nest == "union":
        pipeline = make_pipeline(FeatureUnion([("one", extractor)]), LogisticRegression())
    elif nest == "columns":
        columns = ColumnTransformer([("one", extractor, "text")])
        pipeline, X = make_pipeline(columns, LogisticRegression()), pd.DataFrame({"text": X})
    else:
        other = make_pipeline(TfidfVectorizer(), LogisticRegression())
        probe = make_pipeline(extractor, LogisticRegression())
        pipeline = VotingClassifier([("one", probe), ("two", other)])
    pipeline.fit(X, y)
    pipeline.predict(X)
    assert n_run == 300  # all are in the store now
    cost = deployment_cost(pipeline, X)
    assert n_run >= 300 + 5 * 50 + 2 * 256
    assert cost.packages == "scikit-learn"
    n_run = 0
    pipeline.predict(X)
    assert n_run == 0  # the estimator itself is not changed


def test_few_rows_are_not_repeated_for_a_foundation_model(texts):
    X, y = texts
    sizes = []

    def counted(rows):
        sizes.append(len(rows))
        return shapes_of(rows)

    probe = make_pipeline(FoundationFeatureExtractor(counted), LogisticRegression())
    probe.fit(X[:40], y[:40])
    sizes.clear()
    deployment_cost(probe, X[40:70])
    assert set(sizes) == {1, 30}


def test_a_slow_estimator_is_measured_in_a_few_seconds(iris):
    X, y = iris
    start = time.perf_counter()
    cost = deployment_cost(Slow().fit(X, y), X)
    assert time.perf_counter() - start < 6
    assert cost.ms_per_row == pytest.approx(20, rel=0.5)
    assert cost.ms_per_row_of_256 == pytest.approx(20, rel=0.5)


def test_an_estimator_that_cannot_be_pickled_has_no_size(iris):
    X, y = iris
    pipeline = make_pipeline(FunctionTransformer(lambda X: X), LogisticRegression(max_iter=1000))
    cost = deployment_cost(pipeline.fit(X, y), X)
    assert np.isnan(cost.megabytes)
    assert cost.ms_per_row > 0
    assert cost.packages == "scikit-learn"


def test_nothing_is_printed(texts, capfd):
    X, y = texts
    probe = make_pipeline(FoundationFeatureExtractor(shapes_of, verbose=1), LogisticRegression())
    student = AFTClassifier(**STUDENT, verbose=0)
    for estimator in (probe.fit(X, y), student.fit(X, y)):
        capfd.readouterr()
        deployment_cost(estimator, X)
        assert capfd.readouterr() == ("", "")
