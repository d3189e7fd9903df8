import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from sklearn.datasets import load_diabetes
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.inspection import TeacherWeightsDisplay


def bars_of(display):
    names = [label.get_text() for label in display.ax_.get_yticklabels()]
    return dict(zip(names, [bar.get_width() for bar in display.bars_], strict=True))


def test_bars_are_the_weights_of_the_pooled_teachers(pipe):
    student = pipe[-1]
    display = TeacherWeightsDisplay.from_estimator(pipe)
    assert bars_of(display) == student.teacher_weights_
    assert set(bars_of(display)) == {"pca", "pca-2", "student's rows"}
    assert [*bars_of(display).values()] == sorted(student.teacher_weights_.values())
    title = display.ax_.get_title(loc="left")
    assert title == (
        f"Together they explain {student.teacher_score_:.0%} of the labels' entropy, out of fold"
    )
    assert display.ax_.get_xlabel() == "Weight of the teacher's predictions"


def test_what_the_student_has_itself_is_grey(pipe):
    display = TeacherWeightsDisplay.from_estimator(pipe)
    colors = dict(
        zip(bars_of(display), [bar.get_facecolor() for bar in display.bars_], strict=True)
    )
    assert colors["pca"] == colors["pca-2"] != colors["student's rows"]
    assert colors["student's rows"] == to_rgba("#6b7280")


def test_bars_of_aft_are_the_mean_weights_of_features(make_pipe, digits):
    pipe = make_pipe(transfer="aft").fit(*digits)
    display = TeacherWeightsDisplay.from_estimator(pipe)
    weights = pipe[-1].feature_weights_
    found = bars_of(display)
    assert found.keys() == {"pca", "pca-2"}
    np.testing.assert_allclose(found["pca"], weights[:8].mean(), rtol=1e-5)
    np.testing.assert_allclose(found["pca-2"], weights[8:].mean(), rtol=1e-5)
    assert display.ax_.get_xlabel() == "Mean weight of the model's features"
    assert display.ax_.get_title(loc="left") == ""


def test_the_pool_in_a_list_of_methods_is_shown(make_pipe, digits):
    pipe = make_pipe(transfer=[("pooled-kd", 1), ("aft", 10)]).fit(*digits)
    assert bars_of(TeacherWeightsDisplay.from_estimator(pipe)) == pipe[-1].teacher_weights_


def test_teachers_of_a_regressor_have_an_r2():
    X, y = load_diabetes(return_X_y=True)
    student = AFTRegressor(max_epochs=2, random_state=0)
    student.fit(X, y, features=PCA(5).fit_transform(X))
    display = TeacherWeightsDisplay.from_estimator(student)
    title = display.ax_.get_title(loc="left")
    assert title == f"R² of their pooled predictions, out of fold: {student.teacher_score_:.2f}"


def test_labels_of_single_rows_judge_no_teacher(digits):
    X, y = digits
    rows = [int(np.flatnonzero(y == label)[0]) for label in range(10)]
    student = AFTClassifier(max_epochs=1, random_state=0)
    student.fit(X[rows], y[rows], features=PCA(5).fit(X).transform(X[rows]))
    display = TeacherWeightsDisplay.from_estimator(student)
    assert display.note == "Teachers not judged: no class has two labelled rows"


def test_the_largest_weight_is_on_top_and_equal_ones_keep_their_order():
    weights = {"first": 0.5, "second": 0.5, "low": 0.1, "top": 0.9}
    display = TeacherWeightsDisplay(weights=weights).plot()
    assert [*bars_of(display)] == ["low", "second", "first", "top"]
    written = [text.get_text() for text in display.ax_.texts]
    assert written == ["0.10", "0.50", "0.50", "0.90"]


def test_names_are_no_formulas_and_fit_into_the_figure():
    name = r"$\nonsense{ " + "of a long name " * 3 + "$"
    display = TeacherWeightsDisplay(weights={name: 0.4, "minilm": 1.0}).plot()
    display.figure_.draw_without_rendering()
    for label in [*display.ax_.get_yticklabels(), *display.ax_.texts]:
        box = label.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= display.figure_.bbox.x1


def test_the_figure_grows_with_the_teachers():
    few = TeacherWeightsDisplay(weights={"a": 1.0}).plot().figure_
    many = TeacherWeightsDisplay(weights=dict.fromkeys("abcdefghijkl", 0.1)).plot().figure_
    assert many.get_size_inches()[1] > 3 * few.get_size_inches()[1]


def test_given_axes_and_options_are_used(pipe):
    figure, axes = plt.subplots()
    display = TeacherWeightsDisplay.from_estimator(pipe, ax=axes, color="red", alpha=0.5)
    assert display.ax_ is axes
    assert display.figure_ is figure
    assert {bar.get_facecolor() for bar in display.bars_} == {(1.0, 0.0, 0.0, 0.5)}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"transfer": "kd"}, "'kd' weights neither teachers nor features.*'pooled-kd'"),
        ({"transfer": "aft-dense"}, "'aft-dense' weights neither teachers nor features"),
        ({"beta": 0}, r"learned from its labels alone \(beta is 0\)"),
        ({"transfer": None}, "learned from its labels alone"),
    ],
)
def test_students_without_weights_are_an_error(parameters, message, make_pipe, digits):
    pipe = make_pipe(**parameters).fit(*digits)
    with pytest.raises(ValueError, match=message):
        TeacherWeightsDisplay.from_estimator(pipe)


def test_an_unfitted_student_is_an_error(make_pipe):
    with pytest.raises(NotFittedError, match="AFTClassifier"):
        TeacherWeightsDisplay.from_estimator(make_pipe())


def test_a_student_from_a_folder_does_not_know_its_weights(pipe, tmp_path):
    pipe[-1].save_pretrained(tmp_path / "student")
    loaded = AFTClassifier.from_pretrained(tmp_path / "student")
    with pytest.raises(ValueError, match="loaded from a folder of save_pretrained"):
        TeacherWeightsDisplay.from_estimator(loaded)
