"""Features computed on several devices, and processes placed on them; devices are CPUs here."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from itertools import chain
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sk_aft import (
    AFTClassifier,
    AFTRegressor,
    FineTunedFeatureExtractor,
    FoundationFeatureExtractor,
)
from sk_aft._extraction import _device_workers
from sk_aft._extraction._device_workers import can_start_workers, end_workers
from sk_aft._runtime import _placement
from sk_aft._runtime._device import check_device, device_names, resolve_device
from sk_aft._runtime._placement import placed_device
from sk_aft.backbones import CallableBackbone, HuggingFaceBackbone
from sk_aft.store import FeatureStore

DEVICES = ["cpu", "cpu"]
TEXTS = [f"text {number}" for number in range(600)]
BAD = "text 301"


def end_all_workers():
    """End the processes of joblib, whoever started them."""
    end_workers()
    get_reusable_executor(reuse=True).shutdown(wait=True)


@pytest.fixture(autouse=True, scope="module")
def no_worker_is_left():
    yield
    end_all_workers()


@pytest.fixture
def log(tmp_path):
    """Directory of one file for each process, to which a model writes the rows it is given."""
    directory = tmp_path / "log"
    directory.mkdir()
    return directory


def letters_of(texts):
    return np.array([[len(text), text.count("1"), 0.5] for text in texts], dtype=np.float32)


def recording(log, before=None, *, seconds=0.01):
    """Return a model, with a fingerprint, that records the rows it is given."""

    def model(texts):
        time.sleep(seconds)
        if before is not None:
            before(texts)
        with open(log / str(os.getpid()), "a") as file:
            file.writelines(f"{text}\n" for text in texts)
        return np.array([[len(text), text.count("1"), 0.5] for text in texts], dtype=np.float32)

    return CallableBackbone(model, fingerprint="letters")


def meet_another_process(directory, seconds=120):
    """Wait until another process has been here, too."""
    (directory / str(os.getpid())).touch()
    end = time.monotonic() + seconds
    while len(os.listdir(directory)) < 2 and time.monotonic() < end:
        time.sleep(0.01)


def in_both_workers(directory):
    """Return what makes each worker wait for the other at its first rows."""
    directory.mkdir(exist_ok=True)
    parent = os.getpid()

    def before(texts):
        if os.getpid() != parent:
            meet_another_process(directory)

    return before


def given(log):
    """Return the rows that the model was given, by process."""
    return {int(path.name): path.read_text().splitlines() for path in log.iterdir()}


def extractor(model, tmp_path=None, **parameters):
    cache = "auto" if tmp_path is None else tmp_path / "store"
    defaults = {"cache": cache, "batch_size": 4, "device": DEVICES}
    return FoundationFeatureExtractor(model, **{**defaults, **parameters})


def test_features_and_their_order_are_those_of_one_device(tmp_path, log):
    model = recording(log, in_both_workers(tmp_path / "met"))
    several = extractor(model, tmp_path).fit_transform(TEXTS)
    workers = given(log)
    first = workers.pop(os.getpid())
    assert first == [TEXTS[0]], "only the first row, whose width is needed, was run here"
    assert len(workers) == 2
    assert sorted(chain(*workers.values())) == sorted(TEXTS[1:]), "each row was computed once"
    np.testing.assert_array_equal(several, letters_of(TEXTS))
    one = extractor(recording(log), tmp_path, device="cpu").fit_transform(TEXTS)
    assert sum(map(len, given(log).values())) == len(TEXTS), "they have the same keys"
    np.testing.assert_array_equal(several, one)


def test_workers_are_kept_between_calls_and_end_with_precompute(tmp_path, log):
    end_all_workers()
    model = recording(log, in_both_workers(tmp_path / "met"))
    fitted = extractor(model, tmp_path).fit(TEXTS[:1])
    for start in (0, 300):
        fitted.transform(TEXTS[start : start + 300]).features  # noqa: B018
    workers = set(given(log)) - {os.getpid()}
    assert len(workers) == 2
    more = [f"another {number}" for number in range(300)]
    extractor(model, tmp_path).precompute(more)
    assert set(given(log)) - {os.getpid()} == workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def pids_of_workers():
    """Return the processes of joblib, and how many models each of them holds."""
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(pid_and_models)() for _ in range(8))
    return dict(found)


def pid_and_models():
    time.sleep(1)  # so that one process does not take all
    return os.getpid(), len(_device_workers._loaded)


def test_idle_workers_of_the_user_outlive_precompute(tmp_path, log):
    end_all_workers()
    users = pids_of_workers()
    extractor(recording(log), tmp_path).precompute(TEXTS)
    assert (set(given(log)) - {os.getpid()}) <= set(users)
    after = pids_of_workers()
    assert set(after) == set(users)
    assert set(after.values()) == {0}, "the models are unloaded"


def test_a_batch_size_that_is_given_wins_over_that_of_an_earlier_call(tmp_path):
    sizes = tmp_path / "sizes"

    def model(texts):
        with open(sizes, "a") as file:
            file.write(f"{len(texts)} ")
        return letters_of(texts)

    declared = CallableBackbone(model, fingerprint="sizes")
    fitted = extractor(declared, tmp_path).fit(TEXTS[:1])
    largest = []
    for number, batch_size in enumerate((4, 16, "auto", 8)):
        sizes.write_text("")
        texts = [f"{text} of call {number}" for text in TEXTS]
        fitted.set_params(batch_size=batch_size).transform(texts).features  # noqa: B018
        largest.append(max(map(int, sizes.read_text().split())))
    assert largest[:2] == [4, 16]
    assert largest[3] == 8
    assert largest[2] > 16


def test_the_first_process_takes_no_device_if_workers_do_everything(tmp_path, encoder_directory):
    devices = ["cpu", "cpu:0"]
    known = dict(_placement._places)
    _placement._places.clear()
    try:
        model = f"hf:{encoder_directory('bert')}"
        fitted = extractor(model, tmp_path, device=devices).fit(TEXTS[:1])
        assert fitted.transform(TEXTS).features.shape == (600, 32)
        assert not _placement._places
    finally:
        _placement._places.update(known)


def test_text_models_run_in_worker_processes(tmp_path, encoder_directory):
    directory = encoder_directory("bert")
    one = extractor(f"hf:{directory}", tmp_path / "one", device="cpu").fit_transform(TEXTS)
    several = extractor(f"hf:{directory}", tmp_path / "several").fit_transform(TEXTS)
    np.testing.assert_allclose(several, one, atol=1e-6)


class LoadedOnce:
    """A function that notes when it is unpickled, as a model's weights are read."""

    def __init__(self, log):
        self.log = log

    def __setstate__(self, state):
        vars(self).update(state)
        with open(self.log / f"loaded-{os.getpid()}", "a") as file:
            file.write("x")

    def __call__(self, texts):
        time.sleep(0.005)
        return np.array([[len(text), 1.0] for text in texts])


