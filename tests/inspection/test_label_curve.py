import subprocess
import sys
from itertools import pairwise

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_diabetes
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, learning_curve
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.inspection import LabelCurveDisplay

fits = []


class Recorder(ClassifierMixin, BaseEstimator):
    """Keeps what it is fitted to and scored on."""

    def __init__(self, missing_label=None):
        self.missing_label = missing_label

    def fit(self, X, y):
        self.classes_ = np.unique([label for label in y if label != self.missing_label])
        fits.append({"X": np.asarray(X)[:, 0], "y": np.asarray(y)})
        return self

    def score(self, X, y):
        fits[-1]["tested"] = np.asarray(X)[:, 0]
        return len(fits)


class WithoutParameter(Recorder):
    def __init__(self):
        self.missing_label = None


@pytest.fixture(autouse=True)
def _no_fits():
    fits.clear()


def rows_and_labels(n_rows=120, every=2, marker=-1):
    y = np.arange(n_rows) % 12 // 4
    return np.arange(n_rows)[:, None], np.where(np.arange(n_rows) % every == 0, y, marker)


def test_rows_that_lose_their_label_stay_as_unlabelled_rows():
    X, y = rows_and_labels()
    display = LabelCurveDisplay.from_estimator(
        Recorder(-1), X, y, train_sizes=[6, 12, 40], cv=3, missing_label=-1, random_state=0
    )
    assert display.scores.shape == (1, 3, 3)
    assert len(fits) == 9
    for fit, size in zip(fits, np.repeat([6, 12, 40], 3), strict=True):
        assert len(fit["X"]) == 120 - 20  # all but the tested rows
        known = fit["y"] != -1
        assert known.sum() == size
        np.testing.assert_array_equal(fit["y"][known], y[fit["X"][known]])
        assert not set(fit["tested"]) & set(fit["X"])
        assert (y[fit["tested"]] != -1).all()
        assert set(np.flatnonzero(y == -1)) <= set(fit["X"][~known])


def test_without_a_mark_rows_are_left_out():
    X, y = rows_and_labels(every=1)
    LabelCurveDisplay.from_estimator(Recorder(), X, y, train_sizes=[6, 80], cv=3, random_state=0)
    assert [len(fit["X"]) for fit in fits] == [6] * 3 + [80] * 3
    for fit in fits:
        np.testing.assert_array_equal(fit["y"], y[fit["X"]])


def test_estimators_that_know_no_mark_get_labelled_rows_only():
    X, y = rows_and_labels()
    both = {"knows": Recorder(-1), "does not": WithoutParameter()}
    LabelCurveDisplay.from_estimator(
        both, X, y, train_sizes=[9], cv=2, missing_label=-1, random_state=0
    )
    with_mark, without = fits[:2], fits[2:]
    for one, other in zip(with_mark, without, strict=True):
        assert len(other["X"]) == 9
        assert -1 not in other["y"]
        known = one["y"] != -1
        np.testing.assert_array_equal(one["X"][known], other["X"])  # the same labels
        np.testing.assert_array_equal(one["tested"], other["tested"])


def test_larger_sizes_include_the_smaller_ones_and_classes_keep_their_shares():
    y = np.repeat([0, 1, 2], [80, 30, 10])
    X = np.arange(120)[:, None]
    LabelCurveDisplay.from_estimator(
        Recorder(), X, y, train_sizes=[3, 10, 40], cv=StratifiedKFold(2), random_state=0
    )
    for fold in range(2):
        few, some, many = fits[fold], fits[2 + fold], fits[4 + fold]
        assert set(few["X"]) < set(some["X"]) < set(many["X"])
        assert sorted(few["y"]) == [0, 1, 2]
        assert np.abs(np.bincount(many["y"]) - [26.7, 10, 3.3]).max() < 2


def test_random_state_determines_which_labels_are_kept():
    X, y = rows_and_labels()
    arguments = {"train_sizes": [9], "cv": 2, "missing_label": -1}
    for seed in (0, 0, 1):
        LabelCurveDisplay.from_estimator(Recorder(-1), X, y, random_state=seed, **arguments)
    kept = [fit["X"][fit["y"] != -1].tolist() for fit in fits]
    assert kept[:2] == kept[2:4]
    assert kept[:2] != kept[4:]


