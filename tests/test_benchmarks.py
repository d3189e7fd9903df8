"""The benchmarks of accuracy: fair choice of settings, stored runs, correct tables."""

import ast
import itertools
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pd = pytest.importorskip("pandas")

from benchmarks.accuracy.__main__ import main as run_suites  # noqa: E402
from benchmarks.accuracy._data import Task, draw, held_out  # noqa: E402
from benchmarks.accuracy._entailment import (  # noqa: E402
    CONTRADICTED,
    ENTAILED,
    NEUTRAL,
    NOUNS,
    make_entailment,
)
from benchmarks.accuracy._experiments import Experiment  # noqa: E402
from benchmarks.accuracy._methods import METHODS, N_TRIALS  # noqa: E402
from benchmarks.accuracy._runs import Runs  # noqa: E402
from benchmarks.accuracy._search import Axis, climb  # noqa: E402
from benchmarks.accuracy._setfit import SetFitClassifier  # noqa: E402
from benchmarks.accuracy._suites import SUITES  # noqa: E402
from benchmarks.accuracy.report.__main__ import main as report  # noqa: E402
from benchmarks.accuracy.report._scores import Scores  # noqa: E402
from benchmarks.accuracy.report._tables import (  # noqa: E402
    cell_of,
    comparison,
    correlation,
    error_text,
    is_on_front,
    is_worse,
    mean_normalized,
    steps_table,
)
from benchmarks.default_transfer import main as default_transfer  # noqa: E402
from benchmarks.speed._served_models import TEXT_LABELS, TEXTS  # noqa: E402
from benchmarks.speed.serving import TEXT_MODELS, measured, row, table  # noqa: E402
from benchmarks.student_sizes import RESULTS as SIZES  # noqa: E402
from benchmarks.student_sizes import table as table_of_sizes  # noqa: E402
from sk_aft import AFTClassifier, FoundationFeatureExtractor  # noqa: E402
from sk_aft.datasets import load_banking77, load_fashion_mnist  # noqa: E402

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def texts():
    rows, labels = load_banking77(labels_per_class=10, return_X_y=True)
    test_rows, test_labels = load_banking77(subset="test", return_X_y=True)
    _, classes = np.unique(np.append(labels, test_labels), return_inverse=True)
    kept = np.isin(classes[: len(labels)], range(8))
    kept_test = np.flatnonzero(np.isin(classes[len(labels) :], range(8)))[::4]
    return Task(
        np.array(rows, dtype=object)[kept],
        classes[: len(labels)][kept],
        np.array(test_rows, dtype=object)[kept_test],
        classes[len(labels) :][kept_test],
        False,
    )


@pytest.mark.parametrize("best", [1e-5, 1e-3, 2e-3, 0.1])
def test_climb_finds_the_best_and_takes_as_many_trials_as_it_may(best):
    tried = set()

    def error(setting):
        tried.add(setting["lr"])
        return abs(np.log(setting["lr"] / best))

    found = climb({"lr": 1e-3}, Axis("lr", 1e-3, 3, 4), error)
    assert len(tried) == 5
    assert error(found) == min(map(error, [{"lr": lr} for lr in tried]))
    assert error(found) < error({"lr": 1e-3}) or best == 1e-3


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "grid" not in name])
def test_every_tuned_method_has_as_many_trials(name):
    student = "bag of n-grams" if METHODS[name].is_student else ""
    search = METHODS[name].search(student, "sst2")
    n_trials = 1 + sum(axis.n_trials for axis in search.axes)
    assert n_trials == (1 if name.endswith("not tuned") else N_TRIALS)


@pytest.mark.parametrize("suite", SUITES)
def test_every_student_is_compared_with_itself_without_teacher(suite):
    experiments = list(SUITES[suite]())
    assert all(one.method in METHODS for one in experiments)
    if suite == "sensitivity":
        return
    everywhere = set(itertools.chain.from_iterable(make() for make in SUITES.values()))
    for one in experiments:
        if one.student:
            alone = Experiment(
                one.data, "student alone", one.student, labels=one.labels, steps=one.steps
            )
            assert alone in everywhere


