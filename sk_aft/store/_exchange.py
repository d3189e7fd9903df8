"""Features in a file that another store can import."""

from __future__ import annotations

import json
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from sk_aft.store import _parquet, _safetensors
from sk_aft.store._directory import StoreDirectory
from sk_aft.store._keys import model_digest
from sk_aft.store._model_rows import STORED_DTYPES, ModelRows, as_float32, records_of
from sk_aft.store._removal import chosen_models

_FORMATS: dict[str, ModuleType] = {".safetensors": _safetensors, ".parquet": _parquet}
# What marks a file of features among the entries of its metadata.
EXPORTED = "sk_aft.features"
_VERSION = 1
_PIECE_BYTES = 32 * 1024 * 1024


class _Model(NamedTuple):
    """What a file says of its model; see `FeatureStore.register_model`."""

    digest: bytes
    name: str
    dtype: str
    fingerprint: dict[str, Any]

    @property
    def description(self) -> dict[str, Any]:
        """What a store keeps of the model, under its digest."""
        return {"name": self.name, "dtype": self.dtype, "fingerprint": self.fingerprint}

    def as_metadata(self) -> dict[str, str]:
        content = {**self.description, "digest": self.digest.hex(), "version": _VERSION}
        return {EXPORTED: json.dumps(content)}

    @classmethod
    def of(cls, metadata: dict[str, str], path: Path) -> _Model:
        if EXPORTED not in metadata:
            raise ValueError(
                f"{path} was not written by FeatureStore.export_features: its metadata has no "
                f"entry {EXPORTED!r}. To train on features in your own order, read them with "
                "sk_aft.store.read_features."
            )
        try:
            content = json.loads(metadata[EXPORTED])
            version = content.pop("version")
            model = cls(**{**content, "digest": bytes.fromhex(content["digest"])})
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise ValueError(f"The metadata of {path} is damaged: {error!r}.") from error
        if version != _VERSION:
            raise ValueError(
                f"{path} is of version {version!r}: this version of sk-aft reads {_VERSION}."
            )
        is_valid = isinstance(model.name, str) and isinstance(model.fingerprint, dict)
        if not is_valid or model.dtype not in [*STORED_DTYPES]:
            raise ValueError(f"The metadata of {path} has a name, dtype or fingerprint of no use.")
        if model.digest != model_digest(model.fingerprint, model.dtype):
            raise ValueError(
                f"The fingerprint of {path} does not match its digest {model.digest.hex()}: the "
                "file was changed, or its features are of another model. Export them again."
            )
        return model


def export_rows(directory: StoreDirectory, path: str | os.PathLike, model: str | bytes) -> int:
    """Write a file as `FeatureStore.export_features` does; return the number of rows."""
    path = Path(path)
    file_format = _format_of(path)
    digest, rows = _only_model(directory, model)
    description = directory.description(digest)
    if description is None:
        raise ValueError(
            f"The fingerprint of model {digest.hex()} is not in {directory}: run its extractor "
            "with this store once, which registers it."
        )
    n_rows = 0

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal n_rows
        for start, stop in rows.pieces(_PIECE_BYTES):
            records, stored = rows.intact(rows.current(start, stop))
            n_rows += len(records)
            if len(records):
                yield np.ascontiguousarray(records["digest"]), stored

    shape = rows.n_rows, rows.width
    metadata = _Model(digest, **description).as_metadata()
    written = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        file_format.write_rows(written, metadata, shape, rows.files.dtype, pieces())
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)
    n_different = sum(len(rows.current(*bounds)) for bounds in rows.pieces(_PIECE_BYTES))
    n_damaged = n_different - n_rows + rows.n_lost
    if n_damaged:
        warnings.warn(f"{n_damaged} rows are damaged and not in {path}.", stacklevel=3)
    return n_rows


def import_rows(directory: StoreDirectory, path: str | os.PathLike) -> int:
    """Add the rows of a file as `FeatureStore.import_features` does; return their number."""
    directory.check_writable()
    path = Path(path)
    file_format = _format_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of features at {str(path)!r}.")
    model = _Model.of(file_format.read_metadata(path), path)
    width = _check_rows(file_format, path, model)
    known = directory.rows(model.digest)
    if known is not None and known.width != width:
        raise ValueError(
            f"{path} holds {width} features per row of model {model.name!r}, but {directory} "
            f"{known.width}: the width changed without the fingerprint. Remove the model from the "
            "store if the file is right (FeatureStore.remove)."
        )
    if directory.description(model.digest) is None:
        directory.describe(model.digest, model.description)
    n_added = 0
    for digests, stored in file_format.read_rows(path, model.dtype, _PIECE_BYTES)[1]:

        def stored_of(
            fresh: np.ndarray, digests: np.ndarray = digests, stored: np.ndarray = stored
        ) -> tuple[np.ndarray, np.ndarray]:
            chosen = stored[fresh]
            return records_of(digests[fresh], chosen), chosen

        n_added += directory.add(model.digest, digests, width, model.dtype, stored_of)
    return n_added


def _check_rows(file_format: ModuleType, path: Path, model: _Model) -> int:
    """Raise if any row of a file cannot be stored, before the first one is; return their width."""
    width, pieces = file_format.read_rows(path, model.dtype, _PIECE_BYTES)
    first_row = 0
    for digests, stored in pieces:
        finite_mask = np.isfinite(as_float32(stored, model.dtype)).all(axis=1)
        bad = np.flatnonzero(~finite_mask | (digests == 0).all(axis=1))
        if len(bad):
            row = int(bad[0])
            what = "a digest of zeros" if finite_mask[row] else "NaN or infinity"
            raise ValueError(f"Row {first_row + row} of {path} has {what}: no store wrote it.")
        first_row += len(digests)
    return width


def _only_model(directory: StoreDirectory, model: str | bytes) -> tuple[bytes, ModelRows]:
    """Return the digest and rows of the model that is meant; raise unless there is one."""
    found = [(digest, directory.rows(digest)) for digest in chosen_models(directory, model)]
    having_rows = [(digest, rows) for digest, rows in found if rows is not None and rows.n_rows]
    if not having_rows:
        raise ValueError(f"Model {model!r} has no rows in {directory}.")
    if len(having_rows) > 1:
        digests = [digest.hex() for digest, _ in having_rows]
        raise ValueError(
            f"{len(digests)} models are named {model!r} in {directory}: give the digest of one, "
            f"out of {digests}; FeatureStore.explain_key tells how they differ."
        )
    return having_rows[0]


def _format_of(path: Path) -> ModuleType:
    if path.suffix not in _FORMATS:
        raise ValueError(
            f"The suffix of {str(path)!r} names no format of features: expected "
            f"{' or '.join(_FORMATS)}."
        )
    return _FORMATS[path.suffix]
