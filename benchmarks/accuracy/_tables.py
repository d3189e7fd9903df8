"""Tables of what a suite has measured, and its targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.accuracy import _suites as names
from benchmarks.accuracy._columns import Column
from benchmarks.accuracy._paper_tables import paper_tables
from benchmarks.accuracy._runs import Runs
from benchmarks.accuracy._scores import Estimate, Scores, is_better, is_worse
from benchmarks.accuracy._suites import METHODS, SUITES

TITLES = {
    "banking77": "Banking77",
    "trec": "TREC",
    "sst2": "SST-2",
    "cifar10": "CIFAR-10",
    "fashion_mnist": "Fashion-MNIST",
    "chest_xray": "chest X-rays",
    "computers": "computers",
    "diamonds": "diamonds",
    "churn": "churn",
}
# Which student is held against which teacher.
TEACHER_OF = {
    names.TAUGHT: names.PROBE_OF_TWO,
    names.TAUGHT_BY_TUNED: names.TUNED,
    names.TWO_TAUGHT: names.PROBE_OF_TWO,
    names.TWO_OF_TUNED: names.TUNED,
}
_OF_TUNED = (names.TAUGHT_BY_TUNED, names.TWO_OF_TUNED)
_GROUPS = {"few": ("text", "image"), "all": ("text", "image"), "tables": ("table",)}
_KINDS = {"text": "texts", "image": "images", "table": "tables"}
_LABELS = {"few": "few labels", "all": "many labels", "tables": "300 labels"}
# Rivals that predict about as fast as the student, or faster.
CHEAP_RIVALS = {
    "text": (names.TFIDF, names.PSEUDO_LABELS, names.MODEL2VEC),
    "image": (names.HOG, names.PSEUDO_LABELS_HOG),
    "table": (names.LINEAR, names.BOOSTING, names.TUNED_BOOSTING),
}
_ALONE_OF = dict.fromkeys((names.TWO_TAUGHT, names.TWO_OF_TUNED), names.TWO_ALONE) | {
    names.SMALL_TAUGHT: names.SMALL_ALONE
}


def alone_of(method: str) -> str:
    """Return which student alone a method is compared with."""
    return _ALONE_OF.get(method, names.ALONE)


def title(column: Column) -> str:
    """Return how a column is called."""
    number = column.labels.replace(" a class", "")
    return f"{TITLES[column.data]}, {int(number):,}" if number != "all" else TITLES[column.data]


def table(scores: Scores, columns: Sequence[Column]) -> Iterator[str]:
    """Yield a Markdown table: test errors of each method, and the mean ratio to the student alone.

    † marks what is worse than its student alone by two standard errors. There is no mean if a
    column is missing.
    """
    yield f"| | {' | '.join([*map(title, columns), 'mean ratio'])} |"
    yield "|---" * (len(columns) + 2) + "|"
    for method in METHODS:
        cells = [_cell(scores, column, method) for column in columns]
        if not any(cells):
            continue
        mean = scores.mean_ratio(columns, method, alone_of(method))
        is_whole = mean is not None and all(cells)
        yield f"| {method} | {' | '.join([*cells, f'{mean.mean:.2f}' if is_whole else ''])} |"


def summary(scores: Mapping[str, Scores]) -> Iterator[str]:
    """Yield a Markdown table: errors over those of the student alone, by suite and kind of rows.

    Parameters
    ----------
    scores : dict of str to Scores
        By the name of the suite.
    """
    groups = [
        (suite, kind, [column for column in SUITES[suite].columns if column.kind == kind])
        for suite, kinds in _GROUPS.items()
        for kind in kinds
    ]
    heads = [f"{_KINDS[kind]}, {_LABELS[suite]}" for suite, kind, _ in groups]
    yield f"| | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    for method in METHODS:
        found = [scores[suite].mean_ratio(own, method, names.ALONE) for suite, _, own in groups]
        if any(found):
            cells = [
                f"{one.mean:.2f}" if one is not None and one.n == len(own) else ""
                for one, (_, _, own) in zip(found, groups, strict=True)
            ]
            yield f"| {method} | {' | '.join(cells)} |"


def _cell(scores: Scores, column: Column, method: str) -> str:
    found = scores.mean(column, method)
    if found is None:
        return ""
    return f"{found} †" if is_worse(scores.ratio(column, method, alone_of(method))) else str(found)


def targets(scores: Scores, columns: Sequence[Column]) -> Iterator[str]:
    """Yield how students compare with themselves alone, with their teachers and with rivals."""
    kinds = list(dict.fromkeys(column.kind for column in columns))
    for method in (names.TAUGHT, names.TAUGHT_BY_TUNED, *_ALONE_OF):
        has = [column for column in columns if scores.errors(column, method)]
        groups = {kind: [column for column in has if column.kind == kind] for kind in kinds}
        groups = {kind: own for kind, own in groups.items() if own}
        if len(groups) > 1:
            groups = {"all": has, **groups}
        for kind, own in groups.items():
            yield f"{method}, {kind} ({_columns(len(own))}): {_compared(scores, own, method)}"


def _columns(number: int) -> str:
    return "1 column" if number == 1 else f"{number} columns"


def _compared(scores: Scores, columns: Sequence[Column], method: str) -> str:
    """Return the ratios of a method to its student alone and its teacher, and who is ahead."""
    parts = []
    for reference in (alone_of(method), TEACHER_OF.get(method)):
        if reference and (mean := scores.mean_ratio(columns, method, reference)):
            parts.append(f"{mean.mean:.2f} of the error of {reference}")
    alone = alone_of(method)
    worse = [title(of) for of in columns if is_worse(scores.ratio(of, method, alone))]
    if worse:
        parts.append(f"worse than {alone} in {', '.join(worse)}")
    behind = {
        title(column): rival
        for column in columns
        if (rival := _best_rival(scores, column, method)) is not None
    }
    clear = [
        column
        for column in columns
        if all(map(is_better, _against_rivals(scores, column, method).values()))
    ]
    share = (
        f"ahead of every rival as cheap in {_columns(len(columns) - len(behind))}, in "
        f"{len(clear)} of them by two standard errors"
    )
    named = [f"{column} behind {rival}" for column, rival in behind.items()]
    return "; ".join([*parts, share, *named])


def _best_rival(scores: Scores, column: Column, method: str) -> str | None:
    """Return the rival that is furthest ahead of a method, and the ratio; None if none is."""
    ratios = {rival: found.mean for rival, found in _against_rivals(scores, column, method).items()}
    best = max(ratios, key=lambda rival: ratios[rival], default=None)
    return None if best is None or ratios[best] <= 1 else f"{best} ({ratios[best]:.2f})"


def _against_rivals(scores: Scores, column: Column, method: str) -> dict[str, Estimate]:
    """Return the ratio of a method's error to that of each rival as cheap."""
    rivals = CHEAP_RIVALS[column.kind]
    if method in _OF_TUNED:
        rivals = (*rivals, names.PSEUDO_LABELS_OF_TUNED)
    every = {rival: scores.ratio(column, method, rival) for rival in rivals}
    return {rival: one for rival, one in every.items() if one is not None}


def print_suite(suite: str, runs: Runs, is_quick: bool = False) -> None:
    """Print the tables of a suite and its targets."""
    if suite not in SUITES:
        for what, lines in paper_tables(runs, is_quick):
            print(f"\n## {what}\n\n{lines}")
        return
    scores, columns = Scores(runs.lines), SUITES[suite].columns
    print(f"\n## {suite}: test error in per cent")
    for kind in dict.fromkeys(column.kind for column in columns):
        print("\n" + "\n".join(table(scores, [of for of in columns if of.kind == kind])))
    print("\n" + "\n".join(targets(scores, columns)))
    hours = np.sum([line["seconds"] for line in runs.lines]) / 3600
    print(f"\n{len(runs)} runs, {hours:.1f} hours of one thread for fitting")
