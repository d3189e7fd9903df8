"""Rows -> features: look each row up in the store, run the model on what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from sk_aft._device import resolve_device
from sk_aft._rows import Rows, as_rows, open_image
from sk_aft.backbones import Backbone
from sk_aft.store import FeatureStore, model_digest, row_digests
from sk_aft.store._session import session_store

# Rows are committed to the store this many batches at a time: few enough to lose little when
# interrupted, enough for a text model to sort them by length.
_BATCHES_PER_COMMIT = 8


@dataclass(frozen=True)
class StoredRows:
    """Rows of a matrix that is usually memory-mapped: gathered when asked for.

    Parameters
    ----------
    matrix : ndarray of shape (n_stored, n_features)
        All stored rows of one model.
    places : ndarray of shape (n_rows,), int64
        Which of them these rows are.
    """

    matrix: np.ndarray
    places: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Number of these rows and of features."""
        return len(self.places), self.matrix.shape[1]

    def __len__(self) -> int:
        return len(self.places)

    def take(self, indices: Any) -> np.ndarray:
        """Return some of the rows as an array in memory."""
        return self.matrix[self.places[indices]]

    def subset(self, indices: Any) -> StoredRows:
        """Return some of the rows without reading them."""
        return StoredRows(self.matrix, self.places[indices])

    def view(self) -> np.ndarray:
        """Return all rows, still memory-mapped where they follow each other in the matrix."""
        first = self.places[0] if len(self.places) else 0
        if np.array_equal(self.places, np.arange(first, first + len(self.places))):
            return self.matrix[first : first + len(self.places)]
        return self.matrix[self.places]


class FeatureSource(NamedTuple):
    """What turns rows into features: backbones, a store and how to run them.

    Parameters
    ----------
    backbones : list of Backbone
        Their features are concatenated.
    cache : {"auto", None}, path-like or FeatureStore
        Where features are kept; None keeps them in memory only.
    batch_size : int or "auto"
        Rows a batch.
    device : str
        Where the models run.
    verbose : int
        0 is silent, 1 shows a progress bar.
    """

    backbones: Sequence[Backbone]
    cache: Any
    batch_size: Any
    device: str
    verbose: int

    def compute(self, X: Any) -> list[StoredRows]:
        """Return the features of ``X``, one item a backbone."""
        return [self._compute_one(backbone, X) for backbone in self.backbones]

    def _compute_one(self, backbone: Backbone, X: Any) -> StoredRows:
        rows = as_rows(X, kind=backbone.kind)
        model = model_digest(backbone.fingerprint())
        digests = row_digests(rows)
        store = self._store(backbone)
        if store is None:
            distinct, places = _distinct(digests)
            chunks = self._embed(backbone, rows, distinct)
            matrix = np.concatenate([features for _, features in chunks])
            matrix.setflags(write=False)  # slices share it, as they share a file
            return StoredRows(matrix, places)
        keys = [model + digest for digest in digests]
        places = store.locate(keys)
        if (places < 0).any():
            # Whoever waited here finds what the other process computed meanwhile.
            with store.computing(model):
                missing = store.missing(keys)
                distinct, _ = _distinct([digests[i] for i in missing])
                for chunk, features in self._embed(backbone, rows, missing[distinct]):
                    store.put_many([keys[i] for i in chunk], features)
            places = store.locate(keys)
            if (places < 0).any():
                row = int(np.flatnonzero(places < 0)[0])
                raise RuntimeError(
                    f"The features of row {row} were written to {store} but cannot be read back: "
                    "is the disk full or damaged, or was the directory removed?"
                )
        return StoredRows(store.matrix(model), places)

    def _store(self, backbone: Backbone) -> FeatureStore | None:
        if self.cache is None:
            return None
        if not backbone.is_persistent:
            return session_store()
        if isinstance(self.cache, FeatureStore):
            return self.cache
        return FeatureStore(None if self.cache == "auto" else self.cache)

    def _embed(self, backbone: Backbone, rows: Rows, todo: np.ndarray) -> Any:
        """Yield (row numbers, features) for the rows ``todo``, a few batches at a time."""
        if rows.kind == "image" and rows.values.dtype == object:
            for row in todo:
                if not isinstance(rows.values[row], np.ndarray):
                    open_image(rows.values[row], row)
        batch_size = backbone.batch_size if self.batch_size == "auto" else self.batch_size
        device = resolve_device(self.device)
        progress = tqdm(
            total=len(todo), desc=backbone.name, unit="row", disable=not self.verbose, leave=True
        )
        with progress:
            for start in range(0, len(todo), batch_size * _BATCHES_PER_COMMIT):
                chunk = todo[start : start + batch_size * _BATCHES_PER_COMMIT]
                features = backbone.embed(rows.take(chunk), batch_size=batch_size, device=device)
                if features.ndim != 2 or len(features) != len(chunk):
                    raise ValueError(
                        f"Model {backbone.name!r} returned features of shape {features.shape} for "
                        f"{len(chunk)} rows: expected ({len(chunk)}, n_features), a row for a row."
                    )
                finite = np.isfinite(features).all(axis=1)
                yield chunk[finite], features[finite]
                if not finite.all():
                    row = int(chunk[~finite][0])
                    raise ValueError(
                        f"Model {backbone.name!r} gave NaN or infinite features for row {row} "
                        f"({_excerpt(rows.values[row])}). Repair the row or leave it out."
                    )
                progress.update(len(chunk))


def _distinct(digests: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first position of each distinct digest, and each digest's number among them."""
    number: dict[bytes, int] = {}
    places = np.array([number.setdefault(digest, len(number)) for digest in digests], np.int64)
    first: np.ndarray = np.full(len(number), -1, dtype=np.int64)
    first[places[::-1]] = np.arange(len(digests))[::-1]
    return first, places


def _excerpt(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, bytes)) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
