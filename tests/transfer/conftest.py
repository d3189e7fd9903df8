"""Rows as an estimator passes them to a method's fit."""

import numpy as np
import pytest

from sk_aft.transfer import TransferRows


class CountedFeatures:
    """Features that record which rows each call reads."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.shape = matrix.shape
        self.reads = []

    def take(self, indices):
        self.reads.append(np.array(indices))
        return self.matrix[indices].astype(np.float32)


@pytest.fixture
def make_rows():
    """Make rows of three classes, or of two numeric targets."""

    def make(n_rows=60, widths=(4, 3), n_classes=3, seed=0, **changes):
        rng = np.random.default_rng(seed)
        if n_classes is None:
            targets = rng.normal(size=(n_rows, 2)).astype(np.float32)
            means = targets @ rng.normal(size=(2, sum(widths)))
        else:
            targets = np.arange(n_rows) % n_classes
            means = 2 * rng.normal(size=(n_classes, sum(widths)))[targets]
        features = (means + rng.normal(size=(n_rows, sum(widths)))).astype(np.float32)
        known_mask = np.asarray(changes.pop("known_mask", np.ones(n_rows, dtype=bool)))
        features[~known_mask] = np.nan
        projection = rng.normal(size=(sum(widths), 5)).astype(np.float32)
        stops = np.cumsum(widths)
        settings = {
            "features": CountedFeatures(features),
            "targets": targets,
            "labeled_mask": np.ones(n_rows, dtype=bool),
            "known_mask": known_mask,
            "feature_slices": {
                f"model{i}": slice(stop - width, stop)
                for i, (width, stop) in enumerate(zip(widths, stops, strict=True))
            },
            "n_classes": n_classes,
            "student_features": lambda indices: np.tanh(
                np.nan_to_num(features[indices]) @ projection
            ),
            "seed": 0,
        }
        return TransferRows(**{**settings, **changes})

    return make
