"""Run suites of experiments.

    python -m benchmarks.accuracy --suite NAME [NAME ...] --data DIR

A run is a line in benchmarks/results/accuracy (or --results DIR). Runs that have a line are
skipped, so suites are resumable. ``--quick`` uses one seed, a tenth of the steps and no trials,
and keeps its lines in a separate folder. `benchmarks.accuracy.report` makes tables and figures
from the lines.
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
    parser.add_argument("--seeds", type=_count, default=3, help="test scores each; default: 3")
    parser.add_argument("--jobs", type=_count, default=1, help="processes, of one thread each")
    parser.add_argument("--device", default="auto", help="where students are trained")
    parser.add_argument("--quick", action="store_true", help="one seed, no trials; in minutes")
    chosen = parser.parse_args()
    results, n_seeds = chosen.results, chosen.seeds
    # A dict, since suites share experiments.
    experiments = list(dict.fromkeys(one for name in chosen.suite for one in SUITES[name]()))
    for option, names, of in (
        ("--only", chosen.only, lambda one: one.data),
        ("--methods", chosen.methods, lambda one: one.method),
    ):
        known_names = list(dict.fromkeys(map(of, experiments)))
        if wrong := set(names or ()).difference(known_names):
            parser.error(
                f"{option}: {sorted(wrong)} not in {chosen.suite}, which have {known_names}."
            )
        experiments = [one for one in experiments if names is None or of(one) in names]
    if chosen.quick:
        results, n_seeds = results / "quick", 1
        experiments = [quick(one) for one in experiments if not METHODS[one.method].grid]
    known = {one.data: Runs(one.data, results) for one in experiments}
    n_experiments = len(experiments)
    experiments = [one for one in experiments if not one.is_done(known[one.data], n_seeds)]
    print(f"{n_experiments - len(experiments)} of {n_experiments} experiments are in {results}.")
    if not experiments:
        print("Nothing is left to run; --results OTHER makes runs of your own.")
        return
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


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def embed(experiments: list[Experiment], directory: str | None, n_seeds: int) -> None:
    """Compute features first, with all cores."""
    needed = dict.fromkeys(one.rows_to_embed(n_seeds) for one in experiments if one.teacher)
    for rows in tqdm(needed, desc="features", unit="set"):
        rows.embed(directory)


if __name__ == "__main__":
    main()
