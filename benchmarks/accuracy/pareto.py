"""Accuracy beside the cost of a prediction, for what the suite "few" has that can be deployed.

    python -m benchmarks.accuracy.pareto --data DIR [--results DIR] [--quick] [--print]

Texts are Banking77 with 10 labels a class, images CIFAR-10 with 50. Each model is fitted once, kept
in ``--work``, and loaded by a process of its own that has one thread, in turns, for 7 rounds;
figures are medians. Do not run anything else meanwhile. Errors are the means of the suite's lines
in ``--results``, if it has them, and those of the deployed model on the labels of the first seed.
The Pareto fronts compare methods on the same seeds.

What has a figure in pareto.json of ``--results`` is not measured again: delete the file to measure
again, and the folder ``--work`` to fit again. Another run reads new lines of the suite. ``--quick``
measures texts, students and TF-IDF, for one round. ``--print`` only prints the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Iterable, Sequence
from datetime import date
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path
from threadpoolctl import threadpool_limits

from benchmarks.accuracy._columns import Column, read
from benchmarks.accuracy._data import what_is_missing
from benchmarks.accuracy._deployed import IMAGE_MODELS, SAME_COSTS, TEXT_MODELS, Deployed
from benchmarks.accuracy._runs import RESULTS, Runs, code_version
from benchmarks.accuracy._scores import on_all_seeds
from benchmarks.accuracy._suites import FIRST_SEED, TAUGHT
from benchmarks.speed._served_models import make_once, write_rows
from benchmarks.speed._timing import machine
from benchmarks.speed.serving import ROUNDS, costs, in_fresh_process

Figure = dict[str, Any]
COLUMNS = {
    Column("banking77", "10 a class", uses_others=True): TEXT_MODELS,
    Column("cifar10", "50 a class", uses_others=True): IMAGE_MODELS,
}
_N_LATER_ROWS = 512  # of the rounds after the first, which also measures the error
_COSTS = {
    "ms_alone": "one row, ms",
    "ms_in_batches": "each of 256, ms",
    "files_mb": "files, MB",
    "packages_mb": "packages, MB",
    "seconds": "start, s",
    "resident_mb": "memory, MB",
}


def main() -> None:
    """Measure what has no figure, and print everything."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.pareto",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", help="directory of the data sets; default: SK_AFT_DATA")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where figures are kept")
    default = user_cache_path("sk-aft") / "pareto_benchmark"
    parser.add_argument("--work", type=Path, default=default, help="where models are kept")
    parser.add_argument("--quick", action="store_true", help="a part, in minutes")
    parser.add_argument("--print", action="store_true", help="only print what is there")
    chosen = parser.parse_args()
    results, work = (
        folder / "quick" if chosen.quick else folder for folder in (chosen.results, chosen.work)
    )
    path, few = results / "pareto.json", Runs("few", results)
    figures: list[Figure] = json.loads(path.read_text()) if path.exists() else []
    missing = {} if chosen.print else _missing(figures, chosen.quick)
    if lacking := [text for of in missing if (text := what_is_missing(of.data, chosen.data))]:
        sys.exit("\n\n".join(lacking))
    for column, models in missing.items():
        folder = work / f"{column.data} {column.labels}"
        figures += _measured(column, models, folder, chosen.data, 1 if chosen.quick else ROUNDS)
        _keep(compared(figures, few.lines), path)
    if not figures:
        sys.exit(f"There are no figures in {path} yet: run this without --print.")
    found = compared(figures, few.lines)
    if not chosen.print:
        _keep(found, path)
    print(table(found))


def _missing(figures: list[Figure], is_quick: bool) -> dict[Column, list[Deployed]]:
    """Return the models that have no figure."""
    done = {(one["data"], one["method"], one["form"]) for one in figures}
    missing = {
        column: [
            one
            for one in models
            if (column.data, one.method, one.form) not in done and (one.is_quick or not is_quick)
        ]
        for column, models in COLUMNS.items()
    }
    return {column: models for column, models in missing.items() if models}


def _measured(
    column: Column, models: list[Deployed], work: Path, directory: str | None, n_rounds: int
) -> list[Figure]:
    """Fit and write the models of a column that are not there, and measure all of them in turns."""
    suffix = ".json" if column.kind == "text" else ".uint8"
    every = work / f"rows{suffix}", work / "labels.json"
    some = work / f"some_rows{suffix}", work / "some_labels.json"
    work.mkdir(parents=True, exist_ok=True)
    rows, labels = read(column, directory, FIRST_SEED)
    order = np.random.RandomState(0).permutation(len(labels))
    for part, paths in ((order, every), (order[:_N_LATER_ROWS], some)):
        test_rows = rows.test_rows[part]
        test_rows = test_rows.tolist() if column.kind == "text" else test_rows
        write_rows((test_rows, labels[part]), *paths)
    torch.set_num_threads(1)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        for one in models:
            make_once(work / one.name, partial(one.write, rows, work=work))
    found: dict[str, list[dict[str, float]]] = {one.name: [] for one in models}
    for number in range(n_rounds):
        for one in models:
            print(f"round {number + 1} of {n_rounds}: {one.method}, {one.form}", flush=True)
            paths = some if number else every
            found[one.name].append(in_fresh_process(one.loader, work / one.name, *paths))
    return [_figure(column, one, found[one.name], work / one.name) for one in models]