def test_experiment_runs_once_and_goes_on_where_it_stopped(texts, tmp_path):
    experiment = Experiment("banking77", "aft", "bag of n-grams", "minilm", "5 a class", 4)
    runs = Runs("banking77", tmp_path)
    assert experiment.lines(runs, 2) is None
    experiment.run(texts, runs, 2, "cpu")
    kept = (tmp_path / "banking77.jsonl").read_text().splitlines()
    lines = experiment.lines(Runs("banking77", tmp_path), 2)
    assert [line["key"]["seed"] for line in lines] == [0, 1]
    assert all(0 < line["error"] <= 1 for line in lines)

    # Stopped after all but the last run: only that one is done again, with the same result.
    (tmp_path / "banking77.jsonl").write_text("\n".join(kept[:-1]) + "\n" + kept[-1][:20])
    again = Runs("banking77", tmp_path)
    experiment.run(texts, again, 2, "cpu")
    assert [line["error"] for line in experiment.lines(again, 2)] == [
        line["error"] for line in lines
    ]
    assert len(Runs("banking77", tmp_path)) == len(kept)


def test_probe_and_unlabelled_rows(texts, tmp_path):
    for method, steps in (("probe", 0), ("probe-kd + unlabelled", 8)):
        student = "bag of n-grams" if steps else ""
        experiment = Experiment("banking77", method, student, "minilm", "5 a class", steps)
        runs = Runs("banking77", tmp_path)
        experiment.run(texts, runs, 1, "cpu")
        assert experiment.lines(runs, 1)[0]["error"] < 0.3  # by chance 0.88


def test_a_teacher_learns_from_the_labelled_rows_alone(texts, tmp_path, monkeypatch):
    seen = []

    class NotTrained(SetFitClassifier):  # the real one takes minutes
        def fit(self, X, y):
            seen.append((X, y))
            self.model_ = SimpleNamespace(model_body=MiniLM())
            return self

    class MiniLM:
        def encode(self, texts):
            return FoundationFeatureExtractor("minilm").fit_transform(texts).features

    monkeypatch.setattr("benchmarks.accuracy._setfit.SetFitClassifier", NotTrained)
    runs = Runs("banking77", tmp_path)
    method = "probe-kd by SetFit + unlabelled, not tuned"
    experiment = Experiment("banking77", method, "bag of n-grams", "", "5 a class", 20)
    experiment.run(texts, runs, 1, "cpu")

    ((rows, labels),) = seen
    of_text = dict(zip(texts.rows, texts.labels, strict=True))
    assert labels.tolist() == [of_text[row] for row in rows]
    assert np.bincount(labels).tolist() == [5] * 8
    (line,) = experiment.lines(runs, 1)
    assert (line["beta"], line["setting"]) == (1, {})


def test_a_training_that_diverges_is_kept(texts):
    experiment = Experiment("banking77", "aft", "bag of n-grams", "minilm", "5 a class", 40)
    rows = draw(texts, "5 a class", 0)

    def fit(lr):
        return experiment.fit(texts, rows, {"lr": lr, "beta": 10}, 0, "cpu")

    line = experiment._line(lambda: fit(1e30), texts.test_rows, texts.test_labels)
    assert line["error"] == np.inf
    assert "the network diverged" in line["failed"]
    line = experiment._line(lambda: fit(1e-2), texts.test_rows, texts.test_labels)
    assert line["error"] < 1
    assert line["beta"] == 10
    with pytest.raises(ValueError, match="lr"):
        experiment._line(lambda: fit(-1), texts.test_rows, texts.test_labels)


