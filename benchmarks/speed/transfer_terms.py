"""What each transfer objective costs, forward and backward, and the product kernel.

    python -m benchmarks.speed.transfer_terms

The floor of a batch is two products of the size of the larger kernel: (B, d) with (d, B), and
(B, B) with (B, d).
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.speed._timing import medians, report
from sk_aft.transfer import make_transfer
from sk_aft.transfer._kernels import product_kernel, unit_rows

STUDENT_WIDTH = 128
N_CALLS = 200
NAMES = ("aft", "aft-fixed", "aft-dense", "aft-rbf", "kkd", "feature-regression", "kd", "rkd")


def main() -> None:
    """Measure and print everything."""
    figures = []
    for n_rows, width in ((128, 384), (128, 2560), (512, 2560), (1024, 2560), (128, 8192)):
        figures += terms(n_rows, width)
    report("transfer_terms", [*figures, product()])


def terms(n_rows: int, width: int) -> list[dict[str, Any]]:
    """Every objective for one size of batch."""
    torch.manual_seed(0)
    student = torch.randn(n_rows, STUDENT_WIDTH, requires_grad=True)
    foundation = torch.randn(n_rows, width)
    kernel = torch.randn(n_rows, n_rows)

    def step(method: torch.nn.Module) -> None:
        student.grad = None
        method.zero_grad()
        method(student, foundation).backward()

    sizes = {"n_student_features": STUDENT_WIDTH, "n_outputs": 10}
    names = [name for name in NAMES if name != "aft-dense" or width < 8192]
    methods = {name: make_transfer(name, width, **sizes) for name in names}

    def floor() -> None:
        foundation @ foundation.T
        kernel @ foundation

    ways = {name: lambda m=method: step(m) for name, method in methods.items()}
    seconds = medians({"floor": floor, **ways}, rounds=21)
    return [
        {
            "what": f"{name}, B = {n_rows}, d = {width}",
            "floor": f"{1e3 * seconds['floor']:.2f} ms",
            "ours": f"{1e3 * seconds[name]:.2f} ms = {seconds[name] / seconds['floor']:.1f}x",
            **({"target": "2x"} if name == "aft" else {}),
        }
        for name in names
    ]


def product() -> dict[str, Any]:
    """Time product kernels of 1,024 x 1,024 features and 128 rows, and the explicit way."""
    torch.manual_seed(0)
    image, text = torch.randn(128, 1024), torch.randn(128, 1024)

    def explicit() -> torch.Tensor:
        unit = unit_rows(torch.einsum("bi,bj->bij", image, text).flatten(1))
        return unit @ unit.T

    def ours() -> torch.Tensor:
        for _ in range(N_CALLS):  # as often as in a training, not once after a pause
            kernel = product_kernel((image, text))
        return kernel

    torch.testing.assert_close(ours(), explicit(), atol=1e-4, rtol=0)  # float32's digits
    seconds = medians({"explicit": explicit, "ours": ours}, rounds=5)
    seconds["ours"] /= N_CALLS
    faster = seconds["explicit"] / seconds["ours"]
    return {
        "what": "product kernel, 1,024 x 1,024, B = 128",
        "floor": f"{1e3 * seconds['explicit']:.0f} ms (explicit outer product)",
        "ours": f"{1e3 * seconds['ours']:.2f} ms, {faster:.0f}x faster",
        "target": "1000x faster",
    }


if __name__ == "__main__":
    main()
