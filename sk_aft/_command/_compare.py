"""``python -m sk_aft compare``: what transfer is worth on the user's data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sklearn.metrics import get_scorer_names

from sk_aft._command._describe import describe_data
from sk_aft._command._folders import check_is_free
from sk_aft._command._labels import check_folds
from sk_aft._command._messages import CommandError, did_you_mean, report
from sk_aft._command._pipeline import MISSING, build_pipeline, teacher_models
from sk_aft._command._report import FILES, check_packages, write_report
from sk_aft._command._tables import (
    IMAGE,
    TEXT,
    TrainingData,
    check_numbers_are_there,
)

# Candidates that need a foundation model, which reads texts or images.
_OF_FOUNDATION_MODELS = ("probe", "tuned-teacher")


def compare(options: argparse.Namespace, data: TrainingData) -> None:
    """Compare students with their rivals on a file of rows, and write the report.

    Parameters
    ----------
    options : Namespace
        As `_arguments` defines them.
    data : TrainingData
        The rows.

    Raises
    ------
    CommandError
        If the data or the folder cannot be used; nothing is fitted then.
    """
    check_packages()
    check_is_free(options.out, own=FILES)
    if options.scoring is not None and options.scoring not in get_scorer_names():
        hint = did_you_mean(options.scoring, get_scorer_names())
        raise CommandError(f"scikit-learn has no scorer {options.scoring!r}{hint}")
    check_numbers_are_there(data)
    check_folds(data.labels, options.cv)
    models = teacher_models(options.teacher, data, options.seed)
    candidates = _candidates(options, data, models)
    for line in describe_data(data):
        report(line, quiet=options.quiet)

    from sk_aft.model_selection import compare_transfer

    comparison = compare_transfer(
        data.X,
        data.labels.targets,
        X_unlabeled=data.X_unlabeled,
        missing_label=MISSING,
        models=models,
        candidates=candidates,
        cv=options.cv,
        scoring=options.scoring,
        time_budget=options.time_budget,
        task=data.labels.task,
        random_state=options.seed,
        n_jobs=options.jobs,
        verbose=0 if options.quiet else 1,
    )
    has_model = not {TEXT, IMAGE}.isdisjoint(data.kinds.values())
    write_report(
        comparison,
        options.out,
        f"Does transfer pay on {Path(options.data).name}?",
        unfit=() if has_model else _OF_FOUNDATION_MODELS,
    )


def _candidates(options: argparse.Namespace, data: TrainingData, models: Any) -> Any:
    """Return the names of candidates, and the students with networks that the user named."""
    names = options.candidates or ["auto"]
    added = [
        (f"student-{module}", build_pipeline(data, models=models, module=module, seed=options.seed))
        for module in options.student or []
    ]
    return [*names, *added] if added or options.candidates else "auto"
