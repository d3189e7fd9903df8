import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._quickstart import main
from sk_aft._quickstart._command import figure_path, run
from sk_aft._quickstart._draw import draw
from sk_aft._quickstart._figure import save_figure
from sk_aft._quickstart._measure import (
    Result,
    count_parameters,
    deployed,
    milliseconds_per_row,
    standard_error,
    training_rows,
)
from sk_aft._quickstart._pseudo_labels import PseudoLabels
from sk_aft._quickstart._report import format_count, format_table
from sk_aft._quickstart._tasks import TASKS, UNKNOWN, Method

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

    n_unlabeled = min(task.n_unlabeled, 40)
    return replace(task, load=load, labels_per_class=4, n_unlabeled=n_unlabeled, methods=methods)


def result(role="taught", accuracies=(0.7, 0.8, 0.9), n_parameters=1234, milliseconds=0.5):
    method = Method(role, f"The {role}", make_pipeline(LogisticRegression()), {})
    return Result(method, {"logisticregression__C": 1.0}, accuracies, n_parameters, milliseconds)


@both
def test_run_compares_every_method_and_saves_a_figure(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SK_AFT_CACHE", str(tmp_path / "store"))
    task = small(TASKS[name])
    figure = tmp_path / "figure.png"
    results = run(task, n_seeds=2, figure=figure)
    printed = capsys.readouterr().out
    roles = ["baseline", "rival", "student", "taught", "probe"]
    assert [r.method.role for r in results] == roles
    assert all(r.method.name in printed for r in results)
    assert all(0 <= score <= 1 for r in results for score in r.accuracies)
    assert all(len(r.accuracies) == 2 and r.milliseconds > 0 for r in results)
    size = {r.method.role: r.n_parameters for r in results}
    assert size["student"] == size["taught"] < size["probe"]
    assert size["baseline"] < size["probe"]
    assert str(tmp_path / "store") in printed
    assert figure.read_bytes().startswith(PNG)


@both
def test_every_method_has_as_many_trials(name):
    methods = TASKS[name].methods(0)
    assert len({len(ParameterGrid(method.grid)) for method in methods}) == 1


@both
def test_only_the_students_depend_on_the_random_state(name):
    for one, other in zip(TASKS[name].methods(1), TASKS[name].methods(2), strict=True):
        is_student = one.role in ("student", "taught")
        assert (str(one.pipeline) != str(other.pipeline)) == is_student


def test_a_draw_hides_the_labels_of_the_rows_that_are_not_drawn_as_labelled():
    labels = np.arange(60) % 3
    task = replace(TASKS["text"], labels_per_class=4, n_unlabeled=20)
    rows, marked = draw(labels, task, seed=0)
    assert len(set(rows)) == len(rows) == 12 + 20
    assert marked[:12].tolist() == labels[rows[:12]].tolist()
    assert np.bincount(marked[:12]).tolist() == [4, 4, 4]
    assert (marked[12:] == UNKNOWN).all()
    assert rows.tolist() != draw(labels, task, seed=1).rows.tolist()


def test_a_draw_takes_all_rows_if_too_few_are_left():
    rows, marked = draw(np.arange(9) % 3, replace(TASKS["text"], labels_per_class=2), seed=0)
    assert sorted(rows) == list(range(9))
    assert (marked == UNKNOWN).sum() == 3


def test_only_some_methods_are_given_rows_without_labels():
    task = replace(TASKS["text"], labels_per_class=1, n_unlabeled=2)
    one = draw(np.arange(6) % 2, task, seed=0)
    for method in task.methods(0):
        X, y = training_rows(method, list("abcdef"), one)
        assert len(X) == len(y) == (4 if method.reads_unlabeled else 2)


def test_pseudo_labels_are_those_of_the_probe():
    X, y = np.arange(20.0).reshape(-1, 1), np.arange(20) // 10
    marked = np.where(np.isin(np.arange(20), [0, 19]), y, UNKNOWN)
    nearest = make_pipeline(FunctionTransformer(np.vstack), KNeighborsClassifier(1))
    model = PseudoLabels(nearest, nearest).fit(list(X), marked)
    assert model.predict(list(X)).tolist() == y.tolist()
    assert model.classes_.tolist() == [0, 1]


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
    save_figure(
        [result(role) for role in ("baseline", "rival", "student", "taught", "probe")], "", path
    )
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
