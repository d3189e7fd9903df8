"""What 10^8 texts would take on this machine: hours and bytes, from rates measured on fewer rows.

    python -m benchmarks.speed.ten_to_the_eight

Texts are those of Banking77, numbered so that all differ. Each rate is the median of three runs.
Prints a table in Markdown. Takes about five minutes.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

from benchmarks.speed._timing import option_parser, report
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.datasets import load_banking77
from sk_aft.serving import load
from sk_aft.store import FeatureStore

N_ROWS = 10**8
WIDTH = 384


def main() -> None:
    """Measure the rates and print what they make of 10^8 rows."""
    option_parser(__doc__).parse_args()
    questions, intents = load_banking77(return_X_y=True)
    with tempfile.TemporaryDirectory() as directory:
        rates = {
            "MiniLM computes the features": embed(questions),
            "the features are written to the store": write(directory),
            "a student reads and learns, for each pass": train(questions, intents),
            "the deployed student predicts": predict(questions, intents, directory),
        }
        row_bytes = FeatureStore(f"{directory}/store").stats()["bytes"] / 100_000
    print("| step | rows a second | hours for 10^8 rows |\n|---|---|---|")
    for what, rate in rates.items():
        print(f"| {what} | {rate:,.0f} | {N_ROWS / rate / 3600:.1f} |")
    print(f"bytes of the store: {row_bytes:.0f} a row, {row_bytes * N_ROWS / 1e9:,.0f} GB")
    figures = [
        {"what": what, "ours": f"{rate:,.0f} rows/s", "value": rate} for what, rate in rates.items()
    ]
    report("ten_to_the_eight", [*figures, {"what": "store", "ours": f"{row_bytes:.0f} bytes/row"}])


def numbered(texts: list[str], n_rows: int, first: int = 0) -> list[str]:
    """Return texts that all differ."""
    return [f"{texts[row % len(texts)]} {first + row}" for row in range(n_rows)]


def rate(n_rows: int, run: Callable[[int], object]) -> float:
    """Return rows per second; the median of three runs, of which each gets its number."""
    seconds = []
    for number in range(3):
        start = time.perf_counter()
        run(number)
        seconds.append(time.perf_counter() - start)
    return n_rows / statistics.median(seconds)


def embed(questions: list[str]) -> float:
    """Rows per second of MiniLM, whose model is loaded before."""
    extractor = FoundationFeatureExtractor("minilm", cache=None).fit(questions[:1])
    _ = extractor.transform(questions[:64]).features
    rows = numbered(questions, 2048)
    return rate(2048, lambda number: extractor.transform(rows).features)


def write(directory: str) -> float:
    """Rows per second that the store takes, 8,192 at a time."""
    store = FeatureStore(f"{directory}/store")
    model = store.register_model({"weights": "none"}, name="none")
    matrix = np.random.default_rng(0).normal(size=(100_000, WIDTH)).astype(np.float32)
    start = time.perf_counter()
    for first in range(0, len(matrix), 8192):
        numbers = range(first, min(first + 8192, len(matrix)))
        keys = [model + hashlib.md5(b"%d" % number).digest() for number in numbers]
        store.put_many(keys, matrix[first : first + 8192])
    return len(matrix) / (time.perf_counter() - start)


def train(questions: list[str], intents: np.ndarray) -> float:
    """Rows per second of one more pass of training, with features from the store."""
    extractor = FoundationFeatureExtractor("minilm")
    rows = extractor.fit_transform(questions)
    seconds = []
    for n_epochs in (1, 1, 5):  # the first also fits the teachers, which are then remembered
        student = AFTClassifier(max_epochs=n_epochs, random_state=0)
        start = time.perf_counter()
        student.fit(rows, intents)
        seconds.append(time.perf_counter() - start)
    return 4 * len(questions) / (seconds[2] - seconds[1])


def predict(questions: list[str], intents: np.ndarray, directory: str) -> float:
    """Rows per second of the exported student, 1,024 texts at a time."""
    some = slice(None, None, 10)
    rows = FoundationFeatureExtractor("minilm").fit_transform(questions[some])
    student = AFTClassifier(max_epochs=1, random_state=0).fit(rows, intents[some])
    student.save_pretrained(f"{directory}/student")
    served = load(f"{directory}/student")
    texts = numbered(questions, 10_240)
    batches = [texts[start : start + 1024] for start in range(0, len(texts), 1024)]
    return rate(len(texts), lambda number: [served.predict(batch) for batch in batches])


if __name__ == "__main__":
    main()
