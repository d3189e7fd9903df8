import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sk_aft._data._batches import RowBatches
from sk_aft._data._feature_rows import MatrixInMemory, StoredRows
from sk_aft._data._tensors import ArrayTensors, to_tensors

CPU = torch.device("cpu")


def batches(n_rows, batch_size, seed=None):
    """Batches in which everything is the number of the row."""
    numbers = np.arange(n_rows)
    return RowBatches(
        ArrayTensors(numbers[:, None].astype(np.float32)),
        torch.tensor(numbers),
        features=StoredRows.of_array(np.arange(2 * n_rows, dtype=np.float32).reshape(-1, 2)),
        weights=torch.tensor(numbers / 2),
        batch_size=batch_size,
        device=CPU,
        shuffle=None if seed is None else np.random.RandomState(seed),
    )


def one_pass(rows):
    return [batch.targets.tolist() for batch in rows]


def flat(passed):
    return [number for batch in passed for number in batch]


@settings(max_examples=60, deadline=None)
@given(n_rows=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 9))
def test_every_row_comes_once_a_pass(n_rows, batch_size, seed):
    in_order = batches(n_rows, batch_size)
    assert flat(one_pass(in_order)) == list(range(n_rows))
    shuffled = batches(n_rows, batch_size, seed)
    passed = one_pass(shuffled)
    left_out = int(n_rows > 1 and n_rows % batch_size == 1)
    assert len(flat(passed)) == n_rows - left_out
    assert len(set(flat(passed))) == n_rows - left_out
    for rows, parts in ((in_order, one_pass(in_order)), (shuffled, passed)):
        assert len(rows) == len(parts)
        assert all(len(part) == batch_size for part in parts[:-1])
        assert 1 <= len(parts[-1]) <= batch_size


def test_a_single_row_at_the_end_is_left_out_when_shuffling_only():
    assert [len(batch) for batch in one_pass(batches(9, 4, seed=0))] == [4, 4]
    assert [len(batch) for batch in one_pass(batches(9, 4))] == [4, 4, 1]
    assert [len(batch) for batch in one_pass(batches(10, 4, seed=0))] == [4, 4, 2]
    assert one_pass(batches(1, 4, seed=0)) == [[0]]
    rows = batches(9, 4, seed=0)
    seen = {number for _ in range(20) for number in flat(one_pass(rows))}
    assert seen == set(range(9))  # another row every time


def test_rows_are_shuffled_anew_every_pass():
    rows = batches(64, 8, seed=0)
    first, second = one_pass(rows), one_pass(rows)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(64))
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_the_seed_determines_the_order():
    first, second = batches(30, 8, seed=3), batches(30, 8, seed=3)
    assert [one_pass(first) for _ in range(3)] == [one_pass(second) for _ in range(3)]
    assert one_pass(batches(30, 8, seed=4)) != one_pass(batches(30, 8, seed=3))


@pytest.mark.parametrize("seed", [None, 0])
def test_everything_in_a_batch_is_of_the_same_rows(seed):
    for batch in batches(21, 4, seed):
        numbers = batch.targets.float()
        torch.testing.assert_close(batch.inputs[:, 0], numbers)
        torch.testing.assert_close(batch.features[:, 0], 2 * numbers)
        torch.testing.assert_close(batch.features[:, 1], 2 * numbers + 1)
        torch.testing.assert_close(batch.weights.float(), numbers / 2)


def test_what_was_not_given_is_none():
    rows = RowBatches(ArrayTensors(np.eye(3)), batch_size=2, device=CPU)
    for batch in rows:
        assert batch.targets is batch.features is batch.weights is None


class Watched:
    """Features of which is noted how many rows are taken at a time."""

    def __init__(self, n_rows, width, is_on_disk=False):
        self.shape = (n_rows, width)
        self.is_on_disk = is_on_disk
        self.taken = []

    def take(self, indices):
        self.taken.append(len(indices))
        return np.repeat(np.float32(indices)[:, None], self.shape[1], axis=1)


