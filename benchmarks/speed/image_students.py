"""Predictions and training steps of image students.

    python -m benchmarks.speed.image_students

Predictions, one image alone and 256 at once, on one thread: the student against a logistic
regression on the features of its foundation model. Training steps of 128 images on all threads:
the student of each size, with and without frozen layers, against a plain loop over the same
network in PyTorch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits
from torch.nn import functional as F

from benchmarks.speed._timing import medians, options, ratio, report
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.modules import EfficientNetLite, ResNet

TEACHER, LOOP = "Lite0 + LR", "plain loop"
STUDENTS: dict[str, dict[str, Any]] = {
    "8 blocks, 64 px": {},
    "8 blocks, 48 px": {"module__image_size": 48},
    "8 blocks, 32 px": {"module__image_size": 32},
    "12 blocks, 64 px": {"module__n_blocks": 12},
    "ResNet, 32 px": {"module": ResNet},
}
_BATCH = 128
_N_BATCHES = 4


def main() -> None:
    """Measure and print everything."""
    options(__doc__)
    images = np.random.default_rng(0).integers(0, 256, (512, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(512) % 10
    lines = [
        step_figures(images, labels, size, n_frozen) for size in (32, 48, 64) for n_frozen in (0, 4)
    ]
    torch.set_num_threads(1)
    models: dict[str, Any] = {
        TEACHER: make_pipeline(
            FoundationFeatureExtractor("effnet-lite0", cache=None), LogisticRegression(max_iter=10)
        )
    }
    for name, parameters in STUDENTS.items():
        settings = {"max_epochs": 1, "device": "cpu", "random_state": 0, **parameters}
        models[name] = AFTClassifier(beta=0, **settings)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # 10 iterations are not enough to converge
        for model in models.values():
            model.fit(images, labels)
        lines += [
            line
            for n_images, n_calls in ((1, 20), (256, 1))
            for line in prediction_figures(models, images[:n_images], n_calls)
        ]
    report("image_students", lines)


def step_figures(
    images: np.ndarray, labels: np.ndarray, size: int, n_frozen: int
) -> dict[str, Any]:
    """Return the time of a step of the student, and of a plain loop with nothing frozen."""
    n_rows = _N_BATCHES * _BATCH
    epochs = {"few": 2, "many": 4}
    network = {"module__image_size": size, "module__n_frozen_layers": n_frozen}

    def way(n_epochs: int) -> Callable[[], None]:
        student = AFTClassifier(
            beta=0, max_epochs=n_epochs, batch_size=_BATCH, device="cpu", random_state=0, **network
        )
        return lambda: student.fit(images[:n_rows], labels[:n_rows])

    plain = EfficientNetLite(10, image_size=size, n_frozen_layers=0).train()
    optimizer = torch.optim.AdamW(plain.parameters(), fused=True)
    inputs = torch.from_numpy(images[:_BATCH]).permute(0, 3, 1, 2).float() / 255
    targets = torch.from_numpy(labels[:_BATCH])

    def loop() -> None:
        for _ in range(_N_BATCHES):
            optimizer.zero_grad()
            F.cross_entropy(plain(inputs)[0], targets).backward()
            optimizer.step()

    ways = {LOOP: loop, **{name: way(n) for name, n in epochs.items()}}
    seconds = medians(ways, rounds=3)
    # The difference of two trainings is that of their steps: the rest of `fit` is the same.
    step = (seconds["many"] - seconds["few"]) / ((epochs["many"] - epochs["few"]) * _N_BATCHES)
    what = f"step of {_BATCH} images of {size} px, {n_frozen} layers frozen"
    return ratio(what, {LOOP: seconds[LOOP] / _N_BATCHES, "ours": step}, LOOP, unit="ms")


def prediction_figures(
    models: dict[str, Any], images: np.ndarray, n_calls: int
) -> list[dict[str, Any]]:
    """Return the time of each student, for a number of images at once."""
    seconds = medians({name: calls(model, images, n_calls) for name, model in models.items()})
    what = f"predict, {len(images)} image{'s' * (len(images) > 1)}"
    times = {name: total / n_calls for name, total in seconds.items()}
    return [
        ratio(f"{what}: {name}", {TEACHER: times[TEACHER], "ours": times[name]}, TEACHER, unit="ms")
        for name in STUDENTS
    ]


def calls(model: Any, images: np.ndarray, n_calls: int) -> Callable[[], None]:
    """Return a function that predicts some times."""

    def way() -> None:
        for _ in range(n_calls):
            model.predict(images)

    return way


if __name__ == "__main__":
    main()
