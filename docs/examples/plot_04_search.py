"""
Search with GridSearchCV when rows have no labels
=================================================

``beta`` is the strength of the transfer. A grid search finds it like any parameter. ``LabeledFold``
keeps rows without labels in the training part of every split, and scores labelled rows only.
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
# Each text is embedded once, whatever the number of folds and candidates: features are kept on
# disk.

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
# The bars are standard errors over the folds. Differences within them are chance: here, any
# teacher is better than none, and how strong it is matters less.

import matplotlib.pyplot as plt

results = search.cv_results_
betas = [str(beta) for beta in results["param_aftclassifier__beta"]]
fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.errorbar(
    betas, results["mean_test_score"], results["std_test_score"] / np.sqrt(3), fmt="o", capsize=4
)
ax.set(xlabel="beta", ylabel="Accuracy on held-out labelled rows")

# %%
# The best student is in the pipeline that the search has refitted to all rows.

student = search.best_estimator_[-1]
print(student.predict(["Where can I use Apple Pay?"]))
