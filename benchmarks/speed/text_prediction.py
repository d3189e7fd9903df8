"""Predictions per second: the text student beside TF-IDF + logistic regression.

    python -m benchmarks.speed.text_prediction --data DIR

Both learn Banking77's training texts (how well does not matter here) and predict the 3,080 test
texts at once, and one of them alone, in turn; the best of seven times. One thread.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from benchmarks.accuracy._data import load
from sk_aft import AFTClassifier


def seconds(call: Callable[[], object], n_calls: int) -> float:
    """Return how long one call takes on average."""
    start = time.perf_counter()
    for _ in range(n_calls):
        call()
    return (time.perf_counter() - start) / n_calls


def main() -> None:
    """Print milliseconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="directory of banking77.parquet")
    task = load("banking77", parser.parse_args().data)
    torch.set_num_threads(1)
    student = AFTClassifier(beta=0, max_epochs=1, random_state=0)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    linear = make_pipeline(words, LogisticRegression(max_iter=50))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [model.fit(task.rows, task.labels) for model in (student, linear)]
    for rows, n_calls in ((task.test_rows, 1), (task.test_rows[:1], 50)):
        times = [
            [seconds(lambda m=m, r=rows: m.predict(r), n_calls) for m in models] for _ in range(7)
        ]
        of_student, of_linear = (1e3 * min(column) for column in zip(*times, strict=True))
        print(
            f"{len(rows):5d} rows  student {of_student:8.3f} ms  TF-IDF + LR {of_linear:8.3f} ms  "
            f"ratio {of_student / of_linear:.2f}"
        )


if __name__ == "__main__":
    main()
