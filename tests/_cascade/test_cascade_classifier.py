import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_aft import AFTClassifier, AFTRegressor, CascadeClassifier, FoundationFeatureExtractor
from sk_aft.datasets import load_banking77
from sk_aft.model_selection import LabeledFold
from sk_aft.serving import load

DIGITS, TARGETS = load_digits(return_X_y=True)
X, y, X_TEST, Y_TEST = DIGITS[:900], TARGETS[:900], DIGITS[900:], TARGETS[900:]
INTENTS = ("card_arrival", "exchange_rate", "lost_or_stolen_card", "top_up_failed")
CALLS: dict[str, list[int]] = {}


class Counter(TransformerMixin, BaseEstimator):
    """Keeps the number of rows of each call; in the module, because classifiers are cloned."""

    def __init__(self, name="teacher"):
        self.name = name

    def fit(self, X, y):
        CALLS.setdefault(f"{self.name} fit", []).append(len(y))
        return self

    def transform(self, X):
        CALLS.setdefault(self.name, []).append(len(X))
        return X

    def __sklearn_is_fitted__(self):
        return True


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


def digits_cascade(max_deferred=0.1, **options):
    teacher = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    return CascadeClassifier(GaussianNB(), teacher, max_deferred, **options)


def banking_texts(subset="train", n_rows=25):
    texts, intents = load_banking77(subset=subset, return_X_y=True)
    rows = [row for name in INTENTS for row in np.flatnonzero(intents == name)[:n_rows]]
    return [texts[row] for row in rows], intents[rows]


def static_student(**options):
    options = {"random_state": 0, "max_epochs": 20, "module__start": "random", **options}
    return AFTClassifier(**options)


def probe():
    return make_pipeline(FoundationFeatureExtractor("minilm"), LogisticRegression(C=100))


def flat(images):
    return np.stack(list(images)).reshape(len(images), -1).astype(float)


