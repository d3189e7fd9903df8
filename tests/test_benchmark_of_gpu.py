"""The script for a GPU: it runs on a CPU, goes on after a failure, and stops in time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("pandas")

from benchmarks.gpu import CHECKS, LIMITS, Setting, Skipped, journal_lines, outcome, table
from benchmarks.gpu import run as run_checks

ROOT = Path(__file__).parents[1]


def run(*arguments, out):
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    results = json.loads(out.read_text()) if out.exists() else []
    return done, {result["name"]: result for result in results}


def test_each_check_has_a_limit():
    assert set(CHECKS) == set(LIMITS)


@pytest.mark.slow
def test_all_checks_run_on_a_cpu(tmp_path):
    done, results = run("--device", "cpu", "--quick", out=tmp_path / "out.json")
    failed = {name: one["figure"] for name, one in results.items() if one["status"] == "failed"}
    assert not failed, done.stderr[-3000:]
    assert done.returncode == 0
    assert list(results) == list(CHECKS)
    skipped = {name for name, one in results.items() if one["status"] == "skipped"}
    assert skipped == {"out_of_memory", "several_devices", "throughput_in_half_precision", "speed"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_failing_check_does_not_stop_the_others(tmp_path):
    only = "machine,several_devices"
    done, results = run("--device", "cuda", "--only", only, out=tmp_path / "out.json")
    assert done.returncode == 1
    assert results["machine"]["status"] == "failed"
    assert results["several_devices"]["status"] == "skipped"
    assert "1 failed" in done.stdout


def test_no_check_begins_when_the_time_is_over(tmp_path):
    done, results = run("--device", "cpu", "--quick", "--minutes", "0", out=tmp_path / "out.json")
    assert done.returncode == 0
    assert {result["figure"] for result in results.values()} == {"no time was left"}


def test_a_check_ends_with_the_time_and_earlier_results_are_kept(tmp_path):
    out = tmp_path / "out.json"
    seconds = []

    def keep(results):
        seconds.append(time.monotonic())
        out.write_text(json.dumps(results))

    start = time.monotonic()
    results = run_checks(["throughput", "machine"], "cpu", False, 6.0, keep)
    assert time.monotonic() - start < 12
    assert [result["status"] for result in results] == ["skipped", "skipped"]
    assert results[0]["figure"].startswith("no time was left: stopped after")
    assert json.loads(out.read_text()) == results
    assert len(seconds) == 2


def test_a_line_that_was_not_written_to_its_end_is_ignored():
    line = json.dumps({"name": "machine", "status": "begun"})
    assert journal_lines(f"{line}\n{line[:9]}") == [json.loads(line)]
    assert journal_lines("") == journal_lines(line) == []


def test_unknown_checks_are_refused(tmp_path):
    done, _ = run("--only", "machine,unknown", out=tmp_path / "out.json")
    assert done.returncode == 2
    assert "no such checks: ['unknown']" in done.stderr


def test_outcomes_and_their_table(tmp_path):
    def skips(setting):
        raise Skipped("no GPU")

    def fails(setting):
        raise AssertionError("0 is not 1")

    setting = Setting("cpu", True, tmp_path)
    assert outcome(lambda setting: "fine", setting) == ("ok", "fine")
    assert outcome(skips, setting) == ("skipped", "no GPU")
    assert outcome(fails, setting) == ("failed", "AssertionError: 0 is not 1")
    results = [
        {"name": "one", "status": "ok", "figure": "", "seconds": 1.0},
        {"name": "two", "status": "failed", "figure": "", "seconds": 2.5},
    ]
    lines = table(results).splitlines()
    assert lines[-1] == "1 failed, 4 seconds"
    assert lines[-2].split() == ["two", "failed", "2.5"]
