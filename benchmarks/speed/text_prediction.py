"""Predictions for texts: the text students against TF-IDF + logistic regression.

    python -m benchmarks.speed.text_prediction

All learn from some of Banking77's training texts (how well does not matter here) and predict 256
test texts at once, and one text alone, on one thread.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from benchmarks.speed._timing import medians, options, ratio, report
from sk_aft import AFTClassifier
from sk_aft.datasets import load_banking77

FLOOR = "TF-IDF + LR"
# The weights that the static student starts from have no influence on its time.
STUDENTS: dict[str, dict[str, Any]] = {
    "static": {"module__start": "random"},
    "first 2 layers of MiniLM": {"module": "minilm", "module__n_layers": 2},
    "all 6 layers of MiniLM": {"module": "minilm", "module__n_layers": 6},
}
# Number of texts, and of calls of the fast and of the slow ways in a round.
SIZES = ((1, 100, 10), (256, 5, 1))


def main() -> None:
    """Measure and print everything."""
    options(__doc__)
    texts, labels = load_banking77(labels_per_class=30, return_X_y=True)
    test_texts, _ = load_banking77(subset="test", return_X_y=True)
    torch.set_num_threads(1)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    models: dict[str, Any] = {FLOOR: make_pipeline(words, LogisticRegression(max_iter=50))}
    for name, parameters in STUDENTS.items():
        models[name] = AFTClassifier(
            beta=0, max_epochs=1, device="cpu", random_state=0, **parameters
        )
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # 50 iterations are not enough to converge
        for model in models.values():
            model.fit(texts, labels)
        report(
            "text_prediction", [one for size in SIZES for one in figures(models, test_texts, *size)]
        )


def figures(
    models: dict[str, Any], texts: list[str], n_texts: int, n_fast: int, n_slow: int
) -> list[dict[str, Any]]:
    """Return the time of each student, for a number of texts at once."""
    # Spread over the classes, because the texts are sorted by class.
    rows = texts[:: len(texts) // n_texts][:n_texts]
    n_calls = {name: n_slow if "MiniLM" in name else n_fast for name in models}
    ways = {name: calls(model, rows, n_calls[name]) for name, model in models.items()}
    seconds = {name: total / n_calls[name] for name, total in medians(ways).items()}
    what = f"predict, {n_texts:,} text{'s' * (n_texts > 1)}"
    return [
        ratio(f"{what}: {name}", {FLOOR: seconds[FLOOR], "ours": seconds[name]}, FLOOR, unit="ms")
        for name in STUDENTS
    ]


def calls(model: Any, rows: list[str], n_calls: int) -> Callable[[], None]:
    """Return a function that predicts some times."""

    def way() -> None:
        for _ in range(n_calls):
            model.predict(rows)

    return way


if __name__ == "__main__":
    main()
