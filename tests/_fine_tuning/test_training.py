"""A training that is interrupted resumes, and gives the same bits."""

import _thread
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sk_aft import FineTunedFeatureExtractor
from sk_aft.backbones import EfficientNetLiteBackbone

WORDS = ["my", "was", "is", "of", "the", "what"]
TEXTS = [f"{what} {word}" for what in ("card", "rate") for word in WORDS]
LABELS = [0] * 6 + [1] * 6
PIXELS = np.random.RandomState(0).randint(0, 255, (33, 16, 16)).astype(np.uint8)


def checkpoint_of(cache):
    return next(iter(cache.rglob("checkpoint.pt")), None)


def wait_for_checkpoint(cache, seconds=60):
    """Wait until a training has written a checkpoint; return whether it has."""
    end = time.monotonic() + seconds
    while checkpoint_of(cache) is None and time.monotonic() < end:
        time.sleep(0.01)
    return checkpoint_of(cache) is not None


def first_step(text):
    """Return the step at which a progress bar began."""
    line = next(line for line in text.replace("\r", "\n").split("\n") if "fine-tuning" in line)
    return int(line.split("|")[2].split("/")[0])


def interrupted(fit, cache):
    """Run ``fit`` and press Control-C once it has written a checkpoint."""

    def interrupt():
        if wait_for_checkpoint(cache):
            _thread.interrupt_main()

    # A shell without job control starts background processes that ignore Control-C.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            fit()
        watcher.join()
    finally:
        signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("objective", ["linear", "pairs"])
def test_control_c_costs_little(objective, encoder_directory, cache, capsys):
    model = f"hf:{encoder_directory('bert')}"
    parameters = {"objective": objective, "n_steps": 1200, "verbose": 1}
    kept = FineTunedFeatureExtractor(model, cache=cache, **parameters)
    started = time.monotonic()
    interrupted(lambda: kept.fit(TEXTS, LABELS), cache)
    assert time.monotonic() - started < 30
    assert not hasattr(kept, "classes_")
    capsys.readouterr()
    features = np.asarray(kept.fit_transform(TEXTS, LABELS))
    assert 0 < first_step(capsys.readouterr().err) < 1200
    whole = FineTunedFeatureExtractor(model, cache=None, **parameters)
    np.testing.assert_array_equal(features, whole.fit_transform(TEXTS, LABELS))
    assert checkpoint_of(cache) is None


FIT = """
import sys, numpy as np, torch
torch.set_num_threads(1)
from sk_aft import FineTunedFeatureExtractor
from sk_aft.backbones import EfficientNetLiteBackbone
pixels = np.random.RandomState(0).randint(0, 255, (33, 16, 16)).astype(np.uint8)
FineTunedFeatureExtractor(
    EfficientNetLiteBackbone(image_size=32), objective="linear", n_steps=24, cache=sys.argv[1]
).fit(pixels, np.arange(33) % 2)
"""


@pytest.fixture
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def test_a_killed_training_resumes(cache, capsys, one_thread):
    process = subprocess.Popen([sys.executable, "-c", FIT, cache])
    try:
        assert wait_for_checkpoint(cache)
    finally:
        process.kill()
        process.wait()
    assert checkpoint_of(cache) is not None
    features = []
    for store in (cache, None):
        extractor = FineTunedFeatureExtractor(
            EfficientNetLiteBackbone(image_size=32),
            objective="linear",
            n_steps=24,
            cache=store,
            verbose=1,
        )
        features.append(np.asarray(extractor.fit_transform(PIXELS, np.arange(33) % 2)))
        assert (first_step(capsys.readouterr().err) > 0) == (store is not None)
    np.testing.assert_array_equal(*features)
    assert checkpoint_of(cache) is None


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_checkpoint_is_ignored(damage, encoder_directory, cache, tmp_path, capsys):
    model = f"hf:{encoder_directory('bert')}"
    parameters = {"objective": "linear", "n_steps": 5, "verbose": 1}
    kept = FineTunedFeatureExtractor(model, cache=cache, **parameters)
    expected = np.asarray(kept.fit_transform(TEXTS, LABELS))
    (weights,) = cache.rglob("*.safetensors")
    for file in weights.parent.iterdir():
        if file.name != "model.json":
            file.unlink()
    checkpoint = weights.with_name("checkpoint.pt")
    torch.save({"step": 3, "weights": {}, "head": {}, "optimizer": {}}, checkpoint)
    if damage != "other":
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    capsys.readouterr()
    np.testing.assert_array_equal(kept.fit_transform(TEXTS, LABELS), expected)
    assert first_step(capsys.readouterr().err) == 0
    assert not checkpoint.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_checkpoint_that_cannot_be_written(encoder_directory, cache):
    model = f"hf:{encoder_directory('bert')}"
    parameters = {"objective": "linear", "n_steps": 100}
    kept = FineTunedFeatureExtractor(model, cache=cache, **parameters)
    expected = np.asarray(kept.fit_transform(TEXTS, LABELS))
    (weights,) = cache.rglob("*.safetensors")
    for file in weights.parent.iterdir():
        if file.name != "model.json":
            file.unlink()
    weights.with_name("checkpoint.tmp").symlink_to("/dev/full")
    with pytest.warns(UserWarning, match="unfinished training of .* cannot be kept") as caught:
        again = kept.fit_transform(TEXTS, LABELS)
    assert len(caught) == 1
    np.testing.assert_array_equal(again, expected)
    assert weights.exists()


def test_a_checkpoint_of_another_optimizer_leaves_the_weights(encoder_directory, cache, capsys):
    model = f"hf:{encoder_directory('bert')}"
    parameters = {"objective": "linear", "n_steps": 5, "verbose": 1}
    kept = FineTunedFeatureExtractor(model, cache=cache, **parameters)
    expected = np.asarray(kept.fit_transform(TEXTS, LABELS))
    (weights,) = cache.rglob("*.safetensors")
    state = {"step": 3, "weights": load_file(weights), "head": {}, "optimizer": {}}
    for file in weights.parent.iterdir():
        if file.name != "model.json":
            file.unlink()
    torch.save(state, weights.with_name("checkpoint.pt"))
    capsys.readouterr()
    np.testing.assert_array_equal(kept.fit_transform(TEXTS, LABELS), expected)
    assert first_step(capsys.readouterr().err) == 0
