import io
import pickle
import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from sk_aft import TeacherPredictions
from sk_aft._data._rows import as_rows
from sk_aft.datasets import load_banking77
from sk_aft.model_selection._comparison._inner_search import InnerSearch, inner_folds
from sk_aft.model_selection._comparison._pseudo_labels import PseudoLabels
from sk_aft.model_selection._comparison._rivals import left_out, rivals
from sk_aft.model_selection._comparison._static_embeddings import StaticEmbeddings

LETTERS = "abcdefghijklmnopqrstuvwxyz"
KINDS_OF_MARKS = {
    "a number": (lambda names: np.unique(names, return_inverse=True)[1], -1),
    "a text": (lambda names: names, ""),
    "NaN among texts": (lambda names: names.astype(object), np.nan),
}


def count_letters(texts):
    return np.array([[text.lower().count(letter) for letter in LETTERS] for text in texts])


def made(X, task="classification", model=None, n_labeled=100, n_smallest_class=10, **parameters):
    sizes = {"n_labeled": n_labeled, "n_smallest_class": n_smallest_class, "random_state": 0}
    found = rivals(as_rows(X, frames=True), task, model, **sizes, **parameters)
    return {candidate.name: candidate for candidate in found}


@pytest.fixture(scope="module")
def intents():
    """Texts of 6 intents in a random order, and their names."""
    texts, names = load_banking77(return_X_y=True)
    names = np.array(names)
    rows = np.flatnonzero(np.isin(names, np.unique(names)[:6]))
    rows = np.random.default_rng(0).permutation(rows)[:600]
    return np.array(texts, dtype=object)[rows], names[rows]


@pytest.fixture(scope="module")
def table():
    """Numbers and categories, some of them missing, and a number to predict."""
    frame, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    frame["sex"] = np.where(frame["sex"] == 1, "f", "m")
    frame["sex"] = frame["sex"].astype("category")
    frame["age"] = frame["age"].astype("Int64")
    frame.loc[::9, ["age", "bmi"]] = pd.NA
    frame.loc[::11, "sex"] = None
    return frame, y.to_numpy()


def test_texts_have_their_rivals(intents):
    texts, _ = intents
    assert list(made(texts)) == ["tf-idf"]
    assert list(made(texts, model="minilm")) == ["tf-idf", "static-embeddings", "probe"]
    found = made(list(texts), model="minilm", has_unlabeled=True, missing_label=-1)
    roles = {name: candidate.role for name, candidate in found.items()}
    assert roles == {
        "tf-idf": "rival",
        "static-embeddings": "rival",
        "pseudo-labels": "rival",
        "probe": "teacher",
    }
    assert [name for name, one in found.items() if one.reads_unlabeled] == ["pseudo-labels"]
    assert found["tf-idf"].title == "TF-IDF + logistic regression"
    assert made(texts, "regression")["tf-idf"].title == "TF-IDF + ridge regression"


def test_tables_and_images_have_their_rivals(table, photographs):
    frame, _ = table
    for rows in (frame, load_iris().data, frame["sex"]):
        assert list(made(rows)) == ["boosting", "linear", "mlp"]
    mixed = frame.assign(note="fine", more="good")
    assert list(made(mixed)) == ["boosting", "linear"]
    assert list(made(mixed[["note", "more"]])) == ["linear"]
    assert list(made(mixed[["note", "more"]], model={"note": "minilm"})) == ["linear", "probe"]
    assert list(made(mixed[["note"]])) == ["tf-idf"]
    assert "probe" in made(photographs, model="effnet-lite0")


def test_a_model_that_only_predicts_has_no_probe(intents):
    texts, _ = intents
    teacher = TeacherPredictions(make_pipeline(LogisticRegression()))
    assert list(made(texts, model=teacher)) == ["tf-idf"]
    assert list(made(texts, model=["minilm", teacher]))[-1] == "probe"
    assert made(texts, model=["minilm", teacher])["probe"].estimator[0].model == ["minilm"]


