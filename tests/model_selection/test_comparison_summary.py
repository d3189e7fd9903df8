import numpy as np
import pytest

from sk_aft.model_selection._comparison._deployment_cost import DeploymentCost
from sk_aft.model_selection._comparison._records import Result
from sk_aft.model_selection._comparison._summary import (
    Estimate,
    expected_gains,
    summarise,
    to_deploy,
)


def result(name, scores, *, role="student", ms=1.0, predictions=()):
    cost = DeploymentCost(1.0, ms, ms / 10, "numpy", "pickle")
    return Result(name, name, role, np.array(scores), 1.0, cost, np.array(predictions))


ALONE = result("student-alone", [0.70, 0.72, 0.71])
TAUGHT = result("student", [0.80, 0.83, 0.81])
PROBE = result("probe", [0.90, 0.92, 0.91], role="teacher", ms=8.0)


def test_a_clear_gain_pays():
    first = summarise([ALONE, TAUGHT], {}, "accuracy", 10).split("\n")[0]
    assert first.startswith("Transfer pays: the accuracy of “student” is 0.813")
    assert "0.103 ± 0.003 above" in first


def test_a_gain_within_chance_does_not_clearly_pay():
    taught = result("student", [0.70, 0.75, 0.70])
    assert summarise([ALONE, taught], {}, "accuracy", 0).startswith("Transfer does not clearly pay")


def test_a_clear_loss_hurts():
    first = summarise(
        [TAUGHT._replace(name="student-alone"), ALONE._replace(name="student")], {}, "accuracy", 0
    )
    assert first.startswith("Transfer hurts")
    assert "below" in first


def test_a_rival_that_scores_as_high_and_costs_less_is_deployed():
    rival = result("tf-idf", [0.81, 0.83, 0.82], role="rival", ms=0.5)
    assert to_deploy([ALONE, TAUGHT, rival, PROBE]).name == "tf-idf"
    second = summarise([ALONE, TAUGHT, rival], {}, "accuracy", 0).split("\n")[1]
    assert second.startswith("Do not distil: deploy “tf-idf”")


def test_the_cheaper_of_two_that_score_alike_is_deployed():
    rival = result("tf-idf", [0.83, 0.80, 0.82], role="rival", ms=3.0)
    assert to_deploy([ALONE, TAUGHT, rival]).name == "student"


def test_of_two_that_cost_alike_the_one_with_the_higher_score_is_deployed():
    other = result("student-of-tuned", [0.82, 0.82, 0.82], ms=1.1)
    assert to_deploy([ALONE, TAUGHT, other]).name == "student-of-tuned"


def test_a_student_that_is_clearly_behind_is_not_deployed():
    rival = result("tf-idf", [0.90, 0.93, 0.91], role="rival", ms=5.0)
    assert to_deploy([ALONE, TAUGHT, rival]).name == "tf-idf"


def test_a_teacher_is_named_with_its_price_and_deployed_only_alone():
    second = summarise([ALONE, TAUGHT, PROBE], {}, "accuracy", 0).split("\n")[1]
    assert second.startswith("Deploy “student”")
    assert "“probe” scores 0.097 ± 0.003 more, at 8 times the time a row" in second
    assert to_deploy([PROBE]).name == "probe"


def test_the_largest_expected_gain_comes_first():
    gains = {"labels": 0.02, "unlabelled rows": 0.001, "a better teacher": 0.03}
    third = summarise([ALONE, TAUGHT], gains, "accuracy", 5).split("\n")[2]
    assert third.startswith("A better teacher would help most")
    assert third.index("by 0.030") < third.index("by 0.020") < third.index("by 0.001")
    assert "not tried" not in third
    assert "not tried" in summarise([ALONE, TAUGHT], {"labels": 0.02}, "accuracy", 0)


def test_twice_as_many_labels_repeat_the_factor_of_the_last_doubling():
    student = result("student", [0.8, 0.8])
    halves = {"labels": np.array([0.6, 0.6]), "unlabelled rows": np.array([0.8, 0.8])}
    gains = expected_gains({"student": student}, halves, 1.0, np.zeros(2), True)
    assert gains["labels"] == pytest.approx(0.1)
    assert gains["unlabelled rows"] == pytest.approx(0)


def test_a_better_teacher_helps_a_student_that_repeats_its_errors():
    targets = np.zeros(100, dtype=int)
    wrong = (np.arange(100) < 20).astype(int)
    student = result("student", [0.8, 0.8], predictions=wrong)
    follows = {"student": student, "probe": result("probe", [0.8] * 2, predictions=wrong)}
    gains = expected_gains(follows, {}, 1.0, targets, True)
    assert gains["a better teacher"] == pytest.approx(0.25 * 0.2)
    other = result("probe", [0.8] * 2, predictions=(np.arange(100) >= 80).astype(int))
    gains = expected_gains({"student": student, "probe": other}, {}, 1.0, targets, True)
    assert gains["a better teacher"] == 0


def test_residuals_that_agree_are_followed():
    rng = np.random.RandomState(0)
    targets, error = rng.normal(size=200), rng.normal(size=200)
    student = result("student", [0.5, 0.5], predictions=targets + error)
    probe = result("probe", [0.5, 0.5], predictions=targets + 2 * error)
    gains = expected_gains({"student": student, "probe": probe}, {}, 1.0, targets, False)
    assert gains["a better teacher"] == pytest.approx(0.125)


def test_one_value_has_no_standard_error():
    assert np.isnan(Estimate.of([0.5]).standard_error)
    assert not Estimate.of([0.5]).is_clear
    assert str(Estimate.of([0.5])) == "0.500"
