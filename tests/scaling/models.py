"""Models and texts of the tests on clusters, quick to run and exact."""

import os
import signal
import time
import zlib
from pathlib import Path

import numpy as np

from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone

TEXTS = [f"row {number}" for number in range(200)]
WIDTH = 8


def features_of(texts):
    """What each text has by its content alone."""
    draws = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=WIDTH) for text in texts]
    return np.array(draws, dtype=np.float32)


class CountedModel:
    """Notes in a directory when a process unpickles it, and every batch that it embeds."""

    def __init__(self, directory, *, seconds=0.0, dies_at=None):
        self.directory = Path(directory)
        self.seconds = seconds
        self.dies_at = dies_at

    def __setstate__(self, state):
        vars(self).update(state)
        self._note("loaded")

    def __call__(self, texts):
        self._note(f"batch of {os.getpid()}")
        if self.dies_at in texts and self._is_first_death():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return features_of(texts)

    def count(self, word):
        """Return how often something happened."""
        lines = (self.directory / "log").read_text().splitlines() if self._has_log() else []
        return sum(line.startswith(word) for line in lines)

    def processes(self):
        """Return the process of each batch, in order."""
        lines = (self.directory / "log").read_text().splitlines()
        return [int(line.split()[-1]) for line in lines if line.startswith("batch")]

    def has_died(self):
        """Return whether a process was killed."""
        return (self.directory / "died").exists()

    def _has_log(self):
        return (self.directory / "log").exists()

    def _note(self, line):
        with open(self.directory / "log", "a") as file:
            file.write(f"{line}\n")

    def _is_first_death(self):
        try:
            (self.directory / "died").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def extractor_of(model, **parameters):
    """Return a fitted extractor of a function of texts."""
    backbone = CallableBackbone(model, fingerprint="crc of the text")
    return FoundationFeatureExtractor(backbone, **{"cache": None, **parameters}).fit(["a text"])
