"""Any classifier or regressor teaches a student by its predictions."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, make_friedman1
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    StackingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import shuffle

from sk_aft import (
    AFTClassifier,
    AFTRegressor,
    FineTunedFeatureExtractor,
    FoundationFeatureExtractor,
    TeacherPredictions,
)

RNG = np.random.RandomState(0)
X = RNG.normal(size=(240, 3))
Y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
NOISE = RNG.permutation(Y)
MEMORY = DecisionTreeClassifier(random_state=0)  # it knows every label that it has seen


def boosting(**parameters):
    return HistGradientBoostingClassifier(max_iter=20, **parameters)


def taught(estimator, **parameters):
    return FoundationFeatureExtractor(TeacherPredictions(estimator, **parameters))


def accuracy(soft_targets, classes, y):
    return (classes[soft_targets.argmax(axis=1)] == y).mean()


def test_labelled_rows_are_predicted_by_models_that_have_not_seen_them():
    rows = taught(MEMORY).fit_transform(X, NOISE)
    assert rows.soft_target_classes.tolist() == ["other", "same"]
    assert 0.3 < accuracy(rows.soft_targets, rows.soft_target_classes, NOISE) < 0.7


def test_labelled_rows_are_recognised_in_any_order_and_container():
    extractor = taught(boosting()).fit(X, Y)
    expected = extractor.transform(X).soft_targets
    order = RNG.permutation(len(X))
    np.testing.assert_array_equal(extractor.transform(X[order]).soft_targets, expected[order])
    np.testing.assert_array_equal(extractor.transform(X)[order].soft_targets, expected[order])
    np.testing.assert_array_equal(extractor.transform(X.tolist()).soft_targets, expected)
    for library in (pd, pl):
        frame = library.DataFrame(dict(zip("abc", X.T, strict=True)))
        of_frame = taught(boosting()).fit(frame, Y)
        np.testing.assert_array_equal(of_frame.transform(frame).soft_targets, expected)
        np.testing.assert_array_equal(of_frame.transform(X).soft_targets, expected)


def test_other_rows_are_predicted_by_a_model_of_all_labelled_rows():
    y = Y.astype(object)
    y[100:] = None
    y[~np.isin(y, ["same", "other"])] = "?"
    rows = taught(boosting(), missing_label="?").fit_transform(X, y)
    fitted = boosting().fit(X[:100], Y[:100])
    np.testing.assert_allclose(rows.soft_targets[100:], fitted.predict_proba(X[100:]), rtol=1e-5)
    assert not np.allclose(rows.soft_targets[:100], fitted.predict_proba(X[:100]), atol=0.01)


def test_equal_rows_share_a_fold():
    """Otherwise the copy of a row in another fold would give its label away."""
    rows, labels = np.repeat(X[:60], 4, axis=0), np.repeat(NOISE[:60], 4)
    soft_targets = taught(MEMORY).fit_transform(rows, labels).soft_targets
    assert accuracy(soft_targets, np.array(["other", "same"]), labels) < 0.75


TEXTS = np.array([f"text {number}" for number in np.arange(240) // 4])
VECTORISED = make_pipeline(TfidfVectorizer(token_pattern=r"\S+"), LogisticRegression(C=1e4))


def test_only_what_the_estimator_reads_tells_copies_and_labelled_rows():
    """An identifier beside the text would part the copies, and give their labels away."""
    labels = np.random.RandomState(1).permutation(Y)
    frame = pd.DataFrame({"text": TEXTS, "id": np.arange(240)})
    extractor = FoundationFeatureExtractor({"text": TeacherPredictions(VECTORISED)}, inputs="text")
    soft_targets = extractor.fit_transform(frame, labels).soft_targets
    assert accuracy(soft_targets, np.array(["other", "same"]), labels) < 0.7
    for other in (frame[["text"]], frame[["id", "text"]].assign(more=1.0)):
        np.testing.assert_array_equal(extractor.transform(other).soft_targets, soft_targets)


def test_labelled_rows_are_recognised_in_other_dtypes():
    extractor = taught(MEMORY).fit(X, NOISE)
    expected = extractor.transform(X).soft_targets
    for rows in (X.astype(np.float32), np.asfortranarray(X), X.astype(object)):
        np.testing.assert_array_equal(extractor.transform(rows).soft_targets, expected)
    zeros = np.where(np.arange(240)[:, None] % 2, 0.0, X)
    zeros[:, 1] = np.arange(240)
    extractor = taught(MEMORY).fit(zeros, NOISE)
    expected = extractor.transform(zeros).soft_targets
    signed = np.where(zeros == 0, -0.0, zeros)
    np.testing.assert_array_equal(extractor.transform(signed).soft_targets, expected)


def test_labelled_rows_of_several_kinds_are_recognised_in_another_library():
    when = np.datetime64("2024-01-01", "ms") + np.arange(240)
    columns = {"kind": np.where(X[:, 0] > 0, "up", "down"), "when": when, "number": X[:, 1]}
    frame = pd.DataFrame(columns)
    frame["kind"] = frame["kind"].astype("category")
    reads_numbers = make_pipeline(make_column_transformer(("passthrough", ["number"])), MEMORY)
    extractor = FoundationFeatureExtractor(
        {("kind", "when", "number"): TeacherPredictions(reads_numbers)}, inputs="number"
    ).fit(frame, NOISE)
    expected = extractor.transform(frame).soft_targets
    assert accuracy(expected, np.array(["other", "same"]), NOISE) < 0.7
    others = [
        pl.DataFrame(columns),
        frame.astype({"kind": str}),
        frame.astype({"when": "datetime64[us]"}),
        frame.astype({"number": np.float32}),
    ]
    for other in others:
        np.testing.assert_array_equal(extractor.transform(other).soft_targets, expected)


def test_groups_do_not_part_equal_rows():
    rows, labels = np.repeat(X[:60], 4, axis=0), np.repeat(NOISE[:60], 4)
    soft_targets = taught(MEMORY).fit_transform(rows, labels, groups=np.arange(240)).soft_targets
    assert accuracy(soft_targets, np.array(["other", "same"]), labels) < 0.75
    folds = list(KFold(4, shuffle=True, random_state=0).split(rows))
    soft_targets = taught(MEMORY, cv=folds).fit_transform(rows, labels).soft_targets
    assert len(np.unique(soft_targets[:4], axis=0)) == 1  # one row has one soft target


def test_groups_are_not_split():
    groups = np.repeat(np.arange(24), 10)
    labels = np.where(np.arange(24) % 2, "same", "other")[groups]
    features = X * 0.01 + groups[:, None]  # a row's group is all that there is to learn
    near = DecisionTreeClassifier(random_state=0)
    without = taught(near).fit_transform(features, labels)
    assert accuracy(without.soft_targets, without.soft_target_classes, labels) > 0.95
    extractor = taught(near)
    with_groups = extractor.fit_transform(features, labels, groups=groups)
    assert accuracy(with_groups.soft_targets, with_groups.soft_target_classes, labels) < 0.7
    again = taught(near, cv=GroupKFold(4)).fit(features, labels, groups=groups).transform(features)
    assert accuracy(again.soft_targets, again.soft_target_classes, labels) < 0.7


def test_a_splitter_makes_the_folds():
    folds = list(KFold(3, shuffle=True, random_state=1).split(X))
    rows = taught(boosting(), cv=folds).fit_transform(X, Y)
    train, test = folds[0]
    expected = boosting().fit(X[train], Y[train]).predict_proba(X[test])
    np.testing.assert_allclose(rows.soft_targets[test], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="labelled row 0 in 2 test sets, expected"):
        taught(boosting(), cv=[([1, 2, 3], [0]), ([1, 2, 3], [0])]).fit(X, Y)


def test_a_class_with_a_single_row_has_no_target_in_that_row():
    y = Y.copy().astype("<U9")
    y[7] = "singleton"
    rows = taught(boosting()).fit_transform(X, y)
    assert np.flatnonzero(np.isnan(rows.soft_targets).any(axis=1)).tolist() == [7]
    assert rows.soft_target_classes.tolist() == ["other", "same", "singleton"]


def test_a_student_learns_from_gradient_boosting_and_predicts_alone():
    X, y = make_friedman1(1200, noise=1, random_state=0)
    known = y.copy()
    known[150:800] = np.nan
    teacher = TeacherPredictions(HistGradientBoostingRegressor(), missing_label=np.nan)
    student = AFTRegressor(missing_label=np.nan, random_state=0)
    pipe = make_pipeline(FoundationFeatureExtractor(teacher), student).fit(X[:800], known[:800])
    assert pipe[-1].teacher_weights_["soft targets"] > 0.3
    alone = clone(student).set_params(beta=0).fit(X[:800], known[:800])
    assert pipe.score(X[800:], y[800:]) > alone.score(X[800:], y[800:])
    np.testing.assert_array_equal(pipe.predict(X[800:]), pipe[-1].predict(X[800:]))


def test_rows_without_labels_may_be_given_apart():
    student = AFTClassifier(random_state=0, max_epochs=5)
    extractor = taught(boosting()).fit(X[:80], Y[:80])
    rows, others = extractor.transform(X[:80]), extractor.transform(X[80:])
    student.fit(rows, Y[:80], X_unlabeled=others)
    assert "soft targets" in student.teacher_weights_


def test_predictions_teach_beside_a_foundation_model():
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    teacher = TeacherPredictions(boosting())
    extractor = FoundationFeatureExtractor([lambda rows: rows * 2, teacher])
    student = AFTClassifier(random_state=0, max_epochs=3)
    for rows in (X, frame):
        pipe = make_pipeline(clone(extractor), clone(student)).fit(rows, Y)
        assert {"function", "soft targets"} <= set(pipe[-1].teacher_weights_)
        assert pipe[0].transform(rows).features.shape == (240, 3)
    by_column = FoundationFeatureExtractor({("a", "b", "c"): [lambda rows: rows * 2, teacher]})
    pipe = make_pipeline(by_column, clone(student)).fit(frame, Y)
    assert {"function", "soft targets"} <= set(pipe[-1].teacher_weights_)


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_an_estimator_reads_a_frame_of_several_kinds_as_it_is(library):
    kinds = np.where(X[:, 0] > 0, "up", "down")
    frame = library.DataFrame({"kind": kinds, "number": X[:, 1], "count": np.arange(240)})
    if library is pd:
        frame["kind"] = frame["kind"].astype("category")
        frame.loc[3, "number"] = np.nan
        teacher = boosting(categorical_features="from_dtype")
    else:
        columns = ["number", "count"]
        teacher = make_pipeline(make_column_transformer(("passthrough", columns)), boosting())
    rows = taught(teacher).fit_transform(frame, Y)
    assert accuracy(rows.soft_targets, rows.soft_target_classes, Y) > 0.5
    again = pickle.loads(pickle.dumps(rows))[:50]
    np.testing.assert_array_equal(again.soft_targets, rows.soft_targets[:50])


def test_a_mapping_names_the_column_that_an_estimator_reads():
    frame = pd.DataFrame(
        {"text": [f"{label} row {number}" for number, label in enumerate(Y)], "number": X[:, 0]}
    )
    teacher = TeacherPredictions(make_pipeline(TfidfVectorizer(), LogisticRegression()))
    extractor = FoundationFeatureExtractor({"text": teacher}, inputs="number")
    rows = extractor.fit_transform(frame, Y)
    assert accuracy(rows.soft_targets, rows.soft_target_classes, Y) == 1
    assert rows.inputs.name == "number"
    texts = taught(teacher.estimator).fit_transform(frame["text"], Y)
    np.testing.assert_allclose(texts.soft_targets, rows.soft_targets, rtol=1e-5)


def test_several_predictors_are_pooled_by_what_they_know():
    useless = TeacherPredictions(GaussianNB())
    good = TeacherPredictions(boosting())
    alone = taught(boosting()).fit_transform(X, Y)
    both = FoundationFeatureExtractor([useless, good]).fit(X, Y)
    weights = both._soft_targets.weights
    assert weights[1] > 2 * weights[0]
    rows = both.transform(X)
    classes = rows.soft_target_classes
    assert accuracy(rows.soft_targets, classes, Y) > accuracy(alone.soft_targets, classes, Y) - 0.03
    np.testing.assert_allclose(rows.soft_targets.sum(axis=1), 1, rtol=1e-5)


def test_several_regressors_are_pooled_in_the_unit_of_the_target():
    X, y = make_friedman1(300, random_state=0)
    y = 1000 + 50 * y
    teachers = [TeacherPredictions(Ridge()), TeacherPredictions(HistGradientBoostingRegressor())]
    rows = FoundationFeatureExtractor(teachers).fit_transform(X, y)
    assert rows.soft_targets.shape == (300, 1)
    assert rows.soft_target_classes is None
    assert np.corrcoef(rows.soft_targets[:, 0], y)[0, 1] > 0.85
    assert abs(rows.soft_targets.mean() - y.mean()) < y.std() / 5


def test_a_fitted_predictor_is_used_as_it_is_with_a_warning():
    fitted = boosting().fit(X, Y)
    with pytest.warns(UserWarning, match="HistGradientBoostingClassifier may have seen the rows"):
        rows = FoundationFeatureExtractor(fitted).fit_transform(X, Y)
    np.testing.assert_allclose(rows.soft_targets, fitted.predict_proba(X), rtol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        declared = taught(fitted, cv="prefit").fit_transform(X)
    np.testing.assert_array_equal(declared.soft_targets, rows.soft_targets)
    two = FoundationFeatureExtractor(
        [TeacherPredictions(fitted, cv="prefit"), TeacherPredictions(boosting())]
    ).fit(X, Y)
    np.testing.assert_array_equal(two._soft_targets.weights, [0.5, 0.5])


def test_a_predictor_that_transforms_is_a_teacher_if_it_is_called_one():
    stack = StackingClassifier([("bayes", GaussianNB())]).fit(X, Y)
    assert FoundationFeatureExtractor(stack).fit_transform(X).soft_targets is None
    rows = taught(stack, cv="prefit").fit_transform(X)
    np.testing.assert_allclose(rows.soft_targets, stack.predict_proba(X), rtol=1e-5)


def test_a_student_is_a_teacher():
    teacher = AFTClassifier(random_state=0, max_epochs=20, beta=0).fit(X, Y)
    pipe = make_pipeline(
        taught(teacher, cv="prefit"), AFTClassifier(random_state=1, max_epochs=3)
    ).fit(X, Y)
    assert "soft targets" in pipe[-1].teacher_weights_


def test_searches_and_cross_validation_fit_the_teacher_on_training_rows_alone():
    pipe = make_pipeline(taught(MEMORY), AFTClassifier(random_state=0, max_epochs=3))
    assert cross_val_score(pipe, X, NOISE, cv=3).mean() < 0.65
    search = GridSearchCV(pipe, {"aftclassifier__beta": [0, 1]}, cv=2).fit(X, Y)
    assert set(search.cv_results_["param_aftclassifier__beta"]) == {0, 1}
    grid = {
        "foundationfeatureextractor__model": [TeacherPredictions(e) for e in (MEMORY, boosting())]
    }
    assert GridSearchCV(pipe, grid, cv=2).fit(X, Y).best_params_


def test_nothing_is_predicted_for_a_student_that_is_not_taught():
    class Counting(DecisionTreeClassifier):
        n_calls = 0

        def predict_proba(self, X):
            type(self).n_calls += 1
            return super().predict_proba(X)

    pipe = make_pipeline(taught(Counting()), AFTClassifier(random_state=0, max_epochs=2)).fit(X, Y)
    before = Counting.n_calls
    pipe.predict(X)
    assert before >= 5
    assert Counting.n_calls == before


def test_features_of_teachers_that_only_predict_have_no_columns():
    extractor = taught(boosting()).fit(X, Y)
    rows = extractor.transform(X)
    assert rows.shape == rows.features.shape == np.asarray(rows).shape == (240, 0)
    assert rows[:3].take([0, 1]).shape == (2, 0)
    assert not rows.missing_mask.any()
    assert extractor.get_feature_names_out().tolist() == []
    assert repr(rows) == "FoundationFeatures(shape=(240, 0), models=[])"


@pytest.mark.parametrize("of_column", [False, True], ids=["rows", "column"])
def test_missing_texts_are_not_predicted(of_column):
    texts = [None, *(f"{label} row {number}" for number, label in enumerate(Y[1:]))]
    teacher = TeacherPredictions(make_pipeline(TfidfVectorizer(), LogisticRegression()))
    rows, model = texts, teacher
    if of_column:
        rows = pd.DataFrame({"text": texts, "number": X[:, 0]})
        model, parameters = {"text": teacher}, {"inputs": "number"}
    else:
        parameters = {}
    with pytest.raises(ValueError, match="Row 0 of X is missing"):
        FoundationFeatureExtractor(model, **parameters).fit(rows, Y)
    extractor = FoundationFeatureExtractor(model, on_error="mask", **parameters)
    for soft_targets in (
        extractor.fit_transform(rows, Y).soft_targets,
        extractor.fit(rows[1:], Y[1:]).transform(rows).soft_targets,
    ):
        assert np.flatnonzero(np.isnan(soft_targets[:, 0])).tolist() == [0]


class Slow(DecisionTreeClassifier):
    """It counts its trainings."""

    n_fits = 0

    def fit(self, X, y):
        type(self).n_fits += 1
        return super().fit(X, y)


def test_targets_and_folds_of_all_teachers_are_checked_before_one_is_fitted():
    bad = TeacherPredictions(MEMORY, cv=[([0], [1])])
    with pytest.raises(ValueError, match="labelled row 0 in 0 test sets"):
        FoundationFeatureExtractor([TeacherPredictions(Slow()), bad]).fit(X, Y)
    assert Slow.n_fits == 0


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([], "yields no folds"),
        ([(np.arange(240), np.arange(240))], "trains on labelled row 0, which it predicts"),
        ([(np.arange(9), [240])], "has row 240, and there are 240 labelled rows"),
    ],
)
def test_folds_that_cannot_be_used_are_refused(folds, message):
    with pytest.raises(ValueError, match=message):
        taught(MEMORY, cv=folds).fit(X, Y)


def test_numbers_keep_their_precision():
    X, y = make_friedman1(200, noise=0.1, random_state=0)
    soft_targets = taught(Ridge()).fit_transform(X, 1.7e9 + y).soft_targets
    assert np.corrcoef(soft_targets[:, 0] - 1.7e9, y)[0, 1] > 0.8


class Duck:
    """It predicts, and is of no library."""

    classes_ = np.array(["other", "same"])

    def predict(self, X):
        return self.classes_[(X[:, 0] > 0).astype(int)]

    def predict_proba(self, X):
        return np.eye(2)[(X[:, 0] > 0).astype(int)]


def test_an_object_of_no_library_is_used_as_it_is():
    rows = taught(Duck(), cv="prefit").fit_transform(X)
    np.testing.assert_array_equal(rows.soft_targets, Duck().predict_proba(X))


def test_rows_that_no_teacher_can_predict_are_refused():
    rows = taught(MEMORY).fit_transform(X[:2], ["a", "b"])
    with pytest.raises(ValueError, match="its teachers only predict, and predict no row"):
        AFTClassifier().fit(rows, ["a", "b"])
    AFTClassifier(beta=0, max_epochs=1).fit(rows, ["a", "b"])


def test_a_pipeline_with_memory_fits_and_predicts_once(tmp_path):
    Slow.n_fits = 0
    steps = taught(Slow()), AFTClassifier(random_state=0, max_epochs=1)
    pipe = make_pipeline(*steps, memory=str(tmp_path))
    GridSearchCV(pipe, {"aftclassifier__max_epochs": [1, 2, 3]}, cv=2).fit(X, Y)
    assert Slow.n_fits == 3 * 6  # two splits and the whole, each with five folds and the rest


@pytest.mark.parametrize(
    ("teacher", "y", "error", "message"),
    [
        (TeacherPredictions(MEMORY), None, ValueError, "requires y to be passed"),
        (TeacherPredictions(MEMORY), X[:, 0], ValueError, "continuous.* give a regressor"),
        (TeacherPredictions(MEMORY), ["a"] * 240, ValueError, "only one class, 'a'"),
        (TeacherPredictions(MEMORY), Y[:9], ValueError, "X has 240 rows and y has 9"),
        (TeacherPredictions(MEMORY, missing_label="a"), ["a"] * 240, ValueError, "All 240 rows"),
        (TeacherPredictions(Ridge()), Y, ValueError, "'.*', which is no number"),
        (TeacherPredictions(LinearSVC()), Y, ValueError, "CalibratedClassifierCV"),
        (TeacherPredictions(TfidfVectorizer()), Y, TypeError, "has no predict"),
        (TeacherPredictions(Ridge), Y, TypeError, "is a class"),
        (TeacherPredictions(IsolationForest()), Y, ValueError, "neither a classifier nor"),
        (TeacherPredictions(GaussianMixture()), Y, ValueError, "neither a classifier nor"),
        (TeacherPredictions(MEMORY, cv=np.int64(1)), Y, ValueError, "expected at least 2"),
        (TeacherPredictions(MEMORY, cv=5.0), Y, ValueError, "expected at least 2"),
        (TeacherPredictions(MEMORY, cv=1), Y, ValueError, "cv=1: expected at least 2"),
        (TeacherPredictions(MEMORY, cv="all"), Y, ValueError, "cv='all': expected"),
        (TeacherPredictions(boosting(), cv="prefit"), Y, NotFittedError, "is not fitted: give"),
        (boosting(), Y, NotFittedError, r"TeacherPredictions\(HistGradient"),
        (
            [TeacherPredictions(MEMORY), TeacherPredictions(DecisionTreeRegressor())],
            Y,
            ValueError,
            "Some teachers predict classes and others numbers",
        ),
    ],
)
def test_what_cannot_teach_is_refused_before_anything_is_fitted(teacher, y, error, message):
    with pytest.raises(error, match=message):
        FoundationFeatureExtractor(teacher).fit(X, y)


def test_a_transfer_that_needs_features_is_refused():
    rows = taught(boosting()).fit_transform(X, Y)
    with pytest.raises(ValueError, match="transfer='aft' learns from features"):
        AFTClassifier(transfer="aft").fit(rows, Y)
    with pytest.raises(ValueError, match="a predictor is none"):
        FineTunedFeatureExtractor(TeacherPredictions(boosting())).fit(X, Y)


def test_classes_of_a_teacher_and_of_numbers_do_not_mix():
    rows = taught(boosting()).fit_transform(X, Y)
    with pytest.raises(ValueError, match="a regressor in TeacherPredictions"):
        AFTRegressor().fit(rows, X[:, 0])


def test_real_data_of_two_classes():
    X, y = shuffle(*load_breast_cancer(return_X_y=True), random_state=0)
    marked = y.copy()
    marked[100:400] = -1
    pipe = make_pipeline(
        taught(HistGradientBoostingClassifier(), missing_label=-1),
        AFTClassifier(missing_label=-1, random_state=0, max_epochs=20),
    ).fit(X[:400], marked[:400])
    assert pipe.score(X[400:], y[400:]) > 0.9


def test_a_column_of_texts_is_named_as_a_category():
    frame = pd.DataFrame({"town": ["Oslo", "Rome"] * 20, "age": range(40)})
    teacher = TeacherPredictions(HistGradientBoostingClassifier())
    with pytest.raises(ValueError, match=r"cannot be fitted.*astype\('category'\)"):
        FoundationFeatureExtractor(teacher).fit(frame, ["a", "b"] * 20)
