"""compare_transfer: whether a small network with a large teacher is worth it on some data."""

from __future__ import annotations

import time
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from sk_aft._extractor import FoundationFeatureExtractor
from sk_aft.model_selection._comparison._candidates import (
    BOOSTING,
    READ_FEATURES,
    choose_candidates,
    choose_models,
    fingerprints,
    names_of_models,
)
from sk_aft.model_selection._comparison._data import (
    ComparisonData,
    check_data,
    check_numbers,
)
from sk_aft.model_selection._comparison._race import LEARNING_CURVE, Race
from sk_aft.model_selection._comparison._records import Facts, Result
from sk_aft.model_selection._comparison._result import TransferComparison
from sk_aft.model_selection._comparison._rivals import with_features
from sk_aft.model_selection._comparison._scores import FoldScores, check_scorer, with_methods
from sk_aft.model_selection._comparison._summary import expected_gains, to_deploy
from sk_aft.model_selection._comparison._time import estimate_time
from sk_aft.model_selection._comparison._time_words import duration


def compare_transfer(
    X: Any,
    y: Any,
    *,
    X_unlabeled: Any = None,
    missing_label: Any = None,
    models: Any = "auto",
    candidates: Any = "auto",
    cv: Any = 5,
    scoring: Any = None,
    time_budget: float | None = None,
    task: str = "auto",
    random_state: Any = None,
    n_jobs: int | None = None,
    verbose: int = 1,
) -> TransferComparison:
    """Compare a taught student with its rivals on your data, on the same folds.

    This takes minutes: it says how many before it starts. It is resumable: a call with the same
    arguments reads the fits that are done from the cache.

    Parameters
    ----------
    X : list, array, Series or DataFrame of n_rows rows
        Texts, images, numbers or columns of several kinds, as for `AFTClassifier`.
    y : array-like of shape (n_rows,)
        Their classes or numbers.
    X_unlabeled : list, array, Series or DataFrame, optional
        More rows, without labels, in the same form as X.
    missing_label : int, float, str or None, default=None
        Marks unknown labels in y, as in `AFTClassifier`; None means that all are known.
    models : str, Backbone, predictor, or list or mapping of these, default="auto"
        What teaches, as for `FoundationFeatureExtractor`. "auto" is "minilm" for texts and
        "effnet-lite2" for images, also in the columns of a DataFrame, and gradient boosting
        (`TeacherPredictions`) for rows of numbers and categories. None leaves the students out.
    candidates : "auto", list or dict, default="auto"
        What is compared.

        - "auto": everything in the notes that fits the rows.
        - A list: names from the notes, and pairs (name, estimator) of your own; "auto" stands for
          all automatic ones.
        - A dict of names to estimators: these besides the automatic ones.
    cv : int, splitter or iterable, default=5
        Folds of the labelled rows. A number shuffles them, stratified by class.
    scoring : str, callable or None, default=None
        A scorer of scikit-learn; None is accuracy, or R² for numbers.
    time_budget : float or None, default=None
        Seconds. The most expensive candidates are left out until the rest is expected to fit, and
        later if they take longer than expected. "student-alone" and "student" always take part.
    task : {"auto", "classification", "regression"}, default="auto"
        What y is. "auto" takes fractions, and floats of which most differ, for numbers, and
        everything else for classes.
    random_state : int, RandomState or None, default=None
        Determines folds, initial weights and samples. None is the same as 0, because an
        interrupted comparison could not be resumed otherwise.
    n_jobs : int or None, default=None
        Folds that are fitted at the same time. Times of fits and predictions then are those of a
        busy machine.
    verbose : int, default=1
        1 prints the expected time and shows a progress bar; 0 is quiet.

    Returns
    -------
    comparison : TransferComparison
        With ``frame()``, ``plot()``, ``summary()``, ``to_html()`` and ``best_estimator_``.

    Raises
    ------
    ValueError
        Before any work: if rows and labels do not fit each other, if there is one class, if y
        looks continuous but is not, if there are fewer rows than folds, or if a candidate is
        unknown.

    Notes
    -----
    The automatic candidates are

    - of texts: "tf-idf" (with a logistic regression), "probe" (a logistic regression on the
      features of the foundation model), "pseudo-labels" (TF-IDF learns what the probe predicts for
      the rows without labels), "static-embeddings" (means of the foundation model's vectors of
      words),
    - of images: "hog-svm" (needs scikit-image) and "probe",
    - of numbers and categories: "boosting", "linear" and "mlp",
    - of all: "student-alone", "student" (taught with default settings), "student-of-tuned" (taught
      by a fine-tuned foundation model, or by tuned boosting) and "tuned-teacher".

    Each rival chooses its main hyper-parameter by cross-validation within the training rows of a
    fold; students have their default settings. Regressions take the place of classifiers for
    numbers. The rows without labels are given to those that can use them.

    A standard error is that of the mean over the folds. Folds share training rows, so it is too
    small by an unknown factor. Features of frozen models are computed once for all folds.

    Results are kept in the directory "comparisons" of the cache (``SK_AFT_CACHE``). Those of
    estimators whose code is not part of an installed package are not kept.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_aft.model_selection import compare_transfer
    >>> X, y = load_iris(return_X_y=True)
    >>> comparison = compare_transfer(
    ...     X, y, candidates=["linear", "student-alone", "student"], cv=2, verbose=0
    ... )
    >>> sorted(comparison.frame().index)
    ['linear', 'student', 'student-alone']
    """
    start = time.perf_counter()
    seed = _seed(random_state)
    if time_budget is not None and not (isinstance(time_budget, Real) and time_budget > 0):
        raise ValueError(f"time_budget is {time_budget!r}, expected a number of seconds above 0.")
    data = check_data(
        X, y, X_unlabeled=X_unlabeled, missing_label=missing_label, cv=cv, task=task, seed=seed
    )
    scorer = check_scorer(scoring, data)
    is_automatic = isinstance(models, str) and models == "auto"
    models = choose_models(models, data, seed)
    lineup = with_methods(choose_candidates(candidates, data, models, seed), scorer)
    featured = with_features(models)
    extractor = None
    if featured is not None and any(one.name in READ_FEATURES for one in lineup.candidates):
        extractor = FoundationFeatureExtractor(featured)
    if models is not None:
        check_numbers(data)
    scores = FoldScores(
        data,
        scorer,
        lineup.candidates,
        fingerprints=fingerprints(featured),
        random_state=seed,
    )
    race = Race(
        scores,
        lineup.candidates,
        n_folds=len(data.folds),
        has_unlabeled=bool(len(data.unlabeled)),
        n_jobs=n_jobs,
    )
    seconds = race.plan(estimate_time(data, race.to_fit(), extractor), time_budget)
    if verbose:
        print(_announcement(data, race, seconds, time_budget))
    feature_start = time.perf_counter()
    if extractor is not None:
        extractor.set_params(verbose=verbose).precompute(data.X)
    feature_seconds = time.perf_counter() - feature_start
    deadline = np.inf if time_budget is None else start + time_budget
    runs = race.run(deadline, verbose=verbose)

    results = [Result.of(candidate, of_folds) for candidate, of_folds in runs]
    targets = np.concatenate([data.targets[test] for _, test in data.folds])
    gains = expected_gains(
        {result.name: result for result in results},
        race.halves,
        best_score=scorer.best,
        teacher=_name_of_teacher(data, featured, is_automatic),
        targets=targets,
    )
    chosen = to_deploy(results).name
    best = next(candidate for candidate, _ in runs if candidate.name == chosen)
    labeled = np.arange(len(data.labeled))
    best_estimator = clone(best.estimator).fit(
        *data.training_rows(labeled, unlabeled=data.unlabeled if best.reads_unlabeled else None)
    )
    facts = Facts(
        n_labeled=len(data.labeled),
        n_unlabeled=len(data.unlabeled),
        n_classes=len(np.unique(data.targets)) if data.is_classification else 0,
        n_folds=len(data.folds),
        scoring=scorer.name,
        teacher=names_of_models(models),
        not_compared=[name for name in race.left_out if name != LEARNING_CURVE],
        feature_seconds=feature_seconds,
        seconds=time.perf_counter() - start,
    )
    return TransferComparison(
        results,
        facts,
        gains=gains,
        left_out={**lineup.left_out, **race.left_out},
        best_estimator=best_estimator,
    )


