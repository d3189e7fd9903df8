"""The suites few, all and tables: columns, and the methods that are compared in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from benchmarks.accuracy import _rivals, _students
from benchmarks.accuracy._columns import Column, Rows

FIRST_SEED = 2000  # earlier ones drew the rows that defaults were developed with
ALONE, TAUGHT, TAUGHT_BY_TUNED = "student alone", "student", "student of a tuned teacher"
PROBE, PROBE_OF_TWO, TUNED = "probe", "probe of two layers", "tuned teacher"
TWO_ALONE, TWO_TAUGHT = "2 layers alone", "2 layers"
TWO_OF_TUNED = "2 layers of a tuned teacher"
SMALL_ALONE, SMALL_TAUGHT = "small student alone", "small student"
TFIDF, PSEUDO_LABELS = "TF-IDF", "TF-IDF on pseudo-labels"
PSEUDO_LABELS_OF_TUNED = "TF-IDF on a tuned teacher's labels"
HOG, PSEUDO_LABELS_HOG = "HOG + SVM", "HOG + SVM on pseudo-labels"
MODEL2VEC, SETFIT = "model2vec", "SetFit"
BOOSTING, TUNED_BOOSTING, LINEAR = "boosting", "boosting, tuned", "linear"
_N_SEEDS = 5


class Method(NamedTuple):
    """A row of a table of results.

    Parameters
    ----------
    fit : callable
        From the rows of a column to what predicts.
    kinds : tuple of str
        The kinds of rows that it can learn from.
    n_seeds : int, default=5
        How many seeds it has: fewer if a run takes minutes. Those are run last.
    needs_others : bool, default=False
        Whether it is another method where all rows have labels.
    """

    fit: Callable[[Rows], Any]
    kinds: tuple[str, ...] = ("text", "image", "table")
    n_seeds: int = _N_SEEDS
    needs_others: bool = False

    @property
    def is_slow(self) -> bool:
        """Whether a run takes minutes."""
        return self.n_seeds < _N_SEEDS


_TEXTS, _IMAGES, _TABLES = ("text",), ("image",), ("table",)
_NETWORKS = ("text", "image")


def _pseudo_labels(rows: Rows) -> Any:
    return _rivals.pseudo_labels(_students.better_probe(rows), rows)


def _pseudo_labels_of_tuned(rows: Rows) -> Any:
    return _rivals.pseudo_labels(_students.tuned(rows), rows)


def _pseudo_labels_hog(rows: Rows) -> Any:
    return _rivals.hog_svm_on_pseudo_labels(_students.better_probe(rows), rows)


def _model2vec(rows: Rows) -> Any:
    if not rows.column.uses_others:
        return _rivals.model2vec(rows.labels, rows)
    return _rivals.model2vec(_rivals.labels_of(_students.better_probe(rows), rows), rows)


METHODS = {
    ALONE: Method(_students.alone),
    TAUGHT: Method(_students.taught),
    SMALL_ALONE: Method(_students.small_alone, _TEXTS),
    SMALL_TAUGHT: Method(_students.small, _TEXTS),
    PROBE: Method(_students.probe, _NETWORKS),
    PROBE_OF_TWO: Method(_students.probe_of_two_layers, _NETWORKS),
    TFIDF: Method(_rivals.tfidf, _TEXTS),
    PSEUDO_LABELS: Method(_pseudo_labels, _TEXTS, needs_others=True),
    HOG: Method(_rivals.hog_svm, _IMAGES),
    PSEUDO_LABELS_HOG: Method(_pseudo_labels_hog, _IMAGES, needs_others=True),
    LINEAR: Method(_rivals.linear, _TABLES),
    BOOSTING: Method(_rivals.boosting, _TABLES),
    TUNED_BOOSTING: Method(lambda rows: _rivals.tuned_boosting(rows).fit(*rows.labelled), _TABLES),
    # The student after the teacher, which is in the store then.
    TUNED: Method(_students.tuned, _NETWORKS, 3),
    TAUGHT_BY_TUNED: Method(_students.taught_by_tuned, n_seeds=3),
    PSEUDO_LABELS_OF_TUNED: Method(_pseudo_labels_of_tuned, _TEXTS, 3, needs_others=True),
    MODEL2VEC: Method(_model2vec, _TEXTS, 3),
    SETFIT: Method(_rivals.setfit, _TEXTS, 3),
    TWO_ALONE: Method(_students.two_layers_alone, _TEXTS, 3),
    TWO_TAUGHT: Method(_students.two_layers, _TEXTS, 3),
    TWO_OF_TUNED: Method(_students.two_layers_of_tuned, _TEXTS, 3),
}


@dataclass(frozen=True)
class Suite:
    """Columns, and the methods that are compared in them.

    Parameters
    ----------
    columns : tuple of Column
        What is learned.
    most_seeds : int, default=5
        How many seeds are run at most.
    has_slow : bool, default=True
        Whether methods that take minutes are run.
    """

    columns: tuple[Column, ...]
    most_seeds: int = _N_SEEDS
    has_slow: bool = True

    def runs(self) -> Iterator[tuple[Column, str, int]]:
        """Yield column, method and seed of all runs: the fast methods first, seed after seed."""
        for is_slow in (False, True) if self.has_slow else (False,):
            for number, column in product(range(self.most_seeds), self.columns):
                for name, method in METHODS.items():
                    if (
                        method.is_slow == is_slow
                        and column.kind in method.kinds
                        and (column.uses_others or not method.needs_others)
                        and number < min(method.n_seeds, column.most_seeds)
                    ):
                        yield column, name, FIRST_SEED + number

    def with_seeds(self, number: int) -> Suite:
        """Return the suite with at least some seeds in every column, for a faster machine."""
        columns = [replace(one, most_seeds=max(one.most_seeds, number)) for one in self.columns]
        return replace(self, columns=tuple(columns))

    def quick(self) -> Suite:
        """Return a suite of minutes: a column of each kind, methods of seconds, one seed."""
        first = {column.kind: column for column in reversed(self.columns)}
        return Suite(tuple(first.values()), most_seeds=1, has_slow=False)


_FEW = ("10 a class", "50 a class")
_TEXT_DATA, _IMAGE_DATA = ("banking77", "trec", "sst2"), ("cifar10", "fashion_mnist")
SUITES = {
    "few": Suite(
        tuple(
            Column(data, number, uses_others=True, most_seeds=most_seeds)
            for of_kind, most_seeds in ((_TEXT_DATA, _N_SEEDS), (_IMAGE_DATA, 1))
            for data, number in product(of_kind, _FEW)
        )
    ),
    "all": Suite(
        (
            *(Column(data, "all") for data in _TEXT_DATA),
            Column("cifar10", "1000", most_seeds=1),
            Column("cifar10", "5000", most_seeds=1),
            Column("chest_xray", "all"),
        )
    ),
    "tables": Suite(
        tuple(Column(data, "300", uses_others=True) for data in ("computers", "diamonds", "churn"))
    ),
}
