import pickle

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft import AFTClassifier, AFTRegressor, CascadeClassifier
from sk_aft.inspection import TeacherWeightsDisplay, TransferDisplay
from sk_aft.model_selection import LabeledFold


def legend_of(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_lines_hold_the_terms_of_the_loss(make_pipe, digits):
    pipe = make_pipe(transfer="aft", beta=7).fit(*digits)
    history = pipe[-1].history_
    display = TransferDisplay.from_estimator(pipe)
    task, transfer = display.lines_
    np.testing.assert_array_equal(task.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(task.get_ydata(), history[:, "train_task_loss"])
    expected = 7 * np.array(history[:, "train_transfer_loss"])
    np.testing.assert_allclose(transfer.get_ydata(), expected, rtol=1e-5)
    total = task.get_ydata() + transfer.get_ydata()
    np.testing.assert_allclose(total, pipe[-1].loss_curve_)
    assert legend_of(display) == ["task loss", "beta * transfer loss"]
    assert display.ax_.get_xlabel() == "Epoch"
    assert display.score_ax_ is None
    assert display.score_line_ is None


def test_a_student_without_transfer_has_the_task_term_only(make_pipe, digits):
    display = TransferDisplay.from_estimator(make_pipe(beta=0).fit(*digits))
    assert display.transfer_loss is None
    assert len(display.lines_) == 1
    assert legend_of(display) == ["task loss"]


def test_the_validation_score_is_on_the_right(make_pipe, digits):
    pipe = make_pipe(early_stopping=True).fit(*digits)
    display = TransferDisplay.from_estimator(pipe)
    np.testing.assert_array_equal(display.score_line_.get_ydata(), pipe[-1].validation_scores_)
    assert display.score_line_ not in display.ax_.lines
    assert display.score_ax_.get_ylabel() == "Validation accuracy"
    assert legend_of(display)[-1] == "validation accuracy (right)"


def test_the_legend_is_above_the_lines(make_pipe, digits):
    display = TransferDisplay.from_estimator(make_pipe(early_stopping=True).fit(*digits))
    display.figure_.draw_without_rendering()
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.y0 >= display.ax_.bbox.y1
    assert display.figure_.bbox.x1 >= legend.x1
    assert display.figure_.bbox.y1 >= legend.y1


def test_a_regressor_has_the_score_of_a_regressor():
    X, y = load_diabetes(return_X_y=True)
    student = AFTRegressor(max_epochs=2, early_stopping=True, random_state=0)
    student.fit(X, y, features=PCA(3).fit_transform(X))
    display = TransferDisplay.from_estimator(student)
    assert display.score_ax_.get_ylabel() == "Validation R²"
    np.testing.assert_array_equal(display.valid_score, student.validation_scores_)


def test_terms_of_each_training_count_if_it_was_resumed(make_pipe, digits):
    pipe = make_pipe(transfer="aft", beta=2, warm_start=True, max_epochs=2).fit(*digits)
    pipe.set_params(aftclassifier__beta=5).fit(*digits)
    pipe.set_params(aftclassifier__beta=0).fit(*digits)
    display = TransferDisplay.from_estimator(pipe)
    plain = np.array([epoch.get("train_transfer_loss", np.nan) for epoch in pipe[-1].history_])
    expected = np.repeat([2, 5, 1], 2) * plain
    np.testing.assert_allclose(display.transfer_loss, expected, rtol=1e-5)
    assert np.isnan(display.transfer_loss[-2:]).all()
    np.testing.assert_allclose(display.task_loss, pipe[-1].history_[:, "train_task_loss"])


@pytest.mark.parametrize("wrap", [lambda pipe: pipe, lambda pipe: pipe[-1], pickle.dumps])
def test_a_pipeline_its_student_and_its_pickle_give_the_same(pipe, wrap):
    given = wrap(pipe)
    given = pickle.loads(given) if isinstance(given, bytes) else given
    display = TransferDisplay.from_estimator(given)
    np.testing.assert_array_equal(display.task_loss, pipe[-1].history_[:, "train_task_loss"])


@pytest.mark.parametrize("search_type", [GridSearchCV, RandomizedSearchCV])
def test_a_search_shows_the_student_that_it_found(search_type, make_pipe, digits):
    further = {"n_iter": 1} if search_type is RandomizedSearchCV else {}
    cv = LabeledFold(2, missing_label=-1)
    search = search_type(make_pipe(), {"aftclassifier__beta": [1]}, cv=cv, **further)
    with pytest.raises(NotFittedError, match=search_type.__name__):
        TransferDisplay.from_estimator(search)
    display = TransferDisplay.from_estimator(search.fit(*digits))
    expected = search.best_estimator_[-1].history_[:, "train_task_loss"]
    np.testing.assert_array_equal(display.task_loss, expected)
    unfinished = clone(search).set_params(refit=False).fit(*digits)
    with pytest.raises(TypeError, match="no best_estimator_, because refit=False"):
        TransferDisplay.from_estimator(unfinished)


@pytest.mark.parametrize(
    ("display", "shown"), [(TransferDisplay, "task_loss"), (TeacherWeightsDisplay, "weights")]
)
def test_the_student_of_a_cascade_is_shown(make_pipe, digits, display, shown):
    X, y = digits
    cascade = CascadeClassifier(make_pipe(), GaussianNB(), cv=0.3, missing_label=-1)
    with pytest.raises(NotFittedError, match="CascadeClassifier"):
        display.from_estimator(cascade)
    cascade.fit(X, y)
    expected = getattr(display.from_estimator(cascade.student_), shown)
    np.testing.assert_equal(getattr(display.from_estimator(cascade), shown), expected)
    frozen = CascadeClassifier(FrozenEstimator(cascade.student_), cascade.teacher_, cv="prefit")
    frozen.set_params(missing_label=-1).fit(X, y)
    np.testing.assert_equal(getattr(display.from_estimator(frozen), shown), expected)
    other = CascadeClassifier(GaussianNB(), GaussianNB(), cv=0.3, missing_label=-1).fit(X, y)
    with pytest.raises(TypeError, match="a CascadeClassifier that has the student GaussianNB"):
        display.from_estimator(other)


def test_given_axes_and_options_are_used(pipe):
    figure, axes = plt.subplots()
    display = TransferDisplay.from_estimator(pipe, ax=axes, linewidth=3.5)
    assert display.ax_ is axes
    assert display.figure_ is figure
    assert [line.get_linewidth() for line in display.lines_] == [3.5, 3.5]
    assert display.plot() is display
    assert display.ax_ is not axes


def test_a_few_epochs_have_markers_and_many_have_none():
    few = TransferDisplay(task_loss=[1.0]).plot()
    assert few.lines_[0].get_markevery() == [0]
    many = TransferDisplay(task_loss=np.linspace(1, 0, 200)).plot()
    assert many.lines_[0].get_markevery() == []


def test_an_unfitted_student_is_an_error(make_pipe):
    for estimator in (make_pipe(), AFTClassifier()):
        with pytest.raises(NotFittedError, match="AFTClassifier"):
            TransferDisplay.from_estimator(estimator)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LogisticRegression(), "is a LogisticRegression, expected a fitted AFTClassifier"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "ends in LogisticRegression"),
        ("minilm", "is a str, expected"),
    ],
)
def test_an_estimator_without_a_student_is_an_error(estimator, message):
    with pytest.raises(TypeError, match=message):
        TransferDisplay.from_estimator(estimator)


def test_a_student_from_a_folder_has_no_history(pipe, tmp_path):
    pipe[-1].save_pretrained(tmp_path / "student")
    loaded = AFTClassifier.from_pretrained(tmp_path / "student")
    with pytest.raises(ValueError, match="no history of its training: folders"):
        TransferDisplay.from_estimator(loaded)