def test_what_is_left_out_has_a_reason(intents, photographs, monkeypatch):
    texts, _ = intents
    rows = as_rows(texts)
    assert set(left_out(rows, "classification")) == {"probe", "static-embeddings", "pseudo-labels"}
    assert left_out(rows, "classification", "minilm", has_unlabeled=True) == {}
    reasons = left_out(rows, "classification", "minilm")
    assert reasons == {"pseudo-labels": "there are no rows without a label"}
    monkeypatch.setitem(sys.modules, "skimage", None)
    reasons = left_out(as_rows(photographs), "classification", "effnet-lite0")
    assert reasons == {"hog-svm": "scikit-image is not installed: pip install scikit-image"}
    assert list(made(photographs, model="effnet-lite0")) == ["probe"]
    frame = pd.DataFrame({"photo": ["a.png", "b.png"], "other": ["c.png", "d.png"]})
    assert "linear" in left_out(as_rows(frame, frames=True), "classification")


def test_rivals_of_texts_learn(intents):
    texts, names = intents
    found = made(texts, model="minilm")
    for candidate in found.values():
        fitted = clone(candidate.estimator).fit(texts[:90], names[:90])
        assert fitted.score(texts[300:400], names[300:400]) > 0.75
        assert is_classifier(fitted)
        assert fitted.classes_.tolist() == sorted(set(names))
        probabilities = fitted.predict_proba(list(texts[300:305]))
        assert probabilities.shape == (5, 6)
        assert set(fitted[-1].best_params_) == {"C"}


def test_rivals_of_texts_predict_numbers(intents):
    texts, _ = intents
    n_letters = np.array([len(text) for text in texts], dtype=float)
    found = made(texts, "regression", count_letters, has_unlabeled=True, missing_label=np.nan)
    y = np.where(np.arange(300) < 150, n_letters[:300], np.nan)
    for name, candidate in found.items():
        n_rows = 300 if candidate.reads_unlabeled else 150
        fitted = clone(candidate.estimator).fit(texts[:n_rows], y[:n_rows])
        assert fitted.score(texts[300:], n_letters[300:]) > 0.3, name
        assert not hasattr(fitted, "predict_proba")


def test_pseudo_labels_teach_of_rows_without_a_label(intents):
    texts, names = intents
    test = slice(300, None)
    for as_kind, mark in KINDS_OF_MARKS.values():
        labels = as_kind(names)
        y = labels.copy()
        y[30:150] = mark
        found = made(texts, model=["minilm"], has_unlabeled=True, missing_label=mark)
        taught = clone(found["pseudo-labels"].estimator).fit(texts[:150], y[:150])
        alone = clone(found["tf-idf"].estimator).fit(texts[:30], labels[:30])
        assert taught.score(texts[test], labels[test]) > alone.score(texts[test], labels[test])
        assert taught.classes_.tolist() == sorted(set(labels.tolist()))
        again = pickle.loads(pickle.dumps(taught))
        assert (again.predict(texts[test]) == taught.predict(texts[test])).all()


def test_pseudo_labels_without_unlabelled_rows_are_the_model_alone(intents):
    texts, names = intents
    found = made(texts, model=count_letters, has_unlabeled=True, missing_label="")
    taught = found["pseudo-labels"].estimator[0]
    assert isinstance(taught, PseudoLabels)
    both = clone(taught).fit(texts[:90], names[:90])
    alone = clone(taught.model).fit(texts[:90], names[:90])
    assert both.best_params_ == alone[-1].best_params_
    assert (both.predict(texts) == alone.predict(texts)).all()


