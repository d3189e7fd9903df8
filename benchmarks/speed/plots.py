"""Draw the results of the benchmarks of speed into docs/images.

python -m benchmarks.speed.plots
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from benchmarks.speed._timing import RESULTS

IMAGES = Path(__file__).parents[2] / "docs" / "images"
AXES = {
    "rows": "rows (d = 384, B = 128)",
    "width": "width d (20,000 rows, B = 128)",
    "batch": "batch B (20,000 rows, d = 2,560)",
}
WITHOUT, WITH = "#888888", "#1f77b4"


def main() -> None:
    """Draw every figure whose results there are."""
    for draw in (growth, terms):
        draw()


def growth() -> None:
    """Time and peak memory of one epoch against rows, width and batch."""
    figures = read("growth")
    panels, axes = plt.subplots(2, 3, figsize=(11, 5.6), sharey="row", constrained_layout=True)
    for column, (axis, title) in enumerate(AXES.items()):
        points = [figure for figure in figures if figure["axis"] == axis]
        values = [point["value"] for point in points]
        for row, (quantity, label) in enumerate(
            (("seconds", "seconds an epoch"), ("MB", "peak memory in MB"))
        ):
            panel = axes[row, column]
            for way, color in (("without", WITHOUT), ("with transfer", WITH)):
                name = "beta=0" if way == "without" else "AFT"
                panel.plot(
                    values, [p[way][quantity] for p in points], "o-", color=color, label=name
                )
            panel.set_xscale("log")
            if quantity == "seconds":
                panel.set_yscale("log")
            else:
                panel.set_ylim(0, None)
            panel.grid(alpha=0.3)
            panel.set_xlabel(title if row else "")
            panel.set_ylabel("" if column else label)
    axes[0, 0].legend(frameon=False)
    panels.savefig(IMAGES / "speed_growth.png", dpi=130)


def terms() -> None:
    """Seconds of each transfer objective relative to two products of matrices."""
    figures = [figure for figure in read("transfer_terms") if ", B = " in figure["what"]]
    ratios: dict[str, dict[str, float]] = {}
    for figure in figures:
        if "= " in figure["ours"] and figure["ours"].endswith("x"):
            name, _, size = figure["what"].partition(", B = ")
            ratios.setdefault(name, {})[f"B = {size}"] = float(figure["ours"].split("= ")[1][:-1])
    sizes = list(next(iter(ratios.values())))
    panel, axes = plt.subplots(figsize=(9, 4.6), constrained_layout=True)
    for number, (name, of_sizes) in enumerate(ratios.items()):
        if name in ("b-tuning", "probe-kd"):
            continue  # next to nothing
        is_main = name.partition(",")[0] == "aft"
        places = [sizes.index(size) for size in of_sizes]
        axes.plot(
            places,
            list(of_sizes.values()),
            "o-",
            color=f"C{number % 10}" if number < 10 else "black",
            lw=2.5 if is_main else 1,
            label=name,
        )
    axes.axhline(2, color="black", lw=0.8, ls="--")
    axes.set_yscale("log")
    axes.set_xticks(range(len(sizes)), sizes, rotation=25, ha="right")
    axes.set_ylabel("time beside two matrix products")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, ncols=2, fontsize=8)
    panel.savefig(IMAGES / "speed_terms.png", dpi=130)


def read(name: str) -> list[dict[str, Any]]:
    """Return the figures of one benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())["figures"]


if __name__ == "__main__":
    main()
