import multiprocessing
import os
import pickle
import shutil
import signal
import stat
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sk_aft._data._rows import Rows
from sk_aft.store import FeatureStore, _directory, default_store_path, model_digest, row_digests
from sk_aft.store._keys import split_keys


def keys_of(numbers, model="a model"):
    rows = Rows("text", np.array([f"row {number}" for number in numbers], dtype=object))
    return [model_digest({"name": model}) + digest for digest in row_digests(rows)]


def features_of(numbers, width=5):
    """A row that only its number determines."""
    return np.float32([np.random.default_rng(number).normal(size=width) for number in numbers])


def read(store, numbers, **parameters):
    matrix, found = store.get_many(keys_of(numbers, **parameters))
    assert found.all()
    return matrix


def matrix_file(store):
    (path,) = store.path.glob("*/*.features")
    return path


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def test_what_was_put_is_got_in_any_order(store):
    store.put_many(keys_of(range(10)), features_of(range(10)))
    order = [7, 0, 0, 9, 3]
    matrix = read(store, order)
    np.testing.assert_array_equal(matrix, features_of(order))
    assert matrix.dtype == np.float32


def test_missing_rows_are_said_to_be(store):
    store.put_many(keys_of([0, 2]), features_of([0, 2]))
    matrix, found = store.get_many(keys_of([0, 1, 2, 3]))
    np.testing.assert_array_equal(found, [True, False, True, False])
    np.testing.assert_array_equal(matrix[found], features_of([0, 2]))
    assert np.isnan(matrix[~found]).all()
    np.testing.assert_array_equal(store.missing(keys_of([0, 1, 2, 3])), [1, 3])


def test_reading_a_store_that_is_not_there_finds_nothing_and_makes_nothing(store):
    matrix, found = store.get_many(keys_of([0, 1]))
    assert not found.any()
    assert len(matrix) == 2
    assert (store.stats()["rows"], store.stats()["models"]) == (0, [])
    assert not store.path.exists()


def test_no_keys_are_no_trouble(store):
    store.put_many([], np.empty((0, 5)))
    assert len(store.get_many([])[0]) == 0
    assert len(store.missing([])) == 0


def test_duplicates_in_one_call_are_stored_once(store):
    numbers = [1, 1, 2, 1, 2]
    store.put_many(keys_of(numbers), features_of(numbers))
    np.testing.assert_array_equal(read(store, numbers), features_of(numbers))
    assert store.stats()["rows"] == 2


def test_a_row_that_is_there_is_left_alone(store):
    store.put_many(keys_of([1, 2]), features_of([1, 2]))
    store.put_many(keys_of([2, 3]), np.zeros((2, 5)))
    np.testing.assert_array_equal(read(store, [1, 2]), features_of([1, 2]))
    np.testing.assert_array_equal(read(store, [3]), np.zeros((1, 5)))
    assert store.stats()["rows"] == 3


@pytest.mark.parametrize(
    "container",
    [
        np.asfortranarray,
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.tolist(),
    ],
    ids=["fortran", "float64", "big-endian", "strided", "list"],
)
def test_any_matrix_of_numbers_is_stored(store, container):
    store.put_many(keys_of(range(4)), container(features_of(range(4))))
    np.testing.assert_array_equal(read(store, range(4)), features_of(range(4)))


def test_a_matrix_of_another_length_is_refused(store):
    with pytest.raises(ValueError, match=r"2 keys need a matrix of as many rows, got \(3, 5\)"):
        store.put_many(keys_of([0, 1]), features_of([0, 1, 2]))
    with pytest.raises(ValueError, match="2 keys need a matrix"):
        store.put_many(keys_of([0, 1]), np.zeros(2))


def test_a_model_has_one_width(store):
    store.put_many(keys_of([0]), features_of([0], width=5))
    with pytest.raises(ValueError, match="holds 5 features per row of this model, got 4"):
        store.put_many(keys_of([1]), features_of([1], width=4))
    np.testing.assert_array_equal(read(store, [0]), features_of([0]))
    assert len(store.missing(keys_of([1]))) == 1


def test_keys_are_of_one_model_and_one_length(store):
    mixed = keys_of([0]) + keys_of([1], model="another")
    with pytest.raises(ValueError, match="of one model"):
        store.put_many(mixed, features_of([0, 1]))
    store.put_many(keys_of([0]), features_of([0]))
    with pytest.raises(ValueError, match="of one model"):
        store.get_many(mixed)
    with pytest.raises(ValueError, match="32 bytes"):
        store.put_many([b"short"], features_of([0]))