def test_the_labeler_does_not_know_the_labels_that_choose():
    rows = np.arange(40.0)[:, None]
    y = np.tile([0, 1], 20)
    unlabeled = np.full(40, -1)
    memory = InnerSearch(SVC(gamma=1e4), {"C": [1e3]}, 0)  # knows its own rows, and nothing else
    learner = InnerSearch(SVC(gamma=1e4), {"C": [1e-6, 1e3]}, 0)
    # The unlabelled rows are the labelled ones: a labeler of all labels would tell held-out ones.
    taught = PseudoLabels(
        make_pipeline("passthrough", memory), make_pipeline("passthrough", learner), -1
    )
    taught.fit(np.vstack([rows, rows]), np.append(y, unlabeled))
    assert taught.score(rows, y) == 1
    assert taught.best_params_ == {"C": 1e-6}  # no value helps, and the first one wins


def test_static_embeddings_need_no_foundation_model_to_predict():
    asked = []

    def remembered(texts):
        asked.extend(texts)
        return count_letters(texts)

    texts = np.array(["a card", "a rate", "no card"], dtype=object)
    static = StaticEmbeddings(remembered).fit(texts)
    assert sorted(set(asked)) == ["a", "card", "no", "rate"]
    asked.clear()
    vectors = static.transform(np.array(["card", "CARD card", "unknown"], dtype=object))
    assert asked == []
    expected = count_letters(["card"])[0] / 2
    np.testing.assert_allclose(vectors, [expected, expected, 0 * expected], atol=1e-6)
    # A closure cannot be pickled, so the pickle does not hold it.
    again = pickle.loads(pickle.dumps(static))
    np.testing.assert_array_equal(again.transform(texts), static.transform(texts))
    with pytest.raises(ValueError, match=r"set_params\(model=\.\.\.\)"):
        again.fit(texts)
    assert clone(static).model is remembered
    assert pickle.loads(pickle.dumps(StaticEmbeddings(["minilm"]).set_params())).model == ["minilm"]


def test_static_embeddings_weigh_rare_words_more():
    texts = np.array(["the card", "the rate", "the fee", "the card"], dtype=object)
    static = StaticEmbeddings(count_letters).fit(texts)
    (vector,) = static.transform(texts[1:2])
    the, rate = (count_letters([word])[0] for word in ("the", "rate"))
    idf_of_rate = (1 + np.log(5 / 2)) / (1 + np.log(5 / 5))
    expected = the + idf_of_rate * rate
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), rtol=1e-5)


@pytest.mark.parametrize("as_frame", [pd.DataFrame, pl.DataFrame, "nullable"])
def test_rivals_of_tables_learn_from_any_frame(table, as_frame):
    frame, y = table
    if as_frame == "nullable":
        other = frame.convert_dtypes()
    else:
        other = frame if as_frame is pd.DataFrame else pl.from_pandas(frame)
    for name, candidate in made(frame, "regression", n_labeled=300).items():
        if name == "mlp":
            continue  # it reads what the linear model reads, and is slow
        fitted = clone(candidate.estimator).fit(other[:300], y[:300])
        assert fitted.score(other[300:], y[300:]) > 0.3, name
        expected = clone(candidate.estimator).fit(frame[:300], y[:300]).predict(frame[300:])
        np.testing.assert_allclose(fitted.predict(other[300:]), expected, rtol=1e-6)


def test_categories_that_training_did_not_see_are_read(table):
    frame, y = table
    other = frame[:3].assign(sex=pd.Categorical(["x", "f", None]))
    for candidate in made(frame, "regression").values():
        fitted = clone(candidate.estimator).fit(frame[:100], y[:100])
        assert np.isfinite(fitted.predict(other)).all()


def test_texts_beside_numbers_are_read_together(intents):
    texts, names = intents
    size = np.arange(len(texts)) % 2
    y = np.char.add(names.astype(str), size.astype(str))  # neither column suffices
    frame = pd.DataFrame({"text": texts, "size": size, "kind": pd.Categorical(size)})
    linear = made(frame)["linear"].estimator.fit(frame[:300], y[:300])
    assert linear.score(frame[300:], y[300:]) > 0.8
    boosting = made(frame)["boosting"].estimator.fit(frame[:300], y[:300])
    assert boosting.score(frame[300:], y[300:]) < 0.4
    (one_column,) = made(frame[["text"]]).values()
    fitted = one_column.estimator.fit(frame[["text"]][:300], names[:300])
    assert fitted.score(frame[["text"]][300:], names[300:]) > 0.8


