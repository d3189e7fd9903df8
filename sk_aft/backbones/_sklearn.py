"""A fitted scikit-learn transformer as a foundation model."""

from __future__ import annotations

from typing import Any

import joblib
import numpy as np
import scipy.sparse
import sklearn
import torch
from sklearn.utils.validation import check_is_fitted

from sk_aft._rows import Rows
from sk_aft.backbones._base import Backbone


class SklearnBackbone(Backbone):
    """A fitted transformer or pipeline of transformers.

    Parameters
    ----------
    transformer : estimator
        Fitted, with ``transform``. It is used as it is and never fitted again, so fit it on
        rows that no score is computed on.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    """

    batch_size = 1024

    def __init__(self, transformer: Any) -> None:
        check_is_fitted(transformer)
        self.transformer = transformer
        self.name = type(transformer).__name__.lower()

    def fingerprint(self) -> dict[str, Any]:
        """Return a digest of the fitted state."""
        return {
            "type": "sklearn",
            "state": joblib.hash(self.transformer),
            "version": sklearn.__version__,
        }

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Transform batch by batch."""
        del device
        matrices = []
        for start in range(0, len(rows.values), batch_size):
            features = self.transformer.transform(rows.values[start : start + batch_size])
            if scipy.sparse.issparse(features):
                features = features.toarray()
            matrices.append(np.asarray(features, dtype=np.float32))
        return np.concatenate(matrices)