def test_models_live_side_by_side(store):
    store.put_many(keys_of(range(3)), features_of(range(3)))
    store.put_many(keys_of(range(2), model="wide"), features_of(range(2), width=9))
    store.put_many(keys_of(range(3, 6)), features_of(range(3, 6)))
    np.testing.assert_array_equal(read(store, range(6)), features_of(range(6)))
    np.testing.assert_array_equal(
        read(store, range(2), model="wide"), features_of(range(2), width=9)
    )
    stats = store.stats()
    assert stats["rows"] == 8
    assert sorted((model["rows"], model["width"]) for model in stats["models"]) == [(2, 9), (6, 5)]
    on_disk = sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file())
    assert stats["bytes"] == on_disk
    assert len(store.missing(keys_of([2, 3], model="wide"))) == 2


def test_rows_that_follow_each_other_are_memory_mapped_and_read_only(store):
    store.put_many(keys_of(range(3)), features_of(range(3)))
    rows, places = store.locate(*split_keys(keys_of([2, 0])))
    np.testing.assert_array_equal(places, [2, 0])
    np.testing.assert_array_equal(rows.take(places), features_of([2, 0]))
    assert isinstance(rows.view(0, 3), np.memmap)
    assert not rows.view(0, 3).flags.writeable


@settings(max_examples=15, deadline=None)
@given(calls=st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=6))
def test_behaves_as_a_dictionary_does(calls):
    with tempfile.TemporaryDirectory() as directory:
        written = set()
        for numbers in calls:
            FeatureStore(directory).put_many(keys_of(numbers), features_of(numbers).reshape(-1, 5))
            written.update(numbers)
            matrix, found = FeatureStore(directory).get_many(keys_of(range(31)))
            assert set(np.flatnonzero(found)) == written
            for number in written:
                np.testing.assert_array_equal(matrix[number], features_of([number])[0])
        assert FeatureStore(directory).stats()["rows"] == len(written)


# ---------------------------------------------------------------- processes and threads


def fresh_processes():
    """Processes that share nothing with this one; where possible, torch is imported only once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sk_aft._extractor", "sk_aft.backbones._callable"])
    return context


def write_overlapping(path, first, barrier):
    store = FeatureStore(path)
    barrier.wait(60)
    for start in range(first, first + 60, 10):
        numbers = range(start, start + 20)  # half of them are the next call's, too
        store.put_many(keys_of(numbers), features_of(numbers))


def test_processes_that_write_the_same_rows_lose_none(store):
    context = fresh_processes()
    barrier = context.Barrier(4)
    writers = [
        context.Process(target=write_overlapping, args=(store.path, first, barrier))
        for first in (0, 10, 30, 50)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 4
    np.testing.assert_array_equal(read(store, range(120)), features_of(range(120)))
    assert store.stats()["rows"] == 120
    assert matrix_file(store).stat().st_size == 120 * 5 * 4


def test_threads_that_open_one_store_lose_nothing(store):
    n_threads = 8
    barrier = threading.Barrier(n_threads)

    def write(first):
        barrier.wait(30)
        numbers = range(first, first + 20)
        FeatureStore(store.path).put_many(keys_of(numbers), features_of(numbers))

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(write, range(0, 10 * n_threads, 10)))
    np.testing.assert_array_equal(read(store, range(90)), features_of(range(90)))


def elsewhere(function, *arguments):
    """Call a function in another process."""
    context = fresh_processes()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_result, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join(60)


def send_result(sender, function, arguments):
    sender.send(function(*arguments))


def read_default_store(path, numbers):
    os.environ["SK_AFT_CACHE"] = str(path)
    return FeatureStore().get_many(keys_of(numbers))


def test_another_process_reads_what_is_kept(store):
    """A process that was told nothing but the variable SK_AFT_CACHE."""
    store.put_many(keys_of(range(3)), features_of(range(3)))
    matrix, found = elsewhere(read_default_store, store.path, range(4))
    np.testing.assert_array_equal(found, [True, True, True, False])
    np.testing.assert_array_equal(matrix[found], features_of(range(3)))


def fork_and_write(path):
    """Return what the child's end was and what the parent finds afterwards."""
    store = FeatureStore(path)
    assert len(store.missing(keys_of(range(3)))) == 0
    if os.fork() == 0:
        code = 1
        try:
            store.put_many(keys_of(range(3, 6)), features_of(range(3, 6)))
            read(store, range(6))
            code = 0
        finally:
            os._exit(code)
    child = os.waitstatus_to_exitcode(os.wait()[1])
    store.put_many(keys_of(range(5, 9)), features_of(range(5, 9)))
    return child, read(store, range(9))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_uses_a_store_that_was_open_before(store):
    store.put_many(keys_of(range(3)), features_of(range(3)))
    child, matrix = elsewhere(fork_and_write, store.path)
    assert child == 0
    np.testing.assert_array_equal(matrix, features_of(range(9)))
    np.testing.assert_array_equal(read(store, range(9)), features_of(range(9)))


def fork_while_another_thread_reads(path):
    """Return whether a child could read that was made while a thread held the store's lock."""
    store = FeatureStore(path)
    read(store, range(3))
    with _directory._lock:
        child = os.fork()
        if child == 0:
            store.stats()
            os._exit(0)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_locks_of_its_own(store):
    store.put_many(keys_of(range(3)), features_of(range(3)))
    assert elsewhere(fork_while_another_thread_reads, store.path)


