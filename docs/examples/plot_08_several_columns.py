"""
Several columns: pictures, texts, categories and numbers
========================================================

Each column of a DataFrame can have its own teacher. The student reads all columns, or only those
that are available at prediction.
"""

# %%
# A table with pictures and texts
# -------------------------------
# Digits stand for photographs of a meter. The label depends on both the picture and the text.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

digits = load_digits(n_class=3)
rng = np.random.default_rng(0)
rows = rng.permutation(len(digits.target))[:240]
is_cold = rng.random(240) < 0.5
frame = pd.DataFrame(
    {
        "picture": list((digits.images[rows] * 15).astype("uint8")),
        "note": np.where(is_cold, "it was freezing outside", "a hot summer day"),
        "city": pd.Categorical(rng.choice(["Oslo", "Rome"], 240)),
        "pressure": rng.normal(1010, 8, 240),
    }
)
labels = np.where((digits.target[rows] == 0) | is_cold, "check", "fine")
train, test = np.arange(240) < 160, np.arange(240) >= 160

_, axes = plt.subplots(1, 4, figsize=(8, 2.4), layout="constrained")
for row, ax in enumerate(axes):
    ax.imshow(frame["picture"][row], cmap="gray_r")
    ax.set_title(f"{frame['note'][row]}\n{labels[row]}", fontsize=9)
    ax.set(xticks=[], yticks=[])

# %%
# A student of all columns
# ------------------------
# ``teachers`` says which model reads which column. Columns without a model are read by the student
# only. The student has a small network for each column.

from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor

teachers = {"picture": "effnet-lite0", "note": "minilm"}
every = make_pipeline(FoundationFeatureExtractor(teachers), AFTClassifier(random_state=0))
every.fit(frame[train], labels[train])
print(f"accuracy: {every[-1].score(frame[test], labels[test]):.2f}")

# %%
# A student of fewer columns
# --------------------------
# ``inputs`` names the columns that the student reads. It learns from all teachers, but can predict
# without pictures.

reader = make_pipeline(
    FoundationFeatureExtractor(teachers, inputs=["note", "pressure"]),
    AFTClassifier(random_state=0),
)
reader.fit(frame[train], labels[train])
print(f"accuracy without pictures: {reader[-1].score(frame[test], labels[test]):.2f}")

# %%
# Deploy
# ------
# A single row is a dict. Many rows are a DataFrame or a list of dicts.

import tempfile

from sk_aft.serving import load

folder = tempfile.mkdtemp()
every[-1].save_pretrained(folder, onnx=True)
print(load(folder).predict(frame[test].iloc[0].to_dict()), labels[test][0])
