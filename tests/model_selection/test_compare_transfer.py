import functools
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.datasets import load_banking77
from sk_aft.model_selection import TransferComparison, compare_transfer
from sk_aft.store import FeatureStore
from sk_aft.transfer import _probe

FEW = ["linear", "student-alone", "student"]
COLUMNS = [
    "title",
    "role",
    "score",
    "standard_error",
    "gain",
    "gain_standard_error",
    "fit_seconds",
    "megabytes",
    "ms_per_row",
    "ms_per_row_of_256",
    "packages",
]


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SK_AFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def intents(n_classes=3, labels_per_class=8):
    texts, labels = load_banking77(labels_per_class=labels_per_class, return_X_y=True)
    kept = np.isin(labels, np.unique(labels)[:n_classes])
    return [text for text, keep in zip(texts, kept, strict=True) if keep], np.array(labels)[kept]


@pytest.fixture(scope="module")
def of_iris(iris):
    return compare_transfer(*iris, cv=3, verbose=0)


def test_a_table_of_numbers_is_compared_with_what_fits_it(of_iris):
    table = of_iris.frame()
    assert set(table.index) == {
        "boosting",
        "linear",
        "mlp",
        "student-alone",
        "student",
        "student-of-tuned",
    }
    assert list(table.columns) == COLUMNS
    assert table.index.name == "candidate"
    assert (table["score"] > 0.85).all()
    assert table["score"].is_monotonic_decreasing
    assert (table[["fit_seconds", "megabytes", "ms_per_row", "ms_per_row_of_256"]] > 0).all(
        axis=None
    )
    assert table.loc["student-alone", "gain"] == 0


def test_gains_are_paired_differences_to_the_student_alone(of_iris):
    gains = of_iris.scores_["student"] - of_iris.scores_["student-alone"]
    line = of_iris.frame().loc["student"]
    assert line["gain"] == pytest.approx(gains.mean())
    assert line["gain_standard_error"] == pytest.approx(gains.std(ddof=1) / np.sqrt(3))


def test_the_best_estimator_is_fitted_to_all_rows(of_iris, iris):
    X, y = iris
    assert of_iris.best_name_ in of_iris.frame().index
    assert of_iris.best_estimator_.score(X, y) > 0.9


def test_the_summary_has_three_sentences(of_iris):
    lines = of_iris.summary().split("\n")
    assert len(lines) == 3
    assert lines[0].startswith("Transfer ")
    assert lines[1].startswith(("Deploy ", "Do not distil: deploy "))
    assert "would" in lines[2]


def test_html_shows_summary_table_and_plot(of_iris, tmp_path):
    html = of_iris._repr_html_()
    assert html.count("<tr") == 1 + len(of_iris.frame())
    assert "<svg" in html
    assert "Transfer " in html
    page = of_iris.to_html(tmp_path / "report.html", title="Iris & co")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert "<title>Iris &amp; co</title>" in page
    assert not re.findall(r'(?:src|href)="http|@import|<script', page)


def test_a_second_call_reads_the_scores_and_fits_nothing_but_the_best(iris, monkeypatch, own_cache):
    arguments = {"candidates": FEW, "cv": 3, "verbose": 0, "random_state": 1}
    first = compare_transfer(*iris, **arguments)
    fitted = []
    fit = AFTClassifier.fit

    def counted(self, *args, **kwargs):
        fitted.append(self)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(AFTClassifier, "fit", counted)
    second = compare_transfer(*iris, **arguments)
    assert len(fitted) <= 1
    pd.testing.assert_frame_equal(first.frame(), second.frame())


def test_other_rows_labels_or_folds_are_scored_anew(iris):
    X, y = iris
    arguments = {"candidates": ["linear"], "cv": 2, "verbose": 0}
    first = compare_transfer(X, y, **arguments).scores_["linear"]
    noise = np.random.RandomState(0).permutation(y)
    assert compare_transfer(X, noise, **arguments).scores_["linear"].mean() < first.mean() - 0.3
    assert len(compare_transfer(X, y, **{**arguments, "cv": 4}).scores_["linear"]) == 4


def test_own_estimators_take_part_by_name(iris):
    comparison = compare_transfer(
        *iris, candidates=["linear", ("forest", RandomForestClassifier(10))], cv=2, verbose=0
    )
    table = comparison.frame()
    assert set(table.index) == {"linear", "forest"}
    assert table.loc["forest", "role"] == "added"
    assert table["gain"].isna().all()
    assert "scikit-learn" in table.loc["forest", "packages"]


