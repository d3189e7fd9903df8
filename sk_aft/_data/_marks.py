"""Whether an estimator knows the mark of rows without a label."""

from __future__ import annotations

from typing import Any

import numpy as np

from sk_aft._data._labels import labeled_mask


def reads_unlabeled(estimator: Any, missing_label: Any, name: str = "") -> bool:
    """Return whether an estimator, or a part of it, knows the mark of rows without a label.

    Parameters
    ----------
    estimator : estimator
        Has ``get_params``.
    missing_label : object
        Marks rows without a label; None means that all have one.
    name : str, default=""
        What the user calls the estimator, for the error.

    Returns
    -------
    reads_unlabeled : bool
        True if it has a parameter ``missing_label`` with this value.

    Raises
    ------
    ValueError
        If it has the parameter with another value, so that it would learn the mark as a label.
    """
    if missing_label is None:
        return False
    parameters = estimator.get_params(deep=True)
    marks = [parameters[key] for key in parameters if key.split("__")[-1] == "missing_label"]
    if not marks:
        return False
    if labeled_mask(np.array(marks, dtype=object), missing_label).all():
        raise ValueError(
            f"missing_label={missing_label!r}, but the estimator{f' {name!r}' * bool(name)} has "
            f"missing_label={marks[0]!r}, so it would learn the mark as a label: set the "
            f"estimator's missing_label={missing_label!r}, too."
        )
    return True
