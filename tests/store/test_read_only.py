"""Stores that are only read: nothing is written, and nothing is computed."""

import io
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from sk_aft import FoundationFeatureExtractor
from sk_aft.exceptions import MissingFeaturesError
from sk_aft.store import FeatureStore

pytest.importorskip("resource", reason="the helpers need POSIX")
from survival import TEXTS, Logged, extractor_of, features_of, precompute

TEXTS = TEXTS[:40]


@pytest.fixture
def model(tmp_path):
    model = Logged(tmp_path / "log")
    model.log.touch()
    return model


@pytest.fixture
def shared(tmp_path, model):
    """A directory that somebody else filled."""
    precompute(tmp_path / "shared", model, TEXTS)
    return tmp_path / "shared"


def state_of(path):
    """Everything about a tree that a writer would change, but the times of reading."""
    found = {}
    for file in (path, *path.rglob("*")):
        stat = os.stat(file)
        content = file.read_bytes() if file.is_file() else None
        found[str(file)] = (stat.st_ino, stat.st_mode, stat.st_mtime_ns, stat.st_ctime_ns, content)
    return found


def test_an_extractor_finds_its_features_in_a_store_that_is_only_read(shared, model):
    before, n_run = state_of(shared), model.count().total()
    time.sleep(0.01)
    rows = extractor_of(FeatureStore(shared, read_only=True), model).fit_transform(TEXTS[::-1])
    np.testing.assert_array_equal(rows, features_of(TEXTS[::-1]))
    assert model.count().total() == n_run
    assert state_of(shared) == before


READER = """
import os, pickle, sys
from survival import *
path, log, own = sys.argv[1:]

def check(event, arguments):
    writes = event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime", "os.chmod")
    if event == "open":
        mode, flags = arguments[1] or "", arguments[2]
        writes = set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes and str(arguments[0]).startswith(path):
        raise AssertionError(f"{event} {arguments}")

sys.addaudithook(check)
store = FeatureStore(path, read_only=True)
extractor = extractor_of(store, Logged(log))
extractor.precompute(TEXTS[:40])
rows = extractor.transform(TEXTS[:40])
np.testing.assert_array_equal(rows, features_of(TEXTS[:40]))
pickle.loads(pickle.dumps(extractor))
(keys,) = extractor.store_keys(TEXTS[:40]).values()
assert store.explain_key(keys[0])["stored"] and not len(store.missing(keys))
assert store.verify()["damaged"] == 0 and store.stats()["rows"] == 40
assert store.export_features(own + ".safetensors", model="Logged") == 40
assert FeatureStore(own).merge(path) == 40
try:
    FeatureStore(path).register_model({"a": "new one"})
except AssertionError as error:
    print(error)
"""


def run_reader(script, *arguments):
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_reading_opens_no_file_for_writing(shared, model, tmp_path):
    done = run_reader(READER, shared, model.log, tmp_path / "own")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("os.mkdir") or done.stdout.startswith("open")  # the hook works


def test_missing_rows_raise_and_are_counted(shared, model):
    n_run = model.count().total()
    extractor = extractor_of(FeatureStore(shared, read_only=True), model)
    message = r"2 of 12 distinct rows of model 'Logged' are not in .*FeatureStore\(...\).merge\("
    with pytest.raises(MissingFeaturesError, match=message):
        extractor.fit_transform([*TEXTS[:10], "new", "newer", "new"])
    with pytest.raises(MissingFeaturesError, match=r"3 of 3 distinct rows"):
        extractor.fit(["new", "newer", "newest"])
    later = extractor.fit(TEXTS).transform(["new", *TEXTS])
    with pytest.raises(MissingFeaturesError, match="1 of 41"):
        np.asarray(later)
    assert model.count().total() == n_run


def test_what_would_write_raises(shared, tmp_path):
    store = FeatureStore(shared, read_only=True)
    before = state_of(shared)
    model = store.register_model({"weights": "new"}, name="new")
    for write in (
        lambda: store.put_many([model + bytes(16)], np.ones((1, 3))),
        lambda: store.put_many([], np.ones((0, 3))),
        lambda: store.remove(model="Logged"),
        lambda: store.reduce_size("0K"),
        lambda: store.claims(model),
        lambda: store.lock(model),
        lambda: store.merge(tmp_path),
        lambda: store.import_features(tmp_path / "features.safetensors"),
    ):
        with pytest.raises(io.UnsupportedOperation, match=r"opened read-only, so nothing is added"):
            write()
    assert state_of(shared) == before
    assert store.files(model).read_only


def test_reading_only_is_part_of_a_stores_identity(shared):
    store = FeatureStore(shared, read_only=True)
    assert repr(store) == f"FeatureStore({str(shared)!r}, read_only=True)"
    assert store != FeatureStore(shared)
    assert len({store, FeatureStore(shared), FeatureStore(shared, read_only=True)}) == 2
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert copy.read_only


def test_a_store_that_is_not_there_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no feature store to read at"):
        FeatureStore(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_search_shares_a_store_that_is_only_read(shared, model):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline

    extractor = extractor_of(FeatureStore(shared, read_only=True), model)
    before = state_of(shared)
    y = np.arange(40) % 2
    pipeline = make_pipeline(extractor, LogisticRegression())
    assert np.isfinite(cross_val_score(pipeline, TEXTS, y, cv=2, error_score="raise")).all()
    assert state_of(shared) == before


# ---------------------------------------------------------------- places that cannot be written

READ_ALL = """
import sys
from survival import *
path, log = sys.argv[1:]
rows = extractor_of(path, Logged(log)).fit_transform(TEXTS[:40])
np.testing.assert_array_equal(rows, features_of(TEXTS[:40]))
try:
    extractor_of(path, Logged(log)).fit_transform(["new"])
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_to_write_is_read(shared, model):
    for path in (*shared.rglob("*"), shared):
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = state_of(shared)
    try:
        rows = extractor_of(shared, model).fit_transform(TEXTS)
        np.testing.assert_array_equal(rows, features_of(TEXTS))
        with pytest.raises(PermissionError, match="a directory of your own"):
            extractor_of(shared, model).fit_transform(["new"])
        assert state_of(shared) == before
    finally:
        for path in (shared, *shared.rglob("*")):
            path.chmod(0o700)


@pytest.mark.slow
def test_a_filesystem_that_is_mounted_read_only_is_read(shared, model, tmp_path):
    """A real one, where this user may mount one; without read_only=True."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
        set -e
        mount -t tmpfs none {disk} || exit 77
        cp -a {shared} {disk}/shared
        mount -o remount,ro {disk}
        exec {sys.executable} -c '{READ_ALL}' {disk}/shared {model.log}
    """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no permission to mount a filesystem")
    assert done.returncode == 0, done.stderr
    assert "cannot be written to (Read-only file system): give cache=" in done.stdout
    assert model.count().total() == 40


def test_features_of_a_bare_function_are_in_no_shared_store(shared):
    rows = FoundationFeatureExtractor(
        lambda texts: np.ones((len(texts), 2)), cache=FeatureStore(shared, read_only=True)
    ).fit_transform(["new"])
    np.testing.assert_array_equal(rows, [[1, 1]])
