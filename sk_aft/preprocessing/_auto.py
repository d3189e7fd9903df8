"""The preprocessor that fits a kind of rows."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone

from sk_aft._parameters import reject_unknown
from sk_aft.preprocessing._columns import OF_KIND, ColumnPreprocessor

_DEFAULTS = {**OF_KIND, "frame": ColumnPreprocessor}


def make_preprocessor(preprocessor: Any, kind: str, **parameters: Any) -> Any:
    """Return an unfitted preprocessor for rows of one kind.

    Parameters
    ----------
    preprocessor : "auto", estimator or None
        "auto" scales numbers, resizes images and tokenizes texts, of a DataFrame each column as
        it needs; an estimator is cloned; None leaves the rows as they are.
    kind : {"numeric", "image", "text", "frame"}
        What the rows are.
    **parameters
        Arguments of the automatic preprocessor, or parameters to set.

    Returns
    -------
    preprocessor : estimator or None
        With ``fit`` and ``transform``.
    """
    if preprocessor is None:
        return None
    if preprocessor == "auto":
        reject_unknown("preprocessor", _DEFAULTS[kind], parameters)
        return _DEFAULTS[kind](**parameters)
    return clone(preprocessor).set_params(**parameters)
