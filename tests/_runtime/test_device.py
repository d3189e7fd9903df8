import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._data._batches import RowBatches, read_features
from sk_aft._data._feature_rows import RowSubset, StoredRows
from sk_aft._data._tensors import ArrayTensors
from sk_aft._runtime._device import has_room, to_device
from sk_aft._runtime._threads import fitting_threads, flushed_denormals, one_thread

# A device without memory, on which everything but arithmetic works.
META = torch.device("meta")


def flushes():
    return (torch.tensor(torch.finfo(torch.float32).tiny) / 2).item() == 0


@pytest.mark.parametrize("before", [True, False])
def test_denormals_are_flushed_while_it_lasts(before):
    if not torch.set_flush_denormal(before):
        pytest.skip("this processor cannot flush denormals")
    try:
        with flushed_denormals():
            assert flushes()
        assert flushes() == before
    finally:
        torch.set_flush_denormal(False)


def test_fit_flushes_denormals_and_predict_does_not():
    class Flushes(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(flushes())

    seen = []
    X, y = np.random.RandomState(0).normal(size=(20, 3)), np.arange(20) % 2
    AFTClassifier(beta=0, max_epochs=2, callbacks=[Flushes()]).fit(X, y)
    assert seen == [True, True]
    assert not flushes()


def test_small_networks_run_on_one_core():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with fitting_threads(nn.Linear(10, 10)):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with fitting_threads(nn.Conv2d(3, 8, 3)):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)


def test_threads_come_back_whoever_ends_last():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = one_thread(), one_thread()
        with ThreadPoolExecutor(1) as other:
            assert first.__enter__() == 2
            assert other.submit(second.__enter__).result() == 2
            assert torch.get_num_threads() == 1
            first.__exit__(None, None, None)
            other.submit(second.__exit__, None, None, None).result()
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)


def stored(matrix):
    features = StoredRows.of_array(matrix.astype(np.float32))
    return RowSubset(features, np.arange(len(matrix)))


def rows_on(device):
    random = np.random.RandomState(0)
    return RowBatches(
        ArrayTensors(random.normal(size=(10, 3))),
        torch.arange(10),
        features=stored(random.normal(size=(10, 4))),
        weights=torch.ones(10),
        batch_size=4,
        device=device,
        shuffle=np.random.RandomState(0),
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_fits_stays_on_the_device():
    device = torch.device("cuda", 0)
    batches, expected = rows_on(device), torch.cat([batch.features for batch in rows_on(device)])
    batches.move_to_device()
    batches.move_to_device()  # once is enough
    assert isinstance(batches.features, torch.Tensor)
    assert batches.features.device == batches.targets.device == batches.weights.device == device
    read = list(batches)
    assert {tensor.device for batch in read for tensor in batch} == {device}
    assert torch.equal(torch.cat([batch.features for batch in read]), expected)


def test_what_does_not_fit_stays_where_it_is():
    assert not has_room(META, 1)
    batches = rows_on(META)
    batches.move_to_device()
    assert not isinstance(batches.features, torch.Tensor)
    for batch in batches:
        assert {t.device for t in batch} == {META}


def test_features_on_a_device_are_those_that_were_read():
    features = stored(np.arange(20).reshape(10, 2))
    kept = read_features(features, torch.device("cpu"))
    order = np.array([7, 0, 3])
    np.testing.assert_array_equal(kept[order].numpy(), features.take(order))


def test_a_cpu_has_room_for_128_mebibytes():
    assert has_room(torch.device("cpu"), 128 * 2**20)
    assert not has_room(torch.device("cpu"), 128 * 2**20 + 1)


def test_few_features_on_disk_are_read_once(tmp_path):
    extractor = FoundationFeatureExtractor(np.square, cache=tmp_path)
    X = np.random.RandomState(0).normal(size=(10, 4))
    features = RowSubset(extractor.fit_transform(X), np.arange(10))
    assert features.is_on_disk
    batches = RowBatches(
        ArrayTensors(X), features=features, batch_size=4, device=torch.device("cpu")
    )
    batches.move_to_device()
    assert isinstance(batches.features, torch.Tensor)
    read = torch.cat([batch.features for batch in batches])
    np.testing.assert_allclose(read.numpy(), X**2, rtol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_the_same():
    X, y = np.random.RandomState(0).normal(size=(300, 5)), np.arange(300) % 3
    features = np.tanh(X).astype(np.float32)
    on_gpu, on_cpu = (
        AFTClassifier(beta=1, max_epochs=3, device=device, random_state=0).fit(
            X, y, features=features
        )
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(on_gpu.loss_curve_, on_cpu.loss_curve_, rtol=0.05)
    pinned = to_device(torch.ones(3), torch.device("cuda"))
    assert pinned.sum().item() == 3


def test_nothing_keeps_the_training_rows_alive():
    def tensors():
        return [value for value in gc.get_objects() if type(value) in (torch.Tensor, nn.Parameter)]

    X = np.random.RandomState(0).normal(size=(5000, 50)).astype(np.float32)
    model = AFTClassifier(transfer="aft", beta=1, preprocessor=None, max_epochs=1, random_state=0)
    before = tensors()  # of other tests
    known = set(map(id, before))
    model.fit(X, np.arange(5000) % 3, features=X[:, :4])
    gc.collect()
    largest = max(v.untyped_storage().nbytes() for v in tensors() if id(v) not in known)
    assert largest < X.nbytes / 2
    assert model.optimizer_.state  # what resuming needs is kept
