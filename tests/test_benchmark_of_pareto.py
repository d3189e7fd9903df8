"""The benchmark of accuracy beside costs: errors, fronts, and a real run."""

import json
import sys

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("skimage")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from benchmarks.accuracy._hog import histograms  # noqa: E402
from benchmarks.accuracy._rivals import hog  # noqa: E402
from benchmarks.accuracy.pareto import compared, main, on_all_seeds, on_front, table  # noqa: E402
from sk_aft.datasets import load_banking77  # noqa: E402

POINTS = st.lists(st.tuples(*[st.integers(0, 5).map(float)] * 2), min_size=1)


def figure(method, form, ms, mb, error, data="banking77"):
    return {
        "data": data,
        "labels": "10 a class",
        "method": method,
        "form": form,
        "ms_alone": ms,
        "ms_in_batches": ms,
        "files_mb": mb,
        "packages_mb": 80.0,
        "seconds": 0.2,
        "resident_mb": 60.0,
        "deployed_error": error,
    }


def line(method, error, seed=0, labels="10 a class"):
    key = {"data": "banking77", "labels": labels, "method": method, "seed": seed}
    return {"key": key, "error": error}


def test_the_front_is_what_nothing_is_better_than_in_both():
    points = [(10.0, 1.0), (10.0, 2.0), (9.0, 2.0), (12.0, 0.5), (12.0, 3.0)]
    assert on_front(points) == [True, False, True, True, False]
    assert on_front([(1.0, 1.0), (1.0, 1.0)]) == [True, True]


@given(POINTS)
def test_every_point_is_on_the_front_or_behind_one_that_is(points):
    front = on_front(points)
    best = [point for point, is_on in zip(points, front, strict=True) if is_on]
    assert best
    for point, is_on in zip(points, front, strict=True):
        behind = [of for of in best if of != point and of[0] <= point[0] and of[1] <= point[1]]
        assert bool(behind) != is_on


def test_errors_are_those_of_the_suite_where_it_has_lines():
    figures = [
        figure("student", "float32", 0.06, 8.6, 13.0),
        figure("student", "int8", 0.07, 2.4, 13.1),
        figure("TF-IDF on pseudo-labels", "pickle", 1.1, 10.7, 15.0),
        figure("2 layers", "int8 ONNX", 1.2, 32.0, None),
    ]
    lines = [
        line("student", 14.0),
        line("student", 15.0, seed=1),
        line("student", 1.0, labels="50 a class"),
    ]
    found = {(one["method"], one["form"]): one for one in compared(figures, lines)}
    student = found["student", "float32"]
    assert (student["error"], student["error_of"]) == (14.5, "the suite, seeds: 2")
    assert student["deployed_error"] == 13.0
    assert student["is_fast"]
    assert not student["is_small"]
    assert found["student", "int8"]["is_small"]
    rival = found["TF-IDF on pseudo-labels", "pickle"]
    assert (rival["error"], rival["error_of"]) == (15.0, "the deployed model")
    assert not rival["is_fast"]
    assert found["2 layers", "int8 ONNX"]["error"] is None
    assert not found["2 layers", "int8 ONNX"]["is_fast"]


def test_a_method_of_few_seeds_is_compared_on_those():
    student = {2000: 14.0, 2001: 15.0, 2002: 19.0}
    assert on_all_seeds(student, student) == 16.0
    assert on_all_seeds({2000: 14.5}, student) == 16.5  # worse than the student, below its mean
    assert on_all_seeds({2000: 14.5}, {}) == 14.5
    assert on_all_seeds({}, student) is None
    figures = [figure("student", "int8", 0.07, 2.4, 14.0), figure("model2vec", "int8", 0.08, 9, 15)]
    lines = [line("student", error, seed) for seed, error in student.items()]
    found = {one["method"]: one for one in compared(figures, lines)}
    assert found["model2vec"]["error"] < found["student"]["error"]
    assert not found["model2vec"]["is_fast"]


def test_another_training_has_the_same_costs_and_its_own_error():
    probe = figure("probe", "int8 ONNX", 2.8, 23.6, 15.3)
    found = compared([probe], [line("SetFit", 12.0)])
    setfit = next(one for one in found if one["method"] == "SetFit")
    assert setfit["costs_of"] == "probe, int8 ONNX"
    assert (setfit["ms_alone"], setfit["error"], setfit["deployed_error"]) == (2.8, 12.0, None)
    assert setfit["is_fast"]
    assert compared(found, [line("SetFit", 12.0)]) == found


def test_fronts_are_of_one_data_set_and_tables_say_which():
    figures = [
        figure("HOG + SVM", "pickle", 5.0, 20.0, 50.0, data="cifar10"),
        figure("student", "int8", 0.07, 2.4, 13.1),
    ]
    found = compared(figures, [])
    assert [one["data"] for one in found] == ["banking77", "banking77", "cifar10", "cifar10"]
    assert found[2]["is_fast"]
    text = table(found)
    assert text.index("banking77") < text.index("cifar10")
    assert (
        "| student, int8 | 13.1 * | 13.1 | 0.07 | 0.07 | 2.4 | 80 | 0.2 | 60 | fast, small |"
        in text
    )
    assert text.endswith("the suite has no line of the method.")


def test_the_served_histograms_are_those_of_the_suite():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(histograms(images.mean(axis=-1, dtype="float32")), hog(images))


@pytest.mark.slow
def test_a_quick_run_measures_and_another_one_only_prints(tmp_path, monkeypatch, capfd):
    classes = ["activate_my_card", "age_limit", "card_arrival", "exchange_rate"]
    frames = []
    for split in ("train", "test"):
        rows, labels = load_banking77(subset=split, return_X_y=True)
        frames.append(pd.DataFrame({"split": split, "text": rows, "label": labels}))
    frame = pd.concat(frames)
    frame = frame[frame["label"].isin(classes)]
    # Enough for whole batches of 256.
    test_rows = frame[frame["split"] == "test"]
    pd.concat([frame, test_rows]).to_parquet(tmp_path / "banking77.parquet")
    folders = ["--data", str(tmp_path), "--results", str(tmp_path), "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["pareto", "--quick", *folders])
    main()
    first = capfd.readouterr().out
    assert "round 1 of 1: TF-IDF on pseudo-labels, pickle" in first
    figures = json.loads((tmp_path / "quick" / "pareto.json").read_text())
    found = {(one["method"], one["form"]): one for one in figures}
    assert set(found) == {
        ("student", "float32"),
        ("student", "int8"),
        ("small student", "int8"),
        ("TF-IDF on pseudo-labels", "pickle"),
        ("student alone", "float32"),
        ("student of a tuned teacher", "int8"),
        ("TF-IDF on a tuned teacher's labels", "pickle"),
    }
    student, small = found["student", "int8"], found["small student", "int8"]
    rival = found["TF-IDF on pseudo-labels", "pickle"]
    assert small["files_mb"] < student["files_mb"] < found["student", "float32"]["files_mb"]
    assert student["packages_mb"] < rival["packages_mb"]
    assert student["deployed_error"] < 20
    assert found["student of a tuned teacher", "int8"]["costs_of"] == "student, int8"
    main()
    second = capfd.readouterr().out
    assert "round" not in second
    assert first.endswith(second)
