"""
A cascade: ask the teacher when the student is not sure
=======================================================

A student is fast, and its teacher is more accurate. A cascade runs the student on every row, and
the teacher only on the rows on which the student is unsure.
"""

# %%
# Rows
# ----

import numpy as np

from sk_aft.datasets import load_banking77


def ten_intents(subset):
    texts, intents = load_banking77(subset=subset, labels_per_class=30, return_X_y=True)
    rows = np.flatnonzero(np.isin(intents, np.unique(intents)[22:32]))
    return [texts[row] for row in rows], intents[rows]


X, y = ten_intents("train")
X_test, y_test = ten_intents("test")

# %%
# Fit
# ---
# The student of this example is weak on purpose: it starts from random weights and has no teacher.
# The cascade uses three folds to find the probability below which it asks the teacher.

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, CascadeClassifier, FoundationFeatureExtractor

student = AFTClassifier(beta=0, module__start="random", random_state=0)
probe = make_pipeline(FoundationFeatureExtractor("minilm"), LogisticRegression(C=100))
cascade = CascadeClassifier(student, probe, max_deferred=0.2, cv=3)
cascade.fit(X, y)

print(f"student: {cascade.student_.score(X_test, y_test):.3f}")
print(f"probe:   {cascade.teacher_.score(X_test, y_test):.3f}")
print(f"cascade: {cascade.score(X_test, y_test):.3f}")
print(f"The teacher was asked about {cascade.defers(X_test).mean():.0%} of the test rows.")

# %%
# What each share of deferred rows gains
# --------------------------------------
# The straight line is what deferring random rows would gain.

from sk_aft.inspection import DeferralDisplay

DeferralDisplay.from_estimator(cascade, X_test, y_test)
