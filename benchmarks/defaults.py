"""Students with default settings compared with scikit-learn's MLP and a linear model.

Run ``python -m benchmarks.defaults`` (about five minutes on two cores). It prints a table and
writes ``benchmarks/results/defaults.json``. There are no foundation models here: the question is
whether a student alone, with its default settings, is ever clearly worse than scikit-learn's MLP.
"""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_friedman1,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft import AFTClassifier, AFTRegressor

RESULTS = Path(__file__).parent / "results" / "defaults.json"
SEEDS = range(3)


def data_sets():
    """Return rows, targets and the metric of each data set."""
    rare = {
        f"2 % positives ({seed})": (
            *make_classification(2000, n_informative=5, weights=[0.98], random_state=seed),
            "average_precision",
        )
        for seed in range(3)
    }
    return {
        "iris": (*load_iris(return_X_y=True), "accuracy"),
        "wine": (*load_wine(return_X_y=True), "accuracy"),
        "breast cancer": (*load_breast_cancer(return_X_y=True), "accuracy"),
        "digits": (*load_digits(return_X_y=True), "accuracy"),
        "diabetes": (*load_diabetes(return_X_y=True), "r2"),
        "Friedman 1": (*make_friedman1(300, noise=1.0, random_state=0), "r2"),
        "Friedman 1, no noise": (*make_friedman1(300, random_state=0), "r2"),
        **rare,
    }


def methods(is_regression: bool, seed: int):
    """Return the estimators to compare, each with default settings on scaled columns."""
    if is_regression:
        mlp = make_pipeline(StandardScaler(), MLPRegressor(random_state=seed))
        scaled = TransformedTargetRegressor(mlp, transformer=StandardScaler())
        linear = RidgeCV(alphas=np.logspace(-3, 3, 13))
        student = AFTRegressor(beta=0, random_state=seed)
        return {
            "student": student,
            "MLP": mlp,
            "MLP, scaled y": scaled,
            "linear": make_pipeline(StandardScaler(), linear),
        }
    return {
        "student": AFTClassifier(beta=0, random_state=seed),
        "MLP": make_pipeline(StandardScaler(), MLPClassifier(random_state=seed)),
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }


def main() -> None:
    """Print and keep the table."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # 200 epochs are the MLP's default
    found = {}
    print(
        f"{'data set':22} {'metric':18} {'method':14} {'score':>17} {'student - it':>17} {'s':>6}"
    )
    for name, (X, y, metric) in data_sets().items():
        is_regression = metric == "r2"
        scores: dict[str, list[float]] = {}
        seconds: dict[str, float] = {}
        for seed in SEEDS:
            kind = KFold if is_regression else StratifiedKFold
            folds = kind(5, shuffle=True, random_state=seed)
            for method, estimator in methods(is_regression, seed).items():
                start = time.perf_counter()
                values = cross_val_score(estimator, X, y, cv=folds, scoring=metric)
                scores.setdefault(method, []).extend(values.tolist())
                seconds[method] = seconds.get(method, 0) + time.perf_counter() - start
        for method, values in scores.items():
            difference = np.subtract(scores["student"], values)
            n = len(values)
            row = {
                "metric": metric,
                "mean": float(np.mean(values)),
                "standard_error": float(np.std(values, ddof=1) / n**0.5),
                "difference": float(difference.mean()),
                "difference_standard_error": float(difference.std(ddof=1) / n**0.5),
                "seconds_a_fit": seconds[method] / n,
            }
            found.setdefault(name, {})[method] = row
            print(
                f"{name:22} {metric:18} {method:14} "
                f"{row['mean']:7.3f} +- {row['standard_error']:.3f}   "
                f"{row['difference']:+7.3f} +- {row['difference_standard_error']:.3f} "
                f"{row['seconds_a_fit']:6.2f}",
                flush=True,
            )
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