def test_a_process_keeps_a_model_for_all_pieces_and_calls(log):
    model = LoadedOnce(log)
    fitted = extractor(model).fit(TEXTS[:1])
    for start in (0, 300):
        fitted.transform(TEXTS[start : start + 300]).features  # noqa: B018
    counts = [path.read_text() for path in log.iterdir()]
    assert counts == ["x", "x"]


def test_functions_without_a_fingerprint_keep_features_for_this_process():
    length = 3
    model = lambda texts: np.array([[len(text), length] for text in texts])  # noqa: E731
    rows = extractor(model).fit_transform(TEXTS)
    np.testing.assert_array_equal(rows, [[len(text), 3] for text in TEXTS])
    assert extractor(model, device="cpu").fit_transform(TEXTS).is_on_disk


def test_torch_modules_run_in_worker_processes(tmp_path):
    X = np.random.RandomState(0).normal(size=(300, 3)).astype(np.float32)
    module = torch.nn.Linear(3, 4)
    several = extractor(module, tmp_path).fit_transform(X)
    with torch.inference_mode():
        np.testing.assert_allclose(several, module(torch.from_numpy(X)), rtol=1e-5, atol=1e-6)


def test_images_are_read_in_worker_processes(tmp_path):
    images = np.random.RandomState(0).randint(0, 255, (300, 200, 200)).astype(np.uint8)

    def model(images):
        images[:, 0, 0] = 0  # rows may be written to
        return images.reshape(len(images), -1)[:, :5].astype(float)

    declared = CallableBackbone(model, "pixels")
    one = np.asarray(extractor(declared, tmp_path / "one", device="cpu").fit_transform(images))
    several = extractor(declared, tmp_path / "several").fit_transform(images)
    np.testing.assert_array_equal(several, one)


