"""What the suite paper says to each claim of the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product

from benchmarks.accuracy._paper import (
    BOTH_LITE,
    DEFAULT,
    METHODS,
    NOISES,
    PROBE,
    SEVERAL,
    STL,
    TEACHERS,
    VARIANTS,
    Experiment,
    methods,
    noise,
    quick,
    strengths,
    teachers,
)
from benchmarks.accuracy._runs import Runs
from benchmarks.accuracy._scores import Errors, Estimate, correlation, estimate, is_worse, ratio

# Mean normalised errors that the paper reports, read off its figure.
PUBLISHED = {"aft": 0.887, "ft": 0.928, "rkd": 0.939, "b-tuning": 0.944, "kd": 0.956}


def errors(one: Experiment, runs: Runs) -> Errors:
    """Return the test errors of an experiment, by seed."""
    return {line["key"]["seed"]: line["error"] for line in one.lines(runs)}


def found(experiments: Iterable[Experiment], runs: Runs) -> dict[Experiment, Errors]:
    """Return the errors of those experiments that were run."""
    every = {one: errors(one, runs) for one in experiments}
    return {one: of for one, of in every.items() if of}


def columns(experiments: Iterable[Experiment]) -> list[str]:
    """Return the names of columns, in order."""
    return list(dict.fromkeys(name_of(one) for one in experiments))


def name_of(one: Experiment) -> str:
    """Return how the column of an experiment is called."""
    return f"{one.column.data}, {one.column.labels}"


def normalised(every: dict[Experiment, Errors]) -> dict[str, dict[str, Estimate]]:
    """Return each method's error over that of the student alone, by column."""
    alone = {name_of(one): of for one, of in every.items() if one.method == STL}
    ratios: dict[str, dict[str, Estimate]] = {}
    for one, of in every.items():
        value = ratio(of, alone.get(name_of(one), {}))
        if value is not None:
            ratios.setdefault(one.method, {})[name_of(one)] = value
    return ratios


def methods_table(every: dict[Experiment, Errors]) -> Iterator[str]:
    """Yield the test errors of all methods, their mean ratio and the paper's."""
    names, ratios = columns(every), normalised(every)
    yield f"| | {' | '.join([*names, 'mean ratio', 'paper'])} |"
    yield "|---" * (len(names) + 3) + "|"
    for method in METHODS:
        of_columns = {name_of(one): of for one, of in every.items() if one.method == method}
        cells = []
        for name in names:
            value = estimate(list(of_columns.get(name, {}).values()))
            mark = " †" if is_worse(ratios.get(method, {}).get(name)) else ""
            cells.append("" if value is None else f"{value}{mark}")
        of_method = ratios.get(method, {})
        mean = estimate([value.mean for value in of_method.values()])
        means = "" if mean is None or len(of_method) < len(names) else mean.as_ratio()
        yield f"| {method} | {' | '.join([*cells, means, str(PUBLISHED.get(method, ''))])} |"


def of_teachers(
    every: dict[Experiment, Errors], column: str, method: str
) -> dict[str, tuple[float, float]]:
    """Return the errors of the probe of each teacher and of the student that it teaches."""
    by = {
        (one.teacher, one.method): estimate(list(of.values()))
        for one, of in every.items()
        if name_of(one) == column
    }
    return {
        name: (by[name, PROBE].mean, by[name, method].mean)
        for name in TEACHERS
        if (name, PROBE) in by and (name, method) in by
    }


def teachers_table(every: dict[Experiment, Errors]) -> Iterator[str]:
    """Yield the errors of the probes of all teachers and of their students, and correlations."""
    taught_by = ("aft", "kd", DEFAULT)
    for column in columns(every):
        points = {method: of_teachers(every, column, method) for method in taught_by}
        if not all(len(of) > 2 for of in points.values()):
            continue
        yield f"\n| {column} | probe | {' | '.join(taught_by)} |"
        yield "|---" * 5 + "|"
        for name in points["aft"]:
            cells = [f"{points[method][name][1]:.1f}" for method in taught_by]
            yield f"| {name} | {points['aft'][name][0]:.1f} | {' | '.join(cells)} |"
        cells = [f"{correlation(points[method].values()):.2f}" for method in taught_by]
        yield f"| correlation | | {' | '.join(cells)} |"


