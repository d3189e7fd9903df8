"""Reads images from paths, bytes of files, PIL images and arrays."""

from __future__ import annotations

import io
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sk_aft._data._pixels import (
    Ranges,
    are_finite,
    meaning_of,
    n_bands,
    on_white,
    range_of,
    read_pixels,
    whole_range_of,
    widest,
)
from sk_aft._optional import import_optional

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

# Files of these formats say how their numbers are read.
_CERTAIN_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"})
_CERTAIN_BEGINNINGS = (b"BM", b"GIF8", b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY_MODES = ("1", "L", "LA", "La", "I", "F", *_DEEP_MODES)
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112
# Errors that are not caused by an image.
_OTHER_FAULTS = (ImportError, MemoryError)


def load_image(value: Any, row: int, ranges: Ranges | None = None) -> np.ndarray:
    """Decode one image as it is read.

    Parameters
    ----------
    value : str, PathLike, bytes, PIL.Image.Image or ndarray
        One element of the values of image rows.
    row : int
        Number of the row, for the error message.
    ranges : Ranges, optional
        What numbers mean; default: floats are left as they are, whole numbers are 0 to 255.

    Returns
    -------
    image : ndarray of shape (height, width) or (height, width, channels)
        uint8, 0 to 255, or float32, 0 to 1. Rotated upright; transparent images are put on
        white, so that four channels become three.

    Raises
    ------
    ValueError
        If the row cannot be read as an image; the message names the row and its path.
    """
    numbers = load_numbers(value, row)
    try:
        return read_pixels(numbers, ranges or Ranges(), has_alpha=numbers.shape[2:] == (4,))
    except ValueError as error:
        raise ValueError(f"Row {row} cannot be read. {error}") from error


def load_numbers(value: Any, row: int) -> np.ndarray:
    """Decode one image and leave its numbers unchanged; raises as `load_image`.

    Arrays are returned as they are, and images of floats or of more than 8 bits as such.
    """
    numbers = value if isinstance(value, np.ndarray) else _decoded(value, row)
    if not are_finite(numbers):
        raise ValueError(
            f"Row {row} is an image that holds NaN or infinity: repair the row or leave it out."
        )
    return numbers


def find_ranges(values: np.ndarray, fitted: Ranges | None = None) -> Ranges:
    """Return the ranges of the numbers of images, as far as they decide how they are read.

    Parameters
    ----------
    values : ndarray
        The values of image rows. Images that cannot be read are passed over.
    fitted : Ranges, optional
        The ranges of the images seen during a fit, which make most of the work unnecessary;
        default: this is the fit.

    Returns
    -------
    ranges : Ranges
        The widest of the images' ranges.
    """
    floats = whole = None
    for value in [values] if values.dtype != object else values:
        # 8 bits are levels as soon as one of them is neither 0 nor 1.
        are_masks = (fitted is None or "binary" in fitted) and whole in (None, "binary")
        numbers = _numbers_in_doubt(value, are_masks)
        if numbers is None:
            continue
        if numbers.dtype.kind != "f":
            if are_masks or numbers.dtype.itemsize > 1:
                whole = widest([whole, whole_range_of(numbers)])
        elif fitted is None or fitted.floats != "signed":
            floats = widest([floats, range_of(numbers)])
    return Ranges(floats, whole)


def image_shape(value: Any, row: int, ranges: Ranges | None = None) -> tuple[int, ...]:
    """Return the shape that `load_image` would give, without decoding the pixels."""
    if isinstance(value, np.ndarray):
        shape = value.shape
        if len(shape) == 2:
            return shape
        return (*shape[:2], n_bands(shape, meaning_of(value.dtype, ranges or Ranges())))
    image = open_image(value, row)
    size = (image.height, image.width)
    if _orientation(image) >= 5:  # rotated by 90 degrees
        size = size[::-1]
    return size + (() if image.mode in _GREY_MODES else (3,))


def open_image(value: Any, row: int) -> Any:
    """Open one encoded image without decoding its pixels; raises ValueError as `load_image`."""
    image_module = import_optional("PIL.Image", extra="vision", purpose="reading images")
    if isinstance(value, image_module.Image):
        return value
    content = io.BytesIO(image_bytes(value, row))
    try:
        return image_module.open(content)
    except image_module.UnidentifiedImageError:
        raise ValueError(_unreadable(value, row, "its format is not known")) from None
    except _OTHER_FAULTS:
        raise
    except Exception as error:  # parsers of formats raise errors of many types
        raise ValueError(_unreadable(value, row, error)) from error


def image_bytes(value: Any, row: int) -> bytes:
    """Return the content of one image file given by its path or its bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    try:
        return Path(value).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise ValueError(_unreadable(value, row, error)) from error


def is_pil_image(value: Any) -> bool:
    """Return whether a value is a PIL image."""
    # Comparing the module name keeps Pillow optional and unimported.
    return any(base.__module__.startswith("PIL.") for base in type(value).__mro__)


def has_image_suffix(text: str) -> bool:
    """Return whether a text ends like the name of an image file."""
    # Only the last few characters are searched for a suffix, because texts may be long.
    dot = text.rfind(".", -5)
    return dot > 0 and text[dot:].lower() in IMAGE_SUFFIXES


def _numbers_in_doubt(value: Any, are_masks: bool) -> np.ndarray | None:
    """Return the numbers of an image whose range has to be found, None for others.

    ``are_masks`` says whether those of 8 bits have to, too.
    """
    if value is None or isinstance(value, np.ndarray):
        return value
    try:
        if not are_masks and _is_certain(value):
            return None
        image = open_image(value, 0)
        if image.mode == "1":
            return np.zeros(1, dtype=bool) if are_masks else None
        in_doubt = are_masks or image.mode == "F" or _has_free_depth(image)
        return _decoded(image, 0) if in_doubt else None
    except _OTHER_FAULTS:
        raise
    except Exception:  # the error is raised when the image is read
        return None


def _is_certain(value: Any) -> bool:
    """Return whether a file's name or its first bytes say that it holds 8 bits, or 16 by itself."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value[:8]).startswith(_CERTAIN_BEGINNINGS)
    if is_pil_image(value):
        return False
    if PurePath(value).suffix:
        return PurePath(value).suffix.lower() in _CERTAIN_SUFFIXES
    with Path(value).open("rb") as file:
        return file.read(8).startswith(_CERTAIN_BEGINNINGS)


def _has_free_depth(image: Any) -> bool:
    """Return whether the numbers of an image may be of 8 or of 16 bits."""
    return image.mode in ("I", *_DEEP_MODES) and image.format not in ("PNG", "PPM")


def _decoded(value: Any, row: int) -> np.ndarray:
    """Return an encoded image as numbers, upright and on white."""
    image = open_image(value, row)
    free_depth = _has_free_depth(image)  # a copy that is turned does not know its format
    try:
        image.load()  # this also rotates a TIFF image
        if _orientation(image) != 1:
            image = import_optional(
                "PIL.ImageOps", extra="vision", purpose="reading images"
            ).exif_transpose(image)
        if image.mode == "F" or free_depth:
            return np.asarray(image)
        if image.mode == "I" or image.mode in _DEEP_MODES:
            return _eight_bits(image)
        colours = "L" if image.mode in _GREY_MODES else "RGB"
        if not _is_transparent(image):
            return np.asarray(image.convert(colours))
        pixels = on_white(np.asarray(image.convert(colours + "A")))
        return pixels[..., 0] if colours == "L" else pixels
    except _OTHER_FAULTS:
        raise
    except Exception as error:  # parsers of formats raise errors of many types
        raise ValueError(_unreadable(value, row, error)) from error


def _is_transparent(image: Any) -> bool:
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def _orientation(image: Any) -> int:
    """Return the Exif orientation; 1 is upright."""
    if image.format == "TIFF":
        return 1  # Pillow rotates these
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # an image with broken metadata can still be read
        return 1
    return orientation if orientation in range(1, 9) else 1


def _eight_bits(image: Any) -> np.ndarray:
    """Bring grey images of 16 bits to 8; Pillow would make all above 255 white."""
    numbers = np.asarray(image)
    pixels = np.clip(numbers / 257, 0, 255).round().astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        pixels[numbers == transparent] = 255
    return pixels


def _unreadable(value: Any, row: int, error: Exception | str) -> str:
    what = repr(str(value)) if isinstance(value, (str, PurePath)) else f"{type(value).__name__}"
    reason = (str(error) or repr(error)).rstrip(".")
    return f"Row {row} ({what}) is not a readable image: {reason}. Repair the row or leave it out."
