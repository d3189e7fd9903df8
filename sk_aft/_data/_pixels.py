"""Interprets the numbers of an image: its range, its bands and its transparency.

An image is read as uint8, 0 to 255, or as float32, 0 to 1. Integers range from 0 to 255, and bools
are black and white. Floats may be in one of four ranges, which is found for all images of a call
together and stored by the estimator that was fitted to them:

- "fractions": 0 to 1.
- "levels": 0 to 255, either whole numbers or reaching 128. They are divided by 255, and images of
  whole numbers become uint8.
- "other": not negative, such as reflectances or 12 bits; unchanged.
- "signed": partly negative, such as standardised images; unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# From the narrowest range to the widest. Two ranges are only found, and then read as wider ones:
# - "binary" is black and white among fractions, and black among levels.
# - "small" (not whole, below 128) is dark among levels, or "other" if a fit sees nothing else.
FLOAT_RANGES = {
    "binary": "0 and 1",
    "fractions": "between 0 and 1",
    "small": "between 0 and 128",
    "levels": "between 0 and 255",
    "other": "of another scale than 0 to 1 or 0 to 255",
    "signed": "partly negative",
}
_AT_FIT = {"binary": "fractions", "small": "other"}
_AMONG_BYTES = {"binary": "fractions", "small": "levels"}
# Pairs of a fit's range and a range that dark images of that range may appear to have.
_DARK = {
    ("fractions", "binary"),
    ("levels", "binary"),
    ("levels", "small"),
    ("other", "binary"),
    ("other", "fractions"),
    ("other", "small"),
    ("other", "levels"),
}
# These cannot be compared with 8-bit images.
UNSCALED = ("other", "signed")
_CHANNELS = (1, 3, 4)


def range_of(numbers: np.ndarray) -> str | None:
    """Return the range of floats, or None if none of them is finite."""
    if not numbers.size:
        return None
    low, high = numbers.min(), numbers.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return range_of(numbers[np.isfinite(numbers)])
    if low < 0:
        return "signed"
    if high <= 1:
        return "binary" if ((numbers == 0) | (numbers == 1)).all() else "fractions"
    if high > 255:
        return "other"
    return "levels" if high >= 128 or (numbers == np.rint(numbers)).all() else "small"


def widest(ranges: Iterable[str]) -> str | None:
    """Return the widest of several ranges, or None if there are none."""
    return max(ranges, key=list(FLOAT_RANGES).index, default=None)


def range_after_fit(fitted: str | None, found: str | None) -> str | None:
    """Return the range in which floats are read.

    Parameters
    ----------
    fitted : str or None
        The range of the floats seen during fit; None if all images had 8 bits, "any" if this
        is the fit.
    found : str or None
        The range of the floats in this call; None if there are none.

    Returns
    -------
    range : str or None
        Dark images may have a narrower range than the images seen during fit. They are read in
        the range of the fit, but fractions are not read as levels.

    Raises
    ------
    ValueError
        If floats of this range cannot be compared with the images seen during fit.
    """
    if found is not None and fitted == "any":
        return _AT_FIT.get(found, found)
    if found is not None and fitted is None and found not in UNSCALED:
        return _AMONG_BYTES.get(found, found)
    if found in (None, fitted) or (fitted, found) in _DARK:
        return None if fitted == "any" else fitted
    before = "of 8 bits (0 to 255)" if fitted is None else f"floats {FLOAT_RANGES[fitted]}"
    raise ValueError(
        f"The images are floats {FLOAT_RANGES[found]}, but the images seen during fit were "
        f"{before}: bring them to the same range" + _advice(fitted)
    )


def to_pixels(numbers: np.ndarray, float_range: str | None) -> np.ndarray:
    """Convert the numbers of one or several images to uint8, 0 to 255, or float32, 0 to 1.

    Parameters
    ----------
    numbers : ndarray
        Numbers of any dtype.
    float_range : str or None
        What floats mean, one of ``FLOAT_RANGES``; None leaves floats unchanged.

    Returns
    -------
    pixels : ndarray of the same shape
        uint8 or float32. Floats of the ranges "other" and "signed" are not scaled.

    Raises
    ------
    ValueError
        If an integer is not between 0 and 255, or if 8-bit images are mixed with floats of a
        range that cannot be compared with them.
    """
    if numbers.dtype.kind == "f":
        if float_range != "levels":
            return numbers.astype(np.float32, copy=False)
        if (numbers == np.rint(numbers)).all():
            return numbers.astype(np.uint8)
        return numbers.astype(np.float32) / np.float32(255)
    if float_range in UNSCALED:
        raise ValueError(
            "The images are of 8 bits (0 to 255), but the images seen during fit were floats "
            f"{FLOAT_RANGES[str(float_range)]}: bring them to the same range" + _advice(float_range)
        )
    if numbers.dtype.kind == "b":
        return numbers.astype(np.uint8) * np.uint8(255)
    if numbers.dtype == np.uint8:
        return numbers
    if numbers.size and (numbers.min() < 0 or numbers.max() > 255):
        raise ValueError(
            f"Images of whole numbers have to be 0 to 255, got {numbers.min()} to {numbers.max()}: "
            "scale them, or give floats between 0 and 1."
        )
    return numbers.astype(np.uint8)


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Put RGBA or grey images with alpha on a white background; channels are last."""
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    if pixels.dtype != np.uint8:
        return 1 + (colour - 1) * alpha
    covered = (255 - colour.astype(np.uint32)) * alpha
    return (255 - (covered + 127) // 255).astype(np.uint8)


def read_pixels(numbers: np.ndarray, float_range: str | None, *, has_alpha: bool) -> np.ndarray:
    """Return images as by `to_pixels`; if ``has_alpha``, the last band is transparency."""
    pixels = to_pixels(numbers, float_range)
    return on_white(pixels) if has_alpha and float_range not in UNSCALED else pixels


def n_bands(shape: tuple[int, ...], float_range: str | None) -> int:
    """Return how many bands an image of this shape has when it is read."""
    if len(shape) == 2:
        return 1
    return 3 if shape[2] == 4 and float_range not in UNSCALED else shape[2]


def with_channels(images: np.ndarray, *, ndim: int) -> np.ndarray:
    """Give grey images an axis of one channel."""
    return images if images.ndim == ndim else images[..., None]


def to_floats(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as float32; 8-bit pixels are scaled to 0 to 1."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    return pixels


def channels_last(images: np.ndarray) -> np.ndarray:
    """Move the channels of one image (3-D) or of several (4-D) to the last axis.

    The rule, for images with axes of lengths (a, b, c):

    - c holds the channels if it is 1, 3 or 4; else a does if it is 1, 3 or 4.
    - Otherwise images are assumed to be square: c holds the channels if a = b, and a does if
      b = c. If they are not square, it is the axis at most half as long as both others.

    Raises
    ------
    ValueError
        If the rule does not decide, or the other reading is equally good.
    """
    a, b, c = images.shape[-3:]
    if c in _CHANNELS:
        first, last = a == c != b, True
    elif a in _CHANNELS:
        first, last = True, a == b
    else:
        first, last = b == c, a == b
        if first == last:
            first, last = 2 * a <= min(b, c), 2 * c <= min(a, b)
    if first == last:
        raise ValueError(
            f"Images of shape {images.shape} may have their channels (bands) first or last. Arrays "
            "are understood with channels last: use np.moveaxis(X, 1, -1) if they are first. If "
            "that is not enough, pad them to equal height and width, unlike the number of bands."
        )
    return np.moveaxis(images, -3, -1) if first else images


def _advice(fitted: str | None) -> str:
    if fitted in UNSCALED:
        return ", as the images seen during fit were made, such as (images / 255 - mean) / std."
    if fitted == "levels":
        return ", such as images * 255, or give uint8."
    return ", such as images / 255, or give uint8."