def test_few_rows_start_no_process(tmp_path, log):
    extractor(recording(log), tmp_path).fit_transform(TEXTS[:64])  # 63 are left after the width
    assert set(given(log)) == {os.getpid()}


def test_workers_of_a_search_start_no_processes(tmp_path, log):
    fitted = extractor(recording(log), tmp_path).fit(TEXTS[:1])
    parallel = joblib.Parallel(n_jobs=2)
    parts = parallel(joblib.delayed(features_and_pid)(fitted, half) for half in halves())
    np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), letters_of(TEXTS))
    assert set(given(log)) == {os.getpid(), *(pid for _, pid in parts)}
    assert can_start_workers()


def halves():
    return TEXTS[:300], TEXTS[300:]


def features_and_pid(fitted, texts):
    assert not can_start_workers()
    return np.asarray(fitted.transform(texts)), os.getpid()


def dies_once(log, text):
    """Return a function that kills its process when it sees a text for the first time."""
    flag = log.parent / "has_died"

    def before(texts):
        if text in texts and not flag.exists():
            flag.write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)

    return before, flag


def test_a_killed_worker_raises_at_once_and_the_next_call_resumes(tmp_path, log):
    before, flag = dies_once(log, BAD)
    model = recording(log, before)
    with pytest.raises(RuntimeError, match="run again to resume") as caught:
        extractor(model, tmp_path).precompute(TEXTS)
    assert time.time() - float(flag.read_text()) < 120
    assert "ran model 'model' on one of the devices ['cpu', 'cpu'] died" in str(caught.value)
    assert "SIGKILL" in str(caught.value)
    store = FeatureStore(tmp_path / "store")
    stored = stored_mask(model, tmp_path)
    assert 100 < stored.sum() < len(TEXTS)
    for path in log.iterdir():
        path.unlink()
    rows = extractor(model, tmp_path).fit_transform(TEXTS)
    np.testing.assert_array_equal(rows, letters_of(TEXTS))
    expected = [text for text, is_stored in zip(TEXTS, stored, strict=True) if not is_stored]
    assert sorted(chain(*given(log).values())) == sorted(expected)
    assert store.stats()["rows"] == len(TEXTS)
    assert store.verify()["damaged"] == 0


def stored_mask(model, tmp_path):
    store = FeatureStore(tmp_path / "store")
    (keys,) = extractor(model, tmp_path, device="cpu").fit(TEXTS).store_keys(TEXTS).values()
    return store.get_many(keys)[1]


def cannot_read(text):
    def before(texts):
        if text in texts:
            raise ValueError(f"no features for {text}")

    return before


def test_a_row_that_cannot_be_read_raises_the_error_of_one_device(tmp_path, log):
    model = recording(log, cannot_read(BAD))
    messages = []
    for device in ("cpu", DEVICES):
        with pytest.raises(ValueError, match="row 301") as caught:
            extractor(model, tmp_path / str(device), device=device).fit_transform(TEXTS)
        messages.append(str(caught.value))
        assert isinstance(caught.value.__cause__, ValueError)
    assert messages[0] == messages[1]
    assert stored_mask(model, tmp_path / str(DEVICES)).sum() > 250


