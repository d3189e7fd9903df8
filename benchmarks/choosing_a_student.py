"""The table and the plot of docs/guide/choosing_a_student.md, from results of other benchmarks.

    python -m benchmarks.choosing_a_student

Errors are those of benchmarks.text_students and benchmarks.image_students, times those of
benchmarks.speed.text_prediction and benchmarks.speed.image_students. Prints the table, and writes
``docs/images/students.png``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results"
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "students.png"
ALONE = "alone"
_ALONE, _TAUGHT = "#3b8ec2", "#c2410c"  # colours


class Student(NamedTuple):
    """A student, and under which names it is in the results.

    Parameters
    ----------
    name : str
        Name in the table.
    in_results : str
        Name in the errors.
    in_times : str
        Name in the times.
    tasks : dict of str to str
        Title of each task.
    """

    name: str
    in_results: str
    in_times: str
    tasks: dict[str, str]


_TEXTS = {
    "banking77:10": "Banking77, 10 labels a class",
    "trec:all": "TREC, 5,452 labels",
    "sst2:all": "SST-2, 6,920 labels",
}
_IMAGES = {
    "cifar10:100": "CIFAR-10, 100 labels",
    "cifar10:1000": "CIFAR-10, 1,000 labels",
    "chest_xray:all": "chest X-rays, 899 labels",
}
STUDENTS = [
    Student("`StaticText`", "static", "static", _TEXTS),
    Student(
        "`TransformerText`, 2 layers",
        "first 2 layers of MiniLM",
        "first 2 layers of MiniLM",
        _TEXTS,
    ),
    Student("`ResNet`, 32 px", "ResNet from scratch", "ResNet, 32 px", _IMAGES),
    Student("`EfficientNetLite`, 8 blocks", "Lite0, 8 blocks", "8 blocks, 64 px", _IMAGES),
]


class Row(NamedTuple):
    """A student and a task: test errors in per cent, weights and milliseconds of one row."""

    student: str
    task: str
    alone: float
    taught: float | None
    n_weights: int
    milliseconds: float


def lines(name: str) -> list[dict[str, Any]]:
    """Return the lines of a benchmark of accuracy."""
    return [json.loads(line) for line in (RESULTS / name).open()]


def milliseconds(name: str, what: str) -> dict[str, float]:
    """Return the time of one row of each student, and that of the floor."""
    figures = json.loads((RESULTS / name).read_text())["figures"]
    times = {}
    for figure in figures:
        measured, _, student = figure["what"].partition(": ")
        if measured == what:
            times[student] = float(figure["ours"].split()[0])
            times["floor"] = float(figure["floor"].split()[0])
    return times


def rows() -> list[Row]:
    """Return all rows of the table for which there are results."""
    errors = lines("text_students.jsonl") + lines("image_students.jsonl")
    times = milliseconds("text_prediction.json", "predict, 1 text")
    times |= milliseconds("image_students.json", "predict, 1 image")
    table = []
    for student in STUDENTS:
        for task, title in student.tasks.items():
            own = {
                line["method"]: line
                for line in errors
                if (line.get("student"), line["task"]) == (student.in_results, task)
            }
            if not own:
                continue
            taught = [line for method, line in own.items() if method != ALONE]
            best = max(taught, key=lambda line: line["validation"], default=None)
            table.append(
                Row(
                    student.name,
                    title,
                    float(np.mean(own[ALONE]["errors"])),
                    None if best is None else float(np.mean(best["errors"])),
                    own[ALONE]["n_weights"],
                    times[student.in_times],
                )
            )
    return table


def print_table(table: list[Row]) -> None:
    """Print the table as Markdown."""
    print("| student | task | error alone | error taught | weights | ms a row |")
    print("|---|---|---|---|---|---|")
    for row in table:
        taught = "" if row.taught is None else f"{row.taught:.1f}"
        print(
            f"| {row.student} | {row.task} | {row.alone:.1f} | {taught} "
            f"| {row.n_weights / 1e6:.2f} M | {row.milliseconds:.2g} |"
        )


def draw(table: list[Row]) -> None:
    """Draw errors against the time of a prediction, a panel for each task."""
    from matplotlib import pyplot as plt

    titles = list(dict.fromkeys(row.task for row in table))
    figure, panels = plt.subplots(
        2, 3, figsize=(10, 6.4), constrained_layout=True, sharex=True, squeeze=False
    )
    markers = {student.name: marker for student, marker in zip(STUDENTS, "os^D", strict=True)}
    for panel in panels.flat[len(titles) :]:
        panel.set_axis_off()
    for panel, title in zip(panels.flat, titles, strict=False):
        for row in table:
            if row.task != title:
                continue
            errors = [row.alone] if row.taught is None else [row.alone, row.taught]
            times, marker = len(errors) * [row.milliseconds], markers[row.student]
            panel.plot(times, errors, "-", color="#9ca3af", linewidth=1, zorder=0)
            panel.plot(times[0], errors[0], marker, color=_ALONE, mfc="white", ms=9, mew=1.5)
            panel.plot(times[1:], errors[1:], marker, color=_TAUGHT, ms=9)
        highest = max(max(row.alone, row.taught or 0) for row in table if row.task == title)
        panel.set(xscale="log", xlim=(0.3, 12), ylim=(0, 1.15 * highest))
        panel.set_title(title, fontsize=10)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
    shown = dict.fromkeys(row.student for row in table)
    handles = [
        *(panels[0, 0].plot([], [], markers[x], color="#374151", mfc="white")[0] for x in shown),
        panels[0, 0].plot([], [], "o", color=_ALONE, mfc="white")[0],
        panels[0, 0].plot([], [], "o", color=_TAUGHT)[0],
    ]
    names = [*(name.replace("`", "") for name in shown), "alone", "taught"]
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel("milliseconds per prediction, one row on one thread", fontsize=10)
    figure.supylabel("test error (%)", fontsize=10)
    figure.savefig(FIGURE, dpi=120)


if __name__ == "__main__":
    found = rows()
    print_table(found)
    draw(found)
    print(f"Figure: {FIGURE}")
