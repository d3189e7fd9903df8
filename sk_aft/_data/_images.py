"""Reads images from paths, bytes of files, PIL images and arrays."""

from __future__ import annotations

import io
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sk_aft._data._pixels import on_white, range_of, read_pixels, widest
from sk_aft._optional import import_optional

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

# Files with these suffixes hold no floats, so they need not be opened to find out.
_SUFFIXES_WITHOUT_FLOATS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"})
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY_MODES = ("1", "L", "LA", "La", "I", "F", *_DEEP_MODES)
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112
# Errors that are not caused by an image.
_OTHER_FAULTS = (ImportError, MemoryError)


def load_image(value: Any, row: int, float_range: str | None = None) -> np.ndarray:
    """Decode one image as it is read.

    Parameters
    ----------
    value : str, PathLike, bytes, PIL.Image.Image or ndarray
        One element of the values of image rows.
    row : int
        Number of the row, for the error message.
    float_range : str, optional
        What floats mean, see `sk_aft._data._pixels`; default: they are unchanged.

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
        return read_pixels(numbers, float_range, has_alpha=numbers.shape[2:] == (4,))
    except ValueError as error:
        raise ValueError(f"Row {row} cannot be read. {error}") from error


def load_numbers(value: Any, row: int) -> np.ndarray:
    """Decode one image and leave its numbers unchanged; raises as `load_image`.

    Arrays are returned unchanged, and images that hold floats as floats.
    """
    numbers = value if isinstance(value, np.ndarray) else _decoded(value, row)
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise ValueError(
            f"Row {row} is an image that holds NaN or infinity: repair the row or leave it out."
        )
    return numbers


def find_float_range(values: np.ndarray) -> str | None:
    """Return the range of the floats in images, or None if all images have 8 bits.

    Parameters
    ----------
    values : ndarray
        The values of image rows. Images that cannot be read are skipped.

    Returns
    -------
    range : str or None
        The widest of the images' ranges, see `sk_aft._data._pixels`.
    """
    images = [values] if values.dtype != object else (_floats(value) for value in values)
    floats = (numbers for numbers in images if numbers is not None and numbers.dtype.kind == "f")
    return widest(found for numbers in floats if (found := range_of(numbers)) is not None)


def image_shape(value: Any, row: int) -> tuple[int, ...]:
    """Return the shape of the output of `load_numbers`, without decoding the pixels."""
    if isinstance(value, np.ndarray):
        return value.shape
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


def _floats(value: Any) -> np.ndarray | None:
    """Return the numbers of an image that holds floats, or None for other images."""
    if isinstance(value, np.ndarray):
        return value
    is_path = isinstance(value, (str, PurePath))
    if is_path and PurePath(value).suffix.lower() in _SUFFIXES_WITHOUT_FLOATS:
        return None
    try:
        image = open_image(value, 0)
        return np.asarray(image) if image.mode == "F" else None
    except _OTHER_FAULTS:
        raise
    except Exception:  # the error is raised when the image is read
        return None


def _decoded(value: Any, row: int) -> np.ndarray:
    """Return an encoded image as numbers, upright and on white."""
    image = open_image(value, row)
    try:
        image.load()  # this also rotates a TIFF image
        if _orientation(image) != 1:
            image = import_optional(
                "PIL.ImageOps", extra="vision", purpose="reading images"
            ).exif_transpose(image)
        if image.mode == "F":
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
    """Scale grey images of more than 8 bits to 0..255; Pillow would clip them at 255."""
    numbers = np.asarray(image)
    # Pillow stores 16-bit images of some formats as 32 bits. Other 32-bit images are read as
    # 16 bits if their numbers exceed 255.
    low, high = numbers.min(initial=0), numbers.max(initial=0)
    if low < 0 or high > 65535:
        raise ValueError(f"its numbers are {low} to {high}, not 0 to 255 or 0 to 65535")
    is_deep = image.mode != "I" or image.format in ("PNG", "PPM") or high > 255
    pixels = np.clip(numbers / 257 if is_deep else numbers, 0, 255).round().astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        pixels[numbers == transparent] = 255
    return pixels


def _unreadable(value: Any, row: int, error: Exception | str) -> str:
    what = repr(str(value)) if isinstance(value, (str, PurePath)) else f"{type(value).__name__}"
    reason = (str(error) or repr(error)).rstrip(".")
    return f"Row {row} ({what}) is not a readable image: {reason}. Repair the row or leave it out."
