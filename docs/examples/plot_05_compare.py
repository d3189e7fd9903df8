"""
Is it worth it? Compare with a linear probe and TF-IDF
======================================================

``compare_transfer`` scores a taught student and its baselines on the same folds, measures the cost
of each at prediction, and recommends what to deploy.
"""

# %%
# Rows
# ----

import numpy as np

from sk_aft.datasets import load_banking77

texts, intents = load_banking77(labels_per_class=35, return_X_y=True)
some = np.flatnonzero(np.isin(intents, np.unique(intents)[:8]))
texts, labels = [texts[row] for row in some], intents[some].astype(object)
labels[np.random.default_rng(0).permutation(len(labels))[80:]] = "?"

# %%
# Compare
# -------
# Without ``candidates``, more baselines and a fine-tuned teacher take part.

from sk_aft.model_selection import compare_transfer

comparison = compare_transfer(
    texts,
    labels,
    candidates=["tf-idf", "pseudo-labels", "probe", "student-alone", "student"],
    missing_label="?",
    cv=3,
    random_state=0,
    verbose=0,
)
print(comparison.summary())

# %%
# The table has all scores, gains, sizes and times.

comparison.frame()[["score", "standard_error", "megabytes", "ms_per_row"]].round(3)

# %%
# The plot shows accuracy against prediction time.

from sk_aft.inspection import ComparisonDisplay

ComparisonDisplay.from_estimator(comparison)

# %%
# ``best_estimator_`` is the recommended estimator, fitted to all rows.

print(comparison.best_estimator_)
