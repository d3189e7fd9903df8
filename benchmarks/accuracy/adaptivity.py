"""Whether the transfer ever harms: the student alone, the published form and what may replace it.

    python -m benchmarks.accuracy.adaptivity --data DIR

SST-2, TREC and Banking77 with MiniLM, CIFAR-10 (5,000 rows) with two EfficientNets; three seeds,
which draw the rows of CIFAR-10 and start the network. "aft" is the estimator's default,
``beta="auto"``; the other methods have their default strength and no trials of it. With
``--tuned`` the strength of each method, and C of the linear models, is chosen on a fifth of the
training rows held out, by the first seed; test rows are scored once.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.accuracy._data import load
from benchmarks.accuracy._runs import Runs, mean_and_error
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.transfer import default_strength

_TEACHERS: dict[str, Any] = {"cifar10": ["effnet-lite0", "effnet-lite2"]}
_N_STEPS = {"trec": 1000, "sst2": 1000, "banking77": 2000, "cifar10": 1600}
_SEEDS = (0, 1, 2)

# What the student is given, and the strengths that --tuned tries.
_STUDENTS: dict[str, dict[str, Any]] = {
    "alone": {"beta": 0},
    "aft": {},
    "aft, no trials": {"beta": 10},
    "aft, published": {"beta": 10, "transfer__weights": "published"},
    "aft, fixed weights": {"beta": 10, "transfer": "aft-fixed"},
    "kkd": {"beta": default_strength("kkd"), "transfer": "kkd"},
    "probe-kd": {"beta": 1, "transfer": "probe-kd"},
    "aft and probe-kd": {"beta": 1, "transfer": [("aft", 10), ("probe-kd", 1)]},
}
_NOT_TUNED = ("alone", "aft")
_LINEAR = ("TF-IDF + LR", "probe")
_STRENGTHS = (0.3, 1, 3, 10, 30)
_C = {"TF-IDF + LR": (1, 3, 10, 30, 100), "probe": (0.001, 0.003, 0.01, 0.1, 1)}


def build(name: str, method: str, strength: float | None, seed: int, n_rows: int) -> Pipeline:
    """Return the model of a method; a strength of None is the default."""
    extractor = FoundationFeatureExtractor(_TEACHERS.get(name, "minilm"))
    if method == "probe":
        return make_pipeline(extractor, StandardScaler(), LogisticRegression(C=strength))
    if method == "TF-IDF + LR":
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        return make_pipeline(words, LogisticRegression(C=strength, max_iter=1000))
    settings = dict(_STUDENTS[method])
    if strength is not None:
        varied = "transfer__probe_kd__beta" if method == "aft and probe-kd" else "beta"
        settings[varied] = strength
    n_epochs = max(1, round(_N_STEPS[name] / (n_rows / 128)))
    student = AFTClassifier(batch_size=128, max_epochs=n_epochs, random_state=seed, **settings)
    return student if method == "alone" else make_pipeline(extractor, student)


def score(
    name: str, directory: str | None, method: str, strength: float | None, seed: int, on: str
) -> dict[str, Any]:
    """Train one model and score it on test rows or on training rows held out."""
    task = load(name, directory)
    rows, labels = task.rows, task.labels
    if name == "cifar10":
        drawn = np.random.RandomState(seed).permutation(len(rows))[:5000]
        rows, labels = rows[drawn], labels[drawn]
    judged, judged_labels = task.test_rows, task.test_labels
    if on == "validation":
        rows, judged, labels, judged_labels = train_test_split(
            rows, labels, test_size=0.2, stratify=labels, random_state=seed
        )
    model = build(name, method, strength, seed, len(rows))
    start = time.perf_counter()
    model.fit(rows, labels)
    seconds = time.perf_counter() - start
    accuracy = 100 * model.score(judged, judged_labels)
    beta = getattr(model[-1] if isinstance(model, Pipeline) else model, "beta_", None)
    return {"accuracy": accuracy, "beta": beta, "seconds": round(seconds, 1)}


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="directory of the Parquet files")
    parser.add_argument("--only", nargs="+", default=list(_N_STEPS), help="data sets")
    parser.add_argument("--methods", nargs="+", default=[*_LINEAR, *_STUDENTS])
    parser.add_argument("--tuned", action="store_true", help="choose strengths on held-out rows")
    arguments = parser.parse_args()
    for name in arguments.only:
        runs = Runs(f"adaptivity_{name}")

        def accuracy(runs=runs, name=name, **key: Any) -> float:
            line = runs.run(lambda: score(name, arguments.data, **key), **key)
            return line["accuracy"]

        for method in arguments.methods:
            if method == "TF-IDF + LR" and name == "cifar10":
                continue
            has_strength = method in _LINEAR or (arguments.tuned and method not in _NOT_TUNED)
            strength = None
            if has_strength:
                candidates = _C.get(method, _STRENGTHS)
                on_held_out = [
                    accuracy(method=method, strength=candidate, seed=0, on="validation")
                    for candidate in candidates
                ]
                strength = candidates[int(np.argmax(on_held_out))]
            seeds = _SEEDS if method not in _LINEAR or name == "cifar10" else (0,)
            scores = [
                accuracy(method=method, strength=strength, seed=seed, on="test") for seed in seeds
            ]
            chosen = "default" if strength is None else f"{strength:g}"
            print(f"{name:10s} {method:32s} {chosen:8s} {mean_and_error(scores)}", flush=True)


if __name__ == "__main__":
    main()
