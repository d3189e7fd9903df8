"""Which rows are predicted together."""

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from torch import nn

from sk_aft import AFTRegressor


class Characters(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        rows = np.empty(len(X), dtype=object)
        rows[:] = [np.array([ord(character) for character in text], dtype=int) for text in X]
        return rows


class Counter(nn.Module):
    """Predict the number of tokens, and note the batches of prediction."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches = []

    def forward(self, tokens, lengths):
        if not self.training:
            self.batches.append((tokens.shape[1], lengths.tolist()))
        outputs = lengths.float().unsqueeze(1) + 0 * self.weight
        return outputs, outputs


def test_sequences_are_hardly_padded_and_keep_their_order():
    n_characters = np.random.RandomState(0).geometric(0.05, 1000)
    texts = np.array(["a" * n for n in n_characters], dtype=object)
    model = AFTRegressor(Counter, preprocessor=Characters(), beta=0, max_epochs=1, batch_size=64)
    model.fit(texts, n_characters.astype(float))
    model.module_.batches.clear()
    predicted = model.predict(texts)
    scale = np.polyfit(n_characters, predicted, 1)  # targets are standardised
    np.testing.assert_allclose(predicted, np.polyval(scale, n_characters), rtol=1e-4)
    batches = model.module_.batches
    assert sum(len(lengths) for _, lengths in batches) == len(texts)
    for width, lengths in batches:
        assert width <= 1.25 * min(lengths) + 2
        assert len(lengths) <= 64
    assert len(batches) < 2 * len(texts) / 64