def test_a_cpu_without_bfloat16_takes_float32_and_the_line_says_so(monkeypatch):
    known = {"avx2": True, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    images, labels = load_fashion_mnist(return_X_y=True)
    task = Task(images[:40], labels[:40], images[40:80], labels[40:80], is_regression=False)
    experiment = Experiment("fashion_mnist", "student alone", "ResNet 78k", labels="all", steps=1)
    line = experiment._test(task, {"lr": 0.001}, 0, "cpu")
    assert line["device"].startswith("cpu without bfloat16, torch")
    assert Scores(experiment, np.array([line["error"]]), [line]).devices == {"cpu without bfloat16"}


def test_draws_and_splits(texts):
    rows = draw(texts, "5 a class", 0)
    assert (np.bincount(texts.labels[rows]) == 5).all()
    assert not np.array_equal(rows, draw(texts, "5 a class", 1))
    assert len(draw(texts, "40", 0)) == 40
    train, judges = held_out(texts, rows, 0)
    assert len(judges) == len(rows) // 5
    assert sorted(np.append(train, judges)) == sorted(rows)


def test_entailment_says_the_truth_in_words_that_differ_in_the_test_rows():
    bunch = load_fashion_mnist()
    images = bunch.data
    labels = np.array([bunch.target_names.index(name) for name in bunch.target])
    frame, answers, test_frame, _ = make_entailment(images, labels, images, labels)
    again = make_entailment(images, labels, images, labels)
    assert frame["text"].equals(again[0]["text"])
    assert np.bincount(answers).min() > 0.3 * len(answers)
    assert {ENTAILED, CONTRADICTED, NEUTRAL} == set(answers)
    classes = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for image, text, answer in zip(frame["image"], frame["text"], answers, strict=True):
        nouns = NOUNS[classes[image.tobytes()]]
        says = [noun for noun in nouns if re.search(rf"(?<![-\w]){noun}\b", text)]
        assert bool(says) == (answer != CONTRADICTED), text
    every_noun = sorted(itertools.chain.from_iterable(NOUNS), key=len, reverse=True)
    templates, test_templates = (
        set(table["text"].str.replace("|".join(every_noun), "{}", regex=True))
        for table in (frame, test_frame)
    )
    assert len(templates) > 15
    assert not templates & test_templates


def scores(method, errors, data="trec", teacher="minilm", device="cpu, torch 2"):
    teacher = "" if method == "student alone" else teacher
    experiment = Experiment(data, method, "bag of n-grams", teacher)
    return Scores(experiment, np.array(errors), [{"device": device}])


def test_tables_normalize_by_the_student_alone_and_mark_what_is_worse():
    found = [
        scores("student alone", [0.2, 0.2, 0.2]),
        scores("aft", [0.1, 0.11, 0.09]),
        scores("kd", [0.3, 0.31, 0.29]),
    ]
    table = comparison(found, "bag of n-grams").splitlines()
    assert table[2] == "| student alone | 20.0 ± 0.0 | 1.000 |"
    assert table[3] == "| aft | 10.0 ± 0.6 | 0.500 |"
    assert table[4] == "| kd | 30.0 ± 0.6 † | 1.500 |"
    assert error_text(scores("ft", [0.1], device="cuda, torch 2"), found[0]) == "10.0 ‡"
    with pytest.raises(ValueError, match="have one place"):
        comparison([*found, scores("kd", [0.2])], "bag of n-grams")
    assert error_text(scores("ft", [0.1, np.inf]), found[0]) == "diverged, 1 of 2"
    assert is_worse(found[2], found[0])
    assert is_worse(scores("ft", [0.2, np.inf, 0.2]), found[0])
    assert is_worse(scores("probe", [0.3]), found[0])
    assert not is_worse(scores("probe", [0.2]), found[0])
    assert not is_worse(found[1], found[0])


def test_held_out_errors_stand_by_the_number_of_steps(tmp_path):
    runs, found = Runs("trec", tmp_path), []
    for steps, error in ((100, 0.3), (2000, 0.25)):
        one = Experiment("trec", "student alone", "bag of n-grams", steps=steps)
        setting = {"lr": 0.001}
        runs.run(
            lambda error=error: {"error": error},
            **asdict(one),
            setting=setting,
            split=0,
            on="validation",
        )
        found.append(Scores(one, np.array([0.5]), [{"setting": setting}]))
    table = steps_table(found, tmp_path).splitlines()
    assert table[0] == "| held-out error (%) | 100 steps | 2,000 steps |"
    assert table[2] == "| TREC | 30.0 | 25.0 |"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "pareto", "--only", "trec", "trecc"], "['trecc'] not in ['pareto']"),
        (["--suite", "multimodal", "--methods", "aft", "rkd"], "['rkd'] not in"),
        (["--jobs", "0"], "0 is less than 1"),
    ],
)
def test_names_that_are_not_there_are_refused(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["accuracy", *arguments])
    with pytest.raises(SystemExit):
        run_suites()
    assert message in capsys.readouterr().err


def test_report_says_that_there_are_no_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["report", "--quick", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="no runs"):
        report()


def test_means_are_over_what_all_methods_have():
    found = [
        scores("student alone", [0.2, 0.2]),
        scores("student alone", [0.4, 0.4], "sst2"),
        scores("aft", [0.1, 0.1]),
        scores("kd", [0.1, 0.1]),
        scores("kd", [0.4, 0.4], "sst2"),
    ]
    means = mean_normalized(found, ("aft", "kd", "rkd"))
    assert list(means) == ["aft", "kd"]
    assert means["kd"][0] == pytest.approx(0.5)
    assert means["aft"][2] == 1


def test_correlation_is_over_the_teachers_that_both_have():
    of_teachers = {"wordllama": (0.3, 0.2), "minilm": (0.1, 0.15), "minilm + wordllama": (0.2, 0.1)}
    found = [
        scores(method, [error], teacher=teacher)
        for teacher, errors in of_teachers.items()
        for method, error in zip(("probe", "aft"), errors, strict=True)
    ]
    cell = cell_of(found[0])
    assert correlation(found, "aft", cell) == pytest.approx(
        np.corrcoef(list(of_teachers.values()), rowvar=False)[0, 1]
    )
    assert np.isnan(correlation(found[:-1], "aft", cell))


