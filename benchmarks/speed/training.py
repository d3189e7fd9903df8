"""Training compared with hand-written PyTorch loops, and the cost of the transfer per step.

    python -m benchmarks.speed.training

Loops and estimators train the same network on the same rows with fused AdamW and a cosine
schedule; the loop shuffles tensors and does nothing else. Takes about five minutes on two cores.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._bfloat16 import lacks_bfloat16
from benchmarks.speed._timing import medians, one_thread, options, ratio, report
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.modules import MLP, ResNet

BATCH = 128


def main() -> None:
    """Measure and print everything."""
    device = options(__doc__).device
    figures = [perceptron(device), *residual_network(device), *from_the_store(device)]
    report("training", figures, device)


def loop(
    build: Callable[[], nn.Module],
    X: Tensor,
    y: Tensor,
    n_epochs: int,
    device: str,
    threads: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Train as one would by hand, on as many threads as the estimator uses for the network."""
    torch.manual_seed(0)
    network = build().to(device).train()
    X, y = X.to(device), y.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    n_steps = n_epochs * -(-len(X) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    with threads():
        for _ in range(n_epochs):
            for rows in torch.randperm(len(X), device=device).split(BATCH):
                inputs = X[rows]
                inputs = inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs
                loss = F.cross_entropy(network(inputs)[0], y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()


def perceptron(device: str) -> dict[str, Any]:
    """Time an MLP 64-128-10 on 20,000 rows, 5 epochs."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 64)).astype(np.float32)
    y = rng.integers(0, 10, 20_000)
    student = AFTClassifier(
        MLP,
        module__hidden_sizes=(128,),
        beta=0,
        preprocessor=None,
        max_epochs=5,
        device=device,
        random_state=0,
    )
    tensors = torch.from_numpy(X), torch.from_numpy(y)
    seconds = medians(
        {
            "loop": lambda: loop(
                lambda: MLP(64, 10, hidden_sizes=(128,)), *tensors, 5, device, one_thread
            ),
            "ours": lambda: student.fit(X, y),
        }
    )
    return ratio("fit of an MLP 64-128-10, 20,000 rows, 5 epochs", seconds, "loop", "1.10x")


def residual_network(device: str) -> list[dict[str, Any]]:
    """Time a ResNet on 2,048 images of 32 x 32, one epoch; then with 2,560 foundation features."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2048, 32, 32, 3), dtype=np.uint8)
    y = rng.integers(0, 10, 2048)
    features = rng.normal(size=(2048, 2560)).astype(np.float32)
    student = AFTClassifier(ResNet, beta=0, max_epochs=1, device=device, random_state=0)
    taught = AFTClassifier(ResNet, beta=10, max_epochs=4, device=device, random_state=0)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(y)
    seconds = medians(
        {
            "loop": lambda: loop(lambda: ResNet(3, 10), *tensors, 1, device),
            "ours": lambda: student.fit(images, y),
        }
    )
    plain = ratio("fit of a ResNet, 2,048 images of 32 x 32", seconds, "loop", "1.03x")
    # Of a fit, most of what the transfer adds once is checking and shuffling the features.
    ways = {
        "beta=0": (student, {}),
        "ours": (taught, {"features": features}),
        "compile=True": (clone(student).set_params(compile=True), {}),
    }
    if lacks_bfloat16(device):
        print("precision='bf16-mixed': skipped, this CPU has no instructions for bfloat16.")
    else:
        ways["precision='bf16-mixed'"] = (clone(student).set_params(precision="bf16-mixed"), {})
    durations: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(5):
        for name, (estimator, arguments) in ways.items():
            estimator.set_params(max_epochs=5).fit(images, y, **arguments)
            # The first epoch compiles.
            durations[name] += [epoch["dur"] / 16 for epoch in estimator.history_[1:]]
    steps = {name: statistics.median(of_way) for name, of_way in durations.items()}
    with_transfer = ratio(
        "a step of the same with AFT, d = 2,560", steps, "beta=0", "1.08x", unit="ms"
    )
    others = [
        {
            "what": f"a step of the same with {name}",
            "floor": f"{1e3 * steps['beta=0']:.1f} ms",
            "ours": f"{1e3 * steps[name]:.1f} ms = {steps[name] / steps['beta=0']:.2f}x",
        }
        for name in list(ways)[2:]
    ]
    return [plain, with_transfer, *others]


def from_the_store(device: str) -> list[dict[str, Any]]:
    """Time an MLP with features of 20,000 rows, from the store and from memory.

    Those of the first width are read once, those of the second for each epoch.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 64)).astype(np.float32)
    y = rng.integers(0, 10, 20_000)
    student = AFTClassifier(beta=10, max_epochs=4, device=device, random_state=0)
    figures = []
    for width in (384, 2560):
        mixing = rng.normal(size=(64, width)).astype(np.float32)
        with tempfile.TemporaryDirectory() as directory:
            extractor = FoundationFeatureExtractor(lambda rows, m=mixing: rows @ m, cache=directory)
            stored = extractor.fit(X).transform(X)
            in_memory = np.asarray(stored)
            seconds = medians(
                {
                    "memory": lambda f=in_memory: student.fit(X, y, features=f),
                    "ours": lambda s=stored: student.fit(s, y),
                }
            )
        what = f"fit on features from the store, 20,000 x {width:,}"
        figures.append(ratio(what, seconds, "memory", "1.05x"))
    return figures


if __name__ == "__main__":
    main()
