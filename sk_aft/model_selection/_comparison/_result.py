"""TransferComparison: the scores and costs of the candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sk_aft._optional import import_optional
from sk_aft.model_selection._comparison._candidates import ALONE
from sk_aft.model_selection._comparison._html import fragment, page
from sk_aft.model_selection._comparison._records import Facts, Result
from sk_aft.model_selection._comparison._summary import (
    Estimate,
    difference,
    summarise,
    to_deploy,
)

if TYPE_CHECKING:
    from sk_aft.inspection._comparison import ComparisonDisplay


class TransferComparison:
    """The scores and costs of candidates on the same folds, as `compare_transfer` returns them.

    In a notebook it shows the summary, the table and the plot.

    Parameters
    ----------
    results : list of Result
        One for each candidate.
    facts : Facts
        What was compared on.
    gains : mapping of str to Estimate
        How much more labels, more unlabelled rows and a better teacher would help.
    left_out : mapping of str to str
        Why other candidates did not take part, by name.
    best_estimator : estimator or None
        The recommended candidate, fitted to all rows.

    Attributes
    ----------
    best_name_ : str
        The candidate that `summary` recommends to deploy. Some candidates score as high as the
        best, within one standard error; of these, it is the best that takes at most twice as long
        to predict as the fastest, or the student alone, if it is among them and a taught one would
        be chosen. Those that run a foundation model to predict count only if there are no others.
    best_estimator_ : estimator
        It, fitted to all rows, those without labels included if it learns from them.
    scores_ : dict of str to ndarray of shape (n_folds,)
        The scores of each candidate.
    left_out_ : dict of str to str
        Candidates that did not take part, and why.
    gains_ : dict of str to Estimate
        ``mean`` and ``standard_error`` of how much the score of the taught student would rise with
        twice the "labels", twice the "unlabelled rows", or "a better teacher" that makes a quarter
        fewer errors. Extrapolated, and empty where nothing was estimated.
    """

    def __init__(
        self,
        results: Sequence[Result],
        facts: Facts,
        *,
        gains: Mapping[str, Estimate],
        left_out: Mapping[str, str],
        best_estimator: Any,
    ) -> None:
        self._results, self._facts = list(results), facts
        self.gains_, self.left_out_ = dict(gains), dict(left_out)
        self.best_name_ = to_deploy(self._results).name
        self.best_estimator_ = best_estimator
        self.scores_ = {result.name: result.scores for result in self._results}

    def __repr__(self) -> str:
        facts = self._facts
        return (
            f"<TransferComparison of {len(self._results)} candidates on {facts.n_folds} folds of "
            f"{facts.n_labeled:,} labelled rows; best to deploy: {self.best_name_!r}>"
        )

    def frame(self) -> Any:
        """Return the table.

        Returns
        -------
        table : pandas.DataFrame
            A row for each candidate, the highest score first, named in the index. The columns are

            - title: what the candidate is,
            - role: "student", "rival", "added" (by the user), or "teacher", which runs a
              foundation model to predict,
            - score, standard_error: mean over the folds, and its standard error,
            - gain, gain_standard_error: mean difference to "student-alone" in the same folds, and
              its standard error; NaN if that did not take part,
            - fit_seconds: median time of a fit, without the features of frozen models,
            - megabytes: size of what is deployed, foundation models included,
            - ms_per_row, ms_per_row_of_256: milliseconds to predict a row, alone and in a batch of
              256, on one thread of this machine,
            - packages: what prediction imports.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = import_optional("pandas", extra="demo", purpose="the table of a comparison")
        alone = next((result for result in self._results if result.name == ALONE), None)
        lines = {}
        for result in sorted(self._results, key=lambda result: -result.scores.mean()):
            score = Estimate.of(result.scores)
            gain = Estimate(np.nan, np.nan, 0) if alone is None else difference(result, alone)
            lines[result.name] = {
                "title": result.title,
                "role": result.role,
                "score": score.mean,
                "standard_error": score.standard_error,
                "gain": gain.mean,
                "gain_standard_error": gain.standard_error,
                "fit_seconds": result.fit_seconds,
                "megabytes": result.cost.megabytes,
                "ms_per_row": result.cost.ms_per_row,
                "ms_per_row_of_256": result.cost.ms_per_row_of_256,
                "packages": result.cost.packages,
            }
        table = pandas.DataFrame.from_dict(lines, orient="index")
        return table.rename_axis("candidate")

    def plot(self, ax: Any = None) -> ComparisonDisplay:
        """Draw the scores against the time of a prediction, with the Pareto front.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw; default: new axes.

        Returns
        -------
        display : ComparisonDisplay
            With ``ax_`` and ``figure_``.
        """
        from sk_aft.inspection._comparison import ComparisonDisplay

        return ComparisonDisplay.from_estimator(self, ax=ax)

    def points(self) -> dict[str, Any]:
        """Return the arguments of a `sk_aft.inspection.ComparisonDisplay`.

        Returns
        -------
        points : dict
            Names, roles, scores, standard errors and costs of the candidates.
        """
        scores = [Estimate.of(result.scores) for result in self._results]
        return {
            "names": [result.name for result in self._results],
            "roles": [result.role for result in self._results],
            "scores": [score.mean for score in scores],
            "standard_errors": [score.standard_error for score in scores],
            "costs": [result.cost.ms_per_row for result in self._results],
            "scoring": self._facts.scoring,
        }

    def summary(self) -> str:
        """Return whether transfer pays, what to deploy, and what would help most.

        Returns
        -------
        summary : str
            Three sentences, one a line. The third is an extrapolation from the taught student with
            half of the labels and half of the unlabelled rows.
        """
        facts = self._facts
        return summarise(
            self._results,
            self.gains_,
            scoring=facts.scoring,
            n_unlabeled=facts.n_unlabeled,
            not_compared=facts.not_compared,
        )

    def to_html(self, path: Any = None, *, title: str = "Is transfer worth it?") -> str:
        """Return a page with the summary, the table and the plot, which needs no other file.

        Parameters
        ----------
        path : path-like, optional
            Where to write it, too.
        title : str, default="Is transfer worth it?"
            Title of the page.

        Returns
        -------
        html : str
            The page.
        """
        html = page(title, self._repr_html_())
        if path is not None:
            Path(path).write_text(html, encoding="utf-8")
        return html

    def _repr_html_(self) -> str:
        return fragment(
            self.summary(),
            self.frame(),
            best_name=self.best_name_,
            facts=self._facts,
            left_out=self.left_out_,
            plot=self.plot,
        )