@pytest.mark.parametrize("is_on_disk", [False, True])
@pytest.mark.parametrize("seed", [None, 0])
def test_features_are_read_some_batches_at_a_time(is_on_disk, seed):
    n_rows, width = 1000, 20_000  # 80 kB a row: one batch of 30 is 2.4 MB
    features = Watched(n_rows, width, is_on_disk)
    rows = RowBatches(
        ArrayTensors(np.arange(n_rows)[:, None]),
        features=features,
        batch_size=30,
        device=CPU,
        shuffle=None if seed is None else np.random.RandomState(seed),
    )
    passed = iter(rows)
    for number, batch in enumerate(passed):
        assert (batch.features[:, 0] == batch.inputs[:, 0]).all()
        assert len(features.taken) <= number + 1 + is_on_disk  # the next one, at most
    assert features.taken == [30] * 33 + [10]
    narrow = Watched(n_rows, 2)
    list(RowBatches(rows.inputs, features=narrow, batch_size=30, device=CPU))
    assert narrow.taken == [1000]


def test_reading_ahead_passes_errors_on():
    class Damaged(Watched):
        def take(self, indices):
            if self.taken:
                raise OSError("damaged")
            return super().take(indices)

    features = Damaged(100, 100_000, is_on_disk=True)
    rows = RowBatches(ArrayTensors(np.eye(100)), features=features, batch_size=10, device=CPU)
    with pytest.raises(OSError, match="damaged"):
        list(rows)
    next(iter(RowBatches(rows.inputs, features=Watched(100, 9, True), batch_size=9, device=CPU)))


def test_memory_mapped_features_become_tensors_of_their_own(tmp_path):
    np.arange(12, dtype=np.float32).tofile(tmp_path / "matrix")
    matrix = np.memmap(tmp_path / "matrix", dtype=np.float32, mode="r", shape=(6, 2))
    stored = StoredRows(MatrixInMemory(matrix), np.arange(6))
    rows = RowBatches(ArrayTensors(np.eye(6)), features=stored, batch_size=4, device=CPU)
    for batch in rows:
        batch.features.zero_()  # would fail on read-only memory
    np.testing.assert_array_equal(matrix.ravel(), np.arange(12))


# ---------------------------------------------------------------- ArrayTensors


def whole(values):
    inputs = ArrayTensors(values)
    return inputs.take(slice(0, len(inputs)), CPU)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float64", torch.float32),
        ("float32", torch.float32),
        ("float16", torch.float32),
        ("bool", torch.float32),
        ("int64", torch.int64),
        ("int8", torch.int64),
        ("uint16", torch.int64),
        (">f8", torch.float32),
    ],
)
def test_numbers_become_tensors(dtype, expected):
    values = np.array([[0, 1], [1, 1], [1, 0]], dtype=dtype)
    tensor = whole(values)
    assert tensor.dtype == expected
    np.testing.assert_array_equal(tensor, values.astype(float))


@pytest.mark.parametrize(
    "layout",
    [np.asfortranarray, lambda x: x[::-1][::-1], lambda x: np.repeat(x, 2, axis=0)[::2]],
)
def test_any_memory_layout_will_do(layout):
    values = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_allclose(whole(layout(values)), values, rtol=1e-6)


def test_read_only_values_are_no_trouble():
    values = np.eye(3, dtype=np.float32)
    values.flags.writeable = False
    np.testing.assert_array_equal(whole(values), values)


@pytest.mark.parametrize("indices", [slice(1, 3), np.array([2, 0])])
def test_images_of_8_bits_are_scaled_to_1(photographs, indices):
    images = np.moveaxis(photographs, 3, 1)
    taken = ArrayTensors(images).take(indices, CPU)
    assert taken.dtype == torch.float32
    np.testing.assert_allclose(taken, images[indices] / 255, rtol=1e-5)


def test_a_table_of_8_bits_is_no_image():
    """As OneHotEncoder(dtype=np.uint8) makes it."""
    np.testing.assert_array_equal(whole(np.eye(3, dtype=np.uint8)), np.eye(3))