def test_a_dict_adds_estimators_to_the_automatic_ones(iris):
    X, y = iris
    comparison = compare_transfer(
        X[::3], y[::3], candidates={"mine": LogisticRegression()}, cv=2, models=None, verbose=0
    )
    assert set(comparison.frame().index) == {"boosting", "linear", "mlp", "mine"}


def test_an_estimator_that_cannot_be_pickled_takes_part_and_is_not_kept(iris, own_cache, tmp_path):
    pipeline = make_pipeline(
        FunctionTransformer(lambda X: X * 2), LogisticRegression(max_iter=1000)
    )
    for _ in range(2):
        comparison = compare_transfer(*iris, candidates=[("mine", pipeline)], cv=2, verbose=0)
        assert comparison.scores_["mine"].mean() > 0.9
    assert not list((tmp_path / "cache").rglob("output.pkl"))


def test_numbers_are_compared_by_r_squared():
    X, y = load_diabetes(return_X_y=True)
    comparison = compare_transfer(X[:150], y[:150], cv=2, candidates=FEW, verbose=0)
    table = comparison.frame()
    assert table.loc["linear", "score"] > 0.2
    assert "R²" in comparison.summary()


def test_integers_are_numbers_if_the_task_says_so():
    X, y = load_diabetes(return_X_y=True)
    y = y.astype(int)
    with pytest.raises(ValueError, match=r"looks continuous.*task='regression'"):
        compare_transfer(X, y, verbose=0)
    comparison = compare_transfer(
        X[:100], y[:100], task="regression", candidates=["linear"], cv=2, verbose=0
    )
    assert comparison.scores_["linear"].mean() > 0


