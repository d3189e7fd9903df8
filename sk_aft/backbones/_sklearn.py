"""A fitted scikit-learn transformer as a foundation model."""

from __future__ import annotations

from typing import Any

import joblib
import numpy as np
import sklearn
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from sk_aft._data._rows import Rows
from sk_aft.backbones._base import HoldsObjects, as_matrix
from sk_aft.backbones._fingerprint import canonical_copy, describe_classes
from sk_aft.store._process import process_token


class SklearnBackbone(HoldsObjects):
    """A fitted transformer or pipeline of transformers.

    Parameters
    ----------
    transformer : estimator
        Fitted, with ``transform``. It is never fitted again, so fit it on rows that no score
        is computed on. If it holds a function of your own, its features are kept only while
        this process lives, since a changed function cannot be detected.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    """

    runs_in_torch = False
    batch_size = 1024

    def __init__(self, transformer: Any) -> None:
        try:
            check_is_fitted(transformer)
        except NotFittedError as error:
            raise NotFittedError(
                f"The foundation model {type(transformer).__name__} is not fitted, and the "
                "extractor does not fit it: fit it first, on rows that no score is computed on."
            ) from error
        self.transformer = transformer
        self.name = type(transformer).__name__.lower()

    def fingerprint(self) -> dict[str, Any]:
        """Return a digest of the fitted state, and a process token for the user's own code."""
        state, classes, has_own_code = canonical_copy(self.transformer)
        return {
            "type": "sklearn",
            "state": joblib.hash(state),
            "code": describe_classes(classes),
            "version": sklearn.__version__,
            "session": process_token(self.transformer) if has_own_code else None,
        }

    @property
    def is_persistent(self) -> bool:
        """Whether the transformer holds no function or interactive class of the user's own."""
        return not canonical_copy(self.transformer)[2]

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if the rows' columns differ from those that the transformer was fitted on."""
        expected = getattr(self.transformer, "feature_names_in_", None)
        if names is not None and expected is not None and list(names) != list(expected):
            raise ValueError(
                f"The feature names should match those that were passed during fit: {self.name} "
                f"was fitted on the columns {list(expected)}, the rows have {list(names)}."
            )
        n_expected = getattr(self.transformer, "n_features_in_", None)
        if rows.kind == "numeric" and n_expected not in (None, rows.values.shape[1]):
            raise ValueError(
                f"X has {rows.values.shape[1]} features, but the foundation model {self.name!r} "
                f"was fitted on {n_expected}."
            )

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Transform the rows batch by batch."""
        del device
        matrices = []
        for start in range(0, len(rows), batch_size):
            batch = rows.values[start : start + batch_size]
            features = self.transformer.transform(self._named(batch))
            matrices.append(as_matrix(features, len(batch), self.name))
        return np.concatenate(matrices)

    def _named(self, values: np.ndarray) -> Any:
        """Return a DataFrame if the transformer was fitted on one."""
        names = getattr(self.transformer, "feature_names_in_", None)
        if names is None or values.ndim != 2:
            return values
        import pandas

        return pandas.DataFrame(values, columns=names)

    def _held(self) -> list:
        return [self.transformer]
