"""Batches that are made ahead, by a thread or by several processes."""

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sk_aft import FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import (
    EfficientNetLiteBackbone,
    HuggingFaceBackbone,
    SentenceTransformerBackbone,
    TorchBackbone,
    _image_batches,
)
from sk_aft.backbones._batches import _in_one_copy, index_batches, made_ahead, run_batches
from sk_aft.backbones._image_batches import image_batches, is_lost_worker, n_decoding_workers
from sk_aft.backbones._tokens import embed_as_tokenized
from tests.conftest import TEXTS

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked"
)


@pytest.fixture
def two_workers(monkeypatch):
    """Make images in two processes, as if their network ran on a GPU."""
    monkeypatch.setattr(_image_batches, "_runs_on_gpu", lambda device: True)
    monkeypatch.setattr(_image_batches, "n_decoding_workers", lambda *_: 2)


def decoding_processes():
    """The processes that this one started, but for joblib's, which earlier tests left idle."""
    started = multiprocessing.active_children()
    return [process for process in started if not process.name.startswith("LokyProcess")]


@pytest.fixture
def paths(photographs, tmp_path):
    """Paths of 12 image files: the photographs as PNG and JPEG."""
    made = []
    for number, photograph in enumerate(photographs):
        for suffix in ("png", "jpg"):
            made.append(str(tmp_path / f"{number}.{suffix}"))
            Image.fromarray(photograph).save(made[-1])
    return made


def test_batches_made_ahead_come_in_order_from_another_thread():
    threads = set()

    def make():
        for number in range(20):
            threads.add(threading.get_ident())
            yield number

    assert list(made_ahead(make(), CPU)) == list(range(20))
    assert threading.get_ident() not in threads
    assert list(made_ahead([], CPU)) == []


def test_one_batch_is_made_while_another_is_used():
    begun = [threading.Event() for _ in range(5)]

    def make():
        for event in begun:
            event.set()
            yield event

    for number, _ in enumerate(made_ahead(make(), CPU)):
        if number + 1 < len(begun):
            assert begun[number + 1].wait(timeout=30)
        if number + 2 < len(begun):
            assert not begun[number + 2].is_set()


def test_an_error_in_making_a_batch_is_raised_in_its_place():
    def make():
        yield 1
        yield 2
        raise ValueError("Row 7 cannot be read.")

    seen = []
    with pytest.raises(ValueError, match="Row 7") as caught:
        seen.extend(made_ahead(make(), CPU))
    assert seen == [1, 2]
    assert caught.traceback[-1].name == "make"


def test_the_thread_ends_with_its_reader():
    before = threading.active_count()
    batches = made_ahead(iter(range(1000)), CPU)
    assert next(batches) == 0
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(("n_rows", "batch_size"), [(1, 1), (7, 3), (6, 3), (2, 10)])
def test_index_batches_cover_all_rows(n_rows, batch_size):
    batches = index_batches(n_rows, batch_size)
    assert [row for batch in batches for row in batch] == list(range(n_rows))
    assert max(map(len, batches)) == min(n_rows, batch_size)


def test_several_outputs_are_side_by_side_and_float32():
    inputs = torch.arange(6.0).reshape(3, 2)
    found = list(run_batches(lambda x: (x.half(), x.double() + 1), [(inputs,), (inputs,)], CPU))
    expected = torch.cat([inputs, inputs + 1], dim=1).numpy()
    assert [matrix.dtype for matrix in found] == [np.float32] * 2
    np.testing.assert_array_equal(np.stack(found), np.stack([expected, expected]))


def test_matrices_are_split_again_after_one_copy():
    matrices = [torch.randn(n, 4) for n in (3, 1, 5)]
    for array, matrix in zip(_in_one_copy(matrices), matrices, strict=True):
        np.testing.assert_array_equal(array, matrix.numpy())
    assert _in_one_copy([]) == []


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "pairs", "minilm"])
def test_texts_tokenized_batch_by_batch_have_the_same_features(kind, batch_size, encoder_directory):
    texts = ["", *sorted(set(TEXTS)), "why why why", "a"]
    values = as_rows(texts).values
    if kind == "minilm":
        model, network = SentenceTransformerBackbone.minilm().loaded(CPU)
        tokenize = model.preprocess if hasattr(model, "preprocess") else model.tokenize
    else:
        tokenizer, network = HuggingFaceBackbone(
            encoder_directory("bert" if kind == "pairs" else kind)
        ).loaded(CPU)

        def tokenize(rows):
            parts = [list(part) for part in zip(*rows, strict=True)] if kind == "pairs" else [rows]
            return tokenizer(*parts, padding=True, padding_side="right", return_tensors="pt")

        if kind == "gpt2":
            values = values[1:]  # its tokenizer has no token for an empty text
        if kind == "pairs":
            values = np.stack([values, values[::-1]], axis=1)
    found = embed_as_tokenized(network, tokenize, values, batch_size=batch_size)
    for row, features in zip(values, found, strict=True):
        alone = embed_as_tokenized(network, tokenize, [row], batch_size=1)
        np.testing.assert_allclose(features, alone[0], atol=2e-6)