@parametrize_with_checks(
    [
        CascadeClassifier(LogisticRegression(), LogisticRegression(C=10), cv=2),
        CascadeClassifier(LogisticRegression(C=1e-3), LogisticRegression(), 0.5, cv=2),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_a_cascade_is_better_than_its_student_and_asks_as_seldom_as_it_should():
    cascade = digits_cascade().fit(X, y)
    assert 0.05 < cascade.deferred_fraction_ <= 0.1
    assert 0.02 < cascade.defers(X_TEST).mean() < 0.2
    student = cascade.student_.score(X_TEST, Y_TEST)
    teacher = cascade.teacher_.score(X_TEST, Y_TEST)
    at_random = student + cascade.defers(X_TEST).mean() * (teacher - student)
    assert cascade.score(X_TEST, Y_TEST) > at_random + 0.01


def test_the_teacher_runs_only_for_deferred_rows():
    teacher = make_pipeline(Counter(), LogisticRegression(C=0.1, max_iter=1000))
    cascade = CascadeClassifier(GaussianNB(), teacher, cv=0.3, random_state=0).fit(X, y)
    deferred = cascade.defers(X_TEST)
    assert 0 < deferred.sum() < 200
    CALLS.clear()
    cascade.predict(X_TEST)
    cascade.predict_proba(X_TEST)
    assert {"teacher": [deferred.sum()] * 2} == CALLS
    CALLS.clear()
    cascade.predict(X_TEST[~deferred])
    cascade.predict_proba(X_TEST[~deferred])
    cascade.defers(X_TEST)
    assert CALLS == {}


def test_probabilities_are_those_of_whoever_answers():
    cascade = digits_cascade(calibrate=False).fit(X, y)
    deferred = cascade.defers(X_TEST)
    expected = np.where(
        deferred[:, None],
        cascade.teacher_.predict_proba(X_TEST),
        cascade.student_.predict_proba(X_TEST),
    )
    np.testing.assert_allclose(cascade.predict_proba(X_TEST), expected, atol=1e-12)
    np.testing.assert_array_equal(cascade.predict(X_TEST), expected.argmax(axis=1))
    assert cascade.temperature_ == 1


def test_calibration_makes_probabilities_honest_and_changes_no_answer_of_the_student():
    raw, honest = (digits_cascade(0, calibrate=c).fit(X, y) for c in (False, True))
    assert honest.temperature_ > 2  # naive Bayes is too sure of itself
    losses = [log_loss(Y_TEST, cascade.predict_proba(X_TEST)) for cascade in (raw, honest)]
    assert losses[1] < losses[0] / 1.5
    np.testing.assert_array_equal(raw.predict(X_TEST), honest.predict(X_TEST))


def test_none_or_all_rows_may_be_deferred():
    none, every = (digits_cascade(share, cv=3).fit(X, y) for share in (0, 1))
    assert (none.threshold_, none.deferred_fraction_) == (0, 0)
    np.testing.assert_array_equal(none.predict(X_TEST), none.student_.predict(X_TEST))
    poor = CascadeClassifier(DummyClassifier(), LogisticRegression(max_iter=1000), 1).fit(X, y)
    assert (poor.threshold_, poor.deferred_fraction_) == (np.inf, 1)
    np.testing.assert_array_equal(poor.predict(X_TEST), poor.teacher_.predict(X_TEST))
    assert every.score(X_TEST, Y_TEST) > none.score(X_TEST, Y_TEST)


def test_a_teacher_that_does_not_help_is_never_asked():
    cascade = CascadeClassifier(LogisticRegression(max_iter=1000), DummyClassifier(), 0.5, cv=3)
    cascade.fit(X, y)
    assert cascade.deferred_fraction_ == cascade.threshold_ == 0
    assert not cascade.defers(X_TEST).any()


def test_a_share_can_be_held_out_and_the_classifiers_of_the_split_kept():
    cascade = digits_cascade(cv=0.4, refit=False, random_state=0, store_cv_results=True).fit(X, y)
    assert cascade.student_.class_count_.sum() == 540
    again = clone(cascade).fit(X, y)
    assert again.threshold_ == cascade.threshold_
    other = clone(cascade).set_params(random_state=1).fit(X, y)
    assert other.threshold_ != cascade.threshold_
    refitted = clone(cascade).set_params(refit=True).fit(X, y)
    assert refitted.threshold_ == cascade.threshold_
    assert refitted.student_.class_count_.sum() == 900


def test_results_of_each_threshold_are_kept_on_request():
    cascade = digits_cascade(store_cv_results=True).fit(X, y)
    results = cascade.cv_results_
    assert [*results] == ["thresholds", "deferred_fractions", "scores"]
    (chosen,) = np.flatnonzero(results["thresholds"] == cascade.threshold_)
    assert results["deferred_fractions"][chosen] == cascade.deferred_fraction_
    allowed = results["deferred_fractions"] <= 0.1
    assert results["scores"][chosen] == results["scores"][allowed].max()
    assert not hasattr(cascade.set_params(store_cv_results=False).fit(X, y), "cv_results_")


@pytest.mark.parametrize(
    "cv",
    [
        None,
        5,
        StratifiedKFold(5),
        list(StratifiedKFold(5).split(X, y)),
        iter(list(StratifiedKFold(5).split(X, y))),
    ],
)
def test_splits_are_given_in_scikit_learns_ways(cv):
    folds = CascadeClassifier(GaussianNB(), SVC(), cv=cv).fit(X, y)
    expected = CascadeClassifier(GaussianNB(), SVC(), cv=5, n_jobs=2).fit(X, y)
    assert folds.threshold_ == expected.threshold_
    assert folds.temperature_ == expected.temperature_


def test_rows_may_be_held_out_several_times():
    cv = RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0)
    cascade = digits_cascade(cv=cv, store_cv_results=True).fit(X, y)
    distinct = np.unique(np.round(cascade.cv_results_["deferred_fractions"] * 1800, 6) % 1)
    np.testing.assert_allclose(distinct, 0)


def test_folds_may_lack_a_class():
    labels = np.where(y == 9, 8, y)
    labels[7] = 9  # a single row
    with pytest.warns(UserWarning, match="least populated class"):
        cascade = digits_cascade().fit(X, labels)
    assert cascade.predict_proba(X_TEST).shape == (len(X_TEST), 10)
    kept = digits_cascade(cv=[(np.arange(100, 900), np.arange(100))], refit=False).fit(X, labels)
    assert len(kept.student_.classes_) == 9
    assert len(kept.classes_) == 10
    assert not kept.predict_proba(X_TEST)[:, 9].any()


def test_a_class_that_a_student_lacks_is_treated_alike_by_fit_and_defers():
    train, test = np.flatnonzero(y[:300] < 9), np.arange(300, 900)
    options = {"cv": [(train, test)], "refit": False, "store_cv_results": True}
    cascade = digits_cascade(0.2, **options).fit(X, y)
    assert cascade.temperature_ > 1
    assert cascade.deferred_fraction_ > 0.1
    assert cascade.defers(X[test]).mean() == cascade.deferred_fraction_
    known = test[y[test] < 9]
    alone = digits_cascade(0.2, **{**options, "cv": [(train, known)]}).fit(X, y)
    assert alone.temperature_ == cascade.temperature_


def test_classes_of_a_fitted_teacher_are_aligned():
    few = y < 9
    teacher = LogisticRegression(C=0.01, max_iter=1000).fit(X[:500][few[:500]], y[:500][few[:500]])
    student = GaussianNB().fit(X[:500], y[:500])
    expected = teacher.predict_proba(X_TEST)
    order = np.random.default_rng(0).permutation(9)
    teacher.classes_, teacher.coef_, teacher.intercept_ = (
        part[order] for part in (teacher.classes_, teacher.coef_, teacher.intercept_)
    )
    cascade = CascadeClassifier(student, teacher, 0.5, cv="prefit").fit(X[500:], y[500:])
    deferred = cascade.defers(X_TEST)
    assert deferred.any()
    probabilities = cascade.predict_proba(X_TEST)
    np.testing.assert_allclose(probabilities[deferred, :9], expected[deferred])
    assert not probabilities[deferred, 9].any()
    np.testing.assert_array_equal(cascade.predict(X_TEST), probabilities.argmax(axis=1))


def test_a_teacher_without_probabilities_leaves_predict():
    cascade = CascadeClassifier(GaussianNB(), LinearSVC(C=0.01), cv=3)
    assert not hasattr(cascade, "predict_proba")
    cascade.fit(X, y)
    assert not hasattr(cascade, "predict_proba")
    deferred = cascade.defers(X_TEST)
    predicted = cascade.predict(X_TEST)[deferred]
    np.testing.assert_array_equal(predicted, cascade.teacher_.predict(X_TEST[deferred]))


def test_fitted_classifiers_are_used_as_they_are():
    student, teacher = GaussianNB().fit(X[:450], y[:450]), SVC().fit(X[:450], y[:450])
    means, vectors = student.theta_.copy(), teacher.support_.copy()
    cascade = CascadeClassifier(student, teacher, cv="prefit").fit(X[450:], y[450:])
    assert cascade.student_ is student
    assert cascade.teacher_ is teacher
    np.testing.assert_array_equal(student.theta_, means)
    np.testing.assert_array_equal(teacher.support_, vectors)
    assert cascade.score(X_TEST, Y_TEST) > student.score(X_TEST, Y_TEST)
    frozen = CascadeClassifier(FrozenEstimator(student), FrozenEstimator(teacher), cv="prefit")
    scores = cross_validate(frozen, X[450:], y[450:], cv=2)["test_score"]
    assert scores.mean() > student.score(X[450:], y[450:]) + 0.01


def test_clones_and_copies_in_other_processes():
    cascade = digits_cascade().fit(X, y)
    copy = pickle.loads(pickle.dumps(cascade))
    np.testing.assert_array_equal(copy.predict_proba(X_TEST), cascade.predict_proba(X_TEST))
    unfitted = clone(cascade)
    with pytest.raises(NotFittedError):
        unfitted.predict(X)
    with pytest.raises(NotFittedError):
        unfitted.defers(X)


def test_the_diagram_of_a_fitted_cascade_shows_its_fitted_parts_and_when_the_teacher_is_asked():
    cascade = CascadeClassifier(
        static_student(beta=0, max_epochs=2), make_pipeline(TfidfVectorizer(), SVC()), 0.3, cv=2
    )
    unfitted = cascade._repr_html_()
    assert "student: AFTClassifier" in unfitted
    cascade.fit(*banking_texts())
    cascade.threshold_, cascade.deferred_fraction_ = 0.61234, 0.2567
    diagram = cascade._repr_html_()
    assert "student_: AFTClassifier" in diagram
    assert "teacher_: Pipeline, asked below 0.612 (25.7 % of the held-out rows)" in diagram
    assert "trained on 100 labelled rows" in diagram  # what a fitted student says of itself
    assert "TfidfVectorizer" in diagram
    for threshold, share, when in [(0, 0, "never"), (np.inf, 1, "always")]:
        cascade.threshold_, cascade.deferred_fraction_ = threshold, share
        assert f"teacher_: Pipeline, {when} asked<" in cascade._repr_html_()
    assert clone(cascade)._repr_html_().count("student_:") == 0


def test_searches_choose_shares_and_parameters_of_both():
    grid = {"max_deferred": [0.0, 0.2], "teacher_pipeline__logisticregression__C": [1e-6, 0.1]}
    search = GridSearchCV(digits_cascade(cv=3), grid, cv=3).fit(X, y)
    assert search.best_params_["max_deferred"] == 0.2
    assert search.best_params_["teacher_pipeline__logisticregression__C"] == 0.1


@pytest.mark.parametrize("negative", [-1, "no"])
def test_labels_of_any_kind(negative):
    labels = np.where(y < 5, negative, 1 if negative == -1 else "yes")
    cascade = CascadeClassifier(LogisticRegression(C=1e-4), SVC(), cv=3).fit(X, labels.tolist())
    assert cascade.classes_.tolist() == np.unique(labels).tolist()
    assert cascade.deferred_fraction_ > 0.05
    assert cascade.score(X, labels) > 0.85


def test_names_and_number_of_columns_are_the_students():
    frame = pd.DataFrame(X).rename(columns="pixel{}".format)
    labels = pd.Series(y, index=np.arange(900)[::-1])
    cascade = digits_cascade().fit(frame, labels)
    assert cascade.n_features_in_ == 64
    assert cascade.feature_names_in_[:2].tolist() == ["pixel0", "pixel1"]
    np.testing.assert_array_equal(cascade.predict(frame), digits_cascade().fit(X, y).predict(X))
    vectors = CascadeClassifier(
        make_pipeline(TfidfVectorizer(), LogisticRegression()),
        make_pipeline(TfidfVectorizer(), LinearSVC()),
    ).fit(*banking_texts())
    assert not hasattr(vectors, "n_features_in_")
    assert not hasattr(vectors, "feature_names_in_")


def test_sparse_rows():
    cascade = CascadeClassifier(LogisticRegression(C=1e-4), SVC(), 0.3, cv=3).fit(X, y)
    sparse = clone(cascade).fit(scipy.sparse.coo_array(X), y)
    for kind in (scipy.sparse.coo_array, scipy.sparse.csr_matrix):
        assert np.mean(sparse.predict(kind(X_TEST)) == cascade.predict(X_TEST)) > 0.98


def test_images_of_several_sizes():
    images = np.empty(300, dtype=object)
    images[:] = [np.uint8(np.tile(row.reshape(8, 8), (1 + i % 2,) * 2) * 15) for i, row in
                 enumerate(X[:300])]  # fmt: skip
    labels = y[:300] % 2

    def cut(rows):
        return flat([image[:8, :8] for image in rows]) / 255

    teacher = make_pipeline(FunctionTransformer(cut), SVC())
    student = make_pipeline(FunctionTransformer(lambda rows: cut(rows)[:, ::4]), GaussianNB())
    cascade = CascadeClassifier(student, teacher, 0.3, cv=3).fit(images, labels)
    assert 0 < cascade.deferred_fraction_ <= 0.3
    assert cascade.score(images, labels) > cascade.student_.score(images, labels) + 0.05
    assert cascade.predict(list(images[:5])).shape == (5,)


def test_a_student_of_texts_learns_from_features_in_its_pipeline():
    X, y = banking_texts()
    X_test, y_test = banking_texts("test")
    student = make_pipeline(FoundationFeatureExtractor("minilm"), static_student(transfer="aft"))
    cascade = CascadeClassifier(student, probe(), 0.3, cv=3).fit(X, y)
    assert cascade.student_[-1].transfer_method_ == "aft"
    assert hasattr(cascade.student_[-1], "feature_weights_")
    assert cascade.score(X_test, y_test) >= cascade.student_.score(X_test, y_test)
    assert cascade.predict_proba(X_test).shape == (100, 4)


@pytest.mark.parametrize("mark", ["", np.nan, -1])
def test_unlabelled_rows_are_trained_on_by_those_who_read_marks(mark):
    X, intents = banking_texts()
    y = intents.astype(object)
    y[::2] = mark
    student = make_pipeline(Counter("student"), static_student(beta=0, missing_label=mark))
    teacher = make_pipeline(Counter(), TfidfVectorizer(), LogisticRegression(C=100))
    cascade = CascadeClassifier(student, teacher, 0.5, cv=2, missing_label=mark).fit(X, y)
    assert cascade.classes_.tolist() == sorted(INTENTS)
    assert cascade.classes_.dtype.kind == "U"
    assert CALLS["student fit"] == [75, 75, 100]
    assert CALLS["teacher fit"] == [25, 25, 50]
    assert CALLS["student"] == [75, 25, 75, 25, 100]  # marked rows are never held out
    known = np.arange(1, 100, 2)
    assert cascade.score([X[row] for row in known], intents[known]) > 0.9


def test_a_teacher_may_read_unlabelled_rows_and_the_student_not():
    X, y = banking_texts()
    y[::2] = ""
    student = make_pipeline(Counter("student"), TfidfVectorizer(), LogisticRegression())
    teacher = make_pipeline(Counter(), static_student(beta=0, missing_label="", max_epochs=2))
    search = GridSearchCV(teacher, {"aftclassifier__lr": [0.001]}, cv=LabeledFold(2, ""))
    cascade = CascadeClassifier(student, search, cv=0.2, missing_label="", random_state=0)
    cascade.fit(X, y.tolist())
    assert CALLS["student fit"] == [40, 50]
    assert CALLS["teacher fit"] == [70, 70, 90, 75, 75, 100]
    assert "" not in cascade.classes_


def test_cross_validation_with_unlabelled_rows():
    X, y = banking_texts()
    y[::2] = ""
    student = make_pipeline(TfidfVectorizer(), LogisticRegression())
    teacher = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=100))
    cascade = CascadeClassifier(student, teacher, cv=2, missing_label="")
    scores = cross_validate(cascade, X, y, cv=LabeledFold(2, missing_label=""))["test_score"]
    assert scores.min() > 0.6


