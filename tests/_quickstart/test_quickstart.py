import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._quickstart import main
from sk_aft._quickstart._command import figure_path, run
from sk_aft._quickstart._figure import save_figure
from sk_aft._quickstart._measure import (
    Result,
    count_parameters,
    deployed,
    milliseconds_per_row,
    standard_error,
)
from sk_aft._quickstart._report import format_count, format_table
from sk_aft._quickstart._tasks import TASKS, Method

PNG = b"\x89PNG\r\n\x1a\n"
both = pytest.mark.parametrize("name", ["text", "images"])


def small(task):
    """The same task with fewer classes, rows and epochs."""

    def load(*, subset="train", return_X_y=False, **arguments):
        if subset == "test":
            arguments["labels_per_class"] = 5
        bunch = task.load(subset=subset, **arguments)
        kept = np.flatnonzero(np.isin(bunch.target, bunch.target_names[:4]))
        bunch.data = [bunch.data[row] for row in kept]
        bunch.target = bunch.target[kept]
        bunch.target_names = bunch.target_names[:4]
        return (bunch.data, bunch.target) if return_X_y else bunch

    def methods(random_state):
        built = task.methods(random_state)
        for method in built:
            if "aftclassifier" in method.pipeline.named_steps:
                method.pipeline.set_params(aftclassifier__max_epochs=2)
        return built

    return replace(task, load=load, labels_per_class=4, methods=methods)


def result(role="aft", accuracies=(0.7, 0.8, 0.9), n_parameters=1234, milliseconds=0.5):
    method = Method(role, f"The {role}", make_pipeline(LogisticRegression()), {})
    return Result(method, {"logisticregression__C": 1.0}, accuracies, n_parameters, milliseconds)


@both
def test_run_compares_every_method_and_saves_a_figure(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SK_AFT_CACHE", str(tmp_path / "store"))
    task = small(TASKS[name])
    figure = tmp_path / "figure.png"
    results = run(task, n_seeds=2, figure=figure)
    printed = capsys.readouterr().out
    assert [r.method.role for r in results] == ["baseline", "student", "aft", "probe"]
    assert all(r.method.name in printed for r in results)
    assert all(0 <= score <= 1 for r in results for score in r.accuracies)
    assert all(len(r.accuracies) == 2 and r.milliseconds > 0 for r in results)
    baseline, student, aft, probe = (r.n_parameters for r in results)
    assert student == aft < probe
    assert baseline < probe
    assert str(tmp_path / "store") in printed
    assert figure.read_bytes().startswith(PNG)


@both
def test_every_method_has_as_many_trials(name):
    methods = TASKS[name].methods(0)
    assert {len(ParameterGrid(method.grid)) for method in methods} == {4}


@both
def test_only_the_students_depend_on_the_random_state(name):
    for one, other in zip(TASKS[name].methods(1), TASKS[name].methods(2), strict=True):
        is_student = "aftclassifier" in one.pipeline.named_steps
        assert (str(one.pipeline) != str(other.pipeline)) == is_student


def test_standard_error_of_known_numbers():
    assert standard_error((0.7, 0.8, 0.9)) == pytest.approx(0.1 / math.sqrt(3))
    assert math.isnan(standard_error((0.7,)))


def test_table_of_known_numbers():
    table = format_table(
        [
            result("baseline", (0.5, 0.5), 77_500, 12.345),
            result("probe", (0.7, 0.9), 22_713_216, 0.1),
        ]
    )
    assert table.splitlines() == [
        "Method        Test accuracy (%)  Parameters to deploy  ms per prediction",
        "------------------------------------------------------------------------",
        "The baseline         50.0 ± 0.0                77.5 k              12.35",
        "The probe           80.0 ± 10.0                22.7 M               0.10",
    ]


def test_a_single_seed_has_no_standard_error():
    assert "±" not in format_table([result(accuracies=(0.8,))])


@pytest.mark.parametrize(
    ("count", "text"),
    [(7_850, "7.8 k"), (99_900, "99.9 k"), (2_620_000, "2.62 M"), (22_700_000, "22.7 M")],
)
def test_counts_are_readable(count, text):
    assert format_count(count) == text


def test_parameters_are_counted_through_pipelines():
    X, y = np.random.RandomState(0).rand(30, 5), np.arange(30) % 3
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    assert count_parameters(pipeline) == (5 + 5) + (3 * 5 + 3)
    student = AFTClassifier(beta=0, max_epochs=1, random_state=0).fit(X.astype("float32"), y)
    assert count_parameters(student) == sum(p.numel() for p in student.module_.parameters())


def test_a_student_is_deployed_alone_and_a_probe_with_its_foundation_model(tmp_path):
    calls = []

    def model(rows):
        calls.append(len(rows))
        return np.asarray(rows, dtype=float)[:, :2]

    X, y = np.random.RandomState(0).rand(12, 3), np.arange(12) % 2
    extractor = FoundationFeatureExtractor(model, cache=tmp_path)
    student = make_pipeline(extractor, AFTClassifier(max_epochs=1, random_state=0)).fit(X, y)
    assert deployed(student) is student[-1]
    probe = make_pipeline(extractor, LogisticRegression()).fit(X, y)
    calls.clear()
    probe.predict(X[:1])
    assert calls == []  # the store knows this row
    served = deployed(probe)
    served.predict(X[:1])
    assert calls == [1]
    assert probe[0].cache == tmp_path


def test_time_is_measured_one_row_at_a_time_and_by_turns():
    calls = []

    class Model:
        def __init__(self, name, seconds):
            self.name, self.seconds = name, seconds

        def predict(self, rows):
            calls.append((self.name, rows))
            time.sleep(self.seconds)

    quick, slow = milliseconds_per_row([Model("quick", 0), Model("slow", 0.02)], ["a", "b"])
    assert 0 < quick < slow
    assert 20 <= slow < 200
    one_round = [(name, [row]) for name in ("quick", "slow") for row in "ab"]
    assert calls[2:] == one_round * ((len(calls) - 2) // 4)


def test_points_at_one_place_all_get_their_label(tmp_path):
    path = tmp_path / "crowded.png"
    save_figure([result(role) for role in ("baseline", "student", "aft", "probe")], "", path)
    assert path.read_bytes().startswith(PNG)


def test_figure_goes_to_the_file_or_into_the_directory(tmp_path):
    name = "sk_aft_quickstart_text.png"
    assert figure_path(tmp_path, "text") == tmp_path / name
    assert figure_path(tmp_path / "new" / "deep", "text") == tmp_path / "new" / "deep" / name
    assert figure_path(tmp_path / "other" / "one.pdf", "text") == tmp_path / "other" / "one.pdf"
    assert (tmp_path / "other").is_dir()
    assert figure_path(Path(), "text") == Path(name)


def test_a_missing_package_is_named_before_any_work(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as exit_:
        main(["images"])
    assert exit_.value.code == 1
    assert "pip install 'sk-aft[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["sounds"], ["--seeds", "0"], ["--seeds", "many"]])
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_help_names_the_tasks(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert "Banking77" in printed
    assert "Fashion-MNIST" in printed