def test_a_row_that_cannot_be_read_is_masked(tmp_path, log):
    model = recording(log, cannot_read(BAD))
    found = []
    for device in ("cpu", DEVICES):
        masked = extractor(model, tmp_path / str(device), device=device, on_error="mask")
        with pytest.warns(UserWarning, match="1 of 600 rows have no features") as warned:
            rows = masked.fit_transform(TEXTS)
        found.append((rows, [str(one.message) for one in warned]))
    (one, of_one), (several, of_several) = found
    assert np.flatnonzero(several.missing_mask).tolist() == [301]
    np.testing.assert_array_equal(several, one)
    assert of_several == of_one


def test_a_model_that_fails_for_all_rows_is_not_run_on_all_of_them(tmp_path, log):
    calls = log.parent / "calls"

    def before(texts):
        with open(calls, "a") as file:
            file.write("x")
        if texts != TEXTS[:1]:
            raise ValueError("broken")

    model = recording(log, before, seconds=0)
    for on_error in ("raise", "mask"):
        calls.write_text("")
        failing = extractor(model, tmp_path, on_error=on_error).fit(TEXTS[:1])
        with pytest.raises(ValueError, match=r"broken"):
            failing.transform(TEXTS[1:]).features  # noqa: B018
        assert len(calls.read_text()) < 600


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("no module named unheard_of"), "unheard_of"),
        (MemoryError("no room"), "ran out of memory on device 'cpu'"),
        (PermissionError(13, "this disk is not yours"), "not yours"),
    ],
)
def test_errors_that_are_no_rows_fault_are_raised_as_themselves(tmp_path, log, error, message):
    def before(texts):
        if BAD in texts:
            raise error

    with pytest.raises(type(error), match=message):
        extractor(recording(log, before), tmp_path).fit_transform(TEXTS)


def test_a_wrong_number_of_features_is_the_models_fault(tmp_path):
    model = CallableBackbone(lambda texts: np.ones((len(texts), 1 + (len(texts) == 4))), "odd")
    with pytest.raises(ValueError, match="features per row"):
        extractor(model, tmp_path).fit_transform(TEXTS)


def test_long_texts_are_counted_as_on_one_device(tmp_path, encoder_directory):
    model = HuggingFaceBackbone(encoder_directory("bert"), max_length=16)
    texts = [f"my card {number} " * (30 if number % 3 == 0 else 1) for number in range(300)]
    notes = []
    for device in ("cpu", DEVICES):
        fitted = extractor(model, tmp_path / str(device), device=device).fit(texts[1:2])
        rows = fitted.transform(texts[1:])
        with pytest.warns(UserWarning, match="are longer than") as warned:
            rows.features  # noqa: B018
        notes.append([str(one.message) for one in warned if "longer" in str(one.message)])
    assert "99 of 299 texts" in notes[1][-1]
    assert notes[0] == notes[1]


def test_several_models_are_run_one_after_the_other(tmp_path, log):
    pair = [recording(log), CallableBackbone(lambda texts: np.ones((len(texts), 2)), "ones")]
    rows = extractor(pair, tmp_path).fit_transform(TEXTS)
    np.testing.assert_array_equal(rows, np.column_stack([letters_of(TEXTS), np.ones((600, 2))]))


def test_a_progress_bar_counts_all_rows(tmp_path, log, capfd):
    extractor(recording(log), tmp_path, verbose=1).fit_transform(TEXTS)
    assert "599/599" in capfd.readouterr().err


def test_a_fine_tuned_model_runs_on_several_devices(tmp_path, encoder_directory):
    texts = [f"my card {number} was stolen" for number in range(12)]
    found = []
    for device in ("cpu", DEVICES):
        tuned = FineTunedFeatureExtractor(
            f"hf:{encoder_directory('bert')}",
            objective="linear",
            n_steps=2,
            cache=tmp_path / str(device),
            device=device,
            batch_size=4,
        )
        tuned.fit(texts, np.arange(12) % 2)
        found.append(np.asarray(tuned.transform(TEXTS)))
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


