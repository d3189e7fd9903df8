"""The guarantees of the store if processes are killed, disks are full or files are damaged."""

import collections
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sk_aft.store import FeatureStore

pytest.importorskip("resource", reason="needs signals and limits of POSIX")
from survival import (
    TEXTS,
    WIDTH,
    Logged,
    assert_completed,
    assert_intact,
    extractor_of,
    import_in_pieces,
    merge_in_pieces,
    precompute,
    precompute_until_interrupted,
    until_full,
)

MODEL = b"m" * 16


def processes():
    context = multiprocessing.get_context("forkserver")
    # Names of sk_aft import torch and scikit-learn when they are first used.
    context.set_forkserver_preload(["sk_aft._extractor", "sk_aft.backbones._callable"])
    return context


@pytest.fixture
def n_harms(pytestconfig):
    """How often something is killed or damaged."""
    return 100 if pytestconfig.getoption("--all-kills") else 20


def test_kills_lose_no_committed_row(tmp_path, n_harms):
    model = Logged(tmp_path / "log", seconds_per_row=0.0005)
    rng = random.Random(0)
    context, kept, n_kills, n_rounds = processes(), 0, 0, 0
    model.log.touch()
    while n_kills < n_harms:
        texts = [f"{text} of round {n_rounds}" for text in TEXTS]
        path = tmp_path / "store"
        process = context.Process(target=precompute, args=(path, model, texts))
        size = os.path.getsize(model.log)
        process.start()
        while process.is_alive() and os.path.getsize(model.log) == size:
            time.sleep(0.001)  # importing what it needs
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.join()
        n_kills += process.exitcode == -signal.SIGKILL
        now = assert_intact(path, model, texts)
        assert now >= kept
        kept = now
        if kept > 100:
            assert_completed(path, model, texts)
            n_rounds, kept = n_rounds + 1, 0
    assert n_rounds >= n_harms // 20
    # A killed process loses what it had claimed, 8 rows, and no more.
    assert sum(n - 1 for n in model.count().values()) <= 8 * n_kills


def test_kills_among_workers_that_share_the_work_lose_and_double_no_row(tmp_path, n_harms):
    model = Logged(tmp_path / "log", seconds_per_row=0.001)
    path, rng, context = tmp_path / "store", random.Random(1), processes()
    n_kills, n_rounds = 0, 0

    def started(texts):
        worker = context.Process(target=precompute, args=(path, model, texts))
        worker.start()
        return worker

    while n_kills < n_harms:
        texts = [f"{text} of round {n_rounds}" for text in TEXTS]
        workers = [started(texts) for _ in range(3)]
        for _ in range(10):
            time.sleep(rng.uniform(0.02, 0.15))
            victim = workers.pop(rng.randrange(3))
            victim.kill()
            victim.join()
            n_kills += victim.exitcode == -signal.SIGKILL
            workers.append(started(texts))
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0] * 3
        assert assert_intact(path, model, texts) == 400
        n_rounds += 1
    assert FeatureStore(path).stats()["rows"] == 400 * n_rounds
    assert FeatureStore(path).verify()["damaged"] == 0
    # A killed process loses what it had claimed, 8 rows, and no more.
    assert sum(n - 1 for n in model.count().values()) <= 8 * n_kills
    # Its claim has no effect, and its files are removed by the next process that computes a row.
    precompute(path, model, ["one more row"])
    assert model.count()["one more row"] == 1
    assert files_of_claims(path) == []


def files_of_claims(path):
    return list((path / "locks").glob("*/*"))


def claim_and_die(path, when):
    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    unlink = Path.unlink

    def unlink_and_die(file, missing_ok=False):
        unlink(file, missing_ok)
        die()

    with FeatureStore(path).claims(MODEL) as claims:
        if when == "before it claims":
            die()
        claims.claim([b"r" * 16], lambda: np.array([0]))
        if when == "after it claimed":
            die()
        Path.unlink = unlink_and_die