# ---------------------------------------------------------------- damage


def assert_repaired(store, numbers):
    """Rows that were lost are missing, are put again and then read right."""
    missing = store.missing(keys_of(numbers))
    store.put_many(keys_of(numbers), features_of(numbers))
    np.testing.assert_array_equal(read(store, numbers), features_of(numbers))
    return missing.tolist()


def test_a_flipped_bit_is_noticed(store):
    store.put_many(keys_of(range(6)), features_of(range(6)))
    path = matrix_file(store)
    damaged = bytearray(path.read_bytes())
    damaged[3 * 5 * 4 + 7] ^= 0b100
    path.write_bytes(damaged)
    matrix, found = store.get_many(keys_of(range(6)))
    np.testing.assert_array_equal(found, [True, True, True, False, True, True])
    assert np.isnan(matrix[3]).all()
    assert assert_repaired(store, range(6)) == [3]


@pytest.mark.parametrize("left", [4 * 5 * 4, 3 * 5 * 4 + 6, 3, 0])
def test_a_file_that_lost_its_end_is_noticed(store, left):
    store.put_many(keys_of(range(6)), features_of(range(6)))
    with matrix_file(store).open("r+b") as file:
        file.truncate(left)
    assert assert_repaired(store, range(6)) == list(range(left // 20, 6))


def test_a_file_that_is_gone_is_noticed(store):
    store.put_many(keys_of(range(6)), features_of(range(6)))
    matrix_file(store).unlink()
    assert assert_repaired(store, range(6)) == list(range(6))


def test_what_a_writer_that_died_left_behind_is_overwritten(store):
    store.put_many(keys_of(range(3)), features_of(range(3)))
    with matrix_file(store).open("ab") as file:
        file.write(os.urandom(33))  # rows that reached the disk, but not the index
    assert assert_repaired(store, range(8)) == [3, 4, 5, 6, 7]
    assert matrix_file(store).stat().st_size == 8 * 5 * 4


def test_a_directory_that_was_removed_is_made_again(store):
    store.put_many(keys_of(range(3)), features_of(range(3)))
    shutil.rmtree(store.path)
    assert len(store.missing(keys_of(range(3)))) == 3
    assert assert_repaired(store, range(6)) == list(range(6))


def test_a_directory_that_another_process_removed_and_filled_is_read_anew(store):
    """What this process puts afterwards is found by everybody, and harms nobody's rows."""
    store.put_many(keys_of(range(3)), features_of(range(3)))
    other = FeatureStore(store.path.with_name("other"))
    other.put_many(keys_of(range(3, 9)), features_of(range(3, 9)))
    shutil.rmtree(store.path)
    shutil.copytree(other.path, store.path)
    store.put_many(keys_of([20]), features_of([20]))
    matrix, found = elsewhere(read_default_store, store.path, [*range(3, 9), 20])
    assert found.all()
    np.testing.assert_array_equal(matrix, features_of([*range(3, 9), 20]))
    np.testing.assert_array_equal(read(store, range(3, 9)), features_of(range(3, 9)))


# ---------------------------------------------------------------- the store as an object


def test_is_private_to_its_user(store):
    if os.name != "posix":
        pytest.skip("permissions of POSIX")
    umask = os.umask(0)
    try:
        store.put_many(keys_of([0]), features_of([0]))
        with store.claims(b"m" * 16):
            pass
    finally:
        os.umask(umask)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o700
    files = [path for path in store.path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_lives_where_the_variable_says(cache, tmp_path, monkeypatch):
    assert FeatureStore().path == cache == default_store_path()
    FeatureStore().put_many(keys_of([0]), features_of([0]))
    assert cache.is_dir()
    monkeypatch.setenv("SK_AFT_CACHE", str(tmp_path / "elsewhere"))
    assert FeatureStore().path == tmp_path / "elsewhere"
    assert len(FeatureStore().missing(keys_of([0]))) == 1
    monkeypatch.delenv("SK_AFT_CACHE")
    assert "sk_aft" in str(default_store_path())
    assert default_store_path() not in (cache, tmp_path / "elsewhere", Path())


def test_a_path_may_be_a_string(tmp_path):
    assert FeatureStore(str(tmp_path)) == FeatureStore(tmp_path)
    assert len({FeatureStore(tmp_path), FeatureStore(tmp_path), FeatureStore(tmp_path / "b")}) == 2
    assert FeatureStore(tmp_path) != tmp_path


def test_a_pickle_opens_the_same_directory(store):
    store.put_many(keys_of(range(3)), features_of(range(3)))
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    np.testing.assert_array_equal(read(copy, range(3)), features_of(range(3)))
    assert len(pickle.dumps(store)) < 500
