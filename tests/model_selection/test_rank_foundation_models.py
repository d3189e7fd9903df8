import shutil
import sys
import time

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sk_aft import FineTunedFeatureExtractor, TeacherPredictions
from sk_aft.backbones import CallableBackbone
from sk_aft.metrics import logme_score
from sk_aft.model_selection import rank_foundation_models

COLUMNS = ["model", "logme", "score", "standard_error", "n_features", "rows_per_second", "licence"]


def petals(X):
    return X[:, 2:]


def sepals(X):
    return X[:, :2]


def len_of(texts):
    return np.array([[len(text)] for text in texts])


def nothing(X):
    return np.ones((len(X), 1))


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


def test_the_model_whose_probe_is_best_comes_first(iris):
    X, y = iris
    ranking = rank_foundation_models([nothing, sepals, petals], X, y)
    assert ranking.columns.tolist() == COLUMNS
    assert ranking["model"].tolist() == ["petals", "sepals", "nothing"]
    assert ranking.index.tolist() == [0, 1, 2]
    assert ranking["n_features"].tolist() == [2, 2, 1]
    assert (ranking["rows_per_second"] > 0).all()
    np.testing.assert_allclose(ranking["logme"][0], logme_score(X[:, 2:], y), rtol=1e-4)
    assert ranking["logme"].idxmin() == 2


def test_the_probe_is_a_logistic_regression_of_standardised_features(iris):
    X, y = iris
    folds = StratifiedKFold(4, shuffle=True, random_state=1)
    (row,) = rank_foundation_models([sepals], X, y, cv=folds).to_dict("records")
    scores = [
        cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(C=C)), X[:, :2], y, cv=folds
        )
        for C in (1e-4, 1e-3, 1e-2, 1e-1, 1, 10)
    ]
    pairs = [(s.mean(), s.std(ddof=1) / 2) for s in scores]
    assert any((row["score"], row["standard_error"]) == pytest.approx(pair) for pair in pairs)
    assert row["score"] > 0.75


def test_numbers_are_scored_by_a_ridge_regression():
    X, y = load_diabetes(return_X_y=True)
    (row,) = rank_foundation_models([sepals], X, y, task="regression").to_dict("records")
    probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 8)))
    scores = cross_val_score(probe, X[:, :2], y)
    assert row["score"] == pytest.approx(scores.mean(), abs=1e-3)
    assert row["standard_error"] == pytest.approx(scores.std(ddof=1) / 5**0.5, abs=1e-3)
    assert row["logme"] == pytest.approx(logme_score(X[:, :2], y, task="regression"), rel=1e-4)


def test_several_targets_are_scored_together():
    X, _ = load_iris(return_X_y=True)
    (row,) = rank_foundation_models([petals], X, X[:, 2:] @ [[1.5, 2], [0.5, 1]]).to_dict("records")
    assert row["score"] > 0.9


def test_speed_is_measured_although_features_are_stored(iris):
    X, y = iris
    n_rows = 0

    def slow(X):
        nonlocal n_rows
        n_rows += len(X)
        time.sleep(0.001 * len(X))
        return X

    backbone = CallableBackbone(slow, fingerprint="slow")
    first = rank_foundation_models([backbone], X, y)
    n_rows = 0
    second = rank_foundation_models([backbone], X, y)
    assert 0 < n_rows < 500  # timed, but not all embedded again
    for ranking in (first, second):
        assert 200 < ranking["rows_per_second"][0] <= 1000


def test_models_may_be_combined_and_have_the_same_name(iris):
    X, y = iris
    ranking = rank_foundation_models([[sepals, petals], petals, petals], X, y)
    assert set(ranking["model"]) == {"sepals+petals", "petals", "petals-2"}
    assert ranking.set_index("model")["n_features"]["sepals+petals"] == 4


def test_a_class_that_the_other_folds_lack_is_not_recognised():
    X, y = load_iris(return_X_y=True)
    y = y.copy()
    y[-1] = 3
    with pytest.warns(UserWarning, match="least populated class"):
        (row,) = rank_foundation_models([petals], X, y).to_dict("records")
    assert row["score"] < 0.97


