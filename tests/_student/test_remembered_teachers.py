"""A fit does not train the teachers of an earlier fit again, and finds the same as without."""

import copy
import functools

import joblib
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft.model_selection import LabeledFold
from sk_aft.store import FeatureStore
from sk_aft.transfer import _probe
from sk_aft.transfer._teacher_memory import forget_teachers

WORDS = [["card", "lost", "stolen"], ["rate", "euro", "exchange"], ["why", "app", "login"]]


def make_rows(n_rows=90, seed=0):
    """Return texts, labels that two thirds lack, features and weights."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) % 3
    everything = [word for words in WORDS for word in words]
    texts = np.array(
        [" ".join([*rng.choice(WORDS[label], 2), *rng.choice(everything, 3)]) for label in y],
        dtype=object,
    )
    features = rng.normal(size=(n_rows, 12)).astype(np.float32) + 1.5 * np.eye(3, 12)[y]
    marked = np.where(np.arange(n_rows) < n_rows // 2, y, -1)
    return {
        "X": texts,
        "y": marked,
        "features": features.astype(np.float32),
        "sample_weight": rng.uniform(0.5, 2, size=n_rows),
    }


def student(**parameters):
    settings = {"missing_label": -1, "max_epochs": 3, "random_state": 0, "verbose": 0}
    return AFTClassifier(**{**settings, **parameters})


def found(estimator, X):
    """Return all that a fit finds."""
    weights = {} if estimator.transfer_ is None else vars(estimator.transfer_)
    names = ("teacher_weights", "teacher_score", "_strength")
    return {
        "probabilities": estimator.predict_proba(X),
        **{name: weights[name] for name in names if name in weights},
    }


def assert_equal(some, others):
    np.testing.assert_equal(some, others)


@pytest.fixture(autouse=True)
def empty():
    forget_teachers()
    yield
    forget_teachers()


@pytest.fixture
def trained(monkeypatch):
    """The number of columns of each probe that was trained."""
    widths = []
    train = _probe._train

    @functools.wraps(train)
    def counted(columns, *arguments):
        widths.append(columns.shape[1])
        return train(columns, *arguments)

    monkeypatch.setattr(_probe, "_train", counted)
    return widths


@pytest.mark.parametrize(
    "parameters",
    [
        {"beta": 5},
        {"lr": 0.01},
        {"max_epochs": 2},
        {"module__width": 16},
        {"unlabeled_fraction": 0.7},
        {"mixup": 0.0, "batch_size": 16},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
def test_teachers_are_not_trained_again_by_another(parameters, trained):
    rows = make_rows()
    changed = found(student(**parameters).fit(**rows), rows["X"])
    forget_teachers()
    student().fit(**rows)
    assert len(trained) == 4  # of the features and of the texts, twice
    again = found(student(**parameters).fit(**rows), rows["X"])
    assert len(trained) == 4
    assert_equal(again, changed)


def with_other_label(rows):
    rows["y"][0] = (rows["y"][0] + 1) % 3


def with_fewer_labels(rows):
    rows["y"][40] = -1


def with_other_classes(rows):
    rows["y"][:6] = 3


def with_other_weight(rows):
    rows["sample_weight"][1] = 3


def with_other_features(rows):
    rows["features"][0, 0] += 0.5


def with_other_features_of_a_row_without_label(rows):
    rows["features"][-1] += 2


def with_other_texts(rows):
    rows["X"][:5] = "why why rate"


def with_other_fold(rows):
    rows.update({name: values[9:] for name, values in rows.items()})


@pytest.mark.parametrize(
    "change",
    [
        with_other_label,
        with_fewer_labels,
        with_other_classes,
        with_other_weight,
        with_other_features,
        with_other_features_of_a_row_without_label,
        with_other_texts,
        with_other_fold,
    ],
)
def test_other_rows_have_other_teachers(change):
    rows = make_rows()
    others = copy.deepcopy(rows)
    change(others)
    expected = found(student(beta=3).fit(**others), rows["X"])
    forget_teachers()
    former = found(student(beta=3).fit(**rows), rows["X"])
    assert_equal(found(student(beta=3).fit(**others), rows["X"]), expected)
    assert_equal(found(student(beta=3).fit(**rows), rows["X"]), former)
    with pytest.raises(AssertionError):
        assert_equal(former, expected)


@pytest.mark.parametrize(
    "parameters",
    [
        {"random_state": 1},
        {"transfer": "probe-kd"},
        {"transfer": "probe-kd", "transfer__temperature": 3.0},
        {"transfer": [("pooled-kd", 1), ("aft-fixed", 1)]},
        {"transfer": "aft-fixed"},
    ],
)
def test_another_seed_or_transfer_learns_what_it_would_alone(parameters):
    rows = make_rows()
    expected = found(student(**parameters).fit(**rows), rows["X"])
    forget_teachers()
    former = found(student().fit(**rows), rows["X"])
    again = found(student(**parameters).fit(**rows), rows["X"])
    assert_equal(again, expected)
    assert not np.array_equal(again["probabilities"], former["probabilities"])


def test_soft_targets_are_one_more_teacher(trained):
    rows = make_rows()
    student(transfer="pooled-kd").fit(**rows)
    rows["soft_targets"] = np.random.default_rng(0).dirichlet(np.ones(3), size=90)
    again = found(student(transfer="pooled-kd").fit(**rows), rows["X"])
    assert len(trained) == 2
    forget_teachers()
    assert_equal(found(student(transfer="pooled-kd").fit(**rows), rows["X"]), again)
    assert "soft targets" in again["teacher_weights"]


def test_more_classes_than_labels_show_are_another_result():
    rows = make_rows()
    expected = found(student().partial_fit(**rows, classes=[0, 1, 2, 3]), rows["X"])
    forget_teachers()
    student().partial_fit(**rows, classes=[0, 1, 2])
    again = found(student().partial_fit(**rows, classes=[0, 1, 2, 3]), rows["X"])
    assert again["probabilities"].shape == (90, 4)
    assert_equal(again, expected)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_that_resumes_is_unaffected(method):
    rows = make_rows()
    half = {name: values[:60] for name, values in rows.items()}

    def twice(*, remembers):
        own = student(warm_start=method == "fit")
        for piece in (rows, half, rows):
            classes = {"classes": [0, 1, 2]} if method == "partial_fit" else {}
            getattr(own, method)(**piece, **classes)
            if not remembers:
                forget_teachers()
        return found(own, rows["X"])

    expected = twice(remembers=False)
    for _ in range(2):
        assert_equal(twice(remembers=True), expected)


def test_numbers_are_remembered_too(trained):
    rows = make_rows()
    rows["y"] = np.where(np.arange(90) < 45, rows["features"][:, 0] + 1, np.nan)

    def predictions(**parameters):
        own = AFTRegressor(missing_label=np.nan, max_epochs=3, random_state=0, **parameters)
        own.fit(**rows)
        return own.predict(rows["X"]), own.transfer_.teacher_weights

    expected = predictions(beta=3)
    forget_teachers()
    predictions(beta=1)
    assert len(trained) == 4
    assert_equal(predictions(beta=3), expected)
    assert len(trained) == 4


def extracting(tmp_path, **parameters):
    """Return a pipeline from texts to a student, whose features are in a store."""
    texts = make_rows()["X"]
    model = make_pipeline(TfidfVectorizer(), PCA(5)).fit(texts)
    extractor = FoundationFeatureExtractor(model, cache=FeatureStore(tmp_path))
    return make_pipeline(extractor, student(**parameters))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_finds_the_same(n_jobs, tmp_path, trained):
    rows = make_rows()
    X, y = rows["X"], rows["y"]
    betas, folds = [0.1, 1, 10], list(LabeledFold(3, missing_label=-1).split(X, y))
    expected = []
    for beta in betas:
        for train, test in folds:
            pipe = extracting(tmp_path).set_params(aftclassifier__beta=beta)
            expected.append(pipe.fit(X[train], y[train]).score(X[test], y[test]))
            forget_teachers()
    trained.clear()
    grid = {"aftclassifier__beta": betas}
    search = GridSearchCV(extracting(tmp_path), grid, cv=folds, n_jobs=n_jobs).fit(X, y)
    results = search.cv_results_
    scores = np.column_stack([results[f"split{fold}_test_score"] for fold in range(3)])
    np.testing.assert_array_equal(scores.ravel(), expected)
    if n_jobs == 1:
        assert len(trained) == 4 * 2  # three folds, and the refit
    forget_teachers()
    best = extracting(tmp_path).set_params(**search.best_params_).fit(X, y)
    np.testing.assert_array_equal(search.predict_proba(X), best.predict_proba(X))


def test_students_of_several_threads_are_those_of_one():
    rows = make_rows()
    betas = [0.1, 1, 3, 10]
    expected = []
    for beta in betas:
        forget_teachers()
        expected.append(found(student(beta=beta).fit(**rows), rows["X"]))
    forget_teachers()
    fits = (joblib.delayed(student(beta=beta).fit)(**rows) for beta in betas)
    for fitted, alone in zip(joblib.Parallel(2, "threading")(fits), expected, strict=True):
        assert_equal(found(fitted, rows["X"]), alone)


def test_what_teaches_is_printed_each_time(capsys):
    rows = make_rows()
    lines = []
    for _ in range(2):
        student(verbose=1).fit(**rows)
        lines.append([line for line in capsys.readouterr().out.splitlines() if "Taught" in line])
    assert lines[0] == lines[1]
    assert len(lines[0]) == 1


def test_training_does_not_change_what_is_remembered(trained):
    rows = make_rows()
    first = found(student(lr=0.5, max_epochs=20).fit(**rows), rows["X"])
    student().fit(**rows)
    assert_equal(found(student(lr=0.5, max_epochs=20).fit(**rows), rows["X"]), first)
    assert len(trained) == 2