def test_rivals_of_numbers_learn():
    X, y = load_iris(return_X_y=True)
    y = np.array(["setosa", "versicolor", "virginica"])[y]
    for name, candidate in made(X, n_labeled=75, n_smallest_class=25).items():
        fitted = clone(candidate.estimator).fit(X[::2], y[::2])
        assert fitted.score(X[1::2], y[1::2]) > 0.9, name
        assert fitted.predict_proba(X[:2]).shape == (2, 3)


def test_few_rows_do_not_leave_boosting_without_a_split():
    X, y = load_iris(return_X_y=True)
    few = slice(None, None, 6)
    boosting = made(X, n_labeled=25, n_smallest_class=8)["boosting"].estimator
    assert boosting.fit(X[few], y[few]).score(X, y) > 0.9


def test_rivals_are_deterministic():
    X, y = load_iris(return_X_y=True)
    for candidate in made(X).values():
        first, second = (
            clone(candidate.estimator).fit(X[::2], y[::2]).predict_proba(X) for _ in range(2)
        )
        np.testing.assert_array_equal(first, second)


def test_rivals_run_in_other_processes(intents):
    texts, names = intents
    pipeline = made(texts, model=count_letters)["static-embeddings"].estimator
    here = cross_val_predict(pipeline, texts[:60], names[:60], cv=2)
    there = cross_val_predict(pipeline, texts[:60], names[:60], cv=2, n_jobs=2)
    np.testing.assert_array_equal(here, there)


