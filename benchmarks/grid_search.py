"""What a search over betas costs: rows run through the foundation model, and time.

    python -m benchmarks.grid_search

searches 6 betas in 5 folds on Banking77 (10 labels a class) with MiniLM, from an empty store,
then once more from the store, and prints how many rows were embedded and how long it took.
"""

from __future__ import annotations

import tempfile
import time

from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.datasets import load_banking77
from sk_aft.store import FeatureStore

BETAS = [0, 1, 3, 10, 30, 100]


def main() -> None:
    """Run the search twice and print its cost."""
    texts, labels = load_banking77(labels_per_class=10, return_X_y=True)
    with tempfile.TemporaryDirectory() as directory:
        store = FeatureStore(directory)
        began = time.perf_counter()
        FoundationFeatureExtractor("minilm", cache=None).fit_transform(texts)
        print(f"one embedding pass without a store: {time.perf_counter() - began:.1f} s")
        for run in ("empty store", "filled store"):
            pipe = make_pipeline(
                FoundationFeatureExtractor("minilm", cache=store), AFTClassifier(random_state=0)
            )
            folds = StratifiedKFold(5, shuffle=True, random_state=0)
            search = GridSearchCV(pipe, {"aftclassifier__beta": BETAS}, cv=folds)
            before = store.stats()["rows"]
            began = time.perf_counter()
            search.fit(texts, labels)
            seconds = time.perf_counter() - began
            embedded = store.stats()["rows"] - before
            print(
                f"{run}: {len(texts)} rows ({len(set(texts))} distinct), 5 folds x {len(BETAS)} "
                f"betas + refit = {5 * len(BETAS) + 1} fits; {embedded} rows embedded; "
                f"{seconds:.1f} s; best {search.best_params_}, accuracy {search.best_score_:.3f}"
            )


if __name__ == "__main__":
    main()
