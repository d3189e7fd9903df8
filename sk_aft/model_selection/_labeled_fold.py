"""Cross-validation that never scores on rows without a label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator, check_cv
from sklearn.utils import indexable
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples

from sk_aft._data._labels import (
    check_no_target_missing,
    known_targets,
    labeled_mask,
    mark_among,
)


class LabeledFold(BaseCrossValidator):
    """Splits the labelled rows, and adds all others to the training side of every split.

    Parameters
    ----------
    cv : int, splitter or iterable, default=5
        How the labelled rows are split, as in `sklearn.model_selection.GridSearchCV`: a number
        of folds makes them stratified if the known labels are classes. The indices of an iterable
        count only the labelled rows.
    missing_label : int, float, str or None, default=None
        Marks unknown labels in y, as in `AFTClassifier`. NaN also matches None and
        ``pandas.NA``. None means that all labels are known.

    Raises
    ------
    ValueError
        If ``missing_label=None`` and y holds -1, "-1", "", "unknown", "unlabeled", "unlabelled",
        NaN or None, which probably mark unknown labels. If that is a label, use the splitter
        alone: it does the same.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_aft.model_selection import LabeledFold
    >>> y = np.array([0, 1, -1, 0, 1, -1])
    >>> for train, test in LabeledFold(2, missing_label=-1).split(y, y):
    ...     print(train, test)
    [2 3 4 5] [0 1]
    [0 1 2 5] [3 4]
    """

    # With metadata routing, scikit-learn passes groups only to splitters that ask for them.
    __metadata_request__split = {"groups": True}

    def __init__(self, cv: Any = 5, missing_label: Any = None) -> None:
        self.cv = cv
        self.missing_label = missing_label

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows to train on and the rows to score on.

        Parameters
        ----------
        X : array-like of n_rows rows
            Rows; only their number counts.
        y : array-like of shape (n_rows,) or (n_rows, n_targets)
            Targets, some of them missing.
        groups : array-like of shape (n_rows,), optional
            Groups of the rows, for splitters that keep groups together.

        Yields
        ------
        train : ndarray of int
            Some of the labelled rows and all unlabelled rows, sorted.
        test : ndarray of int
            The other labelled rows.
        """
        if y is None:
            raise ValueError("LabeledFold needs y: it says which rows have a label.")
        X, y, groups = indexable(X, y, groups)
        known = self._known(y)
        labeled = np.flatnonzero(known)
        if not len(labeled):
            raise ValueError(f"All {len(known)} rows of y are {self.missing_label!r}.")
        targets = known_targets(y, known)
        cv = check_cv(self.cv, targets, classifier=True)
        groups = None if groups is None else np.asarray(groups)[labeled]
        for train, test in cv.split(np.zeros((len(labeled), 1)), targets, groups):
            yield np.sort(np.append(labeled[train], np.flatnonzero(~known))), labeled[test]

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups : array-like, optional
            As for `split`; most splitters do not need them.

        Returns
        -------
        n_splits : int
            Number of splits.
        """
        if y is None:
            return check_cv(self.cv).get_n_splits(X, y, groups)
        known = self._known(y)
        if groups is not None:
            groups = np.asarray(groups)[known]
        targets = known_targets(y, known)
        cv = check_cv(self.cv, targets, classifier=True)
        return cv.get_n_splits(np.zeros((_num_samples(targets), 1)), targets, groups)

    def _known(self, y: Any) -> np.ndarray:
        """Return which rows have a label; raise if some seem to lack one without being marked."""
        known = labeled_mask(y, self.missing_label)
        mark = mark_among(y) if self.missing_label is None else None
        if mark is not None:
            are_classes = type_of_target(y) in ("binary", "multiclass")
            raise ValueError(
                f"y holds {mark!r}, and LabeledFold does not know whether it marks rows without a "
                f"label: if so, set missing_label={mark!r}. If it is a label, all rows have one "
                "and LabeledFold adds nothing: use a splitter alone, such as "
                f"{'StratifiedKFold' if are_classes else 'KFold'}."
            )
        check_no_target_missing(y, known, self.missing_label)
        return known
