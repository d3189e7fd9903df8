"""Run suites of experiments.

    python -m benchmarks.accuracy --suite NAME [NAME ...] --data DIR

A run is a line in benchmarks/results/accuracy (or --results DIR); what is there is not run again,
so it can be stopped and started at will. ``--quick`` takes one seed, a tenth of the steps and no
trials, and keeps its lines in a folder of its own. `benchmarks.accuracy.report` makes tables and
figures of the lines.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm

from benchmarks.accuracy._data import download, what_is_missing
from benchmarks.accuracy._experiments import Experiment
from benchmarks.accuracy._methods import METHODS
from benchmarks.accuracy._runs import RESULTS, Runs, code_version
from benchmarks.accuracy._suites import SUITES, quick
from benchmarks.accuracy._worker import run


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--suite",
        nargs="+",
        metavar="NAME",
        choices=SUITES,
        default=list(SUITES),
        help=f"default: all of {', '.join(SUITES)}",
    )
    parser.add_argument("--data", help="directory of the data sets")
    parser.add_argument("--download", action="store_true", help="fetch missing data sets into it")
    parser.add_argument("--only", nargs="+", metavar="DATA_SET", help="such as trec cifar10")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="such as aft probe-kd")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the lines are kept")
    parser.add_argument("--seeds", type=int, default=3, help="test scores each; default: 3")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--device", default="auto", help="where students are trained")
    parser.add_argument("--quick", action="store_true", help="a rough picture in minutes")
    chosen = parser.parse_args()
    results, n_seeds = chosen.results, chosen.seeds
    # A dict, since suites share experiments.
    experiments = list(dict.fromkeys(one for name in chosen.suite for one in SUITES[name]()))
    known_data = {one.data for one in experiments}
    if chosen.only:
        experiments = [one for one in experiments if one.data in chosen.only]
    if chosen.methods:
        experiments = [one for one in experiments if one.method in chosen.methods]
    if not experiments:
        parser.error(
            f"nothing in these suites fits --only and --methods. Data sets: "
            f"{', '.join(sorted(known_data))}. Methods: {'; '.join(METHODS)}."
        )
    if chosen.quick:
        results, n_seeds = results / "quick", 1
        experiments = [quick(one) for one in experiments]
    known = {one.data: Runs(one.data, results) for one in experiments}
    experiments = [one for one in experiments if not one.lines(known[one.data], n_seeds)]
    if chosen.download:
        for name in sorted({one.data for one in experiments}):
            download(name, chosen.data)
    missing = [
        text
        for name in dict.fromkeys(one.data for one in experiments)
        if (text := what_is_missing(name, chosen.data))
    ]
    if missing:
        sys.exit("\n\n".join(missing) + "\n\nOr leave them out: --only names those to run.")
    embed(experiments, chosen.data, n_seeds)
    settings = (results, chosen.data, n_seeds, chosen.device, not chosen.quick, code_version())
    work = [delayed(run)(one, *settings, os.getpid()) for one in experiments]
    with parallel_config("loky", n_jobs=chosen.jobs, inner_max_num_threads=1):
        done = Parallel(return_as="generator_unordered")(work)
        failed = [what for what in tqdm(done, total=len(work), unit="experiment") if what]
    if failed:
        sys.exit("\n\n".join([*failed, f"{len(failed)} experiments failed, see above."]))


def embed(experiments: list[Experiment], directory: str | None, n_seeds: int) -> None:
    """Compute features first, with all cores."""
    needed = dict.fromkeys(one.rows_to_embed(n_seeds) for one in experiments if one.teacher)
    for rows in tqdm(needed, desc="features", unit="set"):
        rows.embed(directory)


if __name__ == "__main__":
    main()
