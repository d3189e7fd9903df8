"""Which rows make a batch, and the loss of pairs."""

import numpy as np
import pytest
import torch

from sk_aft._fine_tuning._objectives import OBJECTIVES, pair_loss


def drawn(name, labels, n_batches=8):
    return OBJECTIVES[name].draw(np.asarray(labels), n_batches, np.random.RandomState(0))


@pytest.mark.parametrize("labels", [[0, 1, 1], [0] * 20 + [1] * 20, np.arange(90) % 45])
def test_every_row_is_drawn_and_none_twice_in_a_batch(labels):
    for name in ("linear", "pairs"):
        batches = drawn(name, labels, 200)
        assert set(np.concatenate(batches).tolist()) == set(range(len(labels)))
        for batch in batches if name == "pairs" else batches[:1]:  # others may end a pass
            assert len(np.unique(batch)) == len(batch)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([10, 10], [10, 10]),
        ([50, 50], [16, 16]),
        ([10] * 6, [5] * 6),
        ([10] * 16, [2] * 16),
        ([5, 40, 300], [5, 13, 13]),
        ([2, 500], [2, 30]),
        ([1] * 15 + [300], [1] * 15 + [17]),
    ],
    ids=str,
)
def test_as_many_rows_of_each_class_as_fit(sizes, expected):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for batch in drawn("pairs", labels):
        assert np.bincount(labels[batch]).tolist() == expected


def test_a_pass_holds_every_row_once():
    batches = drawn("linear", [0, 1] * 32, 4)
    assert sorted(np.concatenate(batches[:2])) == list(range(64))
    assert sorted(np.concatenate(batches[2:])) == list(range(64))


def test_of_many_classes_a_batch_holds_two_rows_of_some():
    labels = np.arange(40 * 5) % 40
    for batch in drawn("pairs", labels):
        assert np.unique(labels[batch], return_counts=True)[1].tolist() == [2] * 16


def test_pair_loss_is_the_mean_of_its_two_halves():
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    # Alike: rows 0 and 1, cosine 0. Different: 0 and 2, cosine 1; 1 and 2, cosine 0.
    loss = pair_loss(features, torch.tensor([0, 0, 1]))
    assert loss == pytest.approx(0.5 * 1 + 0.5 * 0.5)
