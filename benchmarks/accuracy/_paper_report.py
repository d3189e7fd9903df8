"""What the suite paper says to each claim of the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from benchmarks.accuracy._paper import (
    DEFAULT,
    METHODS,
    NOISES,
    PROBE,
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
        mean = estimate([value.mean for value in ratios.get(method, {}).values()])
        means = "" if mean is None else mean.as_ratio()
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


def noise_table(every: dict[Experiment, Errors]) -> Iterator[str]:
    """Yield the error over that of the student alone, without and with noise in the features."""
    alone = {name_of(one): of for one, of in every.items() if one.method == STL}
    yield f"| | {' | '.join(NOISES)} |"
    yield "|---" * (len(NOISES) + 1) + "|"
    for method in VARIANTS:
        cells = []
        for name in NOISES:
            ratios = [
                value.mean
                for one, of in every.items()
                if (one.method, one.teacher) == (method, name)
                and (value := ratio(of, alone.get(name_of(one), {})))
            ]
            mean = estimate(ratios)
            cells.append("" if mean is None else f"{mean.mean:.2f}")
        yield f"| {method} | {' | '.join(cells)} |"


def strengths_table(every: dict[Experiment, Errors]) -> Iterator[str]:
    """Yield the test error by strength, for each column, teacher and method."""
    betas = sorted({one.beta for one in every})
    yield f"| | {' | '.join(f'{beta:g}' for beta in betas)} |"
    yield "|---" * (len(betas) + 1) + "|"
    for key in dict.fromkeys((name_of(one), one.teacher, one.method) for one in every):
        of_key = {
            one.beta: estimate(list(of.values()))
            for one, of in every.items()
            if (name_of(one), one.teacher, one.method) == key
        }
        yield f"| {', '.join(key)} | {' | '.join(str(of_key.get(beta, '')) for beta in betas)} |"


Table = Callable[[dict[Experiment, Errors]], Iterator[str]]
TABLES: dict[str, tuple[Callable[[], Iterable[Experiment]], Table]] = {
    "methods: test error in per cent": (methods, methods_table),
    "teachers: test error in per cent": (teachers, teachers_table),
    "noise beside the features: error over that of the student alone": (noise, noise_table),
    "strengths: test error in per cent": (strengths, strengths_table),
}


def paper_tables(runs: Runs) -> Iterator[tuple[str, str]]:
    """Yield the title of each table that has lines, and the table."""
    for title, (experiments, table) in TABLES.items():
        if every := found(experiments(), runs):
            yield title, "\n".join(table(every)).strip()
    if every := found(quick(), runs):
        yield (
            "methods, not tuned, one seed: test error in per cent",
            "\n".join(methods_table(every)),
        )
