"""Interprets the numbers of an image: its range, its bands and its transparency.

An image is read as uint8, 0 to 255, or as float32, 0 to 1. Bools are black and white. Other
numbers are in a range that is found for all images of a call together, and remembered by what was
fitted to them. Floats, with a tolerance of 1e-3 for what resizing and augmentation add:

- "binary": 0 and 1. "fractions": 0 to 1.
- "levels": 0 to 255, either whole or reaching 128. They are divided by 255, and images of whole
  levels become uint8.
- "other": not negative, such as reflectances or 12 bits; left as they are.
- "signed": partly negative, such as standardised images; left as they are.

Whole numbers, of arrays of any dtype and of PIL images of the modes I and I;16 alike:

- "binary": 0 and 1 only, such as masks; black and white.
- "levels": 0 to 255.
- "16 bits": above 255 in some image; divided by 65535. uint8 stay levels beside them. Four bands
  are no transparency then.

PNG and PPM files say that they are of 16 bits, and are read so however dark they are.

Dark images are ambiguous. Floats between 0 and 1 are fractions unless the floats of the fit were
levels or of another scale; and whole numbers up to 255 are levels unless those of the fit were
of 16 bits. Give images to predict in the dtype and range of those in fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

# From the narrowest range to the widest. "small" is found only, and read as wider ones: numbers
# below 128 that are not whole are dark among levels, and of another scale if they are all that a
# fit sees.
RANGES = {
    "binary": "0 and 1",
    "fractions": "between 0 and 1",
    "small": "between 0 and 128",
    "levels": "between 0 and 255",
    "16 bits": "between 0 and 65535",
    "other": "of another scale than 0 to 1 or 0 to 255",
    "signed": "partly negative",
}
# Ranges of floats in a fit, and ranges that dark images among such images may seem to have.
_DARK = {
    "fractions": ("binary",),
    "levels": ("binary", "small"),
    "other": ("binary", "fractions", "small", "levels"),
    "signed": tuple(RANGES),
}
# These cannot be compared with 8-bit images.
UNSCALED = ("other", "signed")
_TOLERANCE = 1e-3
_CHUNK = 1 << 16  # numbers that fit a processor's cache
_CHANNELS = (1, 3, 4)
# Of red, green and blue in grey, by ITU-R BT.601, the usual conversion.
GREY_WEIGHTS = (0.299, 0.587, 0.114)
# Added to positive numbers before they are truncated to whole ones, so that halves are rounded up.
# 0.505 instead of 0.5 absorbs rounding differences between libraries.
HALF = 0.505


class Ranges(NamedTuple):
    """The ranges of images, names of ``RANGES``; None if there were no such numbers.

    Parameters
    ----------
    floats : {"binary", "fractions", "small", "levels", "other", "signed"} or None
        The range of floats.
    whole : {"binary", "levels", "16 bits"} or None
        The range of whole numbers.
    """

    floats: str | None = None
    whole: str | None = None


def range_of(numbers: np.ndarray) -> str | None:
    """Return the range of floats, None if none of them is finite."""
    high = -np.inf
    is_binary = is_whole = True
    for chunk in _chunks(numbers):
        lowest, highest = chunk.min(), chunk.max()
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            chunk = chunk[np.isfinite(chunk)]
            lowest, highest = chunk.min(initial=np.inf), chunk.max(initial=-np.inf)
        if lowest < -_TOLERANCE:
            return "signed"
        high = max(high, float(highest))
        is_binary = is_binary and bool(((chunk == 0) | (chunk == 1)).all())
        is_whole = is_whole and high < 128 and _are_whole(chunk)
    if high == -np.inf:
        return None
    if high <= 1 + _TOLERANCE:
        return "binary" if is_binary else "fractions"
    if high > 255 * (1 + _TOLERANCE):
        return "other"
    return "levels" if high >= 128 or is_whole else "small"


def whole_range_of(numbers: np.ndarray) -> str:
    """Return the range of whole numbers or bools."""
    found = "binary"
    for chunk in _chunks(numbers) if numbers.dtype.kind != "b" else ():
        high = chunk.max()
        if high > 255:
            return "16 bits"
        if high > 1:
            found = "levels"
            if numbers.dtype == np.uint8:
                break
    return found


def are_finite(numbers: np.ndarray) -> bool:
    """Return whether no number is NaN or infinite."""
    return numbers.dtype.kind != "f" or all(np.isfinite(chunk).all() for chunk in _chunks(numbers))


def widest(ranges: Iterable[str | None]) -> str | None:
    """Return the widest of several ranges, None if there are none."""
    found = (name for name in ranges if name is not None)
    return max(found, key=list(RANGES).index, default=None)


def ranges_after_fit(fitted: Ranges | None, found: Ranges) -> Ranges:
    """Return the ranges in which images are read.

    Parameters
    ----------
    fitted : Ranges or None
        The ranges of the images seen during fit; None if this is the fit.
    found : Ranges
        The ranges of the images that come now.

    Returns
    -------
    ranges : Ranges
        Dark images may lie in a narrower range than the images seen during fit. They are read as
        those were, but fractions are not taken for levels.

    Raises
    ------
    ValueError
        If floats of this range cannot be compared with the images seen during fit.
    """
    if fitted is None:
        floats = "other" if found.floats == "small" else found.floats
    else:
        floats = _floats_after_fit(fitted, found.floats)
    return Ranges(floats, _whole_after_fit(fitted, found))


def _floats_after_fit(fitted: Ranges, found: str | None) -> str | None:
    if found in (None, fitted.floats) or found in _DARK.get(str(fitted.floats), ()):
        return fitted.floats
    if fitted.floats is None and found not in UNSCALED:
        return "levels" if found == "small" else found
    if (fitted.floats, found) == ("binary", "fractions"):
        return found
    if fitted.floats is not None:
        before = f"floats {RANGES[fitted.floats]}"
    else:
        before = "of 16 bits" if fitted.whole == "16 bits" else "of 8 bits (0 to 255)"
    raise ValueError(
        f"The images are floats {RANGES[str(found)]}, but the images seen during fit were "
        f"{before}: bring them to the same range" + _advice(fitted.floats)
    )


def _whole_after_fit(fitted: Ranges | None, found: Ranges) -> str | None:
    before = None if fitted is None else fitted.whole
    if "16 bits" in (before, found.whole):
        return "16 bits"
    if found.whole != "binary":
        return found.whole or before
    # Zeros and ones are nearly black images among levels, and masks among masks.
    seen = found if fitted is None else fitted
    return "binary" if set(seen) <= {"binary", None} and any(seen) else "levels"


def meaning_of(dtype: np.dtype, ranges: Ranges) -> str | None:
    """Return the range that decides how numbers of a dtype are read; None if they say it."""
    if dtype.kind == "f":
        return "fractions" if ranges.floats == "binary" else ranges.floats
    if dtype.kind == "b" or ranges.whole == "levels":
        return None
    return None if ranges.whole == "16 bits" and dtype.itemsize == 1 else ranges.whole


def to_pixels(numbers: np.ndarray, ranges: Ranges) -> np.ndarray:
    """Bring the numbers of one image or of several to uint8, 0 to 255, or float32, 0 to 1.

    Parameters
    ----------
    numbers : ndarray
        Numbers of any dtype.
    ranges : Ranges
        What they mean; floats of no range are left as they are, and whole numbers are 0 to 255.

    Returns
    -------
    pixels : ndarray of the same shape
        uint8 or float32. Floats of the ranges "other" and "signed" are not scaled.

    Raises
    ------
    ValueError
        If a whole number is not between 0 and 255, or 65535, or if images of 8 or 16 bits are
        among floats of a range that cannot be compared with them.
    """
    meaning = meaning_of(numbers.dtype, ranges)
    if numbers.dtype.kind == "f":
        if meaning != "levels":
            return numbers.astype(np.float32, copy=False)
        if all(map(_are_whole, _chunks(numbers))):
            return numbers.astype(np.uint8)
        return numbers.astype(np.float32) / np.float32(255)
    if ranges.floats in UNSCALED:
        bits = "16 bits" if meaning == "16 bits" else "8 bits (0 to 255)"
        raise ValueError(
            f"The images are of {bits}, but the images seen during fit were floats "
            f"{RANGES[str(ranges.floats)]}: bring them to the same range" + _advice(ranges.floats)
        )
    highest = 65535 if meaning == "16 bits" else 255
    if numbers.dtype not in (np.bool_, np.uint8) and numbers.size:
        low, high = numbers.min(), numbers.max()
        if low < 0 or high > highest:
            raise ValueError(
                f"Images of whole numbers have to be 0 to {highest}, got {low} to {high}: "
                "scale them, or give floats between 0 and 1."
            )
    if meaning == "16 bits":
        return numbers.astype(np.float32) / np.float32(highest)
    if meaning == "binary" or numbers.dtype.kind == "b":
        return (numbers != 0).astype(np.uint8) * np.uint8(255)
    return numbers.astype(np.uint8, copy=False)


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Put RGBA or grey images with alpha on a white background; channels are last."""
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    if pixels.dtype != np.uint8:
        return 1 + (colour - 1) * alpha
    covered = (255 - colour.astype(np.uint32)) * alpha
    return (255 - (covered + 127) // 255).astype(np.uint8)


def read_pixels(numbers: np.ndarray, ranges: Ranges, *, has_alpha: bool) -> np.ndarray:
    """Return images as they are read: see `to_pixels`; a fourth band is transparency."""
    pixels = to_pixels(numbers, ranges)
    is_alpha = has_alpha and _is_transparency(meaning_of(numbers.dtype, ranges))
    return on_white(pixels) if is_alpha else pixels


def n_bands(shape: tuple[int, ...], meaning: str | None) -> int:
    """Return how many bands an image has when it is read; see `meaning_of`."""
    if len(shape) == 2:
        return 1
    return 3 if shape[2] == 4 and _is_transparency(meaning) else shape[2]


def with_channels(images: np.ndarray, *, ndim: int) -> np.ndarray:
    """Give grey images an axis of one channel."""
    return images if images.ndim == ndim else images[..., None]


def with_bands(images: np.ndarray, n_bands: int, row: int) -> np.ndarray:
    """Return images (n, height, width, bands) as grey or RGB, as those seen during fit were.

    Raises
    ------
    ValueError
        If they have another number of bands; the message names ``row``.
    """
    bands = images.shape[3]
    if bands != n_bands and {bands, n_bands} != {1, 3}:
        raise ValueError(
            f"Row {row} is an image with {bands} bands (height, width, bands: "
            f"{images.shape[1:]}), but the images seen during fit have {n_bands}: "
            "give all images the same bands."
        )
    if bands > n_bands:
        grey = images @ np.array(GREY_WEIGHTS, dtype=np.float32)
        grey = grey.round() if images.dtype == np.uint8 else grey
        return grey[..., None].astype(images.dtype)
    return np.repeat(images, 3, axis=3) if bands < n_bands else images


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


def _is_transparency(meaning: str | None) -> bool:
    """Whether a fourth band is one: pictures have it; measurements have near infrared."""
    return meaning not in (*UNSCALED, "16 bits")


def _are_whole(numbers: np.ndarray) -> bool:
    return bool((numbers == np.rint(numbers)).all())


def _chunks(numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Cut numbers along the first axis: no large temporary arrays, and what ends early is fast."""
    step = max(1, _CHUNK * len(numbers) // numbers.size) if numbers.size else 1
    for start in range(0, len(numbers) if numbers.size else 0, step):
        yield numbers[start : start + step]


def _advice(fitted: str | None) -> str:
    if fitted in UNSCALED:
        return ", as the images seen during fit were made, such as (images / 255 - mean) / std."
    if fitted == "levels":
        return ", such as images * 255, or give uint8."
    return ", such as images / 255, or give uint8."
