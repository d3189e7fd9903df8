"""Rows of features, however they are composed, read as the matrix that they represent."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sk_aft import FoundationFeatureExtractor
from sk_aft._data._batches import RowBatches, batches_per_epoch
from sk_aft._data._feature_rows import ConcatenatedRows, MatrixInMemory, RowSubset, StoredRows
from sk_aft._data._tensors import ArrayTensors


def stored(random, n_rows, width):
    """Return stored rows, some of them missing, and the matrix that they stand for."""
    matrix = random.normal(size=(5, width)).astype(np.float32)
    indices = random.integers(-1, 5, n_rows)
    expected = np.where((indices < 0)[:, None], np.nan, matrix[indices])
    return StoredRows(MatrixInMemory(matrix), indices), expected


def assert_reads_as(features, expected, random):
    assert features.shape == expected.shape
    assert not features.is_on_disk
    missing = np.isnan(expected).any(axis=1)
    np.testing.assert_array_equal(features.missing_mask, missing)
    order = random.permutation(len(expected))[: len(expected) // 2 + 1]
    taken = features.take(order)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, expected[order])


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    width=st.integers(1, 3),
    seed=st.integers(0, 10_000),
)
def test_rows_one_after_the_other(lengths, width, seed):
    random = np.random.default_rng(seed)
    pieces = [stored(random, n_rows, width) for n_rows in lengths]
    whole = ConcatenatedRows([features for features, _ in pieces], axis=0)
    expected = np.concatenate([matrix for _, matrix in pieces])
    assert_reads_as(whole, expected, random)
    some = random.integers(0, len(expected), 7)
    assert_reads_as(RowSubset(whole, some), expected[some], random)


@settings(max_examples=50, deadline=None)
@given(
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    n_rows=st.integers(1, 6),
    seed=st.integers(0, 10_000),
)
def test_columns_side_by_side(widths, n_rows, seed):
    random = np.random.default_rng(seed)
    pieces = [stored(random, n_rows, width) for width in widths]
    array = random.normal(size=(n_rows, 2))
    whole = ConcatenatedRows([*(features for features, _ in pieces), array], axis=1)
    expected = np.concatenate([*(matrix for _, matrix in pieces), array], axis=1, dtype=np.float32)
    assert_reads_as(whole, expected, random)


def test_foundation_features_are_such_rows(tmp_path):
    X = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    rows = FoundationFeatureExtractor(np.square, cache=tmp_path).fit_transform(X)
    subset = RowSubset(rows, np.array([4, 0]))
    assert subset.is_on_disk
    np.testing.assert_allclose(subset.take(np.array([1, 0])), X[[0, 4]] ** 2, rtol=1e-6)


@pytest.mark.parametrize("shuffles", [True, False])
@settings(max_examples=60, deadline=None)
@given(
    n_labeled=st.integers(1, 40),
    n_unlabeled=st.integers(0, 40),
    batch_size=st.integers(2, 9),
    fraction=st.sampled_from([0.1, 0.5, 0.9]),
)
def test_the_number_of_batches_is_known_before_they_are_made(
    shuffles, n_labeled, n_unlabeled, batch_size, fraction
):
    n_unlabeled = n_unlabeled if shuffles else 0  # rows that are held out all have labels
    n_rows = n_labeled + n_unlabeled
    batches = RowBatches(
        ArrayTensors(np.zeros((n_rows, 1))),
        torch.zeros(n_rows),
        batch_size=batch_size,
        device=torch.device("cpu"),
        shuffle=np.random.RandomState(0) if shuffles else None,
        labeled_mask=np.arange(n_rows) < n_labeled,
        unlabeled_fraction=fraction,
    )
    expected = batches_per_epoch(
        n_labeled,
        n_unlabeled,
        batch_size=batch_size,
        unlabeled_fraction=fraction,
        drops_small_batch=shuffles,
    )
    assert len(list(batches)) == len(batches) == expected


@pytest.mark.parametrize(
    ("n_rows", "sizes"),
    [
        (515, 4 * [128]),  # a last batch of less than an eighth
        (527, 4 * [128]),
        (528, [*4 * [128], 16]),
        (140, [128, 12]),  # too large a part of the steps
        (3, [3]),  # the only batch, however small
    ],
)
def test_a_small_last_batch_is_left_out(n_rows, sizes):
    batches = RowBatches(
        ArrayTensors(np.arange(n_rows)[:, None]),
        torch.arange(n_rows),
        batch_size=128,
        device=torch.device("cpu"),
        shuffle=np.random.RandomState(0),
    )
    passes = [list(batches) for _ in range(10)]
    assert [[len(batch.targets) for batch in one] for one in passes] == [sizes] * 10
    seen = torch.cat([batch.targets for one in passes for batch in one])
    assert len(seen.unique()) == n_rows  # those left out are others in each pass