def test_all_rows_score_as_in_scikit_learn(digits):
    X, y = digits
    X, y = X[y != -1], y[y != -1]
    model = KNeighborsClassifier(3)
    display = LabelCurveDisplay.from_estimator(model, X, y, train_sizes=[1.0], cv=4)
    _, _, expected = learning_curve(model, X, y, train_sizes=[1.0], cv=4)
    np.testing.assert_allclose(display.scores[0], expected)
    with joblib.parallel_config(backend="threading"):
        errors = LabelCurveDisplay.from_estimator(
            model, X, y, train_sizes=[1.0], cv=4, scoring="neg_log_loss", n_jobs=2
        )
    _, _, expected = learning_curve(model, X, y, train_sizes=[1.0], cv=4, scoring="neg_log_loss")
    np.testing.assert_allclose(errors.scores[0], expected)


def test_lines_and_bands_are_means_and_standard_errors_of_the_error():
    scores = np.array([[[0.5, 0.7], [0.8, 0.9]], [[0.2, 0.2], [0.4, 0.6]]])
    display = LabelCurveDisplay(
        train_sizes=[8, 64], scores=scores, names=["a", "b"], score_name="accuracy"
    ).plot()
    for line, expected in zip(display.lines_, [[0.4, 0.15], [0.8, 0.5]], strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [8, 64])
        np.testing.assert_allclose(line.get_ydata(), expected)
    for band, at_8 in zip(display.fill_between_, [(0.3, 0.5), (0.8, 0.8)], strict=True):
        heights = [y for x, y in band.get_paths()[0].vertices if x == 8]
        np.testing.assert_allclose([min(heights), max(heights)], at_8)
    assert display.ax_.get_xscale() == "log"
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["8", "64"]
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["a", "b"]
    assert display.ax_.get_xlabel() == "Labelled rows to train on"
    assert display.lines_[0].get_marker() != display.lines_[1].get_marker()
    assert display.lines_[0].get_color() != display.lines_[1].get_color()


@pytest.mark.parametrize(
    ("name", "drawn", "label"),
    [
        ("accuracy", 0.75, "Error (1 - accuracy)"),
        ("balanced_accuracy", 0.75, "Error (1 - balanced accuracy)"),
        ("f1_macro", 0.75, "Error (1 - f1 macro)"),
        ("r2", 0.75, "1 - R²"),
        ("r2_score", 0.75, "1 - R²"),
        ("neg_mean_absolute_error", -0.25, "Mean absolute error"),
        ("neg_log_loss", -0.25, "Log loss"),
        ("euros", 0.25, "Euros"),
        ("score", 0.25, "Score"),
    ],
)
def test_what_is_drawn_depends_on_the_score(name, drawn, label):
    display = LabelCurveDisplay(train_sizes=[10], scores=[[[0.25]]], score_name=name).plot()
    np.testing.assert_allclose(display.lines_[0].get_ydata(), [drawn])
    assert display.ax_.get_ylabel() == label
    assert display.fill_between_ == []
    assert display.ax_.get_legend() is None


def test_scorers_have_names():
    X, y = rows_and_labels(every=1)
    arguments = {"cv": 2, "train_sizes": [12]}
    loss = make_scorer(log_loss, greater_is_better=False, response_method="predict_proba")
    model = GaussianNB()
    assert LabelCurveDisplay.from_estimator(model, X, y, **arguments).score_name == "accuracy"
    display = LabelCurveDisplay.from_estimator(model, X, y, scoring=loss, **arguments)
    assert display.score_name == "neg_log_loss"
    assert (display.lines_[0].get_ydata() > 0).all()

    def euros(estimator, X, y):
        return 3.0

    display = LabelCurveDisplay.from_estimator(model, X, y, scoring=euros, **arguments)
    assert display.ax_.get_ylabel() == "Euros"
    display = LabelCurveDisplay.from_estimator(LinearRegression(), X, y.astype(float), **arguments)
    assert display.score_name == "r2"