@pytest.mark.parametrize("when", ["before it claims", "after it claimed", "while it ends"])
def test_the_next_claim_removes_the_files_of_a_killed_process(tmp_path, when):
    killed = processes().Process(target=claim_and_die, args=(tmp_path, when))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert files_of_claims(tmp_path) != []
    with FeatureStore(tmp_path).claims(MODEL) as claims:
        mine, others = claims.claim([b"r" * 16], lambda: np.array([0]))
        assert (mine.tolist(), others.tolist()) == ([0], [])
    assert files_of_claims(tmp_path) == []


def test_kills_of_merges_lose_and_double_no_row(tmp_path, n_harms):
    model = Logged(tmp_path / "log")
    texts = [f"{text} of part {part}" for part in range(2) for text in TEXTS]
    path, other = tmp_path / "store", tmp_path / "other"
    precompute(other, model, texts)
    rng, context, kept, n_kills, n_rounds = random.Random(2), processes(), 0, 0, 0
    while n_kills < n_harms:
        process = context.Process(target=merge_in_pieces, args=(path, other))
        process.start()
        while process.is_alive() and stored_bytes(path) == 24 * kept:
            time.sleep(0.0005)  # importing what it needs
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        n_kills += process.exitcode == -signal.SIGKILL
        now = assert_intact(path, model, texts)
        report = FeatureStore(path).verify()
        assert (report["rows"], report["damaged"]) == (now, 0)
        assert now >= kept
        kept = now
        if kept > len(texts) // 4:
            assert FeatureStore(path).merge(other) == len(texts) - kept
            assert assert_intact(path, model, texts) == len(texts)
            assert FeatureStore(path).stats()["rows"] == len(texts)
            FeatureStore(path).remove(model="Logged")
            n_rounds, kept = n_rounds + 1, 0
    assert n_rounds > 0
    assert FeatureStore(other).verify() == {"rows": len(texts), "damaged": 0, "models": []}


def stored_bytes(path):
    """Return the size of the list of rows."""
    return sum(file.stat().st_size for file in path.rglob("*.keys"))


