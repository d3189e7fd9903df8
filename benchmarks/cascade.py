"""What a cascade of a student and a probe gains, and what it costs, by the share deferred.

    python -m benchmarks.cascade [--seed N] [--figure FILE]

Banking77, 10 labels of each class and 3,000 other training texts without a label. The probe is
logistic regression on MiniLM's features; the student is the default one, taught by MiniLM. Test
rows are scored once. Gains have the standard error of their mean over the test rows, which says
nothing of other draws of training rows. Times are processor times of single texts on one thread,
the mean over 400 test rows: the best of three rounds of each row, in which the models take turns.
It takes a few minutes of one core.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from sk_aft import AFTClassifier, CascadeClassifier, FoundationFeatureExtractor
from sk_aft.datasets import load_banking77

SHARES = (0.05, 0.1, 0.2)
_N_UNLABELED = 3000
_N_TIMED, _N_ROUNDS = 400, 3


def training_rows(seed: int) -> tuple[list[str], np.ndarray]:
    """Return texts and labels, "" where there is none."""
    texts, intents = load_banking77(return_X_y=True)
    random = np.random.RandomState(seed)
    of_intent = [np.flatnonzero(intents == name) for name in np.unique(intents)]
    labeled = np.sort(
        np.concatenate([random.choice(rows, 10, replace=False) for rows in of_intent])
    )
    others = np.setdiff1d(np.arange(len(texts)), labeled)
    others = np.random.default_rng(seed).permutation(others)[:_N_UNLABELED]
    y = np.append(intents[labeled], np.full(len(others), ""))
    return [texts[row] for row in [*labeled, *others]], y


def cascades(seed: int) -> dict[float, CascadeClassifier]:
    """Return fitted cascades by their highest share deferred."""
    X, y = training_rows(seed)
    student = make_pipeline(
        FoundationFeatureExtractor("minilm"), AFTClassifier(missing_label="", random_state=seed)
    )
    probe = make_pipeline(
        FoundationFeatureExtractor("minilm"), LogisticRegression(C=100, max_iter=1000)
    )
    return {
        share: CascadeClassifier(student, probe, share, missing_label="").fit(X, y)
        for share in SHARES
    }


def milliseconds(models: list[Any], rows: list[str]) -> list[float]:
    """Return the mean time of a single text for each model."""
    seconds = np.empty((_N_ROUNDS, len(models), len(rows)))
    with threadpool_limits(1):
        for turn, model, row in np.ndindex(seconds.shape):
            start = time.process_time()
            models[model].predict(rows[row : row + 1])
            seconds[turn, model, row] = time.process_time() - start
    return (1000 * seconds.min(axis=0).mean(axis=1)).tolist()


def without_store(pipeline: Any) -> Any:
    """Return a fitted pipeline that keeps no features: new rows are not in a store."""
    pipeline[0].set_params(cache=None)
    return pipeline


def main() -> None:
    """Print the table, and draw the figure if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="draw of the rows, default: 0")
    parser.add_argument("--figure", help="file for the figure")
    options = parser.parse_args()

    X_test, y_test = load_banking77(subset="test", return_X_y=True)
    fitted = cascades(options.seed)
    last = fitted[SHARES[-1]]
    for cascade in fitted.values():
        without_store(cascade.teacher_)
    names = ["student", *(f"cascade, max_deferred={share:g}" for share in SHARES), "probe"]
    models = [last.student_, *fitted.values(), last.teacher_]
    shares = [0.0, *(cascade.defers(X_test).mean() for cascade in fitted.values()), 1.0]
    timed = np.random.default_rng(0).permutation(len(X_test))[:_N_TIMED]
    times = milliseconds(models, [X_test[row] for row in timed])
    right = [model.predict(X_test) == y_test for model in models]
    print(
        "| | test accuracy, % | gain over the student | deferred, % of the test rows | ms a row |"
    )
    print("|---|---|---|---|---|")
    for name, ours, share, duration in zip(names, right, shares, times, strict=True):
        gains = 100 * (ours.astype(float) - right[0])
        gain = f"{gains.mean():.1f} ± {gains.std() / len(gains) ** 0.5:.1f}" if share else ""
        print(f"| {name} | {100 * ours.mean():.1f} | {gain} | {100 * share:.1f} | {duration:.2f} |")
    for share, cascade in fitted.items():
        print(
            f"{share:g}: threshold {cascade.threshold_:.3f}, temperature "
            f"{cascade.temperature_:.2f}, held-out rows deferred {cascade.deferred_fraction_:.3f}"
        )
    if options.figure:
        from sk_aft.inspection import DeferralDisplay

        display = DeferralDisplay.from_estimator(fitted[0.1], X_test, y_test)
        display.figure_.savefig(options.figure, dpi=150)


if __name__ == "__main__":
    main()
