"""Few labels and many rows without: whether the student passes the probe of its teacher.

    python -m benchmarks.accuracy.unlabeled --data DIR

Banking77 with 10 labels a class (770) and the other 9,233 training texts unlabelled, five draws
of the labels. Strengths were chosen on the validation rows of draw 0 (10 % of the unlabelled
rows, whose labels are looked at for this alone); test rows are scored once.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from benchmarks.accuracy._data import Task, draw_per_class, load
from benchmarks.accuracy._runs import Runs, mean_and_error
from sk_aft import AFTClassifier, FoundationFeatureExtractor

# Without unlabelled rows an epoch is 7 steps, with them 145: as many steps for all.
_N_EPOCHS_WITH, _N_STEPS = 10, 1450
_STRENGTHS = (1, 3, 10)


def student(method: str, beta: float) -> AFTClassifier:
    """Return the student of a method at a strength."""
    settings: dict[str, Any] = {"random_state": 0, "missing_label": -1}
    if method.endswith("+ unlabelled"):
        settings["max_epochs"] = _N_EPOCHS_WITH
    else:
        settings["max_epochs"] = _N_STEPS // 7
    transfer: dict[str, Any] = {
        "alone": "aft",
        "aft": "aft",
        "probe-kd": "probe-kd",
        "aft and probe-kd": [("aft", 10), ("probe-kd", beta)],
    }
    name = method.removesuffix(" + unlabelled")
    settings["transfer"] = transfer[name]
    settings["beta"] = 0 if name == "alone" else 1 if name == "aft and probe-kd" else beta
    # Without a projection: what unlabelled rows teach comes through the transfer alone.
    if name == "aft and probe-kd":
        settings["transfer__aft__weights"] = "published"
    elif name == "aft":
        settings["transfer__weights"] = "published"
    return AFTClassifier(**settings)


def score(task: Task, method: str, beta: float, draw: int, *, on: str) -> float:
    """Train on one draw of labels; return the accuracy on validation or test rows."""
    labeled = draw_per_class(task.labels, 10, draw)
    labels = np.full(len(task.labels), -1)
    labels[labeled] = task.labels[labeled]
    rest = np.setdiff1d(np.arange(len(labels)), labeled)
    kept, valid = train_test_split(rest, test_size=0.1, random_state=draw)
    if on == "validation":
        rows = np.append(labeled, kept)
        judged, judged_labels = task.rows[valid], task.labels[valid]
    else:
        rows = np.append(labeled, rest)
        judged, judged_labels = task.test_rows, task.test_labels
    if not method.endswith("+ unlabelled"):
        rows = labeled
    extractor = FoundationFeatureExtractor("minilm")
    if method == "tf-idf":
        model = make_pipeline(
            make_union(
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
            ),
            GridSearchCV(LogisticRegression(max_iter=1000), {"C": [1, 10, 100]}, cv=3),
        )
    elif method == "probe":
        model = make_pipeline(
            extractor,
            StandardScaler(),
            GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.001, 0.01, 0.1]}, cv=3),
        )
    else:
        model = make_pipeline(extractor, student(method, beta))
    model.fit(task.rows[rows], labels[rows])
    return 100 * model.score(judged, judged_labels)


METHODS = {
    "tf-idf": (0,),
    "probe": (0,),
    "aft and probe-kd + unlabelled": _STRENGTHS,
    "alone": (0,),
    "aft": (3, 10, 30),
    "aft + unlabelled": (3, 10, 30),
    "probe-kd + unlabelled": _STRENGTHS,
}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="directory of banking77.parquet")
    task = load("banking77", parser.parse_args().data)
    runs = Runs("unlabeled")
    for method, strengths in METHODS.items():
        best = strengths[0]
        if len(strengths) > 1:
            tried = {
                beta: runs.run(
                    lambda m=method, b=beta: {"accuracy": score(task, m, b, 0, on="validation")},
                    method=method,
                    beta=beta,
                    draw=0,
                    rows="validation",
                )["accuracy"]
                for beta in strengths
            }
            best = max(tried, key=lambda beta: tried[beta])
        results = [
            runs.run(
                lambda m=method, b=best, d=draw: {"accuracy": score(task, m, b, d, on="test")},
                method=method,
                beta=best,
                draw=draw,
                rows="test",
            )["accuracy"]
            for draw in range(5)
        ]
        print(f"{method:32s} beta {best:<3} {mean_and_error(results)}", flush=True)


if __name__ == "__main__":
    main()
