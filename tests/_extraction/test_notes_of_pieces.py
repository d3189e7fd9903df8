"""Rows that are computed in pieces: one note of them all, and the user's warnings untouched."""

import threading
import warnings

import datasets
import numpy as np
import pytest

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._data._streams import ROWS_PER_BATCH
from sk_aft.backbones import HuggingFaceBackbone
from sk_aft.preprocessing import SubwordTokenizer

N_ROWS = 2 * ROWS_PER_BATCH + 50


class OddRowWarning(UserWarning):
    """A warning that is not made of one string."""

    def __init__(self, row, reason):
        super().__init__(f"row {row} is {reason}")


def lengths_of(texts):
    return np.array([[len(text), 1.0] for text in texts])


def warning_model(warn, fails_after=np.inf):
    """Return a model that warns at each call."""
    n_rows = 0

    def model(texts):
        nonlocal n_rows
        n_rows += len(texts)
        warn()
        if n_rows > fails_after:
            raise MemoryError("no room")
        return lengths_of(texts)

    return model


def extractor_of(model, tmp_path, **parameters):
    return FoundationFeatureExtractor(model, cache=tmp_path, **parameters)


def data_set(texts):
    return datasets.Dataset.from_dict({"text": texts})


def texts_of(n_rows):
    return [f"text {number}" for number in range(n_rows)]


def odd():
    warnings.warn("these rows are odd", stacklevel=1)


def test_a_warning_of_the_users_model_is_given_while_the_stream_runs(tmp_path):
    counts = []

    def rows():
        for row, text in enumerate(texts_of(2 * ROWS_PER_BATCH)):
            if row % ROWS_PER_BATCH == 0:
                counts.append(len(caught))
            yield text

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        extractor_of(warning_model(odd), tmp_path).precompute(rows())
    assert counts[0] == 0
    assert counts[1] > 1
    assert {str(one.message) for one in caught} == {"these rows are odd"}


@pytest.mark.parametrize("container", [iter, data_set])
def test_a_filter_that_raises_ends_the_run_at_the_first_warning(tmp_path, container):
    read = []

    def model(texts):
        read.extend(texts)
        odd()
        return lengths_of(texts)

    extractor = extractor_of(model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((UserWarning, ValueError), match="these rows are odd"):
            np.asarray(extractor.fit_transform(container(texts_of(N_ROWS))))
    assert len(read) < ROWS_PER_BATCH


def test_a_warning_does_not_hide_an_error(tmp_path):
    failing = extractor_of(warning_model(odd, fails_after=100), tmp_path)
    with pytest.warns(UserWarning, match="odd"), pytest.raises(MemoryError, match="ran out"):
        failing.precompute(iter(texts_of(N_ROWS)))


def test_a_note_does_not_hide_an_error(tmp_path):
    def rows():
        yield from [None, *texts_of(ROWS_PER_BATCH)]
        raise OSError("the connection was lost")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OSError, match="connection"):
            extractor_of(lengths_of, tmp_path, on_error="mask").precompute(rows())


def test_warnings_of_a_users_own_category_pass_through(tmp_path):
    def warn():
        warnings.warn(OddRowWarning(3, "odd"), stacklevel=1)

    with pytest.warns(OddRowWarning, match="row 3 is odd"):
        extractor_of(warning_model(warn), tmp_path).precompute(iter(texts_of(3)))


def test_warnings_of_other_threads_are_not_held_back(tmp_path):
    counts = []

    def model(texts):
        other = threading.Thread(target=odd)
        other.start()
        other.join()
        counts.append(len(caught))
        return lengths_of(texts)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        extractor_of(model, tmp_path).precompute(iter(texts_of(3)))
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("container", [list, iter, data_set])
def test_filters_by_module_hold_for_notes(tmp_path, container):
    extractor = extractor_of(lengths_of, tmp_path, on_error="mask")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=r"sk_aft\.")
        np.asarray(extractor.fit_transform(container(["a", None, "b"])))


@pytest.mark.parametrize("container", [iter, data_set])
def test_rows_of_all_pieces_are_counted_even_if_one_has_the_missing_ones(tmp_path, container):
    texts = texts_of(N_ROWS)
    texts[ROWS_PER_BATCH + 3] = texts[ROWS_PER_BATCH + 4] = None
    extractor = extractor_of(lengths_of, tmp_path, on_error="mask")
    match = rf"^2 of {N_ROWS} rows .* The first is row {ROWS_PER_BATCH + 3}: "
    with pytest.warns(UserWarning, match=match) as caught:
        np.asarray(extractor.fit_transform(container(texts)))
    assert len(caught) == 1


def test_truncated_texts_of_all_pieces_are_counted_together(tmp_path, encoder_directory):
    texts = texts_of(ROWS_PER_BATCH + 40)
    for row in (3, 9, ROWS_PER_BATCH + 5):
        texts[row] = f"{row} " + "a long text " * 20
    model = HuggingFaceBackbone(encoder_directory("bert"), max_length=16)
    match = rf"Model 'bert.*': 3 of {len(texts)} texts are longer than 16 tokens"
    with pytest.warns(UserWarning, match=match) as caught:
        extractor_of(model, tmp_path).precompute(iter(texts))
    assert len(caught) == 1


def test_long_texts_of_a_student_are_counted_once():
    texts = [f"word {number % 7} lost" for number in range(ROWS_PER_BATCH + 40)]
    tokenizer = SubwordTokenizer(max_length=8)
    student = AFTClassifier(beta=0, preprocessor=tokenizer, max_epochs=1, random_state=0)
    texts[2] = texts[-2] = texts[-1] = "word " * 30
    match = rf"^3 of {len(texts)} texts have more than max_length=8 tokens"
    with pytest.warns(UserWarning, match=match) as caught:
        student.fit(data_set(texts), np.arange(len(texts)) % 2)
    assert len(caught) == 1
    assert caught[0].filename == __file__
