"""A fitted scikit-learn transformer as a foundation model."""

from __future__ import annotations

import io
import pickle
import types
from typing import Any

import joblib
import numpy as np
import scipy.sparse
import sklearn
import torch
from sklearn.utils.validation import check_is_fitted

from sk_aft._rows import Rows
from sk_aft.backbones._base import Backbone
from sk_aft.store._session import adopt_session, session_state, session_token

# Their functions change with their version, which is part of the fingerprint or never matters.
_TRUSTED_PACKAGES = {"sklearn", "numpy", "scipy"}


class SklearnBackbone(Backbone):
    """A fitted transformer or pipeline of transformers.

    Parameters
    ----------
    transformer : estimator
        Fitted, with ``transform``. It is used as it is and never fitted again, so fit it on
        rows that no score is computed on. One that holds a function of yours is recognised
        only as long as this process lives, since nobody can tell whether a function changed.

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
        """Return a digest of the fitted state, and a token of this session for own code."""
        state, has_own_code = _normalised(self.transformer)
        token = session_token(self.transformer) if has_own_code else None
        digest = joblib.hash(state)
        return {"type": "sklearn", "state": digest, "version": sklearn.__version__, "token": token}

    @property
    def is_persistent(self) -> bool:
        """Whether the transformer holds no function or class of the user's own."""
        return not _normalised(self.transformer)[1]

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Transform batch by batch."""
        del device
        matrices = []
        for start in range(0, len(rows), batch_size):
            features = self.transformer.transform(
                self._named(rows.values[start : start + batch_size])
            )
            if scipy.sparse.issparse(features):
                features = features.toarray()
            matrices.append(np.asarray(features, dtype=np.float32))
        return np.concatenate(matrices)

    def _named(self, values: np.ndarray) -> Any:
        """Give a transformer that was fitted on a frame a frame."""
        names = getattr(self.transformer, "feature_names_in_", None)
        if names is None or values.ndim != 2:
            return values
        import pandas

        return pandas.DataFrame(values, columns=names)

    def __getstate__(self) -> dict[str, Any]:
        functions = [] if self.is_persistent else [self.transformer]
        return {**vars(self), "_session": session_state(functions)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        session = state.pop("_session")
        vars(self).update(state)
        adopt_session([self.transformer], session)


class _NormalisingPickler(pickle.Pickler):
    """Leave out what says nothing about a transformer's results; notice the user's own code."""

    has_own_code = False

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.FunctionType):
            if obj.__module__.partition(".")[0] in _TRUSTED_PACKAGES:
                return NotImplemented
            self.has_own_code = True
            return str, (f"{obj.__module__}.{obj.__qualname__}",)
        if isinstance(obj, type) and obj.__module__ == "__main__":
            self.has_own_code = True
        if "_stop_words_id" in getattr(obj, "__dict__", {}):
            # A vectorizer remembers the address of its stop words.
            build, arguments, state, *rest = obj.__reduce_ex__(4)
            state = {key: value for key, value in state.items() if key != "_stop_words_id"}
            return (build, arguments, state, *rest)
        return NotImplemented


def _normalised(transformer: Any) -> tuple[Any, bool]:
    """Return a copy to digest, the same in every process, and whether it holds own code."""
    buffer = io.BytesIO()
    pickler = _NormalisingPickler(buffer)
    try:
        pickler.dump(transformer)
    except (AttributeError, pickle.PicklingError):
        # A class inside a function: recognised by identity alone.
        return None, True
    # Unpickled, since pickling changes the memory layout of arrays, which joblib digests.
    return pickle.loads(buffer.getvalue()), pickler.has_own_code