@pytest.mark.slow
def test_no_row_is_lost_or_doubled_after_twenty_kills(tmp_path, log):
    """Workers die at random moments, some while they write to the store."""
    kills = tmp_path / "kills"
    kills.mkdir()

    def die():
        if len(os.listdir(kills)) < 20:
            (kills / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def before(texts):
        if os.getpid() != parent and not hasattr(sys, "_is_doomed"):
            sys._is_doomed = True
            threading.Timer(random.uniform(0.02, 0.3), die).start()

    parent = os.getpid()
    texts = [f"text {number}" for number in range(12_000)]
    model = recording(log, before, seconds=0.002)
    while len(os.listdir(kills)) < 20:
        with pytest.raises(RuntimeError, match="died"):
            extractor(model, tmp_path).precompute(texts)
    extractor(model, tmp_path).precompute(texts)
    store = FeatureStore(tmp_path / "store")
    assert store.stats()["rows"] == len(texts)
    assert store.verify() == {"rows": len(texts), "damaged": 0, "models": []}
    rows = extractor(model, tmp_path, device="cpu").fit_transform(texts)
    np.testing.assert_array_equal(rows, letters_of(texts))


# Placement.

PLACE = """
import sys
from pathlib import Path
from sk_aft._runtime._placement import placed_device
directory = Path(sys.argv[1]) if sys.argv[1] else None
print(placed_device(("cpu", "meta"), directory), flush=True)
input()
print(placed_device(("cpu", "meta"), directory), flush=True)
"""


def start_process(directory):
    process = subprocess.Popen(
        [sys.executable, "-c", PLACE, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return process, process.stdout.readline().strip()


def end_process(process):
    process.communicate("\n", timeout=60)


def test_processes_take_devices_in_turn_and_dead_ones_leave_their_place(tmp_path):
    processes = [start_process(tmp_path) for _ in range(3)]
    assert [device for _, device in processes] == ["cpu", "meta", "cpu"]
    killed, _ = processes[1]
    killed.kill()
    killed.communicate()
    processes[1] = start_process(tmp_path)
    assert processes[1][1] == "meta"
    for process, device in processes:
        out, _ = process.communicate("\n", timeout=60)
        assert out.strip() == device, "a process keeps its device"


def test_lists_of_devices_have_places_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert placed_device(("cpu", "meta")) == "cpu"
    assert placed_device(("meta", "cpu")) == "meta"
    assert placed_device(("cpu", "cpu")) == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert placed_device(("cpu", "meta")) == "cpu"
    private = [path for path in tmp_path.iterdir() if path.name.startswith("sk_aft-places-")]
    assert [path.stat().st_mode & 0o777 for path in private] == [0o700]


FORK = """
import os, sys
from pathlib import Path
from sk_aft._runtime._placement import placed_device
directory = Path(sys.argv[1])
print(placed_device(("cpu", "meta"), directory), flush=True)
pid = os.fork()
if pid == 0:
    print(placed_device(("cpu", "meta"), directory), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(placed_device(("cpu", "meta"), directory), flush=True)
if os.fork() == 0:
    print(placed_device(("cpu", "meta"), directory), flush=True)
    sys.exit()
os.wait()
input()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks on this system")
def test_a_forked_process_takes_a_place_of_its_own(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    lines = [process.stdout.readline().strip() for _ in range(4)]
    assert lines == ["cpu", "meta", "cpu", "meta"]
    # The end of the children has not freed the place of their parent.
    other, device = start_process(tmp_path)
    assert device == "meta"
    end_process(other)
    end_process(process)


def is_on_second(estimator, X, y):
    # Both processes are at work, however slowly one of them starts.
    meet_another_process(Path(os.environ["TMPDIR"]) / "met")
    return float(placed_device(device_names(estimator.device)) == "cpu:0")


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_workers_of_a_search_take_devices_in_turn(backend, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # for workers
    (tmp_path / "met").mkdir()
    end_all_workers()
    X = np.random.RandomState(0).normal(size=(60, 3))
    student = AFTClassifier(beta=0, max_epochs=1, device=["cpu", "cpu:0"], random_state=0)
    search = GridSearchCV(
        student, {"lr": [1e-3, 1e-2, 1e-1]}, cv=4, n_jobs=2, scoring=is_on_second, refit=False
    )
    with joblib.parallel_config(backend=backend), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        results = search.fit(X, np.arange(60) % 2).cv_results_
    scores = np.concatenate([results[f"split{fold}_test_score"] for fold in range(4)])
    assert set(scores) == {0.0, 1.0}


# Parameters.


def estimators():
    return [
        FoundationFeatureExtractor(letters_of, device=["cpu", "cpu"]),
        FineTunedFeatureExtractor("effnet-lite0", device=["cpu", "cpu"]),
        AFTClassifier(device=["cpu", "cpu"]),
        AFTRegressor(device=["cpu", "cpu"]),
    ]


@pytest.mark.parametrize("estimator", estimators(), ids=lambda one: type(one).__name__)
def test_a_list_is_a_parameter_like_others(estimator):
    assert clone(estimator).get_params()["device"] == DEVICES
    assert "device=['cpu', 'cpu']" in repr(estimator)
    assert estimator.set_params(device=("cpu", torch.device("cpu"))).device[1].type == "cpu"
    assert pickle.loads(pickle.dumps(estimator)).device == ("cpu", torch.device("cpu"))


@pytest.mark.parametrize("estimator", estimators(), ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(
    ("device", "message"),
    [
        ([], "names no device"),
        (["cpu", "auto"], "'auto' alone"),
        (["cpu", 3], "expected names of devices"),
        (["cpu", "cuda:7"], "cuda:7.*cannot be used here"),
        (["cpu", "gpu"], "gpu.*cannot be used here"),
    ],
)
def test_devices_are_checked_before_any_work(estimator, device, message):
    if device == ["cpu", "cuda:7"] and torch.cuda.device_count() > 7:
        pytest.skip("this computer has eight GPUs")
    estimator = clone(estimator).set_params(device=device)
    X = np.zeros((4, 16, 16), np.uint8) if "effnet" in repr(estimator) else np.eye(4)
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, [0, 1, 0, 1])


def test_several_devices_need_a_store():
    with pytest.raises(ValueError, match="cache=None has none"):
        extractor(letters_of, cache=None).fit(TEXTS)
    rows = extractor(letters_of, cache=None, device=["cpu"]).fit_transform(TEXTS)
    np.testing.assert_array_equal(rows, letters_of(TEXTS))


def test_choosing_a_device_leaves_the_others_alone():
    check_device(["cpu", "meta"])
    assert resolve_device(["cpu"]) == torch.device("cpu")
    assert resolve_device(("meta", "meta")) == torch.device("meta")


@pytest.mark.parametrize("student", [AFTClassifier, AFTRegressor])
def test_a_student_of_several_devices_is_trained_on_one_and_saved(student, tmp_path):
    X = np.random.RandomState(0).normal(size=(40, 3)).astype(np.float32)
    y = np.arange(40) % 2
    parameters = {"beta": 0, "max_epochs": 2, "random_state": 0}
    one = student(device="cpu", **parameters).fit(X, y)
    several = student(device=["cpu", "cpu:0"], **parameters).fit(X, y)
    assert several.device_ == torch.device("cpu")
    np.testing.assert_array_equal(several.predict(X), one.predict(X))
    loaded = pickle.loads(pickle.dumps(several))
    assert loaded.device == ["cpu", "cpu:0"]
    np.testing.assert_array_equal(loaded.predict(X), one.predict(X))
    several.save_params(f_params=tmp_path / "params.pt")
    several.load_params(f_params=tmp_path / "params.pt")
    several.save_pretrained(tmp_path / "saved")
    json.loads((tmp_path / "saved" / "config.json").read_text())
    deployed = student.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(deployed.predict(X), one.predict(X), rtol=1e-5)


def test_a_student_is_loaded_where_none_of_its_devices_exists(tmp_path):
    X, y = np.random.RandomState(0).normal(size=(40, 3)), np.arange(40) % 2
    student = AFTClassifier(beta=0, max_epochs=1, device=["cpu", "cpu"]).fit(X, y)
    for device in (["cuda:98", "cuda:99"], ["cuda:98", "cpu"]):
        student.device = device
        assert pickle.loads(pickle.dumps(student)).device_ == torch.device("cpu")