def test_predictors_are_ranked_by_what_they_predict_out_of_fold(iris):
    X, y = iris
    noise = np.random.RandomState(0).permutation(y)
    memory = TeacherPredictions(DecisionTreeClassifier(random_state=0))
    useful = rank_foundation_models([sepals, memory], X, y).set_index("model")
    assert useful.loc["decisiontreeclassifier", "score"] > useful.loc["sepals", "score"]
    assert useful.loc["decisiontreeclassifier", "n_features"] == 0
    assert useful["rows_per_second"].min() > 0
    (useless,) = rank_foundation_models([memory], X, noise).to_dict("records")
    assert useless["score"] < 0.5
    bayes = GaussianNB().fit(X, y)
    with pytest.warns(UserWarning, match="may have seen the rows"):
        ranking = rank_foundation_models([bayes, [memory, bayes]], X, y)
    assert set(ranking["model"]) == {"gaussiannb", "decisiontreeclassifier+gaussiannb"}
    with pytest.raises(ValueError, match=r"features and predictors, .*sepals.*DecisionTree"):
        rank_foundation_models([[sepals, memory]], X, y)
    numbers = [TeacherPredictions(Ridge())]
    (row,) = rank_foundation_models(numbers, X[:, 1:], X[:, 0]).to_dict("records")
    assert row["score"] > 0.3
    with pytest.raises(ValueError, match="y holds numbers, and a model"):
        rank_foundation_models([TeacherPredictions(bayes, cv="prefit")], X, X[:, 0])


def test_rows_without_a_label_are_left_out(iris):
    X, y = iris
    marked = np.where(np.arange(150) % 3, y, "?")
    known = marked != "?"
    memory = TeacherPredictions(DecisionTreeClassifier(random_state=0), missing_label="?")
    some = rank_foundation_models([petals, memory], X, marked, missing_label="?")
    plain = rank_foundation_models([petals, memory], X[known], y[known])
    assert some["score"].tolist() == plain["score"].tolist()


def test_licences_are_shown_where_files_say_them(encoder_directory, tmp_path):
    directory = shutil.copytree(encoder_directory("bert"), tmp_path / "model")
    (directory / "README.md").write_text("---\nlicense: mit\n---\nA model.\n")
    texts = [f"{word} card" for word in ("lost", "stolen", "old", "new")] * 3
    models = [f"hf:{directory}", "minilm", [f"hf:{directory}", len_of]]
    ranking = rank_foundation_models(models, texts, [0, 0, 1, 1] * 3, cv=2).set_index("model")
    assert ranking["licence"].dropna().to_dict() == {"model": "mit", "minilm": "apache-2.0"}
    assert ranking["licence"].isna()["model+len_of"]


def test_bad_arguments_are_explained(iris):
    X, y = iris
    for models in ("minilm", []):
        with pytest.raises(ValueError, match="expected a list of foundation models"):
            rank_foundation_models(models, X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        rank_foundation_models([petals], X, y[1:])
    with pytest.raises(ValueError, match="one class"):
        rank_foundation_models([petals], X, ["a"] * len(X))
    with pytest.raises(ValueError, match="expected one of"):
        rank_foundation_models([petals], X, y, task="ranking")


def test_without_pandas_the_command_that_installs_it_is_named(iris, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        rank_foundation_models([petals], *iris)


def test_a_fine_tuned_model_is_scored_on_rows_that_it_has_not_seen(encoder_directory, tmp_path):
    model = f"hf:{encoder_directory('bert')}"
    words = ["lost", "stolen", "was", "card", "rate", "euro", "exchange", "what", "is", "the"]
    texts = [f"{one} {other}" for one in words for other in words[:6] if one != other][:48]
    noise = np.random.RandomState(0).permutation(np.arange(48) % 2)
    tuned = FineTunedFeatureExtractor(
        model, objective="linear", n_steps=60, lr=3e-3, cache=tmp_path / "store"
    )
    ranking = rank_foundation_models([model, tuned], texts, noise, cv=2, cache=tmp_path / "store")
    own = ranking.set_index("model").filter(like="-tuned", axis=0).iloc[0]
    assert own["score"] < 0.7  # chance is 0.5, the standard error 0.07
    assert np.isnan(own["logme"])
    assert own["score"] == pytest.approx(
        np.mean(tuned.fit_transform(texts, noise).soft_targets.argmax(axis=1) == noise), abs=1e-6
    )
