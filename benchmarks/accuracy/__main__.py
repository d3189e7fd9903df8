"""Run suites of experiments, and print their tables.

    python -m benchmarks.accuracy few all tables paper --data DIR [--jobs N]

- few: 10 and 50 labels a class, and further rows without labels.
- all: all labels of texts and X-rays, 1,000 and 5,000 of CIFAR-10.
- tables: 300 labels and further rows without, taught by gradient boosting.
- paper: the published methods with an equal budget of trials, and the paper's claims.

A run is a line in benchmarks/results/accuracy (or --results DIR). What has a line is not run again,
so the same command goes on after an interruption. ``--only`` and ``--method`` choose what is run;
the tables show all lines. ``--quick`` does a part of a suite in minutes, and keeps its lines in a
folder of their own. `benchmarks.accuracy.pareto` measures what the models cost, and
`benchmarks.accuracy.report` makes the tables and figures of docs/guide/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm

from benchmarks.accuracy._data import download, what_is_missing
from benchmarks.accuracy._paper import METHODS as PAPER_METHODS
from benchmarks.accuracy._paper import experiments
from benchmarks.accuracy._paper import quick as quick_paper
from benchmarks.accuracy._runs import RESULTS, Runs, code_version
from benchmarks.accuracy._suites import SUITES
from benchmarks.accuracy._tables import print_suite
from benchmarks.accuracy._worker import Job, of_experiments, of_suite, run

PAPER = "paper"


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*SUITES, PAPER]
    parser.add_argument("suite", nargs="+", choices=names, help=f"of {', '.join(names)}")
    parser.add_argument("--data", help="directory of the data sets; default: SK_AFT_DATA")
    parser.add_argument("--download", action="store_true", help="fetch missing data sets into it")
    parser.add_argument("--only", nargs="+", metavar="DATA_SET", help="such as trec cifar10")
    parser.add_argument("--method", nargs="+", metavar="METHOD", help="such as student probe")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the lines are kept")
    parser.add_argument("--seeds", type=int, default=1, help="at least; images have 1, others more")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--quick", action="store_true", help="a part, in minutes")
    parser.add_argument("--print", action="store_true", help="only print what is there")
    chosen = parser.parse_args()
    results = chosen.results / "quick" if chosen.quick else chosen.results
    jobs = []
    for suite in chosen.suite:
        runs = Runs(suite, results)
        if suite == PAPER:
            every = quick_paper() if chosen.quick else experiments(chosen.seeds)
            jobs += of_experiments(every, runs)
        else:
            of = SUITES[suite].with_seeds(chosen.seeds)
            jobs += of_suite(of.quick() if chosen.quick else of, runs)
    _check_names(parser, "--only", chosen.only, _data_of(chosen.suite))
    _check_names(parser, "--method", chosen.method, _methods_of(chosen.suite))
    jobs = _wanted(jobs, chosen.only, chosen.method)
    failed: list[str] = []
    if jobs and not chosen.print:
        _check_data(jobs, chosen.data, chosen.download)
        failed = _run(jobs, chosen.data, chosen.jobs)
    for suite in chosen.suite:
        print_suite(suite, Runs(suite, results), chosen.quick)
    if failed:
        sys.exit("\n\n".join([*failed, f"{len(failed)} runs failed, see above."]))


def _data_of(suites: list[str]) -> list[str]:
    """Return the data sets of some suites."""
    columns = [column for suite in suites if suite != PAPER for column in SUITES[suite].columns]
    if PAPER in suites:
        columns += [one.column for one in experiments()]
    return list(dict.fromkeys(column.data for column in columns))


def _methods_of(suites: list[str]) -> list[str]:
    """Return the methods of some suites."""
    own = [method for suite in suites if suite != PAPER for _, method, _ in SUITES[suite].runs()]
    return list(dict.fromkeys([*own, *(PAPER_METHODS if PAPER in suites else [])]))


def _check_names(
    parser: argparse.ArgumentParser, option: str, names: list[str] | None, known: list[str]
) -> None:
    if wrong := [name for name in names or [] if name not in known]:
        parser.error(f"{option}: there is no {', '.join(wrong)}, only {', '.join(known)}.")


def _wanted(jobs: list[Job], data: list[str] | None, methods: list[str] | None) -> list[Job]:
    """Return the runs on some data sets, of some methods."""
    kept = (
        job._replace(work=[one for one in job.work if methods is None or one.method in methods])
        for job in jobs
        if data is None or job.data in data
    )
    return [job for job in kept if job.work]


def _check_data(jobs: list[Job], directory: str | None, downloads: bool) -> None:
    """Exit if a data set is missing, before anything is run."""
    names = dict.fromkeys(job.data for job in jobs)
    for name in names if downloads else ():
        download(name, directory)
    missing = [text for name in names if (text := what_is_missing(name, directory))]
    if missing:
        sys.exit("\n\n".join(missing) + "\n\nOr leave them out: --only names those to run.")


def _run(jobs: list[Job], directory: str | None, n_processes: int) -> list[str]:
    """Do the jobs; return what went wrong."""
    version = code_version()
    work = [delayed(run)(job, directory, version, os.getpid()) for job in jobs]
    with parallel_config("loky", n_jobs=n_processes, inner_max_num_threads=1):
        done = Parallel(return_as="generator_unordered")(work)
        return [what for some in tqdm(done, total=len(work), unit="job") for what in some]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Interrupted. Finished runs are kept: the same command goes on from there.")