def test_a_deployed_student_asks_a_teacher(tmp_path):
    X, y = banking_texts()
    X_test, y_test = banking_texts("test")
    fit, held_out = np.arange(0, 100, 2), np.arange(1, 100, 2)
    student = static_student(beta=0, max_epochs=4).fit([X[i] for i in fit], y[fit])
    teacher = probe().fit([X[i] for i in fit], y[fit])
    student.save_pretrained(tmp_path / "student")
    served = load(tmp_path / "student")
    cascade = CascadeClassifier(served, FrozenEstimator(teacher), 0.3, cv="prefit")
    cascade.fit([X[i] for i in held_out], y[held_out])
    assert cascade.student_ is served
    assert 0 < cascade.deferred_fraction_ <= 0.3
    assert cascade.score(X_test, y_test) > np.mean(served.predict(X_test) == y_test)
    expected = cascade.predict_proba(X_test)
    copy = pickle.loads(pickle.dumps(cascade))
    np.testing.assert_allclose(copy.predict_proba(X_test), expected)
    again = clone(cascade).fit([X[i] for i in held_out], y[held_out])
    np.testing.assert_allclose(again.predict_proba(X_test), expected)
    assert cross_validate(cascade, X_test, y_test, cv=2)["test_score"].min() > 0.5
    assert "ServedClassifier" in repr(cascade)
    assert cascade._repr_html_()
    with pytest.raises(ValueError, match="put one row in a list"):
        cascade.predict(X_test[0])
    with pytest.raises(ValueError, match=r'student has no fit .ServedClassifier.*cv="prefit"'):
        CascadeClassifier(served, teacher).fit(X, y)