def test_rare_classes_and_few_rows_cause_no_warning():
    X, y = load_iris(return_X_y=True)
    texts = np.array(["lost card", "no card", "a rate", "the rate", "a fee", "my fee"])
    sizes = {"n_labeled": 6, "n_smallest_class": 1}
    tables = made(X, **sizes)
    of_texts = made(texts, model=count_letters, has_unlabeled=True, missing_label=-1, **sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for candidate in tables.values():
            for rows in ([0, 1, 60, 61, 120, 121], [0, 1, 2, 60, 61, 120], [0, 60], [0, 1, 60]):
                assert len(candidate.estimator.fit(X[rows], y[rows]).predict(X)) == 150
        for candidate in of_texts.values():
            for labels in ([0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 2], [0, 1, 2, 3, 4, 5]):
                candidate.estimator.fit(texts, np.array(labels)).predict(texts)
        for name, candidate in made(X, "regression", **sizes).items():
            for n_rows in (2, 3, 4, 7):
                prediction = candidate.estimator.fit(X[:n_rows], X[:n_rows, 0]).predict(X)
                assert np.isfinite(prediction).all(), name


def test_many_classes_of_few_rows_cause_no_warning(intents):
    texts, _ = intents
    y = np.arange(60) % 40
    found = made(texts, model=count_letters, has_unlabeled=True, missing_label=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for candidate in found.values():
            candidate.estimator.fit(texts[:60], y).predict(texts)


@pytest.mark.parametrize(
    ("y", "n_folds"),
    [
        ([0, 0, 0, 1, 1, 1], 3),
        ([0, 0, 0, 1, 1], 2),
        ([0, 0, 0, 1, 1, 2], 2),
        ([0, 0, 0, 1], None),
        ([0, 1, 2, 3], None),
        (["a"] * 4, None),
    ],
)
def test_folds_of_classes_depend_on_the_rarest(y, n_folds):
    folds = inner_folds(y, True, 0)
    assert (folds and folds.get_n_splits()) == n_folds
    if folds is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for train, _ in folds.split(y, y):
                assert len(set(np.array(y)[train])) > 1


@pytest.mark.parametrize(("n_rows", "n_folds"), [(9, 3), (6, 3), (5, 2), (4, 2), (3, None)])
def test_folds_of_numbers_have_two_rows_to_score(n_rows, n_folds):
    folds = inner_folds(np.arange(n_rows) / 3, False)
    assert (folds and folds.n_splits) == n_folds


def test_the_search_takes_the_best_value_or_the_middle_one():
    X, y = load_iris(return_X_y=True)
    grid = {"C": [1e-6, 1.0, 1e6]}
    search = InnerSearch(LogisticRegression(max_iter=1000), grid, random_state=0).fit(X, y)
    scores = [
        cross_val_score(
            LogisticRegression(C=C, max_iter=1000), X, y, cv=inner_folds(y, True, 0)
        ).mean()
        for C in grid["C"]
    ]
    assert search.best_params_ == {"C": grid["C"][int(np.argmax(scores))]}
    assert search.fit(X[[0, 60]], y[[0, 60]]).best_params_ == {"C": 1.0}
    assert search.best_estimator_.C == 1.0


def test_the_search_has_the_methods_of_its_estimator():
    X, y = load_iris(return_X_y=True)
    assert hasattr(InnerSearch(LogisticRegression(), {}), "predict_proba")
    assert not hasattr(InnerSearch(DummyClassifier(), {}), "decision_function")
    assert not hasattr(InnerSearch(Ridge(), {}), "predict_proba")
    search = InnerSearch(DummyRegressor(), {"strategy": ["mean", "median"]}).fit(X, X[:, 0])
    assert not is_classifier(search)
    assert not hasattr(search, "classes_")
    assert search.score(X, X[:, 0]) == pytest.approx(0, abs=0.1)
    classifier = InnerSearch(LogisticRegression(max_iter=1000), {"C": [1.0]}).fit(X, y)
    assert classifier.decision_function(X).shape == (150, 3)


class TestHistogramsOfGradients:
    @pytest.fixture(autouse=True)
    def _scikit_image(self):
        pytest.importorskip("skimage")

    @pytest.fixture
    def hog(self, photographs):
        return made(photographs)["hog-svm"].estimator[0]

    def test_images_learn(self):
        X, y = load_digits(return_X_y=True)
        X = X.reshape(-1, 8, 8) / 16
        hog = made(X)["hog-svm"].estimator
        assert clone(hog).fit(X[:200], y[:200]).score(X[200:600], y[200:600]) > 0.8
        numbers = made(X, "regression")["hog-svm"].estimator.fit(X[:200], 1e3 * y[:200])
        assert numbers.score(X[200:600], 1e3 * y[200:600]) > 0.5

    def test_containers_of_images_are_read_alike(self, hog, photographs, tmp_path):
        expected = hog.fit(photographs).transform(photographs)
        assert expected.shape == (6, 1764)
        images = [Image.fromarray(photograph) for photograph in photographs]
        contents, paths = [], []
        for number, image in enumerate(images):
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            contents.append(buffer.getvalue())
            paths.append(str(tmp_path / f"{number}.png"))
            image.save(paths[-1])
        for same in (images, contents, paths, photographs / 255, list(photographs)):
            np.testing.assert_allclose(hog.fit(same).transform(same), expected, atol=1e-4)

    def test_small_images_have_32_pixels_and_others_64(self, hog, photographs):
        sizes = {
            tuple(images.shape[1:3]): hog.fit(images).resizer_.size_
            for images in (
                photographs[:, :8, :8],
                photographs[:, :32, :20],
                photographs[:, :40, :40],
                np.tile(photographs, (1, 2, 3, 1)),
            )
        }
        assert sizes == {
            (8, 8): (32, 32),
            (32, 20): (32, 32),
            (40, 40): (64, 64),
            (128, 192): (64, 64),
        }
