"""The cost of callbacks, printed lines and progress bars.

    python -m benchmarks.speed.callbacks

A small perceptron, whose steps are the shortest, and a small ResNet are trained with skorch's
callbacks, and with the learning rate schedule only. Texts are embedded with and without a progress
bar. Takes about three minutes on two cores.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone
from skorch.callbacks import ProgressBar

from benchmarks.speed._timing import medians, options, report
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.modules import MLP, ResNet


def main() -> None:
    """Measure and print everything."""
    device = options(__doc__).device
    rng = np.random.default_rng(0)
    table = rng.normal(size=(20_000, 64)).astype(np.float32)
    images = rng.integers(0, 256, (1024, 32, 32, 3), dtype=np.uint8)
    perceptron = AFTClassifier(
        MLP, module__hidden_sizes=(128,), beta=0, max_epochs=5, device=device, random_state=0
    )
    residual = AFTClassifier(ResNet, beta=0, max_epochs=1, device=device, random_state=0)
    figures = [
        *trainings("MLP 64-128-10", perceptron, table, rng.integers(0, 10, 20_000)),
        *trainings("ResNet, 32 x 32", residual, images, rng.integers(0, 10, 1024)),
        embedding(table, device),
    ]
    report("callbacks", figures, device)


def trainings(
    what: str, student: AFTClassifier, X: np.ndarray, y: np.ndarray
) -> list[dict[str, Any]]:
    """Time one training in several ways."""
    bare = clone(student).set_params(callbacks__epoch_timer=None, callbacks__print_log=None)
    told = clone(student).set_params(verbose=1)
    barred = clone(student).set_params(verbose=1, callbacks=[ProgressBar()])
    ways = {
        "bare": bare,
        "the callbacks of verbose=0": student,
        "a line an epoch, verbose=1": told,
        "that and skorch's ProgressBar": barred,
    }
    seconds = medians(
        {name: quietly(lambda s=way: s.fit(X, y)) for name, way in ways.items()}, rounds=15
    )
    return [cost(f"{what}: {name}", seconds["bare"], seconds[name]) for name in list(ways)[1:]]


def embedding(X: np.ndarray, device: str) -> dict[str, Any]:
    """Time an extraction whose model takes next to no time."""
    mixing = np.random.default_rng(0).normal(size=(64, 384)).astype(np.float32)

    def embed(rows: np.ndarray) -> np.ndarray:
        return np.tanh(rows @ mixing)

    def way(verbose: int) -> Callable[[], Any]:
        extractor = FoundationFeatureExtractor(embed, cache=None, device=device, verbose=verbose)
        return quietly(lambda: extractor.fit_transform(X).features)

    seconds = medians({"bare": way(0), "bar": way(1)}, rounds=15)
    return cost("extraction, 20,000 x 384: the bar of verbose=1", seconds["bare"], seconds["bar"])


def quietly(call: Callable[[], Any]) -> Callable[[], None]:
    """Return the call with what it prints thrown away."""

    def way() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            call()

    return way


def cost(what: str, floor: float, own: float) -> dict[str, Any]:
    """Return a figure."""
    return {
        "what": what,
        "floor": f"{1e3 * floor:.0f} ms",
        "ours": f"{1e3 * own:.0f} ms = {own / floor - 1:+.1%}",
        "target": "+2%",
    }


if __name__ == "__main__":
    main()