@pytest.mark.parametrize("share", [-0.1, 1.1, 10, "0.1", None])
def test_shares_are_between_0_and_1(share):
    with pytest.raises(ValueError, match=r"'max_deferred' parameter .* in the range \[0"):
        digits_cascade(share).fit(X, y)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (LinearSVC(), GaussianNB(), "student has no predict_proba .LinearSVC.*Calibrated"),
        (Ridge(), GaussianNB(), "student is a regressor, Ridge"),
        (GaussianNB(), Ridge(), "teacher_pipeline is a regressor, Ridge"),
        (GaussianNB(), AFTRegressor(), "teacher_pipeline is a regressor, AFTRegressor"),
        (StandardScaler(), GaussianNB(), "'student' parameter .* implementing 'predict'"),
        (GaussianNB(), None, "'teacher_pipeline' parameter .* implementing 'predict'"),
        (
            AFTClassifier(missing_label=-1),
            GaussianNB(),
            "student has missing_label=-1, so the cascade has to know it",
        ),
    ],
)
def test_classifiers_that_cannot_be_used(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        CascadeClassifier(student, teacher).fit(X, y)


def test_marks_that_differ():
    cascade = CascadeClassifier(
        GaussianNB(), make_pipeline(AFTClassifier(missing_label=-1)), missing_label=np.nan
    )
    with pytest.raises(ValueError, match="teacher_pipeline has missing_label=-1, and the cascade"):
        cascade.fit(X, y)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros(900, dtype=int), {}, "y holds one class, 0"),
        (np.linspace(0, 1, 900), {}, "Unknown label type: continuous"),
        (np.eye(10)[y], {}, "1d array"),
        (np.eye(10, dtype=int)[y].tolist(), {}, "one label a row"),
        (None, {}, "the target y is None"),
        (y[:-1], {}, "inconsistent numbers of samples"),
        (np.where(y == 3, np.nan, y), {}, "missing_label=np.nan says"),
        (np.full(900, -1), {"missing_label": -1}, "None of the 900 rows has a label"),
        (np.where(np.arange(900) < 30, y, -1), {"missing_label": -1}, "cv=None makes 5 folds"),
        (y, {"cv": 200}, r"cv=200 makes 200 folds.*more than 92 labelled rows"),
        (y, {"refit": False}, "cv=None makes 5: hold out a share"),
        (y, {"cv": 1.5}, "'cv' parameter"),
        (np.where(y == 3, "three", y.astype(object)), {}, "all strings or all numbers"),
    ],
)
def test_labels_and_splits_that_cannot_be_used(labels, options, message):
    with pytest.raises(ValueError, match=message):
        digits_cascade(**options).fit(X, labels)


