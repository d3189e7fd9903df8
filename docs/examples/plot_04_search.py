"""
Search with GridSearchCV when rows have no labels
=================================================

A grid search can tune ``beta``, the strength of the transfer, like any parameter. ``LabeledFold``
keeps unlabelled rows in the training part of every split, and scores only labelled rows.
"""

# %%
# Rows
# ----

import numpy as np

from sk_aft.datasets import load_banking77

texts, intents = load_banking77(return_X_y=True)
some = np.flatnonzero(np.isin(intents, np.unique(intents)[:6]))
texts, intents = [texts[row] for row in some], intents[some]

labels = intents.astype(object)
labels[np.random.default_rng(0).permutation(len(labels))[60:]] = "?"
print(f"{(labels != '?').sum()} texts have a label, {(labels == '?').sum()} have none.")

# %%
# Search
# ------
# Features are cached on disk. Each text is therefore embedded only once, for all folds and
# candidates.

from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.model_selection import LabeledFold

pipe = make_pipeline(
    FoundationFeatureExtractor("minilm"), AFTClassifier(missing_label="?", random_state=0)
)
search = GridSearchCV(
    pipe,
    {"aftclassifier__beta": [0, 1, 3]},
    cv=LabeledFold(3, missing_label="?"),
)
search.fit(texts, labels)
print(search.best_params_)

# %%
# Look
# ----
# Here, any teacher is better than none, and its strength matters less. The bars are standard errors
# over the folds: smaller differences may be due to chance.

import matplotlib.pyplot as plt

results = search.cv_results_
betas = [str(beta) for beta in results["param_aftclassifier__beta"]]
fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.errorbar(
    betas, results["mean_test_score"], results["std_test_score"] / np.sqrt(3), fmt="o", capsize=4
)
ax.set(xlabel="beta", ylabel="Accuracy on held-out labelled rows")

# %%
# The search has refitted the best pipeline to all rows. The student is its last step.

student = search.best_estimator_[-1]
print(student.predict(["Where can I use Apple Pay?"]))
