import time

import numpy as np
import pytest
import torch
from PIL import Image

from sk_aft import FoundationFeatureExtractor
from sk_aft._data._feature_rows import MatrixInMemory, StoredRows
from sk_aft._data._rows import as_rows
from sk_aft._extraction._reader import Reader
from sk_aft._extraction._source import FeatureSource
from sk_aft.backbones import CallableBackbone, TorchBackbone
from sk_aft.store import FeatureStore

MATRIX = np.arange(20, dtype=np.float32).reshape(5, 4)


def stored(places):
    return StoredRows(MatrixInMemory(MATRIX), np.array(places, dtype=np.int64))


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4], [1, 2], [4], [3, 1], [2, 2, 0], []])
def test_stored_rows_are_rows_of_the_matrix(places):
    rows = stored(places)
    assert rows.shape == (len(places), 4)
    assert len(rows) == len(places)
    expected = MATRIX[np.array(places, dtype=int)]
    np.testing.assert_array_equal(rows.view(), expected)
    backwards = np.arange(len(places))[::-1]
    np.testing.assert_array_equal(rows.take(backwards), expected[::-1])
    np.testing.assert_array_equal(rows.subset(backwards).view(), expected[::-1])


def test_rows_that_follow_each_other_are_not_copied():
    assert np.shares_memory(stored([1, 2, 3]).view(), MATRIX)
    assert np.shares_memory(stored([0, 1, 2, 3]).subset(slice(1, 3)).view(), MATRIX)


class Lengths:
    """Lengths of texts; remembers the batches it was called with."""

    def __init__(self, breaks_at=None):
        self.batches = []
        self.breaks_at = breaks_at

    def __call__(self, texts):
        if self.breaks_at in texts:
            raise RuntimeError("it broke")
        self.batches.append(texts)
        return np.array([[len(text), text.count("a")] for text in texts])

    @property
    def rows(self):
        return [text for batch in self.batches for text in batch]


TEXTS = [f"text {number:02d}" for number in range(30)]


def source(*models, cache="auto", batch_size="auto", verbose=0):
    readers = [Reader(CallableBackbone(m, f"lengths {i}")) for i, m in enumerate(models)]
    return FeatureSource(readers, cache, batch_size, "cpu", verbose)


@pytest.mark.parametrize("where", [None, "auto"])
def test_distinct_rows_are_embedded_once_in_the_order_they_came(where):
    lengths = Lengths()
    texts = [*TEXTS[:5], *TEXTS[:5], TEXTS[7], TEXTS[0]]
    (rows,) = source(lengths, cache=where).compute(as_rows(texts))
    assert lengths.rows == [*TEXTS[:5], TEXTS[7]]
    np.testing.assert_array_equal(rows.view(), [[7, 0]] * len(texts))


@pytest.mark.parametrize("batch_size", [1, 4, 30, 1000])
def test_the_batch_size_bounds_the_batches_and_changes_nothing_else(batch_size):
    lengths = Lengths()
    (rows,) = source(lengths, cache=None, batch_size=batch_size).compute(as_rows(TEXTS))
    assert max(map(len, lengths.batches)) == min(batch_size, 30)
    np.testing.assert_array_equal(rows.view(), Lengths()(TEXTS))
    source(lengths, batch_size=batch_size).compute(as_rows(TEXTS))
    before = len(lengths.batches)
    source(lengths, batch_size=7).compute(as_rows(TEXTS))
    assert len(lengths.batches) == before


def test_each_model_gives_its_part():
    first, second = source(Lengths(), Lengths()).compute(as_rows(TEXTS))
    np.testing.assert_array_equal(first.view(), second.view())
    assert [model["rows"] for model in FeatureStore().stats()["models"]] == [30, 30]


def test_what_was_computed_before_an_interruption_is_kept():
    lengths = Lengths(breaks_at=TEXTS[20])
    with pytest.raises(ValueError, match=r"row 20 \('text 20'\): it broke"):
        source(lengths, batch_size=1).compute(as_rows(TEXTS))
    kept = FeatureStore().stats()["rows"]
    assert kept == 20
    lengths.breaks_at = None
    lengths.batches = []
    (rows,) = source(lengths, batch_size=1).compute(as_rows(TEXTS))
    assert lengths.rows == TEXTS[kept:]
    np.testing.assert_array_equal(rows.view(), Lengths()(TEXTS))


