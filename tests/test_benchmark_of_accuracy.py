"""The benchmark of accuracy: fair draws and trials, resumable runs, correct tables."""

import json
import math
import re
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
from benchmarks.accuracy._paper_tables import found, methods_table, of_teachers  # noqa: E402
from benchmarks.accuracy._rivals import labels_of, pseudo_labels, tfidf  # noqa: E402
from benchmarks.accuracy._runs import RESULTS, Runs  # noqa: E402
from benchmarks.accuracy._scores import Scores, estimate, is_worse, ratio  # noqa: E402
from benchmarks.accuracy._students import (  # noqa: E402
    better_probe,
    probe,
    probe_of_two_layers,
)
from benchmarks.accuracy._suites import ALONE, METHODS, SUITES, TAUGHT  # noqa: E402
from benchmarks.accuracy._tables import table, targets  # noqa: E402
from benchmarks.accuracy._teachers import teacher  # noqa: E402
from benchmarks.accuracy.report import PAGES, filled, tables  # noqa: E402
from benchmarks.accuracy.report import main as write_report  # noqa: E402
from sk_aft import FoundationFeatureExtractor  # noqa: E402
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
    assert found.n == 2
    assert ratio({0: 1.0}, {1: 1.0}) is None
    assert math.isnan(ratio({0: 1.0}, {0: 2.0}).spread)
    # Of own - 0.75 * reference, which is -1.5 and 1.5, over the reference's mean.
    assert ratio({0: 6.0, 1: 9.0}, {0: 10.0, 1: 10.0}).spread == pytest.approx(0.15)
    assert str(estimate([10.0, 12.0])) == "11.0 ± 1.0"
    assert is_worse(ratio({0: 3.0, 1: 3.1}, {0: 2.0, 1: 2.0}))
    assert not is_worse(ratio({0: 3.0, 1: 1.0}, {0: 2.0, 1: 1.9}))
    assert not is_worse(ratio({0: 3.0}, {0: 2.0}))  # one seed does not tell


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
    assert f"{TAUGHT}, text (1 column): 0.55 of the error of {ALONE}" in text
    assert "ahead of every rival as cheap in 0 columns, in 0 of them by two standard" in text
    assert "behind TF-IDF on pseudo-labels (1.38)" in text


def test_a_mean_over_columns_is_left_out_if_a_column_is_missing():
    columns = [FEW, Column("trec", "10 a class", uses_others=True)]
    of_both = [line for one in columns for line in lines_of({ALONE: [20.0]}, one)]
    scores = Scores([*of_both, *lines_of({TAUGHT: [10.0]}, FEW)])
    rows = {line.split(" | ")[0].strip("| "): line for line in table(scores, columns)}
    assert rows[ALONE].endswith("| 1.00 |")
    assert rows[TAUGHT] == f"| {TAUGHT} | 10.0 |  |  |"


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


@pytest.mark.parametrize("part", ["methods", "noise"])
def test_every_tuned_method_has_as_many_trials_and_is_scored_on_as_many_seeds(part):
    every = list(PARTS[part]())
    for column in {one.column for one in every}:
        of_column = [one for one in every if one.column == column]
        assert len({len(one.trials()) for one in of_column}) == 1
        assert len({one.n_seeds for one in of_column}) == 1
        assert len(of_column[0].trials()) > 1


def test_every_experiment_is_there_once_with_the_seeds_of_all_its_parts():
    every = {json.dumps(one.key()): one for one in experiments()}
    assert len(every) == len(experiments())
    for part in PARTS.values():
        assert all(every[json.dumps(one.key())].n_seeds >= one.n_seeds for one in part())
    assert all(one.n_seeds >= 3 for one in experiments(3))


def test_useless_features_are_one_model_with_the_useful_ones():
    texts = ["my card is lost", "the exchange rate"]
    features = FoundationFeatureExtractor(**teacher("minilm and 1,536 noise")).fit(texts)
    # The features of several models would be brought to one scale.
    assert len(features.feature_slices_) == 1
    found = features.transform(texts).features
    of_model = FoundationFeatureExtractor("minilm", layers=[-1]).fit_transform(texts).features
    assert found.shape == (2, 384 + 1536)
    np.testing.assert_allclose(found[:, :384], of_model, atol=1e-6)
    again = FoundationFeatureExtractor(**teacher("minilm and 1,536 noise"), cache=None)
    np.testing.assert_array_equal(again.fit_transform(texts).features, found)
    assert found[:, 384:].var() == pytest.approx(1 / 384, rel=0.1)


def test_trials_see_neither_test_rows_nor_the_rows_that_judge(folder, monkeypatch):
    one = Experiment(FEW, STL, STATIC, is_tuned=True)
    fitted, predicted = [], []
    fit = Experiment.fit

    def recorded(self, rows, setting):
        fitted.extend(rows.rows)
        model = fit(self, rows, setting)
        predict = model.predict
        model.predict = lambda texts: predicted.extend(texts) or predict(texts)
        return model

    monkeypatch.setattr(Experiment, "fit", recorded)
    one._validate({"lr": 1e-3, "max_epochs": 1}, folder)
    rows, _ = read(FEW, folder, 2000)
    assert len(predicted) == 8  # a fifth of the labelled rows
    assert not set(predicted) & set(fitted)
    assert not set(rows.test_rows) & {*predicted, *fitted}
    assert {*predicted, *fitted} == set(rows.rows)


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
    for line, before in zip(path.read_text().splitlines(), lines, strict=True):
        for name in ("key", "error"):
            assert json.loads(line)[name] == json.loads(before)[name]


def test_names_that_do_not_exist_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["accuracy", "few", "--method", "studend"])
    with pytest.raises(SystemExit):
        main()
    assert "there is no studend, only student alone, student," in capsys.readouterr().err


def test_rivals_learn_from_a_teacher_what_other_rows_are(folder):
    rows, test_labels = read(FEW, folder, 1)
    teacher_model = better_probe(rows)
    labels = labels_of(teacher_model, rows)
    known = rows.labels != UNKNOWN
    assert (labels[known] == rows.labels[known]).all()
    assert (labels[~known] == teacher_model.predict(rows.rows[~known])).all()
    of_labels = error(test_labels, tfidf(rows).predict(rows.test_rows), False)
    of_teacher = error(
        test_labels, pseudo_labels(teacher_model, rows).predict(rows.test_rows), False
    )
    assert of_teacher < of_labels


def test_one_probe_of_two_has_the_better_score_out_of_fold(folder):
    rows, _ = read(FEW, folder, 2)
    chosen = better_probe(rows)[-1].best_score_
    assert chosen == max(one(rows)[-1].best_score_ for one in (probe, probe_of_two_layers))


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


def test_every_table_of_the_results_has_its_place_in_the_docs_and_no_place_is_stale():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    places = set(re.findall(r"<!-- (?!end)(.+) -->", text))
    assert places == set(dict(tables(RESULTS)))


def test_a_report_of_results_that_are_not_there_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["report", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no results of few, all, tables, paper, pareto yet"):
        write_report()


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
    assert shown == {ALONE: [21.0, 21.0], TAUGHT: [11.5, 11.5]}
    ratios = {"aft": {"trec, all": estimate([0.9, 1.0])}, "kd": {"trec, all": estimate([0.8])}}
    (axes,) = draw_methods(ratios).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["aft", "kd"]
    points = {"few": {"a": (9.0, 8.0), "b": (7.0, 6.0), "c": (5.0, 4.0)}}
    (axes,) = draw_teachers(points).axes
    assert axes.get_title() == "few: r = 1.00"
