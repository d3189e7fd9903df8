"""Predictions for texts: the text student against TF-IDF + logistic regression.

    python -m benchmarks.speed.text_prediction

Both learn Banking77's training texts (how well does not matter here) and predict the 3,080 test
texts at once, and one text alone, on one thread.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from benchmarks.speed._timing import medians, options, ratio, report
from sk_aft import AFTClassifier
from sk_aft.datasets import load_banking77


def main() -> None:
    """Measure and print everything."""
    options(__doc__)
    texts, labels = load_banking77(return_X_y=True)
    test_texts, _ = load_banking77(subset="test", return_X_y=True)
    torch.set_num_threads(1)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    linear = make_pipeline(words, LogisticRegression(max_iter=50))
    student = AFTClassifier(beta=0, max_epochs=1, device="cpu", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 50 iterations are not enough to converge
        models = {"ours": student.fit(texts, labels), "TF-IDF + LR": linear.fit(texts, labels)}
    figures = []
    for rows, n_calls in ((test_texts, 1), (test_texts[:1], 100)):
        ways = {name: calls(model, rows, n_calls) for name, model in models.items()}
        seconds = {name: total / n_calls for name, total in medians(ways).items()}
        what = f"predict, {len(rows):,} text{'s' * (len(rows) > 1)}"
        figures.append(ratio(what, seconds, "TF-IDF + LR", unit="ms"))
    report("text_prediction", figures)


def calls(model: Any, rows: list[str], n_calls: int) -> Callable[[], None]:
    """Return a function that predicts some times."""

    def way() -> None:
        for _ in range(n_calls):
            model.predict(rows)

    return way


if __name__ == "__main__":
    main()