def test_a_cpu_decodes_in_its_own_process():
    assert n_decoding_workers(CPU, 100, 1000) == 0


@needs_fork
def test_a_gpu_gets_as_many_processes_as_there_are_cores_batches_and_shared_memory(monkeypatch):
    if not os.path.isdir("/dev/shm"):
        pytest.skip("there is no shared memory to look at")
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    assert n_decoding_workers(GPU, 100, 1000) == min(2, os.cpu_count() or 1)
    assert n_decoding_workers(GPU, 1, 1000) == 0
    assert n_decoding_workers(GPU, 100, 1 << 50) == 0


@needs_fork
@pytest.mark.parametrize("model", ["effnet-lite0", "module"])
def test_processes_make_the_same_features(model, paths, two_workers):
    if model == "module":
        model = TorchBackbone(nn.Sequential(nn.AvgPool2d(16), nn.Flatten()))
    extractor = FoundationFeatureExtractor(model, cache=None, batch_size=2, device="cpu")
    found = extractor.fit_transform(paths).features
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_image_batches, "_runs_on_gpu", lambda device: False)
        expected = extractor.fit_transform(paths).features
    np.testing.assert_array_equal(found, expected)
    assert not decoding_processes()


@needs_fork
def test_processes_name_a_row_that_cannot_be_read(paths, two_workers):
    content = Path(paths[7]).read_bytes()
    Path(paths[7]).write_bytes(content[: len(content) // 2])
    extractor = FoundationFeatureExtractor("effnet-lite0", cache=None, batch_size=2, device="cpu")
    with pytest.raises(ValueError, match=r"Row 7 .*3\.jpg"):
        extractor.fit_transform(paths)
    with pytest.warns(UserWarning, match="1 of 12 rows have no features.* The first is row 7"):
        rows = extractor.set_params(on_error="mask").fit_transform(paths)
    assert np.flatnonzero(rows.missing_mask).tolist() == [7]
    assert not decoding_processes()


@needs_fork
@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_process_that_ends_raises_and_leaves_none_behind(how, paths, two_workers):
    main = os.getpid()

    def ends(image):
        if os.getpid() != main:
            os._exit(3) if how == "exit" else os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(3, 4, 4)

    model = TorchBackbone(nn.Flatten(), preprocess=ends)
    extractor = FoundationFeatureExtractor(model, cache=None, batch_size=2, device="cpu")
    with pytest.raises(ChildProcessError, match=r"prepares images for model 'flatten' ended"):
        extractor.fit_transform(paths)
    assert not decoding_processes()


@needs_fork
def test_processes_end_when_the_network_fails(paths, two_workers):
    backbone = EfficientNetLiteBackbone()
    rows = as_rows(paths)

    def use():
        batches = index_batches(12, 2)
        prepare = lambda some: (backbone.to_tensor(rows, some),)  # noqa: E731
        with image_batches(prepare, batches, CPU) as inputs:
            for _ in inputs:
                assert decoding_processes()
                raise MemoryError("out of memory")

    with pytest.raises(MemoryError):
        use()
    assert not decoding_processes()


@needs_fork
@pytest.mark.parametrize(("n_batches", "n_others"), [(2, 0), (3, 2)])
def test_few_batches_are_made_without_other_processes(n_batches, n_others, two_workers):
    numbers = range(2 * n_batches)
    prepare = lambda some: (torch.tensor(list(some)),)  # noqa: E731
    with image_batches(prepare, index_batches(len(numbers), 2), CPU) as inputs:
        assert len(decoding_processes()) == n_others
        found = torch.cat([batch for (batch,) in inputs])
    assert found.tolist() == list(numbers)
    assert not decoding_processes()


@needs_fork
def test_processes_leave_the_random_numbers_of_the_user_alone(paths, two_workers):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    model = TorchBackbone(nn.Flatten())
    FoundationFeatureExtractor(model, cache=None, batch_size=2, device="cpu").fit_transform(paths)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_only_errors_of_processes_are_recognised_as_such():
    assert is_lost_worker(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    assert not is_lost_worker(RuntimeError("CUDA out of memory"))
    assert not is_lost_worker(ValueError("DataLoader worker"))