@pytest.mark.parametrize(
    ("rare", "share", "message"),
    [
        (
            [10],
            0.2,
            r"cv=0.2 holds out .*single labelled row of \[10\]: label more rows of it.*cv=5",
        ),
        ([10, 11], 0.2, r"single labelled row of \[10, 11\] each: label more rows of them"),
        ([], 0.005, "cv=0.005 holds out 5 of 900 labelled rows, and each of the 10 classes needs"),
        ([], 0.995, "cv=0.995 holds out 896 of 900 labelled rows, .* nearer to 0.5"),
    ],
)
def test_shares_that_cannot_be_held_out_of_each_class(rare, share, message):
    labels = np.concatenate([rare, y[len(rare) :]]).astype(int)
    teacher = make_pipeline(Counter(), GaussianNB())
    with pytest.raises(ValueError, match=message):
        CascadeClassifier(GaussianNB(), teacher, cv=share).fit(X, labels)
    assert CALLS == {}


def test_errors_come_before_training():
    teacher = make_pipeline(Counter(), GaussianNB())
    for options in ({"cv": 200}, {"refit": False}, {"max_deferred": 2}, {"missing_label": 5}):
        labels = np.full(900, 5) if "missing_label" in options else y
        with pytest.raises(ValueError, match=r"folds|single split|max_deferred|None of the"):
            CascadeClassifier(GaussianNB(), teacher).set_params(**options).fit(X, labels)
    assert CALLS == {}


