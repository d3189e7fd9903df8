"""Keeps the tests out of the user's cache."""

import os

import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.datasets import load_sample_images

# Networks are tiny here: threads that wait for each other cost more than they bring, four times
# as much where tests share the machine with something else. The variable is for subprocesses.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests, too")
    parser.addoption("--all-kills", action="store_true", help="kill the store's writers 100 times")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        slow = {item for item in items if item.get_closest_marker("slow")}
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_session(tmp_path_factory):
    """What fixtures of a wider scope compute goes here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SK_AFT_CACHE", str(tmp_path_factory.mktemp("session") / "cache"))
        yield


@pytest.fixture(autouse=True)
def _cache_of_the_test(tmp_path, monkeypatch):
    monkeypatch.setenv("SK_AFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def cache(tmp_path):
    """Directory of the test's own cache, not made yet."""
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def photographs():
    """Six 64 x 64 RGB cuts of scikit-learn's two photographs, (6, 64, 64, 3) uint8."""
    cuts = [
        photograph[top : top + 64, left : left + 64]
        for photograph in load_sample_images().images
        for top, left in ((40, 60), (180, 300), (300, 500))
    ]
    photographs = np.stack(cuts)
    photographs.flags.writeable = False
    return photographs


@pytest.fixture
def new_workers():
    """End workers of earlier tests, whose caches are others: one may have ended by itself."""
    get_reusable_executor().shutdown(wait=True)
