"""Prediction of a fitted student against its bare network, and the time that imports take.

python -m benchmarks.speed.prediction
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import torch

from benchmarks.speed._timing import medians, report
from sk_aft import AFTClassifier


def main() -> None:
    """Measure and print everything."""
    report("prediction", [*predictions(), imports()])


def predictions() -> list[dict[str, Any]]:
    """Time one row and a thousand, of numbers and of images."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(1000, 64)).astype(np.float32)
    images = rng.integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8)
    y = np.arange(1000) % 10
    figures = []
    for kind, X in (("table", table), ("images", images)):
        student = AFTClassifier(beta=0, max_epochs=1, random_state=0).fit(X, y)
        network = student.module_.eval()
        for n_rows, n_calls in ((1, 100), (1000, 2)):
            rows = X[:n_rows]
            inputs = torch.from_numpy(rows)
            if kind == "images":
                inputs = inputs.permute(0, 3, 1, 2).float() / 255

            def bare(network=network, inputs=inputs, n_calls=n_calls) -> None:
                with torch.inference_mode():
                    for _ in range(n_calls):
                        network(inputs)[0].argmax(dim=1).numpy()

            def ours(student=student, rows=rows, n_calls=n_calls) -> None:
                for _ in range(n_calls):
                    student.predict(rows)

            seconds = medians({"bare": bare, "ours": ours})
            floor, own = (1e3 * seconds[name] / n_calls for name in ("bare", "ours"))
            figures.append(
                {
                    "what": f"predict, {kind}, {n_rows} rows",
                    "floor": f"{floor:.3f} ms (bare network)",
                    "ours": f"{own:.3f} ms = {own / floor:.2f}x, {own - floor:+.3f} ms",
                    "target": "1.3x" if n_rows > 1 else "+0.3 ms",
                }
            )
    return figures


def imports() -> dict[str, Any]:
    """Time a fresh interpreter that imports and ends."""

    def fresh(package: str) -> None:
        subprocess.run([sys.executable, "-c", f"import {package}"], check=True)

    seconds = medians({"skorch": lambda: fresh("skorch"), "ours": lambda: fresh("sk_aft")})
    return {
        "what": "import sk_aft",
        "floor": f"{seconds['skorch']:.2f} s (import skorch)",
        "ours": f"{seconds['ours']:.2f} s = {seconds['ours'] / seconds['skorch']:.2f}x",
        "target": "1.15x",
    }


if __name__ == "__main__":
    main()
