"""
What a student learned from
===========================

Two figures show how much a fitted student relied on each teacher, and how the terms of its loss
developed.
"""

# %%
# A student with several teachers
# -------------------------------
# The foundation model is MiniLM. Linear models of two of its layers are teachers. Two more teachers
# are linear models of what the student knows by itself.

import numpy as np
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.datasets import load_banking77

texts, intents = load_banking77(labels_per_class=35, return_X_y=True)
some = np.flatnonzero(np.isin(intents, np.unique(intents)[20:30]))
texts, labels = [texts[row] for row in some], intents[some].astype(object)
labels[np.random.default_rng(0).permutation(len(labels))[150:]] = "?"

pipe = make_pipeline(
    FoundationFeatureExtractor("minilm"),
    AFTClassifier(missing_label="?", early_stopping=True, random_state=0),
)
pipe.fit(texts, labels)

# %%
# How much each teacher counts
# ----------------------------
# Grey bars are what the student knows by itself: TF-IDF of the texts, and the word vectors of its
# untrained network. If they were the longest, the foundation model would add little. With fewer
# than about 100 labels, all weights are similar and not informative.

from sk_aft.inspection import TeacherWeightsDisplay

TeacherWeightsDisplay.from_estimator(pipe)

# %%
# How the training went
# ---------------------
# The task loss is the loss on the labels. If the transfer loss stays flat, the student cannot
# follow its teachers: a larger network or more epochs may help.

from sk_aft.inspection import TransferDisplay

TransferDisplay.from_estimator(pipe)

# %%
# In words
# --------
# The diagram of a fitted pipeline shows what the student learned from, below its name.

pipe
