"""The suites few, all and tables: columns, and the methods that are compared in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
MODEL2VEC, SETFIT, HOG = "model2vec", "SetFit", "HOG + SVM"
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
        How many seeds it has, of images one.
    """

    fit: Callable[[Rows], Any]
    kinds: tuple[str, ...] = ("text", "image", "table")
    n_seeds: int = _N_SEEDS


_TEXTS, _IMAGES, _TABLES = ("text",), ("image",), ("table",)
_NETWORKS = ("text", "image")
_IN_MINUTES, _IN_TENS_OF_MINUTES = 3, 1
METHODS = {
    ALONE: Method(_students.alone),
    TAUGHT: Method(_students.taught),
    SMALL_ALONE: Method(_students.small_alone, _TEXTS),
    SMALL_TAUGHT: Method(_students.small, _TEXTS),
    PROBE: Method(_students.probe, _NETWORKS),
    PROBE_OF_TWO: Method(_students.probe_of_two_layers, _NETWORKS),
    TFIDF: Method(_rivals.tfidf, _TEXTS),
    PSEUDO_LABELS: Method(lambda rows: _rivals.pseudo_labels(_students.probe(rows), rows), _TEXTS),
    HOG: Method(_rivals.hog_svm, _IMAGES),
    LINEAR: Method(_rivals.linear, _TABLES),
    BOOSTING: Method(_rivals.boosting, _TABLES),
    TUNED_BOOSTING: Method(lambda rows: _rivals.tuned_boosting(rows).fit(*rows.labelled), _TABLES),
    # The student after the teacher, which is in the store then.
    TUNED: Method(_students.tuned, _NETWORKS, _IN_MINUTES),
    TAUGHT_BY_TUNED: Method(_students.taught_by_tuned, n_seeds=_IN_MINUTES),
    MODEL2VEC: Method(
        lambda rows: _rivals.model2vec(_students.probe(rows), rows), _TEXTS, _IN_MINUTES
    ),
    SETFIT: Method(_rivals.setfit, _TEXTS, _IN_MINUTES),
    TWO_ALONE: Method(_students.two_layers_alone, _TEXTS, _IN_TENS_OF_MINUTES),
    TWO_TAUGHT: Method(_students.two_layers, _TEXTS, _IN_TENS_OF_MINUTES),
    TWO_OF_TUNED: Method(_students.two_layers_of_tuned, _TEXTS, _IN_TENS_OF_MINUTES),
}


@dataclass(frozen=True)
class Suite:
    """Columns, and the methods that are compared in them.

    Parameters
    ----------
    columns : tuple of Column
        What is learned.
    n_seeds : dict of (str, str) to int, default={}
        Numbers of seeds that are not the method's own, by kind of rows and method: 0 or 1 where a
        run takes long, or is the same as another.
    most_seeds : int, default=5
        How many seeds are run at most.
    """

    columns: tuple[Column, ...]
    n_seeds: Mapping[tuple[str, str], int] = field(default_factory=dict)
    most_seeds: int = _N_SEEDS

    def runs(self) -> Iterator[tuple[Column, str, int]]:
        """Yield column, method and seed of all runs: the fast methods first, seed after seed."""
        for is_slow in (False, True):
            for number, column in product(range(self.most_seeds), self.columns):
                for name, method in METHODS.items():
                    usual = 1 if column.kind == "image" else method.n_seeds
                    if (
                        column.kind in method.kinds
                        and number < self.n_seeds.get((column.kind, name), usual)
                        and is_slow == (method.n_seeds < _N_SEEDS)
                    ):
                        yield column, name, FIRST_SEED + number

    def quick(self) -> Suite:
        """Return a suite of minutes: a column of each kind, methods of seconds, one seed."""
        first = {column.kind: column for column in reversed(self.columns)}
        slow = [name for name, method in METHODS.items() if method.n_seeds < _N_SEEDS]
        left_out = dict.fromkeys(product(first, slow), 0)
        return Suite(tuple(first.values()), {**self.n_seeds, **left_out}, most_seeds=1)


_FEW = ("10 a class", "50 a class")
_TEXT_DATA, _IMAGE_DATA = ("banking77", "trec", "sst2"), ("cifar10", "fashion_mnist")
SUITES = {
    "few": Suite(
        tuple(
            Column(data, number, uses_others=True)
            for data, number in product((*_TEXT_DATA, *_IMAGE_DATA), _FEW)
        ),
        {("image", TUNED): 0, ("image", TAUGHT_BY_TUNED): 0},
    ),
    "all": Suite(
        (
            *(Column(data, "all") for data in _TEXT_DATA),
            Column("cifar10", "1000"),
            Column("cifar10", "5000"),
            Column("chest_xray", "all"),
        ),
        {
            ("text", PSEUDO_LABELS): 0,  # there are no other rows, so these would be TF-IDF
            # Nothing is drawn, and nothing starts at random.
            **dict.fromkeys(product(_TEXTS, (PROBE, PROBE_OF_TWO, TFIDF)), 1),
            **dict.fromkeys(product(_TEXTS, (TUNED, TAUGHT_BY_TUNED, SETFIT)), 1),
        },
    ),
    "tables": Suite(
        tuple(Column(data, "300", uses_others=True) for data in ("computers", "diamonds", "churn"))
    ),
}
