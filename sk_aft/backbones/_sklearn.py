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
from sk_aft.backbones._code import describe_classes, is_library
from sk_aft.store._session import adopt_session, session_state, session_token


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
        state, classes, has_own_code = _normalised(self.transformer)
        return {
            "type": "sklearn",
            "state": joblib.hash(state),
            "code": describe_classes(classes),
            "version": sklearn.__version__,
            "session": session_token(self.transformer) if has_own_code else None,
        }

    @property
    def is_persistent(self) -> bool:
        """Whether the transformer holds no function or interactive class of the user's own."""
        return not _normalised(self.transformer)[2]

    def check_columns(self, rows: Rows, names: Any) -> None:
        """Raise if the rows' columns are not those that the transformer was fitted on."""
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

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.has_own_code = False
        self.classes: set[type] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.FunctionType):
            if is_library(obj.__module__):
                return NotImplemented
            self.has_own_code = True
            return str, (f"{obj.__module__}.{obj.__qualname__}",)
        if isinstance(obj, type):
            self.classes.add(obj)
            self.has_own_code |= obj.__module__ == "__main__"
        if "_stop_words_id" in getattr(obj, "__dict__", {}):
            # A vectorizer remembers the address of its stop words.
            build, arguments, state, *rest = obj.__reduce_ex__(4)
            state = {key: value for key, value in state.items() if key != "_stop_words_id"}
            return (build, arguments, state, *rest)
        return NotImplemented


def _normalised(transformer: Any) -> tuple[Any, set[type], bool]:
    """Return a copy to digest, the same in every process, its classes, and if it has own code."""
    buffer = io.BytesIO()
    pickler = _NormalisingPickler(buffer)
    try:
        pickler.dump(transformer)
        # Unpickled, since pickling changes the memory layout of arrays, which joblib digests.
        copy = pickle.loads(buffer.getvalue())
    except (AttributeError, TypeError, pickle.PicklingError):
        # A class inside a function, or a lock: recognised by identity alone.
        return None, set(), True
    return copy, pickler.classes, pickler.has_own_code