def _figure(column: Column, model: Deployed, found: list[dict[str, float]], path: Path) -> Figure:
    values = costs(found, path)
    del values["accuracy"]
    wrong = round(100 - found[0]["accuracy"], 3) if model.is_trained else None
    return {
        "data": column.data,
        "labels": column.labels,
        "method": model.method,
        "form": model.form,
        **values,
        "deployed_error": wrong,
        "rounds": len(found),
        "version": code_version(),
        "date": date.today().isoformat(),
        "processor": machine("cpu")["processor"],
    }


def _keep(figures: list[Figure], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")


def compared(figures: Iterable[Figure], lines: Iterable[dict[str, Any]]) -> list[Figure]:
    """Return figures with the suite's errors, those of methods of the same costs, and the fronts.

    Parameters
    ----------
    figures : iterable of dict
        What was measured.
    lines : iterable of dict
        The lines of the suite "few".

    Returns
    -------
    figures : list of dict
        "error" is the mean of the suite, if it has lines, else the error of the deployed model;
        "error_of" says which. "compared_error" is on the scale of `on_all_seeds`. "is_fast" and
        "is_small" say whether it is on the front of that error and milliseconds a row, and of that
        error and megabytes of files and packages.
    """
    measured = [one for one in figures if "costs_of" not in one]
    kinds = {column.data: column.kind for column in COLUMNS}
    errors: dict[tuple[str, str, str], dict[int, float]] = {}
    for line in lines:
        key = line["key"]
        of_seed = errors.setdefault((key["data"], key["labels"], key["method"]), {})
        of_seed[key["seed"]] = line["error"]
    found: list[Figure] = []
    measured.sort(key=lambda one: list(kinds).index(one["data"]))
    for data, group in groupby(measured, key=lambda one: one["data"]):
        of_data = list(group)
        of_data += _with_same_costs(of_data, SAME_COSTS[kinds[data]])
        of_data = [one | _error(one, errors) for one in of_data]
        known = [one for one in of_data if one["error"] is not None]
        wrong = [one["compared_error"] for one in known]
        sizes = [one["files_mb"] + one["packages_mb"] for one in known]
        fast = on_front(list(zip(wrong, [one["ms_alone"] for one in known], strict=True)))
        small = on_front(list(zip(wrong, sizes, strict=True)))
        for one, is_fast, is_small in zip(known, fast, small, strict=True):
            one |= {"is_fast": is_fast, "is_small": is_small}
        found += of_data
    return found


def _with_same_costs(figures: list[Figure], same: dict[str, tuple[str, str]]) -> list[Figure]:
    """Return figures of the methods whose costs are those of another's."""
    by_name = {(one["method"], one["form"]): one for one in figures}
    return [
        {**by_name[other], "method": method, "costs_of": ", ".join(other), "deployed_error": None}
        for method, other in same.items()
        if other in by_name
    ]


def _error(figure: Figure, errors: dict[tuple[str, str, str], dict[int, float]]) -> Figure:
    column, own = (figure["data"], figure["labels"]), figure["deployed_error"]
    of_seed = errors.get((*column, figure["method"]), {})
    error_of = f"the suite, seeds: {len(of_seed)}" if of_seed else "the deployed model"
    if not of_seed and own is not None:
        of_seed = {FIRST_SEED: own}
    return {
        "error": round(statistics.mean(of_seed.values()), 3) if of_seed else None,
        "error_of": error_of,
        "compared_error": on_all_seeds(of_seed, errors.get((*column, TAUGHT), {})),
        "is_fast": False,
        "is_small": False,
    }


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return which points are on the Pareto front: no other is as low in both, and lower in one."""
    return [
        not any(
            other != point and other[0] <= point[0] and other[1] <= point[1] for other in points
        )
        for point in points
    ]


def table(figures: Iterable[Figure]) -> str:
    """Return figures as Markdown, a table for each data set."""
    header = ["", "error, %", "deployed, %", *_COSTS.values(), "on the front of"]
    tables = []
    for data, group in groupby(figures, key=lambda one: (one["data"], one["labels"])):
        lines = [", ".join(data), "", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        for one in group:
            error = "" if one["error"] is None else f"{one['compared_error']:.1f}"
            error += " *" if error and one["error_of"] == "the deployed model" else ""
            own = one["deployed_error"]
            fronts = [name for name in ("fast", "small") if one[f"is_{name}"]]
            same = f" (costs of {one['costs_of']})" if "costs_of" in one else f", {one['form']}"
            cells = [one["method"] + same, error, "" if own is None else f"{own:.1f}"]
            cells += [*(f"{one[key]:g}" for key in _COSTS), ", ".join(fronts)]
            lines.append(f"| {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    note = "\n\n\\* of the deployed model alone: the suite has no line of the method."
    text = "\n\n".join(tables)
    return text + note if " * |" in text else text


if __name__ == "__main__":
    main()