def test_tensors_are_taken_as_they_are():
    values = torch.randn(4, 2, 2, dtype=torch.float64)
    inputs = ArrayTensors(values)
    assert len(inputs) == 4
    torch.testing.assert_close(inputs.take(np.array([3, 1]), CPU), values[[3, 1]])


@pytest.mark.parametrize("format", [scipy.sparse.csr_matrix, scipy.sparse.coo_array])
@pytest.mark.parametrize("indices", [slice(0, 4), slice(1, 3), np.array([2, 0]), np.array([1])])
def test_sparse_rows_become_bags(format, indices):
    dense = np.array([[0, 2.0, 0], [0, 0, 0], [1, 0, 3], [4, 0, 0]])
    bag = torch.nn.EmbeddingBag(3, 5, mode="sum")
    taken = ArrayTensors(format(dense)).take(indices, CPU)
    sums = bag(taken["indices"], taken["offsets"], per_sample_weights=taken["weights"])
    expected = torch.tensor(dense[indices], dtype=torch.float32) @ bag.weight
    torch.testing.assert_close(sums, expected)


@pytest.mark.parametrize(
    ("values", "sizes"),
    [
        (np.zeros((2, 5)), {"n_inputs": 5}),
        (np.zeros((2, 3, 8, 9)), {"n_channels": 3, "n_inputs": 3}),
        (np.zeros((2, 7, 4)), {"n_inputs": 7}),
        (np.zeros(2), {}),
        (scipy.sparse.csr_matrix((2, 6)), {"n_tokens": 6, "n_inputs": 6}),
    ],
)
def test_says_what_a_network_has_to_know(values, sizes):
    inputs = ArrayTensors(values)
    assert inputs.sizes == sizes
    assert len(inputs) == 2


@pytest.mark.parametrize(
    "values",
    [
        np.array(["a", "b"]),
        np.array([{}, {}], dtype=object),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
    ],
)
def test_what_is_no_number_is_refused(values):
    with pytest.raises(
        ValueError, match=r"preprocessor returned an array of dtype .* needs numbers"
    ):
        ArrayTensors(values)


# ---------------------------------------------------------------- PartTensors


def test_parts_of_rows_stay_together():
    table = np.arange(12.0).reshape(6, 2)
    images = np.full((6, 1, 2, 2), 51, dtype=np.uint8)
    tokens = scipy.sparse.csr_matrix(np.eye(6))
    inputs = to_tensors({"a b": table, "image": images, "text": tokens})
    assert len(inputs) == 6
    assert inputs.dtype == {"a b": "float32", "image": "uint8", "text": None}
    assert inputs.sizes["parts"]["a b"] == {"n_inputs": 2}
    assert inputs.sizes["parts"]["image"]["n_channels"] == 1
    batches = RowBatches(
        inputs,
        torch.arange(6),
        batch_size=4,
        device=CPU,
        shuffle=np.random.RandomState(0),
    )
    for batch in batches:
        rows = batch.targets
        assert torch.equal(batch.inputs["a b"], torch.from_numpy(table).float()[rows])
        assert torch.equal(batch.inputs["text"]["indices"], rows)
        assert batch.inputs["image"].shape == (len(rows), 1, 2, 2)
        assert batch.inputs["image"].max() == pytest.approx(0.2)


def test_parts_keep_the_dtypes_they_had():
    inputs = to_tensors({"a": np.eye(2), "b": np.eye(2, dtype=int)})
    again = to_tensors({"a": np.eye(2, dtype=int), "b": np.eye(2)}, dtype=inputs.dtype)
    assert again.dtype == inputs.dtype == {"a": "float32", "b": "int64"}
    with pytest.raises(ValueError, match="'b': The preprocessor returned NaN"):
        to_tensors({"a": np.eye(2), "b": np.full((2, 2), np.nan)})
    assert isinstance(to_tensors(np.eye(2)), ArrayTensors)
