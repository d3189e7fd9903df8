"""Histograms of oriented gradients of images."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from sk_aft._data._pixels import to_floats
from sk_aft._optional import import_optional
from sk_aft.preprocessing import ImageResizer

_SIZES = (32, 64)
_CELLS = 8
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class HogFeatures(TransformerMixin, BaseEstimator):
    """Images of any container -> histograms of oriented gradients.

    Images become grey, of 32 x 32 pixels if none is larger, else of 64 x 64. The histograms have 9
    directions, and cells of an eighth of the side in blocks of 2 x 2: 1,764 numbers.

    Attributes
    ----------
    resizer_ : ImageResizer
        Reads and resizes the images.
    """

    def fit(self, X: Any, y: Any = None) -> HogFeatures:
        """Find the size and the number of channels.

        Parameters
        ----------
        X : array or list of n_rows images
            Arrays, PIL images, paths or bytes, as for `ImageResizer`.
        y : ignored
            Present for the convention of scikit-learn.

        Returns
        -------
        self : HogFeatures
            The fitted transformer.
        """
        largest = max(ImageResizer(max_size=_SIZES[-1]).fit(X).size_)
        size = next(size for size in _SIZES if size >= min(largest, _SIZES[-1]))
        self.resizer_ = ImageResizer(size=size).fit(X)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the histograms, (n_rows, 1764) float32."""
        features = import_optional(
            "skimage.feature", extra="demo", purpose="histograms of oriented gradients"
        )
        images = _grey(to_floats(self.resizer_.transform(X)))
        cell = images.shape[1] // _CELLS
        return np.stack(
            [
                features.hog(
                    image, orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(2, 2)
                )
                for image in images
            ]
        ).astype(np.float32)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.no_validation = True
        return tags


def _grey(images: np.ndarray) -> np.ndarray:
    """Return (n, channels, height, width) as (n, height, width)."""
    if images.shape[1] == len(_LUMINANCE):
        return np.einsum("nchw,c->nhw", images, _LUMINANCE)
    return images.mean(axis=1)
