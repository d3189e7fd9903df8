"""The benchmark of accuracy: fair draws and trials, resumable runs, correct tables."""

import json
import math
import sys

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from benchmarks.accuracy.__main__ import main  # noqa: E402
from benchmarks.accuracy._columns import UNKNOWN, Column, draw, error, read  # noqa: E402
from benchmarks.accuracy._figures import draw_few, draw_methods, draw_teachers  # noqa: E402
from benchmarks.accuracy._paper import (  # noqa: E402
    PARTS,
    STATIC,
    STL,
    Experiment,
    experiments,
)
from benchmarks.accuracy._paper_report import found, methods_table, of_teachers  # noqa: E402
from benchmarks.accuracy._report import table, targets  # noqa: E402
from benchmarks.accuracy._runs import RESULTS, Runs  # noqa: E402
from benchmarks.accuracy._scores import Scores, estimate, is_worse, ratio  # noqa: E402
from benchmarks.accuracy._suites import ALONE, METHODS, SUITES, TAUGHT  # noqa: E402
from benchmarks.accuracy.report import PAGES, filled, tables  # noqa: E402
from sk_aft.datasets import load_banking77  # noqa: E402

FEW = Column("banking77", "5 a class", uses_others=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with eight classes of Banking77."""
    parts = []
    for split in ("train", "test"):
        texts, labels = load_banking77(subset=split, return_X_y=True)
        frame = pd.DataFrame({"split": split, "text": texts, "label": labels})
        kept = frame[frame["label"].isin(np.unique(labels)[:8])]
        parts.append(kept.groupby("label").head(40 if split == "train" else 10))
    path = tmp_path_factory.mktemp("data")
    pd.concat(parts).to_parquet(path / "banking77.parquet")
    return str(path)


def test_a_seed_draws_as_many_labels_of_each_class_and_keeps_the_other_rows(folder):
    rows, test_labels = read(FEW, folder, 0)
    assert len(rows.rows) == 8 * 40
    assert np.bincount(rows.labels[rows.labels != UNKNOWN]).tolist() == [5] * 8
    assert (rows.labels == UNKNOWN).sum() == 8 * 35
    assert len(test_labels) == len(rows.test_rows) == 80
    assert not set(rows.rows) & set(rows.test_rows)
    again, _ = read(FEW, folder, 0)
    other, _ = read(FEW, folder, 1)
    assert (again.labels == rows.labels).all()
    assert set(other.labelled[0]) != set(rows.labelled[0])


def test_labels_stay_with_their_rows(folder):
    every, _ = read(Column("banking77", "all"), folder, 0)
    of_text = dict(zip(every.rows, every.labels, strict=True))
    rows, _ = read(FEW, folder, 3)
    assert [of_text[text] for text in rows.labelled[0]] == rows.labelled[1].tolist()
    assert (rows.labels[:40] == UNKNOWN).any()  # labelled rows are not the first ones
    assert (rows.labels[:200] != UNKNOWN).any()


def test_a_number_of_rows_is_drawn_with_the_classes_in_proportion():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    assert np.bincount(labels[draw(labels, "100", 0)]).tolist() == [60, 30, 10]
    assert len(draw(labels, "50 a class", 0)) == 150
    assert len(draw(labels.astype(float), "300", 0, is_regression=True)) == 300


def test_errors_are_shares_of_rows_or_of_variance():
    labels = np.array([0.0, 1.0, 2.0, 3.0])
    assert error(labels, labels, True) == 0
    assert error(labels, np.full(4, 1.5), True) == pytest.approx(100)
    assert error(labels, np.array([0, 1, 2, 0]), False) == 25


def lines_of(errors, column=FEW):
    return [
        {
            "key": {
                "data": column.data,
                "labels": column.labels,
                "method": method,
                "seed": seed,
            },
            "error": value,
        }
        for method, values in errors.items()
        for seed, value in enumerate(values)
    ]


def test_ratios_are_of_the_seeds_that_both_have():
    found = ratio({0: 5.0, 1: 6.0}, {0: 10.0, 1: 12.0, 2: 99.0})
    assert found.mean == pytest.approx(0.5)
    assert found.spread == pytest.approx(0)  # the harder draw is harder for both
    assert found.n_seeds == 2
    assert ratio({0: 1.0}, {1: 1.0}) is None
    assert math.isnan(ratio({0: 1.0}, {0: 2.0}).spread)
    assert str(estimate([10.0, 12.0])) == "11.0 ± 1.0"
    assert is_worse(ratio({0: 3.0}, {0: 2.0}))
    assert not is_worse(ratio({0: 3.0, 1: 1.0}, {0: 2.0, 1: 1.9}))


def test_the_table_marks_what_is_worse_and_the_targets_name_rivals_that_are_ahead():
    scores = Scores(
        lines_of(
            {
                ALONE: [20.0, 20.0],
                TAUGHT: [10.0, 12.0],
                "TF-IDF": [30.0, 31.0],
                "TF-IDF on pseudo-labels": [8.0, 8.0],
            }
        )
    )
    rows = {line.split(" | ")[0].strip("| "): line for line in table(scores, [FEW])}
    assert rows[TAUGHT] == f"| {TAUGHT} | 11.0 ± 1.0 | 0.55 |"
    assert rows["TF-IDF"].startswith("| TF-IDF | 30.5 ± 0.5 † |")
    assert "SetFit" not in rows
    text = "\n".join(targets(scores, [FEW]))
    assert f"{TAUGHT}, text: 0.55 of the error of {ALONE} (1 columns)" in text
    assert "ahead of cheap rivals in 0 of 1 columns" in text
    assert "behind TF-IDF on pseudo-labels (1.38)" in text


@pytest.mark.parametrize("name", SUITES)
def test_every_method_of_a_suite_has_the_student_alone_on_the_same_seeds(name):
    runs = set(SUITES[name].runs())
    assert all((column, ALONE, seed) in runs for column, _, seed in runs)
    assert {method for _, method, _ in runs} <= set(METHODS)


@pytest.mark.parametrize("name", SUITES)
def test_quick_is_a_part_of_a_suite(name):
    quick = list(SUITES[name].quick().runs())
    assert set(quick) < set(SUITES[name].runs())
    assert len({seed for *_, seed in quick}) == 1


def test_every_tuned_method_has_as_many_trials_and_is_scored_on_as_many_seeds():
    every = list(PARTS["methods"]())
    for column in {one.column for one in every}:
        of_column = [one for one in every if one.column == column]
        assert len({len(one.trials()) for one in of_column}) == 1
        assert len({one.n_seeds for one in of_column}) == 1
        assert len(of_column[0].trials()) > 1


def test_every_experiment_is_there_once():
    every = experiments()
    keys = [json.dumps(one.key()) for one in every]
    # The same experiment may be part of two questions, with more seeds in one of them.
    assert len(set(zip(keys, [one.n_seeds for one in every], strict=True))) == len(every)


def test_a_setting_is_chosen_on_training_rows_and_kept(folder, tmp_path):
    one = Experiment(FEW, "probe-kd", STATIC, "wordllama", is_tuned=True, n_seeds=2)
    pytest.importorskip("wordllama")
    runs = Runs("paper", tmp_path)
    one.run(runs, folder)
    lines = runs.lines
    trials = [line for line in lines if line["key"]["on"] == "validation"]
    scores = [line for line in lines if line["key"]["on"] == "test"]
    assert len(trials) == len(one.trials())
    best = min(trials, key=lambda line: line["error"])["key"]["setting"]
    assert [line["setting"] for line in scores] == [best] * 2
    assert all(0 <= line["error"] < 60 for line in lines)
    assert one.is_done(runs)
    assert one.is_done(Runs("paper", tmp_path))


def test_the_paper_methods_are_normalised_by_the_student_alone(tmp_path):
    runs = Runs("paper", tmp_path)
    for one in PARTS["methods"]():
        if one.column.data == "trec" and one.method in (STL, "aft"):
            for seed in range(2000, 2005):
                value = 10.0 if one.method == STL else 5.0
                runs.run(lambda value=value: {"error": value}, **one.key(seed=seed, on="test"))
    text = "\n".join(methods_table(found(PARTS["methods"](), runs)))
    assert "| aft | 5.0 ± 0.0 | 0.50 | 0.887 |" in text


def test_teachers_stand_beside_their_students(tmp_path):
    runs = Runs("paper", tmp_path)
    for one in PARTS["teachers"]():
        if one.teacher == "minilm" and one.column.labels == "all":
            value = {"probe": 7.0}.get(one.method, 9.0)
            runs.run(lambda value=value: {"error": value}, **one.key(seed=2000, on="test"))
    every = found(PARTS["teachers"](), runs)
    assert of_teachers(every, "trec, all", "aft") == {"minilm": (7.0, 9.0)}


def test_a_suite_goes_on_where_it_stopped(folder, tmp_path, monkeypatch, capsys):
    arguments = ["few", "--data", folder, "--results", str(tmp_path), "--only", "banking77"]
    arguments += ["--quick", "--method", "student alone", "student", "TF-IDF"]
    monkeypatch.setattr(sys, "argv", ["accuracy", *arguments])
    main()
    path = tmp_path / "quick" / "few.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert all(0 <= json.loads(line)["error"] < 60 for line in lines)
    assert "| student | " in capsys.readouterr().out
    path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])  # killed while it wrote
    main()
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == [
        json.loads(line)["key"] for line in lines
    ]


def test_what_is_missing_is_said_before_anything_runs(tmp_path, monkeypatch):
    arguments = ["few", "--data", str(tmp_path), "--results", str(tmp_path), "--only", "trec"]
    monkeypatch.setattr(sys, "argv", ["accuracy", *arguments])
    with pytest.raises(SystemExit, match=r"trec.parquet is missing[\s\S]*--download"):
        main()
    assert not list(tmp_path.glob("*.jsonl"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables_in_the_docs_are_those_of_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert "<!-- end -->" in text
    assert filled(text, dict(tables(RESULTS))) == text


def test_figures_show_what_was_measured():
    columns = SUITES["few"].columns[:2]
    scores = Scores(
        [
            line
            for column in columns
            for line in lines_of({ALONE: [20.0, 22.0], TAUGHT: [11.0, 12.0]}, column)
        ]
    )
    (axes,) = draw_few(scores, columns).axes
    shown = {points.get_label(): points.get_offsets()[:, 0].tolist() for points in axes.collections}
    assert shown == {"student alone": [21.0, 21.0], "student, taught": [11.5, 11.5]}
    ratios = {"aft": {"trec, all": estimate([0.9, 1.0])}, "kd": {"trec, all": estimate([0.8])}}
    (axes,) = draw_methods(ratios).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["aft", "kd"]
    points = {"few": {"a": (9.0, 8.0), "b": (7.0, 6.0), "c": (5.0, 4.0)}}
    (axes,) = draw_teachers(points).axes
    assert axes.get_title() == "few: r = 1.00"
