"""Images -> one array of one size."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sk_aft._data._images import image_shape
from sk_aft._data._pixels import (
    HALF,
    UNSCALED,
    Ranges,
    to_floats,
    with_bands,
    with_channels,
)
from sk_aft._data._resize import ImageGeometry, height_and_width, resize_and_crop
from sk_aft._data._rows import as_rows


class ImageResizer(TransformerMixin, BaseEstimator):
    """Decode images and convert them to one size, range and number of channels.

    Images of any encoding become the same numbers: uint8 from 0 to 255, or floats from 0 to 1.
    Images are rotated as their Exif data specify, and transparent images (those with a fourth
    channel, too) are put on white.

    Parameters
    ----------
    size : int, tuple of (height, width) or "auto", default="auto"
        "auto" keeps the size if all images have the same, and it is at most ``max_size`` in height
        and width; otherwise images are resized to ``max_size``.
    max_size : int or tuple of (height, width), default=64
        Largest size of ``size="auto"``. A student sets it to ``module__image_size``.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How images are resized, with antialiasing. A student sets it and what follows as the
        pretrained model was trained.
    crop_fraction : float, default=1.0
        Part of the height and the width that a crop of the middle keeps after the resizing. Images
        that keep their size are not cropped.
    crop_mode : {"squash", "center"}, default="squash"
        - "squash": height and width are resized independently of each other.
        - "center": their ratio is kept, and what exceeds the size is cut off at both ends.

    Attributes
    ----------
    size_ : tuple of int
        Height and width.
    geometry_ : tuple
        Size, interpolation, crop fraction and crop mode of `transform`.
    n_channels_ : int
        1 if all images seen during fit were greyscale, 3 if some were RGB, or the number of
        bands of other images.
    float_range_ : {"binary", "fractions", "levels", "other", "signed"} or None
        How floats are read: 0 and 1; 0 to 1; 0 to 255 (whole, or reaching 128); not negative;
        partly negative. Found over all images seen during fit; None if none of them were floats.
    whole_range_ : {"binary", "levels", "16 bits"} or None
        How whole numbers are read: 0 and 1, black and white; 0 to 255; 0 to 65535, if some exceed
        255. Found over all images seen during fit; None if none of them were whole numbers.

    Notes
    -----
    Images are read in the range found during fit, or in that of the images that are transformed
    together if there were none of their kind. A dark image alone may be ambiguous: after a fit on
    uint8, floats within 0 to 1 are fractions, and larger ones are levels. Give images to transform
    in the dtype and range of those in fit.

    PNG files of 16 bits are 16 bits; so are arrays and other images (PIL's modes I and I;16) if
    some number exceeds 255. "other" and "signed" images are not scaled, so they cannot be
    mixed with images of 8 bits. A fourth band is transparency, but a band as any other in
    images of 16 bits and in floats that are "other" or "signed": red, green, blue and near
    infrared of 8 bits are told from RGBA by standardising them.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_aft.preprocessing import ImageResizer
    >>> images = np.zeros((2, 28, 28), dtype=np.uint8)
    >>> ImageResizer().fit_transform(images).shape
    (2, 1, 28, 28)
    """

    _accepts_rows = True  # need not be recognised again
    _parameter_constraints: ClassVar[dict] = {
        "size": "no_validation",
        "max_size": "no_validation",
        "interpolation": [StrOptions({"bilinear", "bicubic"})],
        "crop_fraction": [Interval(Real, 0, 1, closed="right")],
        "crop_mode": [StrOptions({"squash", "center"})],
    }

    def __init__(
        self,
        size: int | tuple[int, int] | str = "auto",
        max_size: int | tuple[int, int] = 64,
        interpolation: str = "bilinear",
        crop_fraction: float = 1.0,
        crop_mode: str = "squash",
    ) -> None:
        self.size = size
        self.max_size = max_size
        self.interpolation = interpolation
        self.crop_fraction = crop_fraction
        self.crop_mode = crop_mode

    def fit(self, X: Any, y: Any = None) -> ImageResizer:
        """Find the size and the number of channels.

        Parameters
        ----------
        X : array or list of n_images images
            An array (n, height, width) or (n, height, width, channels), or PIL images, paths,
            bytes or arrays.
        y : ignored
            Present for the convention of scikit-learn.

        Returns
        -------
        self : ImageResizer
            The fitted transformer.

        Raises
        ------
        ValueError
            If an image cannot be read, or differs from the others in its number of bands.
        """
        self._validate_params()
        rows = as_rows(X, kind="image").in_float_range()
        self.float_range_, self.whole_range_ = rows.float_range
        row_of_shape: dict[tuple[int, ...], int] = {}
        some = rows.values if rows.values.dtype == object else rows.values[:1]
        for row, value in enumerate(some):
            position = rows.position(row)
            row_of_shape.setdefault(image_shape(value, position, rows.float_range), position)
        self.n_channels_ = _n_bands(row_of_shape)
        sizes: set[Any] = {shape[:2] for shape in row_of_shape}
        self.geometry_ = ImageGeometry(
            height_and_width(self.max_size if self.size == "auto" else self.size),
            self.interpolation,
            self.crop_fraction,
            self.crop_mode,
        )
        if self.size == "auto" and len(sizes) == 1:
            (size,) = sizes
            if _is_kept(size, self.geometry_):
                self.geometry_ = self.geometry_._replace(size=size, crop_fraction=1.0)
        self.size_ = self.geometry_.size
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Decode and resize.

        Parameters
        ----------
        X : array or list of n_images images
            As for `fit`.

        Returns
        -------
        images : ndarray of shape (n_images, n_channels, height, width)
            uint8, 0 to 255, if all images have 8 bits, else float32, 0 to 1 or not scaled.

        Raises
        ------
        ValueError
            If an image cannot be read, or differs in range or number of bands from those seen
            during fit.
        """
        check_is_fitted(self)
        fitted = Ranges(self.float_range_, self.whole_range_)
        rows = as_rows(X, kind="image").in_float_range(fitted)
        values = rows.values
        if values.dtype != object and self._keeps(values.shape[1:3]):
            return self._channels(with_channels(rows.images(), ndim=4), rows.position(0))
        images = [
            self._resize(with_channels(rows.image(row), ndim=3), rows.position(row))
            for row in range(len(rows))
        ]
        if any(image.dtype != np.uint8 for image in images):
            images = [to_floats(image) for image in images]
        return np.concatenate(images)

    def _resize(self, image: np.ndarray, row: int) -> np.ndarray:
        planes = self._channels(image[None], row)
        if self._keeps(image.shape[:2]):
            return planes
        is_uint8 = planes.dtype == np.uint8
        limits = None if self.float_range_ in UNSCALED else (0.0, 1.0)
        # Copied, since Pillow's arrays are read-only, of which torch.from_numpy warns.
        pixels = torch.tensor(planes, dtype=torch.float32)
        resized = resize_and_crop(pixels, self.geometry_, (0.0, 255.0) if is_uint8 else limits)
        return ((resized + HALF).to(torch.uint8) if is_uint8 else resized).numpy()

    def _keeps(self, size: tuple[int, ...]) -> bool:
        return size == self.size_ and self.geometry_.crop_fraction == 1

    def _channels(self, images: np.ndarray, row: int) -> np.ndarray:
        images = with_bands(images, self.n_channels_, row)
        return np.ascontiguousarray(np.moveaxis(images, 3, 1))


def _is_kept(size: tuple[int, int], geometry: ImageGeometry) -> bool:
    """Return whether images of one size keep it; the network then resizes and crops them.

    It does not crop images of its own size, so these are cropped here.
    """
    height, width = geometry.size
    is_own = size == geometry.size
    return size[0] <= height and size[1] <= width and not (is_own and geometry.crop_fraction < 1)


def _n_bands(row_of_shape: dict[tuple[int, ...], int]) -> int:
    """Return how many bands images have when they are read; a row is named for each shape."""
    row_of = {(*shape, 1)[2]: row for shape, row in reversed(row_of_shape.items())}
    if len(row_of) > 1 and set(row_of) != {1, 3}:
        named = [f"{bands} in row {row}" for bands, row in sorted(row_of.items())]
        raise ValueError(
            f"The images have different numbers of bands (channels): {', '.join(named)}. Only grey "
            "and RGB images may be mixed."
        )
    return max(row_of)
