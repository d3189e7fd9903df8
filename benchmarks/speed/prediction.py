"""Prediction of a fitted student, compared with its bare network under ``torch.inference_mode``.

    python -m benchmarks.speed.prediction

The bare network starts with a scaled tensor and ends with class numbers. For tables, a second
floor is what any server has to run: scikit-learn's scaler, and then the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.speed._timing import medians, options, report
from sk_aft import AFTClassifier


def main() -> None:
    """Measure and print everything."""
    device = options(__doc__).device
    rng = np.random.default_rng(0)
    table = rng.normal(size=(1000, 64)).astype(np.float32)
    images = rng.integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8)
    figures = []
    for kind, X in (("table", table), ("images", images)):
        student = AFTClassifier(beta=0, max_epochs=1, device=device, random_state=0)
        student.fit(X, np.arange(1000) % 10)
        for n_rows, n_calls in ((1, 100), (1000, 20 if kind == "table" else 1)):
            figures += predictions(kind, student, X[:n_rows], n_calls)
    report("prediction", figures, device)


def predictions(
    kind: str, student: AFTClassifier, rows: np.ndarray, n_calls: int
) -> list[dict[str, Any]]:
    """Time the predictions of some rows."""
    network = student.module_.eval()
    if kind == "images":
        inputs = torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255
    else:
        inputs = torch.from_numpy(student.preprocessor_.transform(rows))
    inputs = inputs.to(student.device_)

    def bare() -> None:
        with torch.inference_mode():
            network(inputs)[0].argmax(dim=1).cpu().numpy()

    def scaled() -> None:
        scaled_rows = torch.from_numpy(student.preprocessor_.transform(rows))
        with torch.inference_mode():
            network(scaled_rows.to(student.device_))[0].argmax(dim=1).cpu().numpy()

    ways = {"bare network": bare, "ours": lambda: student.predict(rows)}
    if kind == "table":
        ways["StandardScaler, bare network"] = scaled
    seconds = medians({name: repeated(way, n_calls) for name, way in ways.items()}, rounds=11)
    own = 1e3 * seconds.pop("ours") / n_calls
    target = {"target": "1.3x" if len(rows) > 1 else "+0.3 ms"}
    return [
        {
            "what": f"predict, {kind}, {len(rows)} row{'s' * (len(rows) > 1)}",
            "floor": f"{1e3 * least / n_calls:.3f} ms ({name})",
            "ours": f"{own:.3f} ms = {own * n_calls / least / 1e3:.2f}x, "
            f"{own - 1e3 * least / n_calls:+.3f} ms",
            **(target if name == "bare network" else {}),
        }
        for name, least in seconds.items()
    ]


def repeated(way: Callable[[], None], n_calls: int) -> Callable[[], None]:
    """Return a function that calls another some times."""

    def several() -> None:
        for _ in range(n_calls):
            way()

    return several


if __name__ == "__main__":
    main()
