"""skore reports on students, alone and beside a linear probe."""

import warnings

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

skore = pytest.importorskip("skore")


@pytest.fixture(autouse=True)
def _quiet():
    with skore.configuration(show_progress=False):
        yield


def test_evaluate_scores_a_pipeline_as_cross_validation_does(pipe, questions):
    report = skore.evaluate(pipe, *questions, splitter=3)
    assert isinstance(report, skore.CrossValidationReport)
    folds = report.metrics.accuracy(aggregate=None).to_numpy().ravel()
    assert folds.tolist() == cross_val_score(pipe, *questions, cv=3).tolist()


def test_evaluate_compares_a_student_with_a_probe_on_the_same_splits(pipe, questions):
    probe = make_pipeline(pipe[0], LogisticRegression())
    report = skore.evaluate({"student": pipe, "probe": probe}, *questions, splitter=3)
    assert isinstance(report, skore.ComparisonReport)
    frame = report.metrics.summarize().frame()
    assert {"mean_student", "mean_probe"} <= set(frame.columns)
    for name, model in (("student", pipe), ("probe", probe)):
        expected = cross_val_score(model, *questions, cv=3)
        assert frame.loc["accuracy", f"mean_{name}"] == pytest.approx(expected.mean())
        assert expected.mean() > 0.9


def test_evaluate_reports_on_a_fitted_student_of_new_rows(fitted, test_questions):
    student = fitted[-1]
    report = skore.evaluate(student, *test_questions, splitter="prefit")
    assert isinstance(report, skore.EstimatorReport)
    assert report.metrics.accuracy() == student.score(*test_questions) > 0.9
    confusion = report.metrics.confusion_matrix().frame()
    right = confusion["true_label"] == confusion["predicted_label"]
    predicted = student.predict(test_questions[0]) == test_questions[1]
    assert confusion.loc[right, "value"].sum() == predicted.sum()


def test_inspection_and_html_of_a_report_read_texts(pipe, questions):
    report = skore.evaluate(pipe, *questions, splitter=0.3)
    importance = report.inspection.permutation_importance(n_repeats=2, seed=0).frame()
    assert importance["feature"].tolist() == ["text"]
    assert importance["value_mean"].item() > 0.3
    assert "AFTClassifier" in report._repr_html_()


def test_checks_of_a_pipeline_without_golden_features_warn_of_nothing(pipe, questions):
    report = skore.evaluate(pipe, *questions, splitter=0.3)
    with warnings.catch_warnings():
        # The check left out would warn: its students are trained on single features, as rows.
        warnings.simplefilter("error", UserWarning)
        summary = str(report.checks.summarize(ignore=["SKD011"]))
    assert "1 ignored" in summary
    assert "[SKD002] Potential underfitting" in summary.split("Passed:")[1]
