"""Images -> one array of one size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sk_aft._data._images import image_shape, whole_numbers_as_bytes
from sk_aft._data._rows import as_rows

_LARGEST_KEPT = 64


class ImageResizer(TransformerMixin, BaseEstimator):
    """Decode images and bring them to one size and number of channels.

    Parameters
    ----------
    size : int, tuple of (height, width) or "auto", default="auto"
        "auto" keeps the size of images that are all alike and at most 64 pixels high and wide,
        and makes others 64 x 64.

    Attributes
    ----------
    size_ : tuple of int
        Height and width.
    n_channels_ : int
        1 if all images seen during fit were greyscale, else 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_aft.preprocessing import ImageResizer
    >>> images = np.zeros((2, 28, 28), dtype=np.uint8)
    >>> ImageResizer().fit_transform(images).shape
    (2, 1, 28, 28)
    """

    _accepts_rows = True  # need not be recognised again

    def __init__(self, size: int | tuple[int, int] | str = "auto") -> None:
        self.size = size

    def fit(self, X: Any, y: Any = None) -> ImageResizer:
        """Find the size and the number of channels.

        Parameters
        ----------
        X : array or list of n_images images
            NHWC array, or PIL images, paths, bytes or arrays.
        y : ignored
            Present for the convention of scikit-learn.

        Returns
        -------
        self : ImageResizer
            The fitted transformer.
        """
        rows = as_rows(X, kind="image")
        if rows.values.dtype != object:
            shapes = {rows.values.shape[1:]}
        else:
            shapes = {
                image_shape(value, rows.position(row)) for row, value in enumerate(rows.values)
            }
        self.n_channels_ = 1 if all(len(s) == 2 or s[2] == 1 for s in shapes) else 3
        sizes = {shape[:2] for shape in shapes}
        if self.size == "auto":
            largest = max(max(size) for size in sizes)
            alike = len(sizes) == 1 and largest <= _LARGEST_KEPT
            self.size_ = next(iter(sizes)) if alike else (_LARGEST_KEPT, _LARGEST_KEPT)
        else:
            size = self.size
            self.size_ = (size, size) if isinstance(size, int) else tuple(size)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Decode and resize.

        Parameters
        ----------
        X : array or list of n_images images
            As for `fit`.

        Returns
        -------
        images : ndarray of shape (n_images, n_channels_, height, width)
            uint8 for images of 8 bits, else float32.
        """
        check_is_fitted(self)
        rows = as_rows(X, kind="image")
        values = rows.values
        if values.dtype != object and values.shape[1:3] == self.size_:
            values = whole_numbers_as_bytes(values)
            return self._channels(values if values.ndim == 4 else values[..., None])
        images = [self._resize(rows.image(row)) for row in range(len(rows))]
        return np.concatenate(images)

    def _resize(self, image: np.ndarray) -> np.ndarray:
        image = image if image.ndim == 3 else image[..., None]
        planes = self._channels(image[None])
        if image.shape[:2] == self.size_:
            return planes
        resized = torch.nn.functional.interpolate(
            torch.from_numpy(planes).float(), size=self.size_, mode="bilinear", antialias=True
        )
        if planes.dtype == np.uint8:
            return resized.round().clamp(0, 255).to(torch.uint8).numpy()
        return resized.numpy()

    def _channels(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8:
            images = images.astype(np.float32)
        if self.n_channels_ == 1 and images.shape[3] != 1:
            # The weights of ITU-R BT.601, as everybody's greyscale conversion.
            grey = images[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
            grey = grey.round() if images.dtype == np.uint8 else grey
            images = grey[..., None].astype(images.dtype)
        elif self.n_channels_ == 3 and images.shape[3] == 1:
            images = np.repeat(images, 3, axis=3)
        return np.ascontiguousarray(np.moveaxis(images[..., : self.n_channels_], 3, 1))
