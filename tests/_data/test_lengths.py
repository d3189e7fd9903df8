"""Batches of rows of similar length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sk_aft._data._lengths import batches_of_similar_length


@given(
    st.lists(st.integers(0, 300), max_size=60),
    st.integers(1, 20),
    st.one_of(st.none(), st.integers(1, 2000)),
)
def test_every_row_is_in_one_batch_of_similar_lengths(lengths, batch_size, most_tokens):
    lengths = np.array(lengths, dtype=int)
    batches = batches_of_similar_length(lengths, batch_size, most_tokens)
    rows = np.concatenate([*batches, np.array([], dtype=int)])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(lengths)))
    for batch in batches:
        assert 0 < len(batch) <= batch_size
        longest, shortest = lengths[batch].max(), lengths[batch].min()
        assert longest <= 1.25 * shortest + 2
        assert most_tokens is None or len(batch) == 1 or len(batch) * longest <= most_tokens


@pytest.mark.parametrize(("most_tokens", "n_batches"), [(None, 1), (1000, 3), (1, 30)])
def test_long_rows_are_in_smaller_batches(most_tokens, n_batches):
    assert len(batches_of_similar_length(np.full(30, 70), 256, most_tokens)) == n_batches
