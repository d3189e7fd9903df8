"""cleanlab finds wrong labels and odd rows by students' probabilities and foundation features."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_predict

pytest.importorskip("cleanlab")

from cleanlab.filter import find_label_issues
from cleanlab.outlier import OutOfDistribution


@pytest.mark.parametrize("seed", [0, 1])
def test_most_labels_that_cleanlab_flags_are_the_flipped_ones(pipe, questions, seed):
    X, labels = questions
    classes, codes = np.unique(labels, return_inverse=True)
    flipped = np.random.default_rng(seed).permutation(len(codes))[:14]
    codes[flipped] = (codes[flipped] + 1) % len(classes)

    probabilities = cross_val_predict(pipe, X, codes, cv=5, method="predict_proba")
    found = find_label_issues(
        codes, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert np.isin(found, flipped).mean() > 0.7  # 0.1 if it guessed
    assert np.isin(flipped, found).mean() > 0.7
    assert np.isin(found[:8], flipped).all()


def test_rows_without_issues_are_not_flagged(pipe, questions):
    X, labels = questions
    _, codes = np.unique(labels, return_inverse=True)
    probabilities = cross_val_predict(pipe, X, codes, cv=5, method="predict_proba")
    assert find_label_issues(codes, probabilities, n_jobs=1).mean() < 0.05


def test_foundation_features_find_rows_of_another_subject(pipe, questions):
    strange = ["The cat sat on the mat", "Photosynthesis takes place in chloroplasts"]
    X = pd.concat([questions[0], pd.DataFrame({"text": strange})], ignore_index=True)
    features = pipe[0].fit_transform(X).features
    scores = OutOfDistribution().fit_score(features=features, verbose=False)
    assert set(np.argsort(scores)[:2]) == {len(X) - 2, len(X) - 1}
