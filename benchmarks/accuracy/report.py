"""Make the tables and figures of docs/guide/benchmarks.md and its annex from all suites' lines.

    python -m benchmarks.accuracy.report [--results DIR]

Each table replaces what stands between its marker, such as ``<!-- few -->``, and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.accuracy._figures import draw_few, draw_methods, draw_teachers
from benchmarks.accuracy._paper import PARTS
from benchmarks.accuracy._paper_report import found, normalised, of_teachers, paper_tables
from benchmarks.accuracy._report import summary, table, targets
from benchmarks.accuracy._runs import RESULTS, Runs
from benchmarks.accuracy._scores import Scores
from benchmarks.accuracy._suites import SUITES

DOCS = Path(__file__).parents[2] / "docs"
PAGES = tuple(
    DOCS / "guide" / page
    for page in ("benchmarks.md", "benchmarks_annex.md", "models/predictors.md")
)
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
    if points:
        figures["teachers"] = draw_teachers(points)
    for name, figure in figures.items():
        figure.savefig(DOCS / "images" / f"benchmarks_{name}.png", dpi=160)


if __name__ == "__main__":
    main()
