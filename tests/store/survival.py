"""The work of the processes that test_survival.py kills; quick to import."""

import collections
import errno
import os
import resource
import signal
import time
import warnings
import zlib

import numpy as np

from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone
from sk_aft.store import FeatureStore, _exchange, _merge

TEXTS = [f"row {number}" for number in range(400)]
WIDTH = 24


def features_of(texts):
    """What each text has by its content alone."""
    return np.stack(
        [np.random.default_rng(zlib.crc32(t.encode())).normal(size=WIDTH) for t in texts]
    ).astype(np.float32)


class Logged:
    """A model that takes its time and notes every row it embeds."""

    def __init__(self, log, seconds_per_row=0.0):
        self.log = log
        self.seconds_per_row = seconds_per_row

    def __call__(self, texts):
        with open(self.log, "a") as file:
            file.write("".join(f"{text}\n" for text in texts))
        time.sleep(self.seconds_per_row * len(texts))
        return features_of(texts)

    def count(self):
        with open(self.log) as file:
            return collections.Counter(file.read().splitlines())


def extractor_of(path, model):
    backbone = CallableBackbone(model, fingerprint="crc")
    return FoundationFeatureExtractor(backbone, cache=path, batch_size=1)


def precompute_until_interrupted(path, model, texts):
    """As `precompute`; Python ignores SIGINT if it was started in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    precompute(path, model, texts)


def precompute(path, model, texts):
    extractor_of(path, model).precompute(texts)


def assert_intact(path, model, texts=TEXTS):
    """Whatever the store returns is right; return how many rows it has."""
    extractor = extractor_of(path, model).fit(texts[:1])
    (keys,) = extractor.store_keys(texts).values()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged rows are reported
        matrix, found = FeatureStore(path).get_many(keys)
    np.testing.assert_array_equal(matrix[found], features_of(texts)[found])
    return int(found.sum())


def assert_completed(path, model, texts=TEXTS):
    """Going on gives every row, computing only what is missing."""
    kept = assert_intact(path, model, texts)
    before = sum(model.count().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = extractor_of(path, model).fit_transform(texts)
    np.testing.assert_array_equal(rows, features_of(texts))
    assert sum(model.count().values()) - before == len(texts) - kept
    return kept


def until_full(limit, work, *arguments):
    """Do something until files may not grow any more, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        work(*arguments)
    except OSError as error:
        is_explained = "Features computed before this batch are kept" in str(error)
        os._exit(42 if error.errno == errno.EFBIG and is_explained else 1)


def merge_in_pieces(path, other):
    """As `merge`, in commits of 20 rows."""
    _merge.PIECE_BYTES = 20 * 4 * WIDTH
    FeatureStore(path).merge(other)


def import_in_pieces(path, file):
    """As `import_features`, in commits of 20 rows."""
    _exchange._PIECE_BYTES = 20 * 4 * WIDTH
    FeatureStore(path).import_features(file)
