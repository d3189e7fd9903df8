"""Reading rows of a file in any order."""

import os
import warnings

import numpy as np
import pytest

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone
from sk_aft.store import FeatureStore
from sk_aft.store._row_reader import RowReader

ROWS = np.random.default_rng(0).normal(size=(3000, 300)).astype(np.float32)


@pytest.fixture(params=["preadv", "seek"])
def reader(tmp_path, monkeypatch, request):
    """Reads ROWS; where the system reads at a place in one call and where it does not."""
    if request.param == "seek":
        monkeypatch.delattr(os, "preadv", raising=False)
    elif not hasattr(os, "preadv"):
        pytest.skip("this system has no preadv")
    ROWS.tofile(tmp_path / "rows")
    return RowReader(tmp_path / "rows", ROWS[0].nbytes)


@pytest.mark.parametrize(
    "indices",
    [
        np.arange(3000),
        np.random.default_rng(1).permutation(3000),
        np.random.default_rng(2).integers(0, 3000, 40),
        np.array([5, 5, 2999, 0, 5, 1]),
        np.array([7]),
        np.array([], dtype=np.int64),
    ],
    ids=["in order", "shuffled", "few", "repeated", "one", "none"],
)
def test_reads_rows_in_any_order(reader, indices):
    out = np.full((len(indices), 300), np.nan, np.float32)
    reader.read(indices, out)
    np.testing.assert_array_equal(out, ROWS[indices])


def test_what_the_file_does_not_have_is_zero(reader, tmp_path):
    with open(tmp_path / "rows", "r+b") as file:
        file.truncate(10 * ROWS[0].nbytes + 400)
    out = np.full((3, 300), np.nan, np.float32)
    reader.read(np.array([9, 10, 2000]), out)
    np.testing.assert_array_equal(out[0], ROWS[9])
    np.testing.assert_array_equal(out[1, :100], ROWS[10, :100])
    assert not out[1, 100:].any()
    assert not out[2].any()


def test_a_file_damaged_while_it_is_read_is_an_error_not_a_crash(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    model = CallableBackbone(lambda rows: np.tanh(rows), fingerprint="tanh")
    extractor = FoundationFeatureExtractor(model, cache=tmp_path).fit(X)
    features = extractor.transform(X)
    assert features.features.shape == (60, 4)
    (file,) = tmp_path.rglob("*.features")
    with open(file, "r+b") as opened:
        opened.truncate(100)
    student = AFTClassifier(beta=10, max_epochs=1, random_state=0)
    with pytest.raises(OSError, match="damaged since they were looked up"):
        student.fit(features, X[:, 0] > 0)
    with pytest.warns(UserWarning, match=r"54 rows .* damaged"):
        student.fit(extractor.transform(X), X[:, 0] > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # mended
        np.testing.assert_array_equal(extractor.transform(X).features, np.tanh(X))
    assert FeatureStore(tmp_path).verify()["rows"] == 60
