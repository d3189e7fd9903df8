"""The time of importing the package in a fresh interpreter, compared with skorch alone.

python -m benchmarks.speed.imports
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.speed._timing import medians, options, ratio, report


def main() -> None:
    """Measure and print it."""
    options(__doc__)

    def fresh(package: str) -> None:
        subprocess.run([sys.executable, "-c", f"import {package}"], check=True)

    ways = {"import skorch": lambda: fresh("skorch"), "ours": lambda: fresh("sk_aft")}
    report("imports", [ratio("import sk_aft", medians(ways, rounds=9), "import skorch", "1.15x")])


if __name__ == "__main__":
    main()
