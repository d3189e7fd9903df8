"""Students trained in two processes, which accelerate launches on the CPU."""

import os
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest

pytest.importorskip("accelerate")

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from sk_aft import AFTClassifier, fit_together
from tests.scaling import together

SCRIPT = Path(together.__file__)
SECONDS = 240  # of all trainings together; they take 30


def launch(folder, *names, script=SCRIPT):
    """Let two processes run some scenarios, or a script; return the finished launcher."""
    options = "--multi_gpu --num_processes=2 --num_machines=1 --main_process_port=0"
    options += " --mixed_precision=no --dynamo_backend=no"
    return subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", *options.split()),
            *(str(script), str(folder), *names),
        ],
        env={
            **os.environ,
            "ACCELERATE_USE_CPU": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[2]), *sys.path]),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Return a folder with the results of all scenarios, each of both processes."""
    folder = tmp_path_factory.mktemp("together")
    run = launch(folder, *(name for name in together.SCENARIOS if name != "dies"))
    assert run.returncode == 0, run.stderr[-5000:]
    return folder


def results(folder, name):
    return [joblib.load(folder / f"{name}-{index}.joblib") for index in (0, 1)]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_same(value, other[name])
        else:
            np.testing.assert_array_equal(value, other[name])


@pytest.fixture
def make_accelerator():
    """Return what makes the accelerator of a single process."""
    yield partial(Accelerator, cpu=True)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in together.SCENARIOS
        if name not in ("random_numbers", "differences", "failures", "dies")
    ],
)
def test_both_processes_end_with_the_same_student(launched, name):
    main, other = results(launched, name)
    assert_same(main, other)


def test_each_process_draws_its_own_dropout(launched):
    main, other = results(launched, "random_numbers")
    assert main != other


def test_early_stopping_ends_the_training_in_both_processes(launched):
    main, other = results(launched, "early_stopping")
    assert main["n_iter"] == other["n_iter"] < 60
    assert main["valid_scores"] == other["valid_scores"]
    assert max(main["valid_scores"][:-3]) >= max(main["valid_scores"][-3:])


def test_a_callback_that_stops_one_process_stops_both(launched):
    main, other = results(launched, "own_score")
    assert main["n_iter"] == other["n_iter"] == 3


@pytest.mark.parametrize("name", ["plain_steps", "plain_steps_with_unlabeled_rows", "lbfgs"])
def test_steps_on_all_rows_are_those_of_one_process(launched, name):
    expected, (found, _) = getattr(together, name)(), results(launched, name)
    assert found["batch_size"] * 2 == expected["batch_size"]
    tolerance = 1e-2 if name == "lbfgs" else 1e-4
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=tolerance)
    for layer, weights in expected["weights"].items():
        np.testing.assert_allclose(found["weights"][layer], weights, atol=tolerance)


def test_a_training_takes_as_many_steps_as_in_one_process_and_learns_as_much(launched):
    *_, y_test = together.digits()
    expected, (found, _) = together.small_batches(), results(launched, "small_batches")
    assert found["n_batches"] == expected["n_batches"]
    assert (found["batch_size"], expected["batch_size"]) == (32, 64)
    accuracies = [np.mean(run["predictions"].argmax(1) == y_test) for run in (found, expected)]
    assert accuracies[0] > accuracies[1] - 0.015
    assert accuracies[1] > 0.9


def test_unlabelled_rows_teach_as_much_as_in_one_process(launched, tmp_path):
    expected, (found, _) = together.transfer(tmp_path), results(launched, "transfer")
    for method, of_one in expected.items():
        assert found[method]["accuracy"] > of_one["accuracy"] - 0.03
        assert found[method]["n_batches"] == of_one["n_batches"]
    assert found["aft"]["transfer"]  # its own parameters, which both processes share
    assert found["pooled-kd"]["accuracy"] > 0.85


def test_a_search_finds_its_parameters(launched):
    assert [found["lr"] for found in results(launched, "search")] == [1e-2, 1e-2]


def test_the_main_process_saves_a_student_that_works_alone(launched):
    *_, X_test, _ = together.digits()
    expected = results(launched, "saved")[0]["predictions"]
    restored = joblib.load(launched / "student.joblib")
    np.testing.assert_allclose(restored.predict_proba(X_test), expected, atol=1e-6)
    deployed = AFTClassifier.from_pretrained(launched / "student")
    np.testing.assert_allclose(deployed.predict_proba(X_test), expected, atol=1e-6)
    assert b"accelerate" not in pickle.dumps(restored)


def test_processes_that_differ_are_told_so(launched):
    main, other = results(launched, "differences")
    assert main.keys() == other.keys()
    for name in ("y", "X", "number of rows", "lr", "random_state"):
        assert f"{name} " in main[name] or f"{name}," in main[name]
        assert "of process 1 and of process 0 differ" in main[name]
        assert main[name] == other[name]
    assert "use batch_size=64" in main["batch_size"]
    assert "3 rows cannot be split between 2 processes" in main["few rows"]
    assert "leave device='auto'" in main["device"]


def test_an_error_in_one_process_ends_the_others(launched):
    main, other = results(launched, "differences")
    for name in ("one that fails", "a callback that fails"):
        assert "because process 1 raised" in main[name]
        assert other[name] in main[name]
    assert other["a callback that fails"] == "the disk is full"


def test_the_others_end_wherever_a_process_fails_and_can_go_on(launched):
    main, other = results(launched, "failures")
    assert main["errors"].keys() == other["errors"].keys()
    for name, error in other["errors"].items():
        if name == "interruption":
            assert error.startswith("KeyboardInterrupt")
            assert main["errors"][name].startswith("StoppedElsewhere")
            continue
        assert "because process 1 raised" in main["errors"][name], name
        assert error.partition(":")[0] in main["errors"][name]
    expected = ("first batch", "gradients of LBFGS", "held-out batch", "end", "build", "train")
    assert [other["errors"][name] for name in expected] == [
        "OSError: first batch",
        "OSError: gradients of LBFGS",
        "OSError: held-out batch",
        "OSError: end",
        "MemoryError: no memory to build",
        "MemoryError: no memory to train",
    ]
    assert "0.png') is not a readable image" in other["errors"]["image"]
    assert "device='nonsense' cannot be used" in other["errors"]["device"]
    assert "InvalidParameterError: The 'batch_size'" in other["errors"]["parameter"]
    assert_same(main["end"], other["end"])


def test_a_search_goes_on_after_a_process_has_failed(launched):
    scores = [found["scores"] for found in results(launched, "failures")]
    np.testing.assert_array_equal(*scores)
    assert np.isnan(scores[0]).tolist() == [True, False]


def test_a_process_that_dies_ends_the_others(tmp_path):
    run = launch(tmp_path, "dies")
    assert run.returncode != 0
    assert "exitcode  : 3" in run.stderr
    assert not list(tmp_path.iterdir())


def test_the_documented_script_trains_a_student_and_saves_it(tmp_path):
    page = (SCRIPT.parents[2] / "docs" / "guide" / "several_gpus.md").read_text(encoding="utf-8")
    script, printed = re.findall(r"```(?:python)?\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    run = launch(tmp_path, script=tmp_path / "train.py")
    assert run.returncode == 0, run.stderr[-5000:]
    lines, expected = run.stdout.splitlines(), printed.splitlines()
    assert [line for line in lines if line in expected[1:3]] == expected[1:3]
    *start, accuracy = lines[-1].split()
    assert start == expected[-1].split()[:-1]
    assert float(accuracy) > 0.93
    *_, X_test, y_test = together.digits()
    assert AFTClassifier.from_pretrained(tmp_path / "digits").score(X_test, y_test) > 0.93


def test_one_process_trains_as_without_an_accelerator(make_accelerator):
    X, y, X_test, _ = together.digits()
    student = AFTClassifier(beta=0, max_epochs=2, random_state=0)
    expected = student.fit(X, y).predict_proba(X_test)
    with fit_together(make_accelerator()):
        found = student.fit(X, y).predict_proba(X_test)
    np.testing.assert_array_equal(found, expected)


def test_processes_that_are_not_connected_are_an_error(make_accelerator, monkeypatch):
    accelerator = make_accelerator()
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = "2 processes were started, but the accelerator connects 1"
    with pytest.raises(ValueError, match=message), fit_together(accelerator):
        pass


def test_only_accelerators_are_accepted():
    message = r"takes an accelerate\.Accelerator, got 'cuda'"
    with pytest.raises(TypeError, match=message), fit_together("cuda"):
        pass


@pytest.mark.parametrize(
    ("option", "value"), [("mixed_precision", "bf16"), ("gradient_accumulation_steps", 2)]
)
def test_options_of_the_accelerator_without_effect_are_errors(make_accelerator, option, value):
    accelerator = make_accelerator(**{option: value})
    message = rf"{option}=.* has no effect"
    with pytest.raises(ValueError, match=message), fit_together(accelerator):
        pass
