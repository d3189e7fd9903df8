"""Keys of the feature store: a digest of the model followed by a digest of the row's content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import xxhash

from sk_aft._data._images import image_bytes, load_numbers
from sk_aft._data._pixels import Ranges, meaning_of
from sk_aft._data._rows import Rows

DIGEST_SIZE = 16
KEY_SIZE = 2 * DIGEST_SIZE
# Changes when the same bytes are decoded differently, so that features of images as they were
# decoded before are not used. 2: rotated upright, and transparent images on white.
_IMAGE_VERSION = 2


def model_digest(fingerprint: Mapping[str, Any], dtype: str = "float32") -> bytes:
    """Return the digest of everything that determines a model's features.

    Parameters
    ----------
    fingerprint : mapping
        JSON-serialisable description: weights, pooling, preprocessing. It excludes the batch
        size and the device, which must not change the features.
    dtype : str, default="float32"
        Storage type of the features.

    Returns
    -------
    digest : bytes of length 16
        Equal for equal fingerprints, regardless of the order of their entries.
    """
    text = json.dumps([dtype, fingerprint], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_SIZE).digest()


def row_digests(
    rows: Rows, *, first_row: int = 0, on_error: Callable[[int, Exception], None] | None = None
) -> list[bytes]:
    """Digest the content of each row.

    Texts are digested as UTF-8, pairs of texts with the length of the first. Image files, given as
    path or bytes, are digested by their bytes. Arrays and PIL images are digested by dtype, shape
    and pixels, and by the range in which these are read, unless it is the usual one of 8 bits. A
    file whose content changed is a new row. The digest of a row that is missing (None) is zero.

    Parameters
    ----------
    rows : Rows
        Rows of any kind.
    first_row : int, default=0
        Number of the first row for ``on_error``.
    on_error : callable, optional
        Called with the number of a row that cannot be read and the error; the digest of such a
        row is zero. By default the error is raised.

    Returns
    -------
    digests : list of bytes of length 16
        One for each row; equal content gives equal digests.
    """
    digest = xxhash.xxh3_128_digest
    if rows.kind == "category":
        rows = rows.read_as("text")
    values = rows.values
    if rows.kind == "text":
        return [
            bytes(DIGEST_SIZE)
            if text is None
            else digest(b"text\0" + text.encode("utf-8", "surrogatepass"))
            for text in values
        ]
    if rows.kind == "pair":
        return [
            bytes(DIGEST_SIZE) if None in pair else digest(_pair_bytes(*pair))
            for pair in values.tolist()
        ]
    if rows.kind == "numeric":
        seed = _seed(f"array {values.dtype.str} {values.shape[1:]}")
        return [digest(row.data, seed) for row in np.ascontiguousarray(values)]
    if values.dtype != object and values.dtype.kind != "f":
        seed = _image_seed(values[0], rows.float_range)
        return [digest(row.data, seed) for row in np.ascontiguousarray(values)]
    digests = []
    for index, value in enumerate(values):
        if value is None:
            digests.append(bytes(DIGEST_SIZE))
            continue
        row = first_row + index if rows.indices is None else rows.position(index)
        try:
            digests.append(_image_digest(value, row, rows.float_range))
        except ValueError as error:
            if on_error is None:
                raise
            on_error(first_row + index, error)
            digests.append(bytes(DIGEST_SIZE))
    return digests


def _pair_bytes(first: str, second: str) -> bytes:
    """Return bytes that tell where the first text of a pair ends."""
    texts = [text.encode("utf-8", "surrogatepass") for text in (first, second)]
    return b"pair\0" + len(texts[0]).to_bytes(8, "little") + texts[0] + texts[1]


def digest_array(digests: Sequence[bytes]) -> np.ndarray:
    """Return digests as an array of shape (n_rows, 2), uint64."""
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


def split_keys(keys: Sequence[bytes]) -> tuple[bytes, np.ndarray]:
    """Return the model of all keys, and the digests of the rows as in `digest_array`."""
    joined = b"".join(keys)
    are_keys = set(map(len, keys)) == {KEY_SIZE}
    words = np.frombuffer(joined, dtype="<u8").reshape(len(keys), -1) if are_keys else None
    if words is None or (words[:, :2] != words[0, :2]).any():
        raise ValueError(
            f"Keys have to be {KEY_SIZE} bytes, a model's digest and a row's, of one model."
        )
    return joined[:DIGEST_SIZE], words[:, 2:]


def _image_digest(value: Any, row: int, ranges: Ranges | None) -> bytes:
    if isinstance(value, (str, PurePath, bytes, bytearray, memoryview)):
        header = f"image file {_IMAGE_VERSION} {ranges}\0"
        return xxhash.xxh3_128_digest(header.encode() + image_bytes(value, row))
    # The decoded pixels, as the model sees them: a palette and a mode change them.
    array = np.ascontiguousarray(load_numbers(value, row))
    return xxhash.xxh3_128_digest(array.data, _image_seed(array, ranges))


def _image_seed(image: np.ndarray, ranges: Ranges | None) -> int:
    meaning = meaning_of(image.dtype, ranges or Ranges())
    return _seed(f"image {_IMAGE_VERSION} {meaning} {image.dtype.str} {image.shape}")


def _seed(header: str) -> int:
    return xxhash.xxh3_64_intdigest(header.encode())
