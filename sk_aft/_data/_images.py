"""Images in all their containers: paths, bytes of files, PIL images and arrays."""

from __future__ import annotations

import io
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sk_aft._optional import import_optional

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

_DEEP_GREY_MODES = ("I;16", "I;16L", "I;16B", "I", "F")
_GREY_MODES = ("1", "L", *_DEEP_GREY_MODES)


def load_image(value: Any, row: int) -> np.ndarray:
    """Decode one image.

    Parameters
    ----------
    value : str, PathLike, bytes, PIL.Image.Image or ndarray
        One element of the values of image rows.
    row : int
        Number of the row, for the error message.

    Returns
    -------
    image : ndarray of shape (height, width) or (height, width, channels)
        Greyscale or RGB, uint8 unless the row was an array of another dtype.

    Raises
    ------
    ValueError
        If the row cannot be read as an image; names the row and its path.
    """
    if isinstance(value, np.ndarray):
        return whole_numbers_as_bytes(value)
    image = open_image(value, row)
    try:
        if image.mode in _DEEP_GREY_MODES:
            return _eight_bits(np.asarray(image))
        if image.mode in _GREY_MODES:
            return np.asarray(image.convert("L"))
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(_unreadable(value, row, error)) from error


def whole_numbers_as_bytes(images: np.ndarray) -> np.ndarray:
    """Make images of whole numbers uint8; float images are left as they are.

    Raises
    ------
    ValueError
        If a whole number is not between 0 and 255.
    """
    if images.dtype == np.uint8 or images.dtype.kind not in "iu":
        return images
    if images.size and (images.min() < 0 or images.max() > 255):
        raise ValueError(
            f"Images of whole numbers have to be 0 to 255, got {images.min()} to {images.max()}: "
            "scale them, or give floats between 0 and 1."
        )
    return images.astype(np.uint8)


def image_shape(value: Any, row: int) -> tuple[int, ...]:
    """Return the shape that `load_image` would give, without decoding the pixels."""
    if isinstance(value, np.ndarray):
        return value.shape
    image = open_image(value, row)
    return (image.height, image.width) + (() if image.mode in _GREY_MODES else (3,))


def open_image(value: Any, row: int) -> Any:
    """Open one encoded image without decoding its pixels; raises ValueError as `load_image`."""
    image_module = import_optional("PIL.Image", extra="vision", purpose="reading images")
    if isinstance(value, image_module.Image):
        return value
    try:
        return image_module.open(io.BytesIO(image_bytes(value, row)))
    except image_module.UnidentifiedImageError:
        raise ValueError(_unreadable(value, row, "its format is not known")) from None
    except (OSError, SyntaxError) as error:
        raise ValueError(_unreadable(value, row, error)) from error


def image_bytes(value: Any, row: int) -> bytes:
    """Return the content of one image file given by its path or its bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    try:
        return Path(value).read_bytes()
    except OSError as error:
        raise ValueError(_unreadable(value, row, error)) from error


def is_pil_image(value: Any) -> bool:
    """Return whether a value is a PIL image."""
    # Comparing the module name keeps Pillow optional and unimported.
    return any(base.__module__.startswith("PIL.") for base in type(value).__mro__)


def has_image_suffix(text: str) -> bool:
    """Return whether a text ends like the name of an image file."""
    # A suffix is looked for in the last few characters only: texts may be long.
    dot = text.rfind(".", -5)
    return dot > 0 and text[dot:].lower() in IMAGE_SUFFIXES


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Bring 16 bits, or floats in [0, 1], to 0..255; Pillow would make all above 255 white."""
    scale = 255 if grey.dtype.kind == "f" else 1 / 257
    return np.clip(grey * scale, 0, 255).round().astype(np.uint8)


def _unreadable(value: Any, row: int, error: Exception | str) -> str:
    what = repr(str(value)) if isinstance(value, (str, PurePath)) else f"{type(value).__name__}"
    return f"Row {row} ({what}) is not a readable image: {error}. Repair the row or leave it out."
