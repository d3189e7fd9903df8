"""
A table: a network taught by gradient boosting
==============================================

Any classifier or regressor can be a teacher. Here, a small network learns from the out-of-fold
predictions of gradient boosting on a table.
"""

# %%
# A table
# -------
# 300 rows have a target. For the other 2,000, NaN marks the missing target. The target depends on
# products of columns.

import numpy as np
from sklearn.datasets import make_friedman1

X, y = make_friedman1(3300, n_features=10, noise=1, random_state=0)
X, X_test, y, y_test = X[:2300], X[2300:], y[:2300], y[2300:]
known = y.copy()
known[300:] = np.nan

# %%
# Train
# -----

from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline

from sk_aft import AFTRegressor, FoundationFeatureExtractor, TeacherPredictions

boosting = HistGradientBoostingRegressor(random_state=0)
pipe = make_pipeline(
    FoundationFeatureExtractor(TeacherPredictions(boosting, missing_label=np.nan)),
    AFTRegressor(missing_label=np.nan, random_state=0),
)
pipe.fit(X, known)

# %%
# Compare
# -------
# A student can be better than its teacher, because it also learns from the targets. It can also be
# worse, so compare them on your table before you deploy.

import matplotlib.pyplot as plt

scores = {
    "ridge regression": RidgeCV().fit(X[:300], y[:300]),
    "gradient boosting": boosting.fit(X[:300], y[:300]),
    "student alone": AFTRegressor(beta=0, random_state=0).fit(X[:300], y[:300]),
    "student, taught": pipe,
}
scores = {name: model.score(X_test, y_test) for name, model in scores.items()}
for name, score in scores.items():
    print(f"{name:20} {score:.3f}")
fig, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
ax.bar_label(ax.barh([*scores], [*scores.values()]), fmt="%.3f", padding=3)
ax.set(xlabel="R² on test rows", xlim=(0, 1))

# %%
# Deploy
# ------

import tempfile

from sk_aft.serving import load

folder = tempfile.mkdtemp()
pipe[-1].save_pretrained(folder, onnx=True)
print(load(folder).predict(X_test[:3]).round(1), y_test[:3].round(1))
