import matplotlib as mpl
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

mpl.use("agg")
from matplotlib import pyplot

from sk_aft import CascadeClassifier
from sk_aft.inspection import DeferralDisplay

DIGITS, TARGETS = load_digits(return_X_y=True)
X, y, X_TEST, Y_TEST = DIGITS[:900], TARGETS[:900], DIGITS[900:], TARGETS[900:]


@pytest.fixture(scope="module")
def cascade():
    teacher = LogisticRegression(C=0.01, max_iter=1000)
    return CascadeClassifier(GaussianNB(), teacher, missing_label=-1).fit(X, y)


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def test_the_curve_goes_from_the_student_to_the_teacher_through_the_cascade(cascade):
    display = DeferralDisplay.from_estimator(cascade, X_TEST, Y_TEST)
    shares, accuracies = display.line_.get_data()
    assert (shares[0], shares[-1]) == (0, 100)
    assert accuracies[0] == pytest.approx(100 * cascade.student_.score(X_TEST, Y_TEST))
    assert accuracies[-1] == pytest.approx(100 * cascade.teacher_.score(X_TEST, Y_TEST))
    assert shares[display.chosen] == pytest.approx(100 * cascade.defers(X_TEST).mean())
    assert accuracies[display.chosen] == pytest.approx(100 * cascade.score(X_TEST, Y_TEST))
    np.testing.assert_array_equal(shares, 100 * display.deferred)
    np.testing.assert_array_equal(accuracies, 100 * display.accuracies)


def test_the_plot_names_what_it_shows(cascade):
    display = DeferralDisplay.from_estimator(cascade, X_TEST, Y_TEST)
    axes = display.ax_
    assert axes.get_xlabel() == "Rows deferred to the teacher (%)"
    assert axes.get_ylabel() == "Accuracy (%)"
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    share, accuracy = 100 * cascade.defers(X_TEST).mean(), 100 * cascade.score(X_TEST, Y_TEST)
    assert f"cascade, {share:.1f} % deferred: {accuracy:.1f} %" in names
    assert len(names) == 5
    random = axes.lines[0].get_data()
    np.testing.assert_allclose(random[1], display.line_.get_ydata()[[0, -1]])
    display.figure_.canvas.draw()


def test_it_is_drawn_where_it_is_asked_for_and_again(cascade):
    figure, (left, right) = pyplot.subplots(1, 2)
    display = DeferralDisplay.from_estimator(cascade, X_TEST, Y_TEST, ax=left)
    assert display.ax_ is left
    assert display.figure_ is figure
    assert display.plot(right) is display
    assert display.ax_ is right
    assert display.plot().figure_ is not figure


def test_rows_without_a_label_are_left_out(cascade):
    labels = np.where(np.arange(len(Y_TEST)) % 3 == 0, -1, Y_TEST)
    known = labels != -1
    some = DeferralDisplay.from_estimator(cascade, X_TEST, labels)
    expected = DeferralDisplay.from_estimator(cascade, X_TEST[known], Y_TEST[known])
    np.testing.assert_array_equal(some.accuracies, expected.accuracies)


def test_what_cannot_be_shown(cascade):
    with pytest.raises(TypeError, match=r"shows a sk_aft.CascadeClassifier, got GaussianNB"):
        DeferralDisplay.from_estimator(GaussianNB(), X, y)
    with pytest.raises(NotFittedError):
        DeferralDisplay.from_estimator(CascadeClassifier(GaussianNB(), GaussianNB()), X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        DeferralDisplay.from_estimator(cascade, X, y[:-1])
