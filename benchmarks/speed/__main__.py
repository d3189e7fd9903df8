"""All benchmarks of speed, one after the other, each in a separate process.

    python -m benchmarks.speed [--data DIR] [--device cuda]

Results go to benchmarks/results, plots to docs/images. Takes 48 minutes on two cores; do not run
anything else meanwhile.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.speed._timing import options

ON_ANY_DEVICE = ("training", "transfer_terms", "prediction", "callbacks", "growth", "throughput")
ON_A_CPU = (
    "embedding",
    "text_prediction",
    "image_students",
    "grid_search",
    "store",
    "imports",
    "serving",
    "clusters",
)


def main() -> None:
    """Run them."""
    chosen = options(__doc__)
    names = (*ON_ANY_DEVICE, *(ON_A_CPU if chosen.device == "cpu" else ()), "plots")
    arguments = ["--device", chosen.device]
    if chosen.data:
        arguments += ["--data", chosen.data]
    failed = []
    for name in names:
        print(f"\n{name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.speed.{name}"]
        if name != "plots":
            command += arguments
        if subprocess.run(command).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