def test_the_front_is_what_nothing_as_fast_is_better_than():
    found = [
        scores("default", [0.2]),
        scores("kd", [0.3]),
        scores("probe", [0.1]),
        scores("aft", [0.1]),
    ]
    times = (1, 2, 10)
    costs = [
        {"experiment": asdict(one.experiment), "milliseconds": {"1": time}}
        for one, time in zip(found, times, strict=False)
    ]
    assert [is_on_front(one, found, costs) for one in found[:3]] == [True, False, True]


def test_settings_of_kept_scores_are_those_that_their_trials_chose():
    wrong, kept = [], {}
    for one in dict.fromkeys(itertools.chain.from_iterable(make() for make in SUITES.values())):
        runs = kept[one.data] = kept.get(one.data) or Runs(one.data)
        if not (lines := one.lines(runs, 3) or one.lines(runs, 1)):
            continue

        def error(setting, one=one, runs=runs):
            errors = one.trial_errors(runs, setting)
            return np.mean(errors) if errors else np.nan

        search = METHODS[one.method].search(one.student, one.data)
        assert one.trial_errors(runs, search.start) or not search.axes
        chosen = search.best(error)
        wrong += [(one, line, chosen) for line in lines if line["setting"] != chosen]
    assert not wrong


@pytest.mark.slow
def test_a_deployed_student_is_measured_without_pytorch(tmp_path):
    rows, labels = ["my card is lost", "the exchange rate", "my card"] * 100, ["a", "b", "a"] * 100
    student = AFTClassifier(beta=0, module__start="random", max_epochs=1, random_state=0)
    student.fit(rows, labels).save_pretrained(tmp_path / "static_int8", dtype="int8")
    (tmp_path / TEXTS).write_text(json.dumps(rows))
    (tmp_path / TEXT_LABELS).write_text(json.dumps(labels))
    found = measured("static_int8", "served", tmp_path)
    assert found["accuracy"] == 100 * student.score(rows, labels)
    assert 10 < found["resident_mb"] < 200  # PyTorch alone needs more
    assert 10 < found["packages_mb"] < 300
    assert 0 < found["ms_in_batches"] < found["ms_alone"] < 1e3 * found["seconds"]
    figure = row("static_int8", TEXT_MODELS["static_int8"], [found], tmp_path)
    assert figure["files_mb"] == pytest.approx(
        sum(path.stat().st_size for path in (tmp_path / "static_int8").iterdir()) / 1e6, abs=0.051
    )
    *_, line = table([figure]).splitlines()
    assert line.startswith(f"| static student, int8 | {figure['files_mb']:g} |")
    assert line.endswith(f"| {found['accuracy']:g} |")


def test_sizes_in_the_docs_are_those_of_the_results():
    page = (BENCHMARKS.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
    of_docs = page.split("<!-- student sizes -->")[1].split("<!-- end -->")[0]
    assert of_docs.strip() == table_of_sizes([json.loads(line) for line in SIZES.open()])


def private_imports(source):
    """Return what a source imports from sk_aft that has an underscore in front."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return [".".join(of) for of in parts if of[0] == "sk_aft" and any(p[0] == "_" for p in of)]


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_public_names_only(path):
    assert not private_imports(path.read_text())


def test_private_names_are_found_wherever_the_imports_stand():
    source = "def late():\n    import sk_aft._data\nfrom sk_aft.store import _store, FeatureStore"
    assert set(private_imports(source)) == {"sk_aft._data", "sk_aft.store._store"}


@pytest.mark.filterwarnings("error")
def test_the_table_of_the_default_transfer(tmp_path, monkeypatch, capsys):
    path = tmp_path / "lines.jsonl"
    errors = {"student alone": [10.0, 10.0, 10.0], "default": [4.0, 0.0, 0.0], "tuned": [5.0]}
    lines = [
        {"task": "trec:10", "method": method, "seed": 10 + number, "error": error}
        for method, of_seeds in errors.items()
        for number, error in enumerate(of_seeds)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(sys, "argv", ["default_transfer", "--table", "--results", str(path)])
    default_transfer()
    text = " ".join(capsys.readouterr().out.split())
    assert "default mean 0.13 trec 1.33 +- 1.33 0.13 +- 0.13 (3)" in text
    assert "tuned mean 0.50 trec 5.00 0.50 +- 0.00 (1)" in text
