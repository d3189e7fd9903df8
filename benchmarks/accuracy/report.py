"""Make the tables and figures of docs/guide/benchmarks.md and its annex from all suites' lines.

    python -m benchmarks.accuracy.report [--results DIR]

Each table replaces what stands between its marker, such as ``<!-- few -->``, and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.accuracy._figures import draw_costs, draw_few, draw_methods, draw_teachers
from benchmarks.accuracy._paper import PARTS
from benchmarks.accuracy._paper_tables import found, normalised, of_teachers, paper_tables
from benchmarks.accuracy._runs import RESULTS, Runs
from benchmarks.accuracy._scores import Scores
from benchmarks.accuracy._suites import (
    PSEUDO_LABELS_OF_TUNED,
    SUITES,
    TAUGHT_BY_TUNED,
    TUNED,
    TWO_OF_TUNED,
)
from benchmarks.accuracy._tables import summary, table, targets
from benchmarks.accuracy.pareto import table as costs_table

DOCS = Path(__file__).parents[2] / "docs"
PAGES = tuple(
    DOCS / page
    for page in (
        "guide/benchmarks.md",
        "guide/benchmarks_annex.md",
        "guide/models/predictors.md",
        "../README.md",
    )
)
_IN_README = {
    ("student alone", "float32"): "student alone",
    ("TF-IDF on pseudo-labels", "pickle"): "TF-IDF on labels of MiniLM's probe",
    ("model2vec", "float32"): "model2vec on the same labels",
    ("student", "float32"): "**student, taught by MiniLM**",
    ("probe", "int8 ONNX"): "MiniLM's probe itself, int8 in ONNX Runtime",
}
# They lie on other points of the figure of costs.
_NOT_DRAWN = (TUNED, TAUGHT_BY_TUNED, TWO_OF_TUNED, PSEUDO_LABELS_OF_TUNED)
_PANELS = {
    "Banking77, 10 a class": "banking77, 10 a class",
    "Banking77, all labels": "banking77, all",
}


def main() -> None:
    """Write tables and figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the lines are")
    results = parser.parse_args().results
    lacking = [name for name in (*SUITES, "paper") if not Runs(name, results).lines]
    if lacking or not costs_of(results):
        what = ", ".join([*lacking, *([] if costs_of(results) else ["pareto"])])
        sys.exit(f"{results} has no results of {what} yet: the pages would lose their tables.")
    texts = dict(tables(results))
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), texts), encoding="utf-8")
    draw(results)


def tables(results: Path) -> Iterator[tuple[str, str]]:
    """Yield the marker of each table, and the table."""
    scores = {suite: Scores(Runs(suite, results).lines) for suite in SUITES}
    yield "summary", "\n".join(summary(scores))
    for suite, of_suite in scores.items():
        columns = SUITES[suite].columns
        for kind in dict.fromkeys(column.kind for column in columns):
            own = [column for column in columns if column.kind == kind]
            yield f"{suite} {kind}", "\n".join(table(of_suite, own))
        lines = [f"- {line}" for line in targets(of_suite, columns)]
        yield f"{suite} targets", "\n".join(lines)
    paper = Runs("paper", results)
    yield from paper_tables(paper)
    if figures := costs_of(results):
        yield "pareto", costs_table(figures)
        yield "readme", "\n".join(readme_table(figures))


def costs_of(results: Path) -> list[dict[str, Any]]:
    """Return what the benchmark of costs has measured."""
    path = results / "pareto.json"
    return json.loads(path.read_text()) if path.exists() else []


def readme_table(figures: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the five rows of the README: errors and costs on texts with few labels."""
    by = {(one["method"], one["form"]): one for one in figures if one["data"] == "banking77"}
    yield "| | test error, % | MB on disk, with imported packages | ms for one text |"
    yield "|---|---|---|---|"
    for (method, form), label in _IN_README.items():
        if (method, form) in by:
            one = by[method, form]
            size = one["files_mb"] + one["packages_mb"]
            yield f"| {label} | {one['compared_error']:.1f} | {size:,.0f} | {one['ms_alone']:.2g} |"


def filled(page: str, texts: dict[str, str]) -> str:
    """Return a page with its tables replaced.

    Parameters
    ----------
    page : str
        Markdown with markers.
    texts : dict of str to str
        The table of each marker.
    """
    for marker, text in texts.items():
        start, end = f"<!-- {marker} -->\n", "<!-- end -->"
        if start in page:
            before, _, rest = page.partition(start)
            _, _, after = rest.partition(end)
            page = f"{before}{start}\n{text}\n\n{end}{after}"
    return page


def draw(results: Path) -> None:
    """Write the figures."""
    paper = Runs("paper", results)
    of_teachers_part = found(PARTS["teachers"](), paper)
    points = {
        title: of
        for title, column in _PANELS.items()
        if len(of := of_teachers(of_teachers_part, column, "auto")) > 2
    }
    figures = {"few": draw_few(Scores(Runs("few", results).lines), SUITES["few"].columns)}
    if ratios := normalised(found(PARTS["methods"](), paper)):
        figures["methods"] = draw_methods(ratios)
    of_texts = [
        one
        for one in costs_of(results)
        if one["data"] == "banking77"
        and one["error"] is not None
        and one["method"] not in _NOT_DRAWN
    ]
    if of_texts:
        figures["costs"] = draw_costs(of_texts)
    if points:
        figures["teachers"] = draw_teachers(points)
    for name, figure in figures.items():
        figure.savefig(DOCS / "images" / f"benchmarks_{name}.png", dpi=160)


if __name__ == "__main__":
    main()
