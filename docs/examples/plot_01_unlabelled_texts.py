"""
Learn from texts without labels, and deploy
===========================================

You have a few labelled texts, and many without labels. This example trains a small network on
both and compares it with the same network without a teacher. Then it saves the network as a folder
that predicts without PyTorch.
"""

# %%
# Texts
# -----
# Banking77 contains questions from bank customers. We take 15 of the 77 intents, keep the labels of
# ten questions each, and replace all other labels with ``"?"``.

import numpy as np

from sk_aft.datasets import load_banking77

texts, intents = load_banking77(return_X_y=True)
test_texts, test_intents = load_banking77(subset="test", return_X_y=True)
some = np.unique(intents)[10:25]


def of_some(texts, intents):
    rows = np.flatnonzero(np.isin(intents, some))
    return [texts[row] for row in rows], intents[rows]


texts, intents = of_some(texts, intents)
test_texts, test_intents = of_some(test_texts, test_intents)

rng = np.random.default_rng(0)
labels = np.full(len(texts), "?", dtype=object)
for intent in some:
    known = rng.choice(np.flatnonzero(intents == intent), 10, replace=False)
    labels[known] = intent
print(f"{(labels != '?').sum()} texts have a label, {(labels == '?').sum()} have none.")

# %%
# Train
# -----
# The extractor embeds each text once with MiniLM. The student learns from the labels, and from the
# predictions of linear models of MiniLM's layers for all texts.

from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor

pipe = make_pipeline(
    FoundationFeatureExtractor("minilm"), AFTClassifier(missing_label="?", random_state=0)
)
pipe.fit(texts, labels)
student = pipe[-1]  # complete by itself: raw texts in, labels out

# %%
# The same network without a teacher learns from the labelled texts only. It also starts from
# MiniLM's word vectors.

is_known = labels != "?"
known_texts = [text for text, known in zip(texts, is_known, strict=True) if known]
alone = AFTClassifier(beta=0, module__start="minilm", random_state=0)
alone.fit(known_texts, labels[is_known])

# %%
# A linear probe of MiniLM is often more accurate, but must run MiniLM for every prediction.

from sklearn.linear_model import LogisticRegression

probe = make_pipeline(FoundationFeatureExtractor("minilm"), LogisticRegression(C=100))
probe.fit(known_texts, labels[is_known])

# %%
import matplotlib.pyplot as plt

scores = {
    "student alone": alone.score(test_texts, test_intents),
    "student, taught": student.score(test_texts, test_intents),
    "probe: runs MiniLM": probe.score(test_texts, test_intents),
}
print(scores)
fig, ax = plt.subplots(figsize=(6, 2.2), layout="constrained")
bars = ax.barh([*scores], [*scores.values()], color=["0.6", "C0", "0.3"])
ax.bar_label(bars, fmt="%.3f", padding=3)
ax.set(xlabel="Accuracy on test texts", xlim=(0, 1))

# %%
# Deploy
# ------
# ``save_pretrained`` writes a folder that contains no code. ``sk_aft.serving`` needs only NumPy and
# tokenizers to predict from it.

import tempfile
from pathlib import Path

from sk_aft.serving import load

folder = Path(tempfile.mkdtemp()) / "intents"
student.save_pretrained(folder, X_test=test_texts, y_test=test_intents, dtype="float16")
for path in sorted(folder.iterdir()):
    print(f"{path.name:20} {path.stat().st_size / 1e6:.2f} MB")

deployed = load(folder)
print(deployed.predict(["My card was swallowed", "Why was I charged for my payment?"]))
