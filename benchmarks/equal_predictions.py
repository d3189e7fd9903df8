"""Compare predictions, bit for bit, with those of an earlier revision.

    python -m benchmarks.equal_predictions REVISION

Checks the revision out into a temporary folder, makes the same fits with its code and with the
code in this folder, each in a separate process, and compares the students' outputs. Run it on one
machine: other processors and thread counts round differently. A change that is meant to keep
behaviour shows "equal" in every row.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft.datasets import load_banking77, load_fashion_mnist

ROOT = Path(__file__).parents[1]


def texts() -> np.ndarray:
    """Fit static embeddings that start and learn from MiniLM."""
    rows, labels = load_banking77(labels_per_class=5, return_X_y=True)
    student = AFTClassifier(
        transfer="aft", transfer__projection=128, beta=10, max_epochs=8, random_state=0
    )
    pipe = make_pipeline(FoundationFeatureExtractor("minilm"), student).fit(rows, labels)
    return pipe[-1].predict_proba(rows)


def images() -> np.ndarray:
    """Fit the first blocks of EfficientNet-Lite0 that learn from the whole, stopped early."""
    rows, labels = load_fashion_mnist(labels_per_class=30, return_X_y=True)
    student = AFTClassifier(
        transfer="kd", beta=3, max_epochs=4, early_stopping=True, random_state=0
    )
    pipe = make_pipeline(FoundationFeatureExtractor("effnet-lite0"), student).fit(rows, labels)
    return pipe[-1].predict_proba(rows)


def table() -> np.ndarray:
    """Fit a perceptron of two targets and weighted rows that learns from two teachers."""
    rows, target = load_diabetes(return_X_y=True)
    targets = np.stack([target, rows[:, 2]], axis=1)
    weights = np.random.default_rng(0).uniform(0.5, 2, len(rows))
    teachers = [PCA(3).fit(rows), PCA(5).fit(rows)]
    student = AFTRegressor(
        transfer=[("aft", 10), ("probe-kd", 1)],
        transfer__aft__projection=128,
        beta=1,
        max_epochs=10,
        random_state=0,
    )
    pipe = make_pipeline(FoundationFeatureExtractor(teachers), student)
    pipe.fit(rows, targets, aftregressor__sample_weight=weights)
    return pipe[-1].predict(rows)


def frame() -> np.ndarray:
    """Fit two networks of columns of several kinds that learn from two teachers."""
    digits = load_digits(n_class=3)
    frame = pd.DataFrame(
        {
            "image": list((digits.images[:200] * 15).astype("uint8")),
            "text": [["no", "few", "many"][digit] + " receipts" for digit in digits.target[:200]],
            "total": digits.data[:200].sum(axis=1),
        }
    )
    teachers = {"image": "effnet-lite0", "text": "minilm"}
    student = AFTClassifier(transfer="aft-product", beta=3, max_epochs=5, random_state=0)
    pipe = make_pipeline(FoundationFeatureExtractor(teachers, inputs=["image", "text"]), student)
    first = pipe.fit(frame, digits.target[:200])[-1].predict_proba(frame)
    student = AFTClassifier(transfer="ft", beta=3, max_epochs=5, random_state=0)
    pipe = make_pipeline(FoundationFeatureExtractor(teachers), student)
    second = pipe.fit(frame, digits.target[:200])[-1].predict_proba(frame)
    return np.concatenate([first, second])


def partial_fit() -> np.ndarray:
    """Fit two pieces, one after the other, with features given as an array."""
    rows, labels = load_digits(return_X_y=True)
    features = PCA(8, random_state=0).fit_transform(rows)
    student = AFTClassifier(
        transfer="b-tuning", beta=1, class_weight={3: 2.0, 7: 0.5}, random_state=0
    )
    for piece in (slice(0, 900), slice(900, None)):
        student.partial_fit(
            rows[piece], labels[piece], classes=np.arange(10), features=features[piece]
        )
    return student.predict_proba(rows)


def unlabelled() -> np.ndarray:
    """Fit twice with rows without labels; the second fit resumes."""
    rows, labels = load_banking77(labels_per_class=8, return_X_y=True)
    marked = np.where(np.arange(len(labels)) % 2 == 0, labels, "")
    student = AFTClassifier(
        transfer="probe-kd",
        beta=1,
        missing_label="",
        max_epochs=4,
        warm_start=True,
        class_weight="balanced",
        random_state=0,
    )
    pipe = make_pipeline(FoundationFeatureExtractor("minilm"), student)
    return pipe.fit(rows, marked).fit(rows, marked)[-1].decision_function(rows)


FITS: dict[str, Callable[[], np.ndarray]] = {
    "texts": texts,
    "images": images,
    "table": table,
    "frame of several kinds": frame,
    "partial_fit twice": partial_fit,
    "unlabelled rows": unlabelled,
}


def predictions_of(tree: Path, file: Path, environment: dict[str, str]) -> dict[str, np.ndarray]:
    """Make the fits with the package in a folder."""
    command = [sys.executable, str(Path(__file__).resolve()), "--save", str(file)]
    subprocess.run(command, check=True, env={**environment, "PYTHONPATH": str(tree)}, cwd=tree)
    with np.load(file) as saved:
        return dict(saved)


def main() -> None:
    """Compare, or save what one revision returns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", nargs="?", help="what to compare with, as Git names it")
    parser.add_argument("--save", help="only make the fits, and write what they return here")
    chosen = parser.parse_args()
    if chosen.save:
        np.savez(chosen.save, **{name: fit() for name, fit in FITS.items()})
        return
    if not chosen.revision:
        parser.error("name a revision, such as HEAD~1")
    with tempfile.TemporaryDirectory() as folder:
        earlier = Path(folder) / "earlier"
        # Both compute their features: what a store of the user's holds is of no matter.
        environment = {**os.environ, "SK_AFT_CACHE": str(Path(folder) / "cache")}
        add = ["git", "worktree", "add", "--quiet", "--detach", str(earlier), chosen.revision]
        subprocess.run(add, check=True, cwd=ROOT)
        try:
            before = predictions_of(earlier, Path(folder) / "before.npz", environment)
        finally:
            remove = ["git", "worktree", "remove", "--force", str(earlier)]
            subprocess.run(remove, check=True, cwd=ROOT)
        now = predictions_of(ROOT, Path(folder) / "now.npz", environment)
    n_equal = 0
    print(f"{'fit':<24} {'shape':<12} predictions")
    for name in FITS:
        same = before[name].dtype == now[name].dtype and np.array_equal(before[name], now[name])
        n_equal += same
        said = "equal" if same else f"differ by up to {np.abs(before[name] - now[name]).max():.3g}"
        print(f"{name:<24} {now[name].shape!s:<12} {said}")
    if n_equal < len(FITS):
        raise SystemExit(f"{len(FITS) - n_equal} of {len(FITS)} differ")


if __name__ == "__main__":
    main()
