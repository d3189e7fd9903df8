"""The features of rows by one model: look up each row in the store, and compute the missing."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from sk_aft._data._counted_notes import give_note
from sk_aft._data._feature_rows import MatrixInMemory, StoredRows
from sk_aft._data._rows import Rows
from sk_aft._extraction._destination import Destination
from sk_aft._extraction._device_workers import (
    Piece,
    can_start_workers,
    computed_by_workers,
    note_of_worker,
)
from sk_aft._extraction._model_run import ModelRun
from sk_aft._extraction._reader import model_fingerprint
from sk_aft._extraction._row_faults import RowFaults
from sk_aft._runtime._progress import seconds_between_updates
from sk_aft.backbones import Backbone
from sk_aft.exceptions import MissingFeaturesError
from sk_aft.store import FeatureStore, digest_array, row_digests

# Rows are committed to the store in groups of this many batches: few enough to lose little when
# interrupted, and enough for a text model to sort them by length.
_BATCHES_PER_COMMIT = 8
_ROWS_PER_DIGEST = 65_536
# Few enough that no device waits long for another at the end.
_PIECES_PER_DEVICE = 16
# Enough that handing out pieces takes no time, and few enough that they need little memory.
_MOST_COMMITS_IN_A_PIECE = 8
_SECONDS_BETWEEN_LOOKS = 0.05
_NO_ROWS = MatrixInMemory(np.empty((0, 0), dtype=np.float32))
_NO_NUMBERS: np.ndarray = np.empty(0, dtype=np.int64)
# On a GPU groups are larger: each waits for its last batch and for processes that decode images.
_ROWS_PER_COMMIT_ON_CUDA = 4096


class RunOptions(NamedTuple):
    """How to run a model.

    Parameters
    ----------
    batch_size : int or "auto"
        Rows per batch; "auto" is the model's own, halved each time memory runs out.
    device : str or tuple of str
        Where the model runs; of several devices, each gets a process.
    verbose : int
        0 is silent, 1 shows a progress bar.
    on_error : {"raise", "mask"}
        For rows that the model cannot read: raise an error, or keep them without features.
    n_models : int
        How many models are in use, which processes keep loaded.
    """

    batch_size: Any
    device: str | tuple[str, ...]
    verbose: int
    on_error: str
    n_models: int


class Embedding:
    """Computes the features of some rows by one model.

    Parameters
    ----------
    options : RunOptions
        How to run the model.
    backbone : Backbone
        The model.
    rows : Rows
        Rows of a kind that it reads.
    store : FeatureStore or None
        Where its features are kept.
    column : object, optional
        The column of a DataFrame, or tuple of columns, that the rows come from; for messages.

    Attributes
    ----------
    digests : ndarray of shape (n_rows, 2), uint64
        The digest of each row's content.
    """

    def __init__(
        self,
        options: RunOptions,
        backbone: Backbone,
        rows: Rows,
        store: FeatureStore | None,
        *,
        column: Any = None,
        advance: Callable[[int], Any] | None = None,
    ) -> None:
        self._options = options
        self._advance = advance
        self._backbone = backbone
        self._rows = rows
        self._column = column
        self.digests: np.ndarray = np.zeros((len(rows), 2), dtype=np.uint64)
        self._destination: Destination | None = None
        if store is not None:
            fingerprint = model_fingerprint(backbone, rows)
            model = store.register_model(fingerprint, name=backbone.name)
            self._destination = Destination(store, model, self.digests)
        # Whether a worker process, which has loaded the model, has something to say of the rows.
        self._workers_note = False
        self._run = ModelRun(backbone, rows, batch_size=options.batch_size, device=options.device)
        self._rows_per_commit = _BATCHES_PER_COMMIT * (
            backbone.batch_size if options.batch_size == "auto" else options.batch_size
        )
        self._faults = RowFaults(
            self._run,
            self.digests,
            column=column,
            on_error=options.on_error,
            n_hopeless=self._rows_per_commit,
        )
        for start in range(0, len(rows), _ROWS_PER_DIGEST):
            some = np.arange(start, min(start + _ROWS_PER_DIGEST, len(rows)))
            on_error = self._faults.cannot_read
            digests = row_digests(rows.take(some), first_row=start, on_error=on_error)
            self.digests[some] = digest_array(digests)
        self._faults.check_missing()

    def features(self) -> StoredRows:
        """Return the features; those that are not in the store are computed and added to it."""
        destination = self._destination
        found = self._in_memory() if destination is None else self._through(destination)
        self._give_note()
        self._faults.report(found.missing_mask)
        return found

    def _through(self, destination: Destination) -> StoredRows:
        store, model, _ = destination
        matrix, indices = store.locate(model, self.digests)
        todo = self._faults.readable(self._distinct(np.flatnonzero(indices < 0)))
        if len(todo):
            self._check_may_compute(store, len(todo))
            n_hits = len(indices) - int((indices < 0).sum())
            with self._progress(len(todo), n_hits) as progress:
                if self._n_devices > 1:
                    todo = self._fill_by_workers(destination, todo, progress)
                self._fill(destination, todo, progress)
            matrix, indices = store.locate(model, self.digests, count=False)
        for row in np.flatnonzero(indices < 0).tolist():
            if row not in self._faults:
                raise RuntimeError(
                    f"The features of row {row} were written to {store} but cannot be read back: "
                    "is the disk damaged, or was the directory removed?"
                )
        return StoredRows(_NO_ROWS if matrix is None else matrix, indices, model)

    def _check_may_compute(self, store: FeatureStore, n_missing: int) -> None:
        """Raise MissingFeaturesError if features are missing in a store that is only read."""
        if store.read_only:
            n_rows = len(self._distinct(np.arange(len(self._rows))))
            raise MissingFeaturesError(
                f"The features of {n_missing} of {n_rows} distinct rows of model "
                f"{self._backbone.name!r} are not in {store}, and nothing is computed for a store "
                "that is only read. Give cache= a store of your own, and copy this one into it "
                f"first with FeatureStore(...).merge({str(store.path)!r}); or open it without "
                "read_only=True."
            )

    def _in_memory(self) -> StoredRows:
        todo = self._faults.readable(self._distinct(np.arange(len(self._rows))))
        chunks = []
        index_of: dict[bytes, int] = {}
        with self._progress(len(todo), 0) as progress:
            n_together = self._n_together()
            for start in range(0, len(todo), n_together):
                chunk = todo[start : start + n_together]
                for done, features in self._run.embed(chunk, self._faults.model_failed):
                    chunks.append(features)
                    first = len(index_of)
                    index_of.update({self._digest(row): first + i for i, row in enumerate(done)})
                progress(len(chunk))
        matrix = np.concatenate(chunks) if chunks else np.empty((0, 0), np.float32)
        matrix.setflags(write=False)  # slices share it
        indices = [index_of.get(self._digest(row), -1) for row in range(len(self._rows))]
        return StoredRows(MatrixInMemory(matrix), np.array(indices, dtype=np.int64))

    def _fill(
        self, destination: Destination, todo: np.ndarray, advance: Callable[[int], Any]
    ) -> None:
        """Compute rows in this process, and wait for those that other processes are computing."""
        if not len(todo):
            return  # before this process takes a place on a device, or memory of it
        n_together = self._n_together()
        with destination.store.claims(destination.model) as claims:
            while len(todo):
                chunk, todo = todo[:n_together], todo[n_together:]
                others = destination.commit(
                    self._run, chunk, claims.claim, self._faults.model_failed
                )
                if len(others) == len(chunk):
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                advance(len(chunk) - len(others))
                # Checked again at the end: by then they are stored, or their process died.
                todo = np.concatenate([todo, chunk[others]])

    def _fill_by_workers(
        self, destination: Destination, todo: np.ndarray, advance: Callable[[int], Any]
    ) -> np.ndarray:
        """Compute rows in one process for each device; return those that are left to this one."""
        while len(todo) >= self._n_devices * self._rows_per_commit and can_start_workers():
            done, failed = self._computed_by_workers(destination, todo, advance)
            todo = todo[~np.isin(todo, done)]
            if not len(failed):
                break
            # Here, because errors and warnings name rows that failed.
            self._fill(destination, failed, advance)
            todo = todo[~np.isin(todo, failed)]
        return todo

    def _computed_by_workers(
        self, destination: Destination, todo: np.ndarray, advance: Callable[[int], Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that worker processes computed, and those for which the model failed.

        No other pieces are begun if a failed row raises an error, or if the model has failed for
        all rows so far. The others of the rows are computed by other programs, or not begun.
        """
        n_commits = len(todo) // (self._rows_per_commit * self._n_devices * _PIECES_PER_DEVICE)
        size = self._rows_per_commit * min(max(1, n_commits), _MOST_COMMITS_IN_A_PIECE)
        stops = self._options.on_error == "raise"
        done, failed = [_NO_NUMBERS], [_NO_NUMBERS]

        def pieces() -> Iterator[Piece]:
            for start in range(0, len(todo), size):
                if len(failed) > 1 and (stops or not self._run.has_succeeded):
                    return
                numbers = todo[start : start + size]
                yield Piece(
                    numbers,
                    self._run.part(numbers),
                    destination._replace(digests=self.digests[numbers]),
                    self._rows_per_commit,
                    stops,
                )

        for piece in computed_by_workers(pieces(), **self._workers(destination)):
            if len(piece.rows):
                done.append(piece.rows)
                self._run.done.append(piece.rows)
            if len(piece.failed):
                failed.append(piece.failed)
            self._workers_note |= piece.has_note
            advance(len(piece.rows))
        return np.concatenate(done), np.sort(np.concatenate(failed))

    def _workers(self, destination: Destination) -> dict[str, Any]:
        return {
            "backbone": self._backbone,
            "devices": self._options.device,
            "n_kept": self._options.n_models,
            "store": destination.store,
        }

    def _give_note(self) -> None:
        """Warn of what the model has made of the rows, such as texts that it cut."""
        run = {self._digest(row) for rows in self._run.done for row in rows}
        # A row that is given several times has run once, and counts each time.
        given = [row for row in range(len(self._rows)) if self._digest(row) in run]
        if given:
            name = self._backbone.name
            note = self._note(self._rows.take(np.array(given)))
            sentence = None if note is None else f"Model {name!r}: {note}"
            warn = partial(warnings.warn, stacklevel=3)
            give_note(f"rows of {name} for {self._column!r}", len(given), sentence, warn)

    def _note(self, rows: Rows) -> str | None:
        if self._destination is not None and self._workers_note:
            return note_of_worker(rows, **self._workers(self._destination))
        return self._backbone.note(rows)

    def _n_together(self) -> int:
        """Return how many rows are run before their features are kept."""
        on_cuda = self._run.device.type == "cuda"
        return max(self._rows_per_commit, _ROWS_PER_COMMIT_ON_CUDA if on_cuda else 0)

    @property
    def _n_devices(self) -> int:
        return len(self._options.device) if isinstance(self._options.device, tuple) else 1

    def _distinct(self, rows: np.ndarray) -> np.ndarray:
        """Return the first row with each digest."""
        first: dict[bytes, int] = {}
        for row in rows:
            first.setdefault(self._digest(row), row)
        return np.array(list(first.values()), dtype=np.int64)

    def _digest(self, row: int) -> bytes:
        return self.digests[row].tobytes()

    @contextmanager
    def _progress(self, n_rows: int, n_hits: int) -> Iterator[Callable[[int], Any]]:
        if self._advance is not None:
            yield self._advance
            return
        with tqdm(
            total=n_rows,
            desc=self._backbone.name,
            unit="row",
            postfix={"in store": n_hits} if n_hits else None,
            disable=not self._options.verbose,
            mininterval=seconds_between_updates(),
        ) as bar:
            yield bar.update
