"""The cost of each transfer objective, forward and backward, and of the product kernel.

    python -m benchmarks.speed.transfer_terms

The floor of a batch is two products of the size of the larger kernel: (B, d) with (d, B), and
(B, B) with (B, d). Takes five minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed._timing import medians, options, report
from sk_aft.transfer import KernelAlignment, ProductKernelAlignment, make_transfer

STUDENT_WIDTH = 128
N_CALLS = 200
SIZES = [(n_rows, width) for n_rows in (128, 512, 1024) for width in (384, 2560, 8192)]
# "aft" with a learned map of the student's features, and without as published.
METHODS: dict[str, dict[str, Any]] = {
    "aft": {"projection": 128},
    "aft, published": {"transfer": "aft"},
    "aft-fixed": {},
    "aft-dense": {},
    "aft-rbf": {},
    "aft-product": {},
    "kkd": {},
    "feature-regression": {},
    "kd": {},
    "rkd": {},
    "ft": {},
    # These two compare predictions, whatever the width of the features they were made from.
    "b-tuning": {},
    "probe-kd": {},
}
N_CLASSES = 10


def main() -> None:
    """Measure and print everything."""
    device = options(__doc__).device
    figures = []
    for n_rows, width in SIZES:
        figures += terms(n_rows, width, device)
    report("transfer_terms", [*figures, *product(device)], device)


def terms(n_rows: int, width: int, device: str) -> list[dict[str, Any]]:
    """Every objective for one size of batch."""
    torch.manual_seed(0)
    student = torch.randn(n_rows, STUDENT_WIDTH, device=device, requires_grad=True)
    foundation = torch.randn(n_rows, width, device=device)
    kernel = torch.randn(n_rows, n_rows, device=device)
    logits = torch.randn(n_rows, N_CLASSES, device=device, requires_grad=True)
    predictions = torch.randn(n_rows, N_CLASSES, device=device).softmax(dim=1)
    halves = {"image": slice(0, width // 2), "text": slice(width // 2, width)}
    n_calls = max(1, 128 * 2560 * 8 // (n_rows * width))
    ways = {}

    def floor() -> None:
        for _ in range(n_calls):
            foundation @ foundation.T
            kernel @ foundation

    for name, arguments in METHODS.items():
        if (name == "aft-dense" and width > 2560) or (name == "rkd" and n_rows > 512):
            continue  # a map of width x width; B^3 angles, which take 18 s for 1,024 rows
        method = make_transfer(
            **{"transfer": name, **arguments},
            n_features=width,
            n_student_features=STUDENT_WIDTH,
            n_outputs=N_CLASSES,
            column_slices=halves,
        ).to(device)
        compared = predictions if name in ("b-tuning", "probe-kd") else foundation
        extra = (logits,) if method.uses_logits else ()

        def step(
            method: torch.nn.Module = method, compared: Tensor = compared, extra: Any = extra
        ) -> None:
            for _ in range(n_calls):
                student.grad = logits.grad = None
                method.zero_grad()
                method(student, compared, *extra).backward()

        ways[name] = step
    seconds = medians({"floor": floor, **ways}, rounds=7)
    return [
        {
            "what": f"{name}, B = {n_rows}, d = {width}",
            "floor": f"{1e3 * seconds['floor'] / n_calls:.2f} ms",
            "ours": f"{1e3 * seconds[name] / n_calls:.2f} ms "
            f"= {seconds[name] / seconds['floor']:.1f}x",
            **({"target": "2x"} if name.partition(",")[0] == "aft" else {}),
        }
        for name in ways
    ]


def product(device: str) -> list[dict[str, Any]]:
    """Time the distance to products of 1,024 x 1,024 features, and the explicit way."""
    torch.manual_seed(0)
    student = torch.randn(128, STUDENT_WIDTH, device=device)
    image, text = torch.randn(128, 1024, device=device), torch.randn(128, 1024, device=device)
    both = torch.cat([image, text], dim=1)
    halves = {"image": slice(0, 1024), "text": slice(1024, 2048)}
    of_products = KernelAlignment(1024 * 1024, weights="fixed").to(device)
    by_column = ProductKernelAlignment(2048, halves, weights="fixed").to(device)

    def explicit() -> torch.Tensor:
        return of_products(student, torch.einsum("bi,bj->bij", image, text).flatten(1))

    def ours() -> torch.Tensor:
        for _ in range(N_CALLS):  # as often as in a training, not once after a pause
            distance = by_column(student, both)
        return distance

    torch.testing.assert_close(ours(), explicit(), atol=1e-4, rtol=0)  # float32's digits
    seconds = medians({"explicit": explicit, "ours": ours}, rounds=5)
    seconds["ours"] /= N_CALLS
    faster = seconds["explicit"] / seconds["ours"]
    figures = [
        {
            "what": "aft-product, 1,024 x 1,024, B = 128",
            "floor": f"{1e3 * seconds['explicit']:.0f} ms (explicit outer product)",
            "ours": f"{1e3 * seconds['ours']:.2f} ms, {faster:.0f}x faster",
        }
    ]
    if device == "cpu":
        figures.append(
            {
                "what": "aft-product, 1,024 x 1,024, B = 128: memory at its peak",
                "floor": f"{4 * 128 * 1024**2 / 1e6:.0f} MB (one explicit outer product)",
                "ours": f"{peak_bytes(lambda: by_column(student, both)) / 1e6:.2f} MB",
            }
        )
    return figures


def peak_bytes(way: Callable[[], Any]) -> int:
    """Return the most memory that a call holds at a time beyond what it was given."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        way()
    now = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


if __name__ == "__main__":
    main()
