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
    first = summarise([ALONE, TAUGHT], {}, scoring="accuracy", n_unlabeled=10).split("\n")[0]
    assert first.startswith("Transfer pays: the accuracy of “student” is 0.813")
    assert "0.103 ± 0.003 above" in first


def test_a_gain_within_chance_does_not_clearly_pay():
    taught = result("student", [0.70, 0.75, 0.70])
    assert summarise([ALONE, taught], {}, scoring="accuracy", n_unlabeled=0).startswith(
        "Transfer does not clearly pay"
    )


def test_a_student_whose_gain_may_be_chance_is_deployed_with_a_caveat():
    alone = result("student-alone", [0.78, 0.79, 0.81])
    taught = result("student", [0.80, 0.83, 0.81])
    first, second, *_ = summarise([alone, taught], {}, scoring="accuracy", n_unlabeled=0).split(
        "\n"
    )
    assert first.startswith("Transfer does not clearly pay")
    assert second.startswith("Deploy “student”")
    assert "its gain over the same student alone may be chance" in second


def test_a_clear_loss_hurts():
    first = summarise(
        [TAUGHT._replace(name="student-alone"), ALONE._replace(name="student")],
        {},
        scoring="accuracy",
        n_unlabeled=0,
    )
    assert first.startswith("Transfer hurts")
    assert "below" in first


def test_a_rival_that_scores_as_high_and_costs_less_is_deployed():
    rival = result("tf-idf", [0.81, 0.83, 0.82], role="rival", ms=0.5)
    assert to_deploy([ALONE, TAUGHT, rival, PROBE]).name == "tf-idf"
    second = summarise([ALONE, TAUGHT, rival], {}, scoring="accuracy", n_unlabeled=0).split("\n")[1]
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
    second = summarise([ALONE, TAUGHT, PROBE], {}, scoring="accuracy", n_unlabeled=0).split("\n")[1]
    assert second.startswith("Deploy “student”")
    assert "“probe” scores 0.097 ± 0.003 more, at 8 times the time a row" in second
    assert to_deploy([PROBE]).name == "probe"


def gains_of(**means):
    names = {"labels": "labels", "others": "unlabelled rows", "teacher": "a better teacher"}
    return {names[name]: Estimate(mean, 0.002, 3) for name, mean in means.items()}


def third(gains, n_unlabeled=5):
    return summarise([ALONE, TAUGHT], gains, scoring="accuracy", n_unlabeled=n_unlabeled).split(
        "\n"
    )[2]


def test_the_largest_expected_gain_comes_first():
    sentence = third(gains_of(labels=0.02, others=0.003, teacher=0.03))
    assert sentence.startswith("A better teacher would help most")
    assert sentence.index("by 0.030") < sentence.index("by 0.020") < sentence.index("by 0.003")
    assert "not tried" not in sentence


def test_rows_without_labels_that_were_not_there_are_named():
    assert "rows without labels were not tried" in third(gains_of(labels=0.02), n_unlabeled=0)


def test_only_what_was_estimated_is_compared():
    assert third(gains_of(teacher=0.03)).startswith("By extrapolation, a teacher with 25% fewer")
    assert third({}) == "What would help most was not estimated."


def test_what_would_not_help_is_said_in_words():
    assert third(gains_of(labels=0.02, others=-0.01)).endswith("unlabelled rows not at all.")


def test_a_gain_within_its_standard_error_helps_nothing():
    sentence = third(gains_of(labels=0.001, others=-0.002))
    assert "neither twice the labels nor twice the unlabelled rows would clearly help" in sentence


def test_twice_as_many_labels_repeat_the_factor_of_the_last_doubling():
    student = result("student", [0.8, 0.8])
    halves = {"labels": np.array([0.6, 0.6]), "unlabelled rows": np.array([0.8, 0.8])}
    gains = expected_gains(
        {"student": student}, halves, best_score=1.0, teacher=None, targets=np.zeros(2)
    )
    assert gains["labels"].mean == pytest.approx(0.1)
    assert gains["unlabelled rows"].mean == pytest.approx(0)


def test_a_better_teacher_helps_a_student_that_repeats_its_errors():
    targets = np.zeros(100, dtype=int)
    wrong = (np.arange(100) < 20).astype(int)
    student = result("student", [0.8, 0.8], predictions=wrong)

    def gain(teacher):
        results = {"student": student, "probe": teacher}
        arguments = {"best_score": 1.0, "teacher": "probe", "targets": targets}
        return expected_gains(results, {}, **arguments).get("a better teacher")

    follows = result("probe", [0.81, 0.81], predictions=wrong)
    assert gain(follows).mean == pytest.approx(0.25 * 0.2)
    others = (np.arange(100) >= 80).astype(int)
    assert gain(result("probe", [0.81, 0.81], predictions=others)).mean == 0
    assert gain(result("probe", [0.7, 0.7], predictions=wrong)) is None  # worse than the student


def test_few_folds_need_a_larger_gain_to_be_clear():
    assert not Estimate(0.05, 0.02, 3).is_clear
    assert Estimate(0.05, 0.02, 10).is_clear
    assert not Estimate.of([0.05, 0.05, 0.05]).is_clear  # which tells no spread


def test_a_result_that_varies_is_not_as_high_as_the_best():
    best = result("tf-idf", [0.67, 0.66, 0.68], role="rival", ms=1.0)
    noisy = result("student", [0.70, 0.60, 0.62], ms=0.05)
    assert to_deploy([best, noisy]).name == "tf-idf"


def test_the_student_alone_is_deployed_if_a_taught_one_is_no_better():
    alone = result("student-alone", [0.80, 0.82, 0.83])
    assert to_deploy([alone, TAUGHT._replace(scores=np.array([0.81, 0.83, 0.815]))]).name == (
        "student-alone"
    )


def test_what_was_not_compared_is_named():
    second = summarise(
        [ALONE, TAUGHT], {}, scoring="accuracy", n_unlabeled=0, not_compared=["tf-idf"]
    ).split("\n")[1]
    assert "not compared, for lack of time: tf-idf" in second


def test_one_value_has_no_standard_error():
    assert np.isnan(Estimate.of([0.5]).standard_error)
    assert not Estimate.of([0.5]).is_clear
    assert str(Estimate.of([0.5])) == "0.500"
