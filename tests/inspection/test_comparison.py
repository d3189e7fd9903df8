import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from sk_aft.inspection import ComparisonDisplay
from sk_aft.inspection._comparison import pareto_front

NAMES = ["tf-idf", "student-alone", "student", "probe", "a $x_{$ <b>"]
ROLES = ["rival", "student", "student", "teacher", "added"]
SCORES = [0.66, 0.67, 0.79, 0.82, 0.70]
ERRORS = [0.02, 0.01, 0.01, 0.01, np.nan]
COSTS = [1.0, 0.05, 0.051, 8.0, 2.0]


def display(**changed):
    points = {
        "names": NAMES,
        "roles": ROLES,
        "scores": SCORES,
        "standard_errors": ERRORS,
        "costs": COSTS,
        "scoring": "accuracy",
    }
    return ComparisonDisplay(**{**points, **changed})


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=12))
def test_no_candidate_beats_one_on_the_front_and_each_other_is_beaten(points):
    scores, costs = np.array(points).T
    front = pareto_front(scores, costs)
    assert (np.diff(costs[front]) > 0).all()
    assert (np.diff(scores[front]) > 0).all()
    for index in range(len(points)):
        at_least = (scores[front] >= scores[index]) & (costs[front] <= costs[index])
        assert at_least.any()
    for index in front:
        better = (scores >= scores[index]) & (costs <= costs[index])
        better &= (scores > scores[index]) | (costs < costs[index])
        assert not better.any()


def test_the_front_joins_the_best_of_each_cost():
    drawn = display().plot()
    assert drawn.front_.get_xdata().tolist() == [0.05, 0.051, 8.0]
    assert drawn.figure_ is drawn.ax_.figure
    assert drawn.ax_.get_xscale() == "log"


def test_each_candidate_has_a_point_an_error_and_its_name():
    drawn = display().plot(ax=Figure().subplots())
    points = [bar.lines[0].get_xydata()[0].tolist() for bar in drawn.errorbars_]
    assert points == [list(point) for point in zip(COSTS, SCORES, strict=True)]
    assert sorted(label.get_text() for label in drawn.labels_) == sorted(
        [*NAMES[:4], r"a \$x_{\$ <b>"]
    )
    legend = [text.get_text() for text in drawn.ax_.get_legend().get_texts()]
    assert legend == [
        "Pareto front",
        "rival without a foundation model",
        "student",
        "runs a foundation model",
        "added by you",
    ]


def test_names_do_not_cover_each_other():
    drawn = display().plot(ax=Figure(figsize=(8, 5)).subplots())
    boxes = [label.get_window_extent() for label in drawn.labels_]
    for index, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:index])


@pytest.mark.parametrize("n_points", [1, 2])
def test_few_candidates_are_drawn(n_points):
    few = {name: value[:n_points] for name, value in vars(display()).items() if name != "scoring"}
    drawn = ComparisonDisplay(**few).plot(ax=Figure().subplots())
    assert len(drawn.labels_) == n_points


def test_axes_of_a_subfigure_are_drawn_on():
    (left, _) = Figure().subfigures(1, 2)
    assert display().plot(ax=left.subplots()).labels_


def test_a_comparison_is_drawn_from_its_points():
    class Comparison:
        def points(self):
            return vars(display())

    drawn = ComparisonDisplay.from_estimator(Comparison(), ax=Figure().subplots())
    assert drawn.scores.tolist() == SCORES