@pytest.mark.parametrize("where", [None, "auto"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_without_finite_features_is_named_and_the_others_are_kept(bad, where):
    def breaks(texts):
        return np.array([[bad if text == TEXTS[11] else 1.0] for text in texts])

    with pytest.raises(ValueError, match=r"row 23 \('text 11'\): it returned NaN .*\. Repair"):
        source(breaks, cache=where).compute(as_rows([*TEXTS[:6], *TEXTS[:6], *TEXTS]))
    if where == "auto":
        assert FeatureStore().stats()["rows"] == 29


def test_long_rows_are_shortened_in_messages():
    with pytest.raises(ValueError, match=r"row 0 \('long.*\.\.\.\): it") as caught:
        source(lambda texts: np.full((len(texts), 1), np.nan)).compute(as_rows(["long" * 1000]))
    assert len(str(caught.value)) < 250


def test_a_store_that_cannot_keep_rows_says_so(cache):
    class Forgets(FeatureStore):
        def put_many(self, keys, matrix):
            pass

    with pytest.raises(RuntimeError, match=r"features of row 0 were written .* cannot be read"):
        source(Lengths(), cache=Forgets(cache)).compute(as_rows(TEXTS))


def test_progress_is_shown_when_asked_for(capsys):
    source(Lengths()).compute(as_rows(TEXTS[:3]))
    assert capsys.readouterr().err == ""
    source(Lengths(), verbose=1).compute(as_rows(TEXTS))
    progress = capsys.readouterr().err
    assert "Lengths" in progress
    assert "27/27" in progress


@pytest.mark.parametrize("where", [None, "auto"])
def test_progress_in_a_file_is_a_few_plain_lines(where, capsys):
    def slow(texts):
        time.sleep(0.02)
        return np.array([[len(text)] for text in texts])

    texts = [f"text {number}" for number in range(80)]
    source(slow, cache=where, batch_size=1, verbose=1).compute(as_rows(texts))
    progress = capsys.readouterr().err
    assert "80/80" in progress
    assert progress.count("\r") <= 3
    assert "\x1b" not in progress


def test_all_stores_are_opened_before_the_first_model_runs(tmp_path):
    """A bare function's features are kept elsewhere, and the file would be met after it."""
    (tmp_path / "file").touch()
    function = Lengths()
    readers = [Reader(CallableBackbone(function)), Reader(CallableBackbone(len, "declared"))]
    with pytest.raises(OSError, match="cannot be written to"):
        FeatureSource(readers, tmp_path / "file", "auto", "cpu", 0).compute(as_rows(TEXTS))
    assert function.batches == []


def test_an_unreadable_image_stops_the_work_before_it_begins(photographs, tmp_path):
    calls = []

    def embed(images):
        calls.append(len(images))
        return np.array([[image.mean()] for image in images])

    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path, image in zip(paths, photographs, strict=True):
        Image.fromarray(image).save(path)
    paths[4].write_text("not an image")
    with pytest.raises(ValueError, match=r"Row 4 \('.*4\.png'\) is not a readable image"):
        source(embed, batch_size=1).compute(as_rows(paths))
    assert calls == []


class Limited(Lengths):
    """Runs out of memory with more rows than it has room for."""

    def __init__(self, room, error):
        super().__init__()
        self.room = room
        self.error = error
        self.n_failures = 0

    def __call__(self, texts):
        if len(texts) > self.room:
            self.n_failures += 1
            raise self.error
        return super().__call__(texts)


MANY = [f"text {number}" * (number % 3 + 1) for number in range(2000)]
OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.1 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    MemoryError("Unable to allocate 3.73 TiB for an array"),
]


@pytest.mark.parametrize("where", [None, "auto"])
@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:20])
def test_an_automatic_batch_size_is_halved_until_the_batches_fit(where, error):
    limited = Limited(10, error)
    (rows,) = source(limited, cache=where).compute(as_rows(MANY))
    np.testing.assert_array_equal(rows.view(), Lengths()(MANY))
    assert limited.n_failures == 3  # 64, 32 and 16; 8 is remembered
    assert max(map(len, limited.batches)) == 8


def test_a_batch_size_that_fits_is_looked_for_below_the_number_of_rows():
    limited = Limited(4, OUT_OF_MEMORY[0])
    source(limited, cache=None).compute(as_rows(TEXTS[:6]))
    assert limited.n_failures == 1
    assert list(map(len, limited.batches)) == [3, 3]


def test_what_was_stored_before_memory_ran_out_is_not_computed_again():
    lengths = Limited(64, OUT_OF_MEMORY[0])
    lengths_of = source(lengths)

    def crowd(texts):
        if MANY[1500] in texts:
            lengths.room = 5  # somebody else takes the memory
        return lengths(texts)

    readers = [Reader(CallableBackbone(crowd, "crowd"))]
    (rows,) = lengths_of._replace(readers=readers).compute(as_rows(MANY))
    np.testing.assert_array_equal(rows.view(), Lengths()(MANY))
    n_again = len(lengths.rows) - len(set(lengths.rows))
    assert n_again < 64 * 8  # those of one commit at most
    assert len(set(lengths.rows)) == 2000


def test_a_given_batch_size_is_kept_and_the_error_says_what_would_help():
    limited = Limited(10, OUT_OF_MEMORY[0])
    with pytest.raises(MemoryError, match=r"'Limited' .* 16 rows at a time: use a smaller"):
        source(limited, batch_size=16).compute(as_rows(TEXTS))
    assert limited.n_failures == 1


@pytest.mark.parametrize("batch_size", ["auto", 1])
@pytest.mark.parametrize("on_error", ["raise", "mask"])
def test_no_memory_for_a_single_row_is_an_error(batch_size, on_error):
    def absurd(texts):
        return torch.empty(len(texts), 2**60)

    with pytest.raises(MemoryError, match="out of memory on device 'cpu' with a single row") as e:
        source(absurd, batch_size=batch_size)._replace(on_error=on_error).compute(as_rows(TEXTS))
    assert "allocate" in str(e.value.__cause__)


def test_a_module_that_does_not_fit_runs_in_smaller_batches():
    class Hungry(torch.nn.Module):
        def forward(self, rows):
            torch.empty(2**60 if len(rows) > 20 else 0)
            return rows * 2

    X = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    readers = [Reader(TorchBackbone(Hungry()))]
    (rows,) = FeatureSource(readers, None, "auto", "cpu", 0).compute(as_rows(X))
    np.testing.assert_array_equal(rows.view(), X * 2)


@pytest.mark.parametrize("cache", ["auto", None])
def test_the_warning_of_long_texts_counts_the_rows_that_were_given(cache):
    texts = ["card " * 300, *["short", "another"] * 19, "card " * 300]
    extractor = FoundationFeatureExtractor("minilm", cache=cache)
    with pytest.warns(UserWarning, match="2 of 40 texts are longer than 256 tokens") as caught:
        extractor.fit_transform(texts)
    assert len(caught) == 1
    if cache is not None:
        with pytest.warns(UserWarning, match="2 of 3 texts are longer"):  # the others are stored
            extractor.fit_transform([*texts, "money " * 300, "money " * 300, "new"])