def test_ticks_do_not_overlap_and_the_legend_covers_no_line():
    sizes = [10, 11, 12, 13, 20, 40, 41, 5_000, 10_000]
    names = [f"estimator number {number} with a name" for number in range(8)]
    scores = np.random.default_rng(0).uniform(size=(8, 9, 3))
    display = LabelCurveDisplay(train_sizes=sizes, scores=scores, names=names).plot()
    figure = display.figure_
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in display.ax_.get_xticklabels()]
    assert len(boxes) > 3
    boxes.sort(key=lambda box: box.x0)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.y0 >= display.ax_.bbox.y1
    assert legend.y1 <= figure.bbox.y1
    assert legend.x1 <= figure.bbox.x1
    assert len({(line.get_color(), line.get_marker()) for line in display.lines_}) == 8


def test_shares_count_the_rows_of_the_smallest_fold_and_leave_out_too_few():
    X, y = rows_and_labels()
    display = LabelCurveDisplay.from_estimator(
        DummyClassifier(), X, y, cv=3, missing_label=-1, random_state=0
    )
    np.testing.assert_array_equal(display.train_sizes, [5, 10, 20, 40])  # 1/16 is below 3


def test_a_student_with_and_without_teacher_learns_from_marked_rows(make_pipe, digits):
    students = {
        "taught": make_pipe(max_epochs=15),
        "alone": make_pipe(max_epochs=15, beta=0),
    }
    display = LabelCurveDisplay.from_estimator(
        students, *digits, train_sizes=[10, 50], cv=2, missing_label=-1, random_state=0
    )
    assert display.scores.shape == (2, 2, 2)
    assert display.scores[0].mean() > display.scores[1].mean()


@pytest.mark.parametrize("marker", [np.nan, None, "?"])
def test_texts_with_any_mark_and_labels_of_any_type(marker):
    texts = [f"word{i % 2} the of {i}" for i in range(60)]
    missing_label = np.nan if marker is None else marker
    labels = [("even", "odd")[i % 2] if i % 3 else marker for i in range(60)]
    student = AFTClassifier(
        beta=0, missing_label=missing_label, max_epochs=1, module__start="random"
    )
    models = {"student": student, "counts": make_pipeline(CountVectorizer(), LogisticRegression())}
    arguments = {"train_sizes": [10, 20], "cv": 2, "missing_label": missing_label}
    for X, y in ((texts, labels), (pd.Series(texts), pd.Series(labels, dtype=object))):
        display = LabelCurveDisplay.from_estimator(models, X, y, random_state=0, **arguments)
        np.testing.assert_array_equal(display.scores[1], 1)


def test_whole_numbers_may_have_nan_as_a_mark():
    X, y = rows_and_labels(every=1)
    display = LabelCurveDisplay.from_estimator(
        AFTClassifier(beta=0, missing_label=np.nan, max_epochs=1, random_state=0),
        X.astype(float),
        y,
        train_sizes=[6, 60],
        cv=2,
        missing_label=np.nan,
    )
    assert np.isfinite(display.scores).all()


@pytest.mark.parametrize("n_targets", [1, 2])
def test_targets_of_a_regression_are_drawn_at_random(n_targets):
    X, y = load_diabetes(return_X_y=True)
    y = y[:90] if n_targets == 1 else np.c_[y, -y][:90]
    students = {
        "student": AFTRegressor(beta=0, missing_label=np.nan, max_epochs=2, random_state=0),
        "mean": DummyRegressor(),
    }
    display = LabelCurveDisplay.from_estimator(
        students, X[:90], y, train_sizes=[5, 30, 60], cv=3, missing_label=np.nan, random_state=0
    )
    assert np.isfinite(display.scores).all()
    assert display.ax_.get_ylabel() == "1 - R²"


def test_splitters_count_labelled_rows_only():
    X, y = rows_and_labels()
    for cv in (KFold(3), ShuffleSplit(2, test_size=0.5, random_state=0), [([0, 1, 2, 3], [4, 5])]):
        fits.clear()
        display = LabelCurveDisplay.from_estimator(
            Recorder(-1), X, y, train_sizes=[3], cv=cv, missing_label=-1
        )
        assert display.scores.shape[2] == len(fits)
        assert all((y[fit["tested"]] != -1).all() for fit in fits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_sizes": [2]}, r"expected numbers from 3, a row for each class, to 40"),
        ({"train_sizes": [41]}, r"train_sizes is \[41\], expected numbers from 3"),
        ({"train_sizes": [0.5, 1.5]}, "shares have to be above 0 and at most 1"),
        ({"train_sizes": [0.01]}, "All shares of train_sizes are too small: 40 labelled"),
        ({"train_sizes": []}, "expected a list of numbers"),
        ({"train_sizes": "all"}, "expected a list of numbers"),
        ({"missing_label": -2}, "'student' has missing_label=-1, so it would learn the mark"),
        ({"cv": 500}, "n_splits=500"),
    ],
)
def test_bad_arguments_are_errors_before_any_fit(arguments, message):
    X, y = rows_and_labels()
    arguments = {"cv": 3, "missing_label": -1, **arguments}
    with pytest.raises(ValueError, match=message):
        LabelCurveDisplay.from_estimator({"student": Recorder(-1)}, X, y, **arguments)
    assert fits == []