def _announcement(
    data: ComparisonData, race: Race, seconds: float, time_budget: float | None
) -> str:
    """Return what is about to happen, and how long it takes."""
    n_labeled, n_unlabeled, n_kept = len(data.labeled), len(data.unlabeled), race.n_kept()
    others = f", with {n_unlabeled:,} rows without a label" if n_unlabeled else ""
    kept = f" {n_kept} of {race.n_fits} fits are in the cache already." if n_kept else ""
    lines = [
        f"Comparing {', '.join(race.names)} on {len(data.folds)} folds of {n_labeled:,} labelled "
        f"rows{others}.{kept} Expected time: about {duration(seconds)}.",
        *(f"Left out: {name}, {why}." for name, why in race.left_out.items()),
    ]
    if time_budget is not None and seconds > time_budget:
        lines.append(
            f"This is more than the time_budget of {duration(time_budget)}: candidates may be left "
            "out on the way, but not student-alone and student."
        )
    return "\n".join(lines)


def _name_of_teacher(data: ComparisonData, featured: Any, is_automatic: bool) -> str | None:
    """Return the candidate that predicts as the student's teacher does, if there is one."""
    if not data.is_classification:
        return None
    return "probe" if featured is not None else BOOSTING if is_automatic else None


def _seed(random_state: Any) -> int:
    if random_state is None:
        return 0
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
