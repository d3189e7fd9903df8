"""The work of a separate process."""

from __future__ import annotations

import os
import time
import traceback
from functools import lru_cache
from pathlib import Path
from threading import Thread

from benchmarks.accuracy._data import load
from benchmarks.accuracy._experiments import Experiment
from benchmarks.accuracy._runs import Runs


def run(
    experiment: Experiment,
    results: Path,
    directory: str | None,
    n_seeds: int,
    device: str,
    has_trials: bool,
    version: str,
    main_process: int,
) -> str | None:
    """Run one experiment in a process of its own; return what went wrong, if anything did."""
    if os.getpid() != main_process:
        _end_with(main_process)
    try:
        task = load(experiment.data, directory)
        runs = Runs(experiment.data, results, version)
        experiment.run(task, runs, n_seeds, device, has_trials=has_trials)
    except (Exception, SystemExit):  # such as what is not installed: others go on
        return f"{experiment}\n{traceback.format_exc()}"
    return None


@lru_cache
def _end_with(main_process: int) -> None:
    """End this process if the main one is killed; otherwise it would keep running."""

    def watch() -> None:
        while os.getppid() == main_process:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
