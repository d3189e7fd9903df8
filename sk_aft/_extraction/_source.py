"""The features of rows by several models; rows that are read from a file go in pieces."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from sk_aft._data._counted_notes import CountedNotes
from sk_aft._data._feature_rows import StoredRows
from sk_aft._data._rows import Rows
from sk_aft._extraction._embedding import Embedding, RunOptions
from sk_aft._extraction._reader import Reader
from sk_aft._runtime._progress import RowsProgress
from sk_aft.backbones import Backbone
from sk_aft.store import FeatureStore
from sk_aft.store._process import process_store


class FeatureSource(NamedTuple):
    """What turns rows into features: backbones, a store and how to run them.

    Parameters
    ----------
    readers : list of Reader
        Backbones, whose features are concatenated, and what each reads.
    cache : {"auto", None}, path-like or FeatureStore
        Where features are kept; None keeps them in memory only.
    batch_size : int or "auto"
        Rows per batch; "auto" is each model's own, halved each time memory runs out.
    device : str or tuple of str
        Where the models run; of several devices, each gets a process.
    verbose : int
        0 is silent, 1 shows a progress bar.
    on_error : {"raise", "mask"}
        For rows that a model cannot read: raise an error, or keep them without features.
    """

    readers: Sequence[Reader]
    cache: Any
    batch_size: Any
    device: str | tuple[str, ...]
    verbose: int
    on_error: str = "raise"

    def compute(self, rows: Rows, advance: Callable[[int], Any] | None = None) -> list[StoredRows]:
        """Return the features of some rows, one item per backbone.

        All rows are looked up and all stores are opened before the first model runs. Rows that are
        read from a file go through this a few thousand at a time.

        Parameters
        ----------
        rows : Rows
            The rows.
        advance : callable, optional
            Called with the number of rows that a model has just computed; default: a progress bar
            for each model.
        """
        if rows.is_lazy and len(rows):
            return self._compute_in_pieces(rows)
        parts = [embedding.features() for embedding in self._embeddings(rows, advance)]
        return [
            replace(part, columns=reader.shown)
            for part, reader in zip(parts, self.readers, strict=True)
        ]

    def _compute_in_pieces(self, rows: Rows) -> list[StoredRows]:
        computed, digests = [], []
        notes = CountedNotes()
        with RowsProgress(len(rows), len(self.readers), self.verbose) as progress:
            for piece in rows.pieces():
                with notes.collecting():
                    embeddings = self._embeddings(piece, progress.advance)
                    computed.append([embedding.features() for embedding in embeddings])
                digests.append([embedding.digests for embedding in embeddings])
                progress.end_batch(len(piece))
        for message in notes.messages():
            warnings.warn(message, stacklevel=2)
        parts = []
        for number, reader in enumerate(self.readers):
            mine = [piece[number] for piece in computed]
            store = self.store(reader.backbone)
            if store is None:
                part = StoredRows.joined(mine)
            else:
                known = np.concatenate([piece[number] for piece in digests])
                matrix, indices = store.locate(mine[0].model, known, count=False)
                part = replace(mine[0], matrix=matrix or mine[0].matrix, indices=indices)
            parts.append(replace(part, columns=reader.shown))
        return parts

    def _embeddings(self, rows: Rows, advance: Callable[[int], Any] | None) -> list[Embedding]:
        options = RunOptions(
            self.batch_size, self.device, self.verbose, self.on_error, n_models=len(self.readers)
        )
        return [
            Embedding(
                options,
                reader.model,
                reader.rows(rows),
                self.store(reader.backbone),
                column=reader.column,
                advance=advance,
            )
            for reader in self.readers
        ]

    def store(self, backbone: Backbone) -> FeatureStore | None:
        """Return the store that keeps the features of a model, or None."""
        if self.cache is None:
            return None
        if not backbone.is_persistent:
            return process_store()
        if isinstance(self.cache, FeatureStore):
            return self.cache
        return FeatureStore(None if self.cache == "auto" else self.cache)