def test_a_fit_that_fails_changes_nothing():
    cascade = digits_cascade().fit(X, y)
    expected = cascade.predict_proba(X_TEST)
    with pytest.raises(ValueError, match="one class"):
        cascade.fit(X, np.zeros(900))
    np.testing.assert_array_equal(cascade.predict_proba(X_TEST), expected)


def test_fitted_classifiers_that_do_not_fit_together():
    fitted = GaussianNB().fit(X, y)
    fewer = GaussianNB().fit(X[y < 3], y[y < 3])
    of_texts = GaussianNB().fit(X, y.astype(str))
    for student, teacher, message in [
        (GaussianNB(), fitted, "uses student as it is, and this GaussianNB is not a fitted"),
        (fitted, probe(), "uses teacher_pipeline as it is, and this Pipeline is not a fitted"),
        (FrozenEstimator(GaussianNB()), fitted, "uses student as it is"),
    ]:
        with pytest.raises(NotFittedError, match=message):
            CascadeClassifier(student, teacher, cv="prefit").fit(X, y)
    for student, teacher, message in [
        (fewer, fitted, r"teacher predicts \[3, 4, 5, 6, 7, ...\], which the fitted student does"),
        (fitted, of_texts, r"teacher predicts \['0', '1'.*student's classes are \[0, 1"),
        (
            fewer,
            fewer,
            r"y holds labels that the fitted student does not know: \[3, 4, 5, 6, 7, ...\]",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            CascadeClassifier(student, teacher, cv="prefit").fit(X, y)


def test_a_usual_mark_among_classes_is_warned_of():
    labels = np.where(y == 3, -1, y)
    with pytest.warns(UserWarning, match="CascadeClassifier learns -1 as a class"):
        digits_cascade().fit(X, labels)


@pytest.mark.parametrize("cv", [0.1, 3, "prefit"])
def test_few_held_out_rows_are_warned_of_once(cv):
    members = GaussianNB().fit(X, y), LogisticRegression(C=0.01, max_iter=1000).fit(X, y)
    cascade = CascadeClassifier(*members, cv=cv)
    n_few = 500 if cv == 0.1 else 99
    with pytest.warns(UserWarning, match=f"only {50 if cv == 0.1 else 99}, so it") as caught:
        cascade.fit(X[:n_few], y[:n_few])
    assert [warning.filename for warning in caught] == [__file__]
    n_enough = 900 if cv == 0.1 else 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cascade.set_params(cv=0.12 if cv == 0.1 else cv).fit(X[:n_enough], y[:n_enough])