def test_eight_processes_embed_each_row_once(tmp_path):
    model = Logged(tmp_path / "log", seconds_per_row=0.0005)
    context = processes()
    rng = np.random.default_rng(0)
    orders = [TEXTS, TEXTS, *([TEXTS[i] for i in rng.permutation(400)] for _ in range(6))]
    workers = [
        context.Process(target=precompute, args=(tmp_path / "store", model, order))
        for order in orders
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert model.count() == collections.Counter(TEXTS)
    assert assert_intact(tmp_path / "store", model) == 400
    assert FeatureStore(tmp_path / "store").verify()["damaged"] == 0
    assert list((tmp_path / "store" / "locks").rglob("*.rows")) == []


def test_the_living_take_over_what_the_killed_had_claimed(tmp_path):
    model = Logged(tmp_path / "log", seconds_per_row=0.001)
    context = processes()
    workers = [
        context.Process(target=precompute, args=(tmp_path / "store", model, TEXTS))
        for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    time.sleep(0.1)
    for worker in workers[:7]:
        time.sleep(0.02)
        worker.kill()
    for worker in workers:
        worker.join(120)
    assert workers[7].exitcode == 0
    assert assert_intact(tmp_path / "store", model) == 400
    assert sum(n - 1 for n in model.count().values()) <= 7 * 8


def test_an_interruption_keeps_what_was_committed(tmp_path):
    model = Logged(tmp_path / "log", seconds_per_row=0.001)
    process = processes().Process(
        target=precompute_until_interrupted, args=(tmp_path / "store", model, TEXTS)
    )
    process.start()
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 1
    assert 0 < assert_completed(tmp_path / "store", model) < 400


def files_of(path):
    return sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".lock")


@pytest.mark.parametrize("harm", ["flip", "truncate", "zero", "remove", "append"])
def test_damaged_files_are_noticed_and_mended(tmp_path, harm, n_harms):
    """Power loss, a bad disk: whatever became of whichever file, wrong rows are not returned."""
    path, model = tmp_path / "store", Logged(tmp_path / "log")
    rng = random.Random(harm)
    precompute(path, model, TEXTS)
    for _ in range(n_harms // 4):
        file = rng.choice(files_of(path))
        content = bytearray(file.read_bytes())
        where = rng.randrange(len(content))
        if harm == "flip":
            content[where] ^= 1 << rng.randrange(8)
        elif harm == "truncate":
            del content[where:]
        elif harm == "zero":
            content[where : where + 100] = bytes(len(content[where : where + 100]))
        elif harm == "append":
            content += rng.randbytes(rng.randrange(1, 300))
        file.unlink()
        if harm != "remove":
            file.write_bytes(content)
        assert_completed(path, model)
    assert_completed(path, model)


def test_damage_is_reported(tmp_path):
    path, model = tmp_path / "store", Logged(tmp_path / "log")
    precompute(path, model, TEXTS)
    (features,) = path.rglob("*.features")
    content = bytearray(features.read_bytes())
    for row in (3, 77):
        content[4 * WIDTH * row + 11] ^= 1
    features.write_bytes(content)
    report = FeatureStore(path).verify()
    assert (report["rows"], report["damaged"]) == (400, 2)
    assert report["models"][0]["name"] == "Logged"
    with pytest.warns(UserWarning, match="2 rows in .* are damaged"):
        extractor_of(path, model).fit_transform(TEXTS)
    assert FeatureStore(path).verify()["damaged"] == 0


def test_a_full_disk_keeps_what_was_committed(tmp_path):
    model = Logged(tmp_path / "log")
    limit = 150 * 4 * WIDTH + 50
    args = (limit, precompute, tmp_path / "store", model, TEXTS)
    process = processes().Process(target=until_full, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == 42
    # One row was embedded first for its width, then 18 commits of 8 rows fitted in.
    assert assert_completed(tmp_path / "store", model) == 145


@pytest.mark.parametrize("work", [merge_in_pieces, import_in_pieces])
def test_a_disk_that_fills_while_rows_are_copied_keeps_what_was_committed(tmp_path, work):
    model = Logged(tmp_path / "log")
    other, path = FeatureStore(tmp_path / "other"), tmp_path / "store"
    precompute(other.path, model, TEXTS)
    source = other.path
    if work is import_in_pieces:
        source = tmp_path / "file.safetensors"
        assert other.export_features(source, model="Logged") == 400
    limit = 150 * 4 * WIDTH + 50
    process = processes().Process(target=until_full, args=(limit, work, path, source))
    process.start()
    process.join(60)
    assert process.exitcode == 42
    assert assert_intact(path, model) == 140  # 7 commits of 20 rows
    assert FeatureStore(path).verify()["damaged"] == 0
    work(path, source)
    assert assert_intact(path, model) == FeatureStore(path).stats()["rows"] == 400
    assert model.count() == collections.Counter(TEXTS)


TINY = """
import sys
from pathlib import Path
import errno
from survival import *
path, model = Path(sys.argv[1]), Logged(sys.argv[2])
try:
    precompute(path, model, TEXTS)
except OSError as error:
    print(errno.errorcode[error.errno], assert_intact(path, model))
"""


@pytest.mark.slow
def test_a_tiny_filesystem_that_is_full_and_then_grows(tmp_path):
    """A real one, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
        set -e
        mount -t tmpfs -o size=40k none {disk} || exit 77
        {sys.executable} -c '{TINY}' {disk}/store {tmp_path}/log
        mount -o remount,size=8m {disk}
        {sys.executable} -c '{TINY}' {disk}/store {tmp_path}/log
        cp -r {disk}/store {tmp_path}/copy
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
    word, kept = done.stdout.split()
    assert word == "ENOSPC"
    assert 0 < int(kept) < 400
    model = Logged(tmp_path / "log")
    assert assert_intact(tmp_path / "copy", model) == 400
    assert sum(model.count().values()) <= 400 + 8 + 1
