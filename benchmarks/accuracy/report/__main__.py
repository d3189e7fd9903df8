"""Make the tables and figures of docs/benchmarks.md, and those of the README, from the runs.

    python -m benchmarks.accuracy.report

A table stands between ``<!-- NAME -->`` and ``<!-- end -->``, and is replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.accuracy._suites import BAG, COMPARED, LARGE, SMALL, SUITES, TRANSFORMER
from benchmarks.accuracy.pareto import COSTS
from benchmarks.accuracy.report import _figures
from benchmarks.accuracy.report._scores import Scores, scores
from benchmarks.accuracy.report._tables import (
    comparison,
    correlations,
    costs_table,
    means_table,
    teachers_table,
)

_NOT_RUN = "*(The runs for this table are not made yet.)*"
_ROOT = Path(__file__).parents[3]
_PAGES = (_ROOT / "docs" / "benchmarks.md", _ROOT / "README.md")


def main() -> None:
    """Replace the tables and draw the figures that there are runs for."""
    tables = _tables()
    for page in _PAGES:
        page.write_text(_filled(page.read_text(), tables))
    for name, figure in _drawn().items():
        figure.savefig(_figures.IMAGES / f"benchmarks_{name}.png", dpi=150)


def _found(suite: str) -> list[Scores]:
    return scores(SUITES[suite]())


def _tables() -> dict[str, str]:
    language, vision = _found("language"), _found("vision")
    tables = {
        "language": comparison(language, BAG),
        "language transformer": comparison(
            [one for one in language if one.experiment.student == TRANSFORMER], TRANSFORMER
        ),
        "methods": means_table(_found("methods"), COMPARED),
        "teachers": teachers_table(_found("teachers")),
        "correlations": correlations(_found("teachers"), ("aft", "kd")),
    }
    for student in (SMALL, f"{SMALL}, not augmented", LARGE):
        of_student = [one for one in vision if one.experiment.student in (student, "")]
        tables[f"vision {student}"] = comparison(of_student, student)
    for name in ("multimodal", "labels", "ablation"):
        found = _found(name)
        for student in dict.fromkeys(one.experiment.student for one in found):
            tables[f"{name} {student}"] = comparison(found, student)
    if COSTS.exists():
        tables["pareto"] = costs_table(_found("pareto"), json.loads(COSTS.read_text()))
    return tables


def _drawn() -> dict[str, Figure]:
    draw: dict[str, Callable[[], Figure]] = {
        "methods": lambda: _figures.draw_methods(_found("methods")),
        "teachers": lambda: _figures.draw_teachers(_found("teachers")),
        "labels": lambda: _figures.draw_labels(_found("labels")),
    }
    if _found("sensitivity"):
        draw["sensitivity"] = _figures.draw_sensitivity
    if COSTS.exists():
        costs = json.loads(COSTS.read_text())
        draw["pareto"] = lambda: _figures.draw_pareto(_found("pareto"), costs)
    return {name: function() for name, function in draw.items()}


def _filled(page: str, tables: dict[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- {name} -->\n\n{tables.get(name) or _NOT_RUN}\n\n<!-- end -->"

    return re.sub(r"<!-- (.+?) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


if __name__ == "__main__":
    main()
