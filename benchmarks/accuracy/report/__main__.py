"""Make the tables and figures of docs/benchmarks.md, and those of the README, from the runs.

    python -m benchmarks.accuracy.report

Tables between ``<!-- NAME -->`` and ``<!-- end -->`` are replaced. With ``--quick`` or
``--results DIR``, tables are printed instead, and figures are saved next to the lines. Experiments
with fewer runs than ``--seeds`` are left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.accuracy._runs import RESULTS, Runs
from benchmarks.accuracy._suites import (
    BAG,
    IN_MEANS,
    LARGE,
    OF_TEACHERS,
    SMALL,
    SUITES,
    TEXT_STEPS,
    TRANSFORMER,
    quick,
    sensitivity,
)
from benchmarks.accuracy.pareto import COSTS
from benchmarks.accuracy.report import _figures
from benchmarks.accuracy.report._scores import Scores, scores
from benchmarks.accuracy.report._tables import (
    comparison,
    correlations,
    costs_table,
    mean_normalized,
    means_table,
    steps_table,
    teachers_table,
)

_NOT_RUN = "*(The runs for this table are not made yet.)*"
_ROOT = Path(__file__).parents[3]
_PAGES = (_ROOT / "docs" / "benchmarks.md", _ROOT / "README.md")


def main() -> None:
    """Make the tables and figures that there are runs for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the lines are")
    parser.add_argument("--quick", action="store_true", help="of the runs made with --quick")
    parser.add_argument("--seeds", type=int, default=3, help="of the runs; default: 3")
    chosen = parser.parse_args()
    report = Report(chosen.results, chosen.seeds, is_quick=chosen.quick)
    if not any(report.results.glob("*.jsonl")):
        sys.exit(
            f"There are no runs in {report.results}. Runs made with --quick need it here, too."
        )
    tables = report.tables()
    images = _figures.IMAGES
    if chosen.quick or chosen.results != RESULTS:
        images = report.results
        print(*(f"{name}\n\n{table}\n" for name, table in tables.items() if table), sep="\n")
    else:
        for page in _PAGES:
            page.write_text(_filled(page.read_text(), tables))
    for name, figure in report.figures().items():
        path = images / f"benchmarks_{name}.png"
        figure.savefig(path, dpi=150)
        print(f"drawn: {path}")


class Report:
    """Tables and figures of the lines in one folder.

    Parameters
    ----------
    results : Path
        Of all lines.
    n_seeds : int, default=3
        How many runs there have to be.
    is_quick : bool, default=False
        Whether to take those of quick runs there, of one seed.
    """

    def __init__(self, results: Path, n_seeds: int = 3, *, is_quick: bool = False) -> None:
        self.results = results / "quick" if is_quick else results
        self.n_seeds = 1 if is_quick else n_seeds
        self.is_quick = is_quick

    @property
    def _few_steps(self) -> tuple[int, int]:
        return 0, TEXT_STEPS // 10 if self.is_quick else TEXT_STEPS

    def _found(self, suite: str) -> list[Scores]:
        experiments = SUITES[suite]()
        if self.is_quick:
            experiments = map(quick, experiments)
        return scores(experiments, self.n_seeds, self.results)

    def tables(self) -> dict[str, str]:
        """Return each table; empty where there are no runs for it."""
        language, vision = self._found("language"), self._found("vision")
        many_steps = [one for one in language if one.experiment.steps not in self._few_steps]
        bags = [one for one in language if one not in many_steps]
        tables = {
            "language": comparison(bags, BAG),
            "language, more steps": comparison(
                [*many_steps, *(one for one in bags if not one.experiment.student)], BAG
            ),
            "language transformer": comparison(
                [one for one in language if one.experiment.student == TRANSFORMER], TRANSFORMER
            ),
            "steps": "" if self.is_quick else steps_table(self._found("steps"), self.results),
            "methods": means_table(self._found("methods"), IN_MEANS),
            "teachers": teachers_table(self._found("teachers")),
            "correlations": correlations(self._found("teachers"), OF_TEACHERS),
        }
        for student in (SMALL, f"{SMALL}, not augmented", LARGE):
            of_student = [one for one in vision if one.experiment.student in (student, "")]
            tables[f"vision {student}"] = comparison(of_student, student)
        for name in ("multimodal", "ablation"):
            found = self._found(name)
            for student in dict.fromkeys(one.experiment.student for one in found):
                tables[f"{name} {student}"] = comparison(found, student)
        labels = self._found("labels")
        for data in dict.fromkeys(one.experiment.data for one in labels):
            of_data = [one for one in labels if one.experiment.data == data]
            tables[f"labels {data}"] = comparison(of_data, of_data[0].experiment.student)
        if costs := self._costs():
            tables["pareto"] = costs_table(self._found("pareto"), costs)
        return tables

    def figures(self) -> dict[str, Figure]:
        """Draw each figure that there are runs for."""
        drawn = {}
        if mean_normalized(methods := self._found("methods"), IN_MEANS):
            drawn["methods"] = _figures.draw_methods(methods)
        if correlations(teachers := self._found("teachers"), OF_TEACHERS):
            drawn["teachers"] = _figures.draw_teachers(teachers)
        if labels := self._found("labels"):
            drawn["labels"] = _figures.draw_labels(labels)
        is_tried = any(len(Runs(one.data, self.results)) for one in sensitivity())
        if is_tried and not self.is_quick:
            drawn["sensitivity"] = _figures.draw_sensitivity(self.results)
        if costs := self._costs():
            drawn["pareto"] = _figures.draw_pareto(self._found("pareto"), costs)
        return drawn

    def _costs(self) -> list[dict[str, Any]]:
        path = self.results / COSTS.name
        return json.loads(path.read_text()) if path.exists() else []


def _filled(page: str, tables: dict[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- {name} -->\n\n{tables.get(name) or _NOT_RUN}\n\n<!-- end -->"

    return re.sub(r"<!-- ([^\n]+?) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


if __name__ == "__main__":
    main()