def test_rows_without_any_label_are_an_error():
    X, _ = rows_and_labels()
    with pytest.raises(ValueError, match="All 120 rows of y are missing_label=-1"):
        LabelCurveDisplay.from_estimator(Recorder(-1), X, np.full(120, -1), missing_label=-1)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LabelCurveDisplay.from_estimator(Recorder(-1), X, [1, 2])
    with pytest.raises(ValueError, match="empty mapping"):
        LabelCurveDisplay.from_estimator({}, X, np.zeros(120))
    with pytest.raises(ValueError, match="Row 1 of y holds a missing value"):
        LabelCurveDisplay.from_estimator(Recorder(), X[:4], [0, None, 1, 1], cv=2)


@pytest.mark.parametrize("marker", [-1, "", "unknown"])
def test_a_usual_mark_among_classes_is_an_error_before_any_fit(marker):
    X, y = rows_and_labels(marker=-1)
    labels = [marker if label == -1 else label if marker == -1 else f"class {label}" for label in y]
    with pytest.raises(ValueError, match=f"y holds {marker!r}, .*set missing_label={marker!r}"):
        LabelCurveDisplay.from_estimator(Recorder(), X, labels, cv=3)
    assert fits == []


def test_minus_one_may_be_one_of_two_classes_or_a_number():
    X, y = np.arange(60)[:, None], np.tile([-1, 1], 30)
    LabelCurveDisplay.from_estimator(Recorder(), X, y, train_sizes=[4], cv=3)
    assert len(fits) == 3
    numbers = np.arange(60) % 5 - 1
    display = LabelCurveDisplay.from_estimator(DummyRegressor(), X, numbers, cv=3)
    assert np.isfinite(display.scores).all()


@pytest.mark.parametrize(
    ("scores", "names"), [(np.zeros((2, 3)), None), (np.zeros((1, 3, 2)), ["a", "b"])]
)
def test_scores_of_another_shape_are_an_error(scores, names):
    with pytest.raises(ValueError, match=r"expected \(n_estimators, n_sizes, n_folds\)"):
        LabelCurveDisplay(train_sizes=[1, 2, 3], scores=scores, names=names).plot()


def test_given_axes_and_options_are_used():
    figure, axes = plt.subplots()
    display = LabelCurveDisplay(train_sizes=[4], scores=[[[0.5, 1]]])
    assert display.plot(axes, linewidth=4) is display
    assert display.ax_ is axes
    assert display.figure_ is figure
    assert display.lines_[0].get_linewidth() == 4


def test_without_matplotlib_the_error_names_the_command_before_any_fit(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    X, y = rows_and_labels()
    with pytest.raises(ImportError, match=r"matplotlib is needed .*pip install 'sk-aft\[plot\]'"):
        LabelCurveDisplay.from_estimator(Recorder(-1), X, y, missing_label=-1)
    assert fits == []


@pytest.mark.slow
def test_matplotlib_is_imported_late():
    code = "import sys, sk_aft.inspection; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_features_that_are_computed_once_give_the_same_scores(make_pipe, digits):
    X, y = digits
    pipe = make_pipe(max_epochs=5)
    arguments = {"train_sizes": [20, 50], "cv": 2, "missing_label": -1, "random_state": 0}
    rows = pipe[0].fit_transform(X)
    once = LabelCurveDisplay.from_estimator(pipe[-1], rows, y, **arguments)
    each_time = LabelCurveDisplay.from_estimator(pipe, X, y, **arguments)
    np.testing.assert_array_equal(once.scores, each_time.scores)
