"""Which rows make a batch, and the loss of pairs."""

import numpy as np
import pytest
import torch

from sk_aft._fine_tuning._objectives import BATCH_SIZE, OBJECTIVES, draw_classes, pair_loss


def drawn(name, labels, n_batches=8):
    return OBJECTIVES[name].draw(np.asarray(labels), n_batches, np.random.RandomState(0))


@pytest.mark.parametrize("name", ["linear", "pairs"])
@pytest.mark.parametrize("labels", [[0, 1, 1], [0] * 20 + [1] * 20, np.arange(90) % 45])
def test_no_row_is_twice_in_a_batch_but_where_a_pass_ends(name, labels):
    batches = drawn(name, labels)
    assert len(batches) == 8
    for batch in batches[:1] if name == "linear" else batches:
        assert len(np.unique(batch)) == len(batch) <= BATCH_SIZE
    assert set(np.concatenate(drawn(name, labels, 200)).tolist()) == set(range(len(labels)))


def test_a_pass_holds_every_row_once():
    batches = drawn("linear", [0, 1] * 32, 4)
    assert sorted(np.concatenate(batches[:2])) == list(range(64))
    assert sorted(np.concatenate(batches[2:])) == list(range(64))


def test_batches_of_pairs_hold_as_many_rows_of_each_class():
    labels = np.repeat(np.arange(3), [5, 40, 300])
    for batch in drawn("pairs", labels):
        assert np.bincount(labels[batch]).tolist() == [5, 10, 10]


def test_of_many_classes_a_batch_holds_two_rows_of_some():
    labels = np.arange(40 * 5) % 40
    for batch in draw_classes(labels, 5, np.random.RandomState(0)):
        assert np.unique(labels[batch], return_counts=True)[1].tolist() == [2] * 16


def test_pair_loss_is_the_mean_of_its_two_halves():
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    # Alike: rows 0 and 1, cosine 0. Different: 0 and 2, cosine 1; 1 and 2, cosine 0.
    loss = pair_loss(features, torch.tensor([0, 0, 1]))
    assert loss == pytest.approx(0.5 * 1 + 0.5 * 0.5)