def several_table(every: dict[Experiment, Errors]) -> Iterator[str]:
    """Yield the error of several teachers, or layers, over that of the best of them alone."""
    yield f"| | {' | '.join(columns(every))} |"
    yield "|---" * (len(columns(every)) + 1) + "|"
    for name, parts in SEVERAL.items():
        for method in ("aft", "kd", DEFAULT):
            cells = []
            for column in columns(every):
                points = of_teachers(every, column, method)
                if name in points and all(part in points for part in parts):
                    best = min(points[part][1] for part in parts)
                    cells.append(f"{points[name][1] / best:.2f}")
                else:
                    cells.append("")
            yield f"| {name}, {method} | {' | '.join(cells)} |"


def noise_table(every: dict[Experiment, Errors]) -> Iterator[str]:
    """Yield errors over those of the student alone, without and with noise in the features."""
    alone = {name_of(one): of for one, of in every.items() if one.method == STL}
    n_texts = len({one.column for one in every if one.column.kind == "text"})
    yield f"| | {' | '.join([*alone, 'mean of texts'])} |"
    yield "|---" * (len(alone) + 2) + "|"
    for name, method in product((*NOISES, BOTH_LITE), VARIANTS):
        ratios = {
            name_of(one): ratio(of, alone[name_of(one)])
            for one, of in every.items()
            if (one.method, one.teacher) == (method, name)
        }
        if ratios:
            texts = [one.mean for one in ratios.values() if one is not None]
            is_whole = name in NOISES and len(texts) == n_texts
            mean = f"{estimate(texts).mean:.2f}" if is_whole else ""
            cells = [ratios[of].as_ratio() if ratios.get(of) else "" for of in alone]
            yield f"| {method}, {name} | {' | '.join([*cells, mean])} |"


def strengths_table(every: dict[Experiment, Errors]) -> Iterator[str]:
    """Yield the test error by strength, for each column, teacher and method."""
    alone, taught = (
        {one: of for one, of in every.items() if (one.method == STL) == is_alone}
        for is_alone in (True, False)
    )
    without = {name_of(one): estimate(list(of.values())) for one, of in alone.items()}
    betas = sorted({one.beta for one in taught})
    yield f"| | 0 | {' | '.join(f'{beta:g}' for beta in betas)} |"
    yield "|---" * (len(betas) + 2) + "|"
    for key in dict.fromkeys((name_of(one), one.teacher, one.method) for one in taught):
        of_key = {
            one.beta: estimate(list(of.values()))
            for one, of in taught.items()
            if (name_of(one), one.teacher, one.method) == key
        }
        cells = [without.get(key[0]), *(of_key.get(beta) for beta in betas)]
        shown = ["" if cell is None else str(cell) for cell in cells]
        yield f"| {', '.join(key)} | {' | '.join(shown)} |"


def chosen_table(runs: Runs) -> Iterator[str]:
    """Yield the strength that trials chose for each method and column."""
    every = [one for one in methods() if one.method != STL and one.lines(runs)]
    names = columns(every)
    yield f"| | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for method in dict.fromkeys(one.method for one in every):
        chosen = {name_of(one): one for one in every if one.method == method}
        cells = [_chosen(chosen[name], runs) if name in chosen else "" for name in names]
        yield f"| {method} | {' | '.join(cells)} |"


def _chosen(one: Experiment, runs: Runs) -> str:
    """Return the chosen strength, in brackets if it is the lowest or highest of the trials."""
    beta = one.lines(runs)[0]["setting"]["beta"]
    tried = [trial["beta"] for trial in one.trials()]
    return f"({beta:g})" if beta in (min(tried), max(tried)) else f"{beta:g}"


Table = Callable[[dict[Experiment, Errors]], Iterator[str]]
# The part that a table is about, by its marker in the docs.
TABLES: dict[str, tuple[Callable[[], Iterable[Experiment]], Table]] = {
    "methods": (methods, methods_table),
    "teachers": (teachers, teachers_table),
    "several": (teachers, several_table),
    "noise": (noise, noise_table),
    "strengths": (strengths, strengths_table),
}


def paper_tables(runs: Runs, is_quick: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the name of each table that has lines, and the table."""
    if is_quick:
        yield "methods, not tuned", "\n".join(methods_table(found(quick(), runs)))
        return
    for name, (experiments, table) in TABLES.items():
        if every := found(experiments(), runs):
            yield name, "\n".join(table(every)).strip()
    yield "chosen", "\n".join(chosen_table(runs))
