"""Batches that processes share: each trains on a part of every batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sk_aft._data._batches import RowBatches, batches_per_epoch
from sk_aft._data._tensors import ArrayTensors, to_tensors

CPU = torch.device("cpu")


def batches_of(part, n_parts, *, n_rows, batch_size, n_labeled=None, fraction=0.5):
    is_labeled = np.arange(n_rows) < (n_rows if n_labeled is None else n_labeled)
    return RowBatches(
        ArrayTensors(np.arange(n_rows)[:, None]),
        torch.arange(n_rows),
        batch_size=batch_size,
        device=CPU,
        shuffle=np.random.RandomState(0),
        labeled_mask=is_labeled,
        unlabeled_fraction=fraction,
        part=part,
        n_parts=n_parts,
    )


@given(
    n_parts=st.integers(1, 5),
    rows_a_part=st.integers(2, 9),
    n_rows=st.integers(10, 120),
)
def test_parts_are_equal_and_together_the_batches_of_one_process(n_parts, rows_a_part, n_rows):
    sizes = {"n_rows": n_rows, "batch_size": n_parts * rows_a_part}
    parts = [list(batches_of(part, n_parts, **sizes)) for part in range(n_parts)]
    whole = list(batches_of(0, 1, **sizes))
    n_batches = batches_per_epoch(
        n_rows, 0, batch_size=sizes["batch_size"], unlabeled_fraction=0.5, n_parts=n_parts
    )
    assert n_batches == len(batches_of(0, n_parts, **sizes))
    assert [len(part) for part in parts] == [n_batches] * n_parts
    for number, shared in enumerate(zip(*parts, strict=True)):
        assert len({len(batch.targets) for batch in shared}) == 1
        rows = torch.cat([batch.targets for batch in shared])
        assert len(rows.unique()) == len(rows)
        assert set(rows.tolist()) <= set(whole[number].targets.tolist())
        assert len(whole[number].targets) - len(rows) < n_parts


@given(
    n_parts=st.integers(1, 4),
    rows_a_part=st.integers(2, 9),
    n_labeled=st.integers(1, 40),
    n_unlabeled=st.integers(1, 60),
    fraction=st.floats(0.1, 0.9),
)
def test_every_part_has_as_many_labelled_rows(
    n_parts, rows_a_part, n_labeled, n_unlabeled, fraction
):
    sizes = {
        "n_rows": n_labeled + n_unlabeled,
        "batch_size": n_parts * rows_a_part,
        "n_labeled": n_labeled,
        "fraction": fraction,
    }
    parts = [list(batches_of(part, n_parts, **sizes)) for part in range(n_parts)]
    assert [len(part) for part in parts] == [len(batches_of(0, n_parts, **sizes))] * n_parts
    shapes = {(len(b.targets), len(b.inputs)) for part in parts for b in part}
    assert len(shapes) == 1
    ((n_known, n_rows),) = shapes
    assert 0 < n_known < n_rows == rows_a_part
    seen = torch.cat([batch.inputs for part in parts for batch in part])
    assert len(seen.unique()) == n_labeled + n_unlabeled


@pytest.mark.parametrize("n_parts", [1, 2])
def test_parts_of_texts_have_rows_of_similar_length(n_parts):
    lengths = np.random.RandomState(0).permutation(np.arange(1, 641))
    texts = np.empty(640, dtype=object)
    texts[:] = [np.ones(length, dtype=np.int64) for length in lengths]
    batches = RowBatches(
        to_tensors(texts),
        batch_size=8,
        device=CPU,
        shuffle=np.random.RandomState(0),
        n_parts=n_parts,
    )
    n_padded = sum(batch.inputs["tokens"].numel() for batch in batches)
    assert n_padded < 1.25 * 640 * 641 / 2 / n_parts