def test_texts_without_labels_come_marked_or_apart(monkeypatch):
    texts, labels = intents()
    names = ["tf-idf", "probe", "pseudo-labels"]
    arguments = {"candidates": names, "cv": 2, "verbose": 0}
    apart = compare_transfer(texts[::2], labels[::2], X_unlabeled=texts[1::2], **arguments)
    marked = np.concatenate([labels[::2], np.full(len(texts) // 2, "?")])
    together = compare_transfer([*texts[::2], *texts[1::2]], marked, missing_label="?", **arguments)
    for name in names:
        np.testing.assert_array_equal(apart.scores_[name], together.scores_[name])
    assert set(apart.best_estimator_.predict(texts)) <= set(labels)


def test_a_model_that_no_candidate_reads_is_not_run(own_cache):
    texts, labels = intents()
    comparison = compare_transfer(texts, labels, candidates=["tf-idf"], cv=2, verbose=0)
    assert comparison.best_name_ == "tf-idf"
    assert not FeatureStore().stats()["models"]


def test_without_models_there_are_no_students(iris):
    comparison = compare_transfer(*iris, models=None, cv=2, verbose=0)
    assert set(comparison.scores_) == {"boosting", "linear", "mlp"}
    assert comparison.summary().split("\n")[-1] == "What would help most was not estimated."
    assert "Students have default settings" in comparison._repr_html_()


def test_texts_are_compared_with_students_and_rivals():
    texts, labels = intents()
    comparison = compare_transfer(
        texts[::2],
        labels[::2],
        X_unlabeled=texts[1::2],
        candidates=["tf-idf", "probe", "static-embeddings", "student-alone", "student"],
        cv=2,
        verbose=0,
    )
    table = comparison.frame()
    assert table.loc["student", "packages"] == "numpy, tokenizers"
    assert table.loc["probe", "role"] == "teacher"
    assert table.loc["probe", "megabytes"] > 20 * table.loc["student", "megabytes"]
    assert set(comparison.gains_) == {"labels", "unlabelled rows", "a better teacher"}
    assert comparison.best_name_ != "probe"


def test_a_frame_with_a_column_of_texts_is_compared():
    texts, labels = intents()
    frame = pd.DataFrame({"text": texts, "length": [len(text) for text in texts]})
    comparison = compare_transfer(frame, labels, candidates=["linear", "probe"], cv=2, verbose=0)
    assert (comparison.frame()["score"] > 0.6).all()


def test_a_time_budget_leaves_the_expensive_out(iris, capsys, own_cache):
    comparison = compare_transfer(*iris, cv=2, time_budget=1.0, verbose=1)
    assert {"student-alone", "student"} <= set(comparison.frame().index)
    assert "student-of-tuned" in comparison.left_out_
    assert "time_budget" in comparison.left_out_["student-of-tuned"]
    printed = capsys.readouterr().out
    assert "Expected time: about" in printed
    assert "Left out: student-of-tuned, expected to take" in printed
    assert "This is more than the time_budget of 1 s: candidates may be left out" in printed
    assert "not compared, for lack of time" in comparison.summary()
    assert "student-of-tuned" in comparison._repr_html_()


def test_several_processes_give_the_same_scores(iris, own_cache, tmp_path, monkeypatch):
    arguments = {"candidates": ["linear", "student-alone"], "cv": 3, "verbose": 0}
    one = compare_transfer(*iris, **arguments)
    monkeypatch.setenv("SK_AFT_CACHE", str(tmp_path / "another cache"))
    two = compare_transfer(*iris, n_jobs=2, **arguments)
    for name in arguments["candidates"]:
        np.testing.assert_array_equal(one.scores_[name], two.scores_[name])


def test_a_scorer_by_name_is_used(iris):
    comparison = compare_transfer(
        *iris, candidates=["linear"], scoring="neg_log_loss", cv=2, verbose=0
    )
    assert (comparison.scores_["linear"] < 0).all()


def test_a_regressor_can_be_added():
    X, y = load_diabetes(return_X_y=True)
    student = AFTRegressor(beta=0, max_epochs=5, random_state=0)
    comparison = compare_transfer(
        X[:100], y[:100], candidates=[("mine", student)], cv=KFold(2), verbose=0
    )
    assert list(comparison.frame().index) == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": [0] * 40}, "one class"),
        ({"y": np.arange(40)}, r"looks continuous"),
        ({"y": np.arange(40).astype(str)}, "like an identifier"),
        ({"y": [0, 1] * 19}, "40 rows and y has 38"),
        ({"y": [[0, 1]] * 40}, r"expected \(n_rows,\)"),
        ({"y": [0, 1] * 19 + [None, 0]}, "missing value"),
        ({"y": [0, 1, 2, -1] * 10}, r"missing_label=-1"),
        ({"y": [-1] * 40, "missing_label": -1}, "none has a label"),
        ({"y": [0, 1] + [-1] * 38, "missing_label": -1}, "cv=5"),
        ({"cv": 1}, "at least 2 folds"),
        ({"cv": 41}, "cv=41"),
        ({"candidates": ["lineer"]}, "Did you mean 'linear'"),
        ({"candidates": "all"}, "expected 'auto'"),
        ({"candidates": [LogisticRegression()]}, r"pair \(name, estimator\)"),
        ({"candidates": [("mine", LogisticRegression)]}, "expected an estimator"),
        ({"candidates": ["linear", "linear"]}, "Two candidates"),
        ({"candidates": ["tf-idf"]}, "no candidate 'tf-idf'"),
        ({"time_budget": 0}, "time_budget"),
        ({"task": "ranking"}, "task"),
        ({"scoring": "precise"}, "precise"),
        ({"scoring": "f1", "y": [0, 1, 2, 3] * 10}, "use f1_macro"),
        ({"scoring": "roc_auc", "y": [0, 1, 2, 3] * 10}, "cannot score"),
        ({"cv": PredefinedSplit([0, 1] * 20)}, "training rows of fold 0 are all of the class 1"),
        ({"cv": [(np.arange(30), np.arange(30, 41))]}, "indices count labelled rows only"),
        ({"candidates": [("mine", Ridge())]}, "does not predict classes"),
        ({"candidates": [("student", LogisticRegression())]}, "another name"),
        ({"candidates": [("mine", LinearSVC())], "scoring": "neg_log_loss"}, "no predict_proba"),
        ({"X": np.where(np.arange(160).reshape(40, 4) == 9, np.nan, 1.0)}, "row 2"),
        (
            {
                "X_unlabeled": np.zeros((3, 4)),
                "candidates": [("mine", AFTClassifier(missing_label=-1))],
            },
            "would learn the mark",
        ),
        ({"X_unlabeled": np.zeros((3, 5))}, "4 columns"),
        ({"task": "regression", "y": ["a", "b"] * 20}, "needs numbers"),
        ({"task": "classification", "y": np.linspace(0, 1, 40)}, "looks continuous"),
    ],
)
def test_bad_input_is_refused_before_any_work(arguments, message, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("something was fitted")

    monkeypatch.setattr(LogisticRegression, "fit", fail)
    monkeypatch.setattr(AFTClassifier, "fit", fail)
    given = {
        "X": np.random.RandomState(0).rand(40, 4),
        "y": [0, 1] * 20,
        "verbose": 0,
        **arguments,
    }
    with pytest.raises(ValueError, match=message):
        compare_transfer(given.pop("X"), given.pop("y"), **given)


def test_masks_are_folds(iris):
    X, y = iris
    first = np.arange(len(y)) % 2 == 0
    comparison = compare_transfer(
        X, y, candidates=["linear"], cv=[(first, ~first), (~first, first)], verbose=0
    )
    assert len(comparison.scores_["linear"]) == 2


def test_a_candidate_that_fails_is_named(iris):
    class Fails(LogisticRegression):
        def fit(self, X, y):
            raise RuntimeError("boom")

    with pytest.raises(ValueError, match="'mine' failed in fold 0: boom"):
        compare_transfer(*iris, candidates=[("mine", Fails())], cv=2, verbose=0)


def test_a_mark_that_marks_nothing_is_named(iris):
    with pytest.warns(UserWarning, match="missing_label=-7 marks no row"):
        compare_transfer(*iris, candidates=["linear"], missing_label=-7, cv=2, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        compare_transfer(*iris, candidates=["linear"], missing_label=np.nan, cv=2, verbose=0)


@pytest.mark.parametrize("counts", [(150, 8), (51, 51, 51), (58, 2)])
def test_rare_classes_and_few_rows_are_compared(counts, iris):
    rng = np.random.RandomState(0)
    y = np.repeat(np.arange(len(counts)), counts)
    X = rng.normal(size=(len(y), 3)) + y[:, None]
    comparison = compare_transfer(
        X, y, candidates=["linear", "student-alone", "student"], cv=2, verbose=0, random_state=2
    )
    assert set(comparison.scores_) == {"linear", "student-alone", "student"}


def test_the_time_of_a_fit_includes_its_teachers(tmp_path, monkeypatch):
    """Although an earlier comparison in this process trained the same ones."""
    texts, labels = intents()
    n_trained = []
    train = _probe._train

    @functools.wraps(train)
    def counted(*arguments):
        n_trained[-1] += 1
        return train(*arguments)

    monkeypatch.setattr(_probe, "_train", counted)
    for name in ("first", "second"):
        monkeypatch.setenv("SK_AFT_CACHE", str(tmp_path / name))
        n_trained.append(0)
        compare_transfer(texts, labels, candidates=["student"], cv=2, verbose=0)
    assert n_trained[0] == n_trained[1] > 0


def test_a_changed_picture_is_scored_anew(tmp_path, own_cache):
    rng = np.random.RandomState(0)
    bright = [rng.randint(200 * (i % 2), 56 + 200 * (i % 2), (16, 16)) for i in range(24)]
    labels, paths = np.arange(24) % 2, [str(tmp_path / f"{i}.png") for i in range(24)]

    def score(images):
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image.astype(np.uint8)).save(path)
        arguments = {"candidates": ["hog-svm"], "cv": 2, "verbose": 0, "models": None}
        return compare_transfer(paths, labels, **arguments).frame()["fit_seconds"].iloc[0]

    first = score(bright)
    assert score(bright) == first  # read from the cache
    assert score(bright[::-1]) != first


def test_rare_classes_are_named(iris):
    X, y = iris
    kept = np.arange(102)
    with pytest.warns(UserWarning, match="A class has fewer labelled rows"):
        compare_transfer(X[kept], y[kept], candidates=["linear"], cv=3, verbose=0)


def test_an_interrupted_comparison_resumes(tmp_path):
    """A process that is killed leaves the fits that were done."""
    script = tmp_path / "compare.py"
    script.write_text(
        "import sys\n"
        "from sklearn.datasets import load_iris\n"
        "from sk_aft import AFTClassifier\n"
        "from sk_aft.model_selection import compare_transfer\n"
        "import os\n"
        "fit, calls = AFTClassifier.fit, []\n"
        "def counted(self, *args, **kwargs):\n"
        "    calls.append(1)\n"
        "    if len(calls) == int(sys.argv[1]):\n"
        "        os._exit(9)\n"
        "    return fit(self, *args, **kwargs)\n"
        "AFTClassifier.fit = counted\n"
        "X, y = load_iris(return_X_y=True)\n"
        "compare_transfer(X, y, candidates=['student-alone'], cv=4, verbose=0)\n"
        "print(len(calls))\n"
    )
    environment = {**os.environ, "SK_AFT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(script)]
    # The first fit is that of the estimate, and the last that of the best on all rows.
    killed = subprocess.run([*command, "4"], env=environment, check=False)
    assert killed.returncode == 9
    done = subprocess.run(
        [*command, "99"], env=environment, check=True, capture_output=True, text=True
    )
    assert int(done.stdout) == 1 + 2 + 1


def test_a_comparison_has_a_short_repr(of_iris):
    assert isinstance(of_iris, TransferComparison)
    assert "6 candidates on 3 folds of 150 labelled rows" in repr(of_iris)
