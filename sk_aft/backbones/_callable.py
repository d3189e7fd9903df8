"""A function as a foundation model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sk_aft._data._rows import Rows
from sk_aft.backbones._base import FeatureShapeError, HoldsObjects, as_matrix
from sk_aft.store._process import process_token


class CallableBackbone(HoldsObjects):
    """A function from a batch of rows to a matrix of features.

    Parameters
    ----------
    function : callable
        Called with a list of str, an (n, p) array, or images: an NHWC array if all images
        were given as one array, else a list of arrays (height, width[, channels]). Arrays keep
        their numbers and channels; other images are uint8, grey or RGB. Returns an (n, d) array
        or tensor.
    fingerprint : str, optional
        Identifies this function and its version. Change it whenever the function's results
        change. By default features are kept only while this process lives, since a changed
        function cannot be detected.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_aft import FoundationFeatureExtractor
    >>> from sk_aft.backbones import CallableBackbone
    >>> lengths = CallableBackbone(lambda texts: np.array([[len(t), 1.0] for t in texts]))
    >>> print(FoundationFeatureExtractor(lengths).fit_transform(["a", "abc"]).features)
    [[1. 1.]
     [3. 1.]]
    """

    runs_in_torch = False  # or in a precision that the function chooses

    def __init__(self, function: Callable[[Any], Any], fingerprint: str | None = None) -> None:
        self.function = function
        self._declared = fingerprint
        name = getattr(function, "__name__", type(function).__name__)
        self.name = "function" if name == "<lambda>" else name

    def fingerprint(self) -> dict[str, Any]:
        """Return the declared fingerprint, or a process token."""
        if self._declared is not None:
            return {"type": "callable", "declared": self._declared}
        return {"type": "callable", "session": process_token(self.function)}

    @property
    def is_persistent(self) -> bool:
        """Whether a fingerprint was declared."""
        return self._declared is not None

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Call the function on each batch."""
        del device  # the function chooses its own device
        matrices = []
        for start in range(0, len(rows.values), batch_size):
            batch = _plain_batch(rows, slice(start, start + batch_size))
            features = self.function(batch)
            matrices.append(as_matrix(features, len(batch), self.name))
        widths = {matrix.shape[1] for matrix in matrices}
        if len(widths) > 1:
            raise FeatureShapeError(
                f"{self.name} returned features of different widths for different rows: "
                f"{sorted(widths)}. Every row needs the same number of features."
            )
        return np.concatenate(matrices)

    def _held(self) -> list:
        return [self.function]


def _plain_batch(rows: Rows, indices: slice) -> Any:
    values = rows.values[indices]
    if rows.kind == "text":
        return list(values)
    if values.dtype == object:
        return [
            value if isinstance(value, np.ndarray) else rows.image(row)
            for row, value in enumerate(values, start=indices.start)
        ]
    return values
