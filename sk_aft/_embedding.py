"""Rows -> features: look up each row in the store, and run the model on the missing rows."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from traceback import walk_tb
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from sk_aft._data._feature_rows import MatrixInMemory, StoredRows
from sk_aft._data._images import has_image_suffix, open_image
from sk_aft._data._joined_warnings import joined_warnings
from sk_aft._data._rows import Rows, as_rows
from sk_aft._runtime._device import resolve_device
from sk_aft._runtime._memory import is_out_of_memory, release_memory
from sk_aft.backbones import Backbone
from sk_aft.backbones._base import FeatureShapeError
from sk_aft.backbones._layers import LayersOfModel
from sk_aft.exceptions import SeveralKindsError
from sk_aft.store import FeatureStore, digest_array, row_digests
from sk_aft.store._process import process_store

# Rows are committed to the store in groups of this many batches: few enough to lose little when
# interrupted, and enough for a text model to sort them by length.
_BATCHES_PER_COMMIT = 8
_ROWS_PER_DIGEST = 65_536
# If a model fails for a row, this many others are tried to tell whether the row is to blame.
_ROWS_TRIED = 10
# The end of messages about a missing row.
OR_MASK = " on_error='mask' keeps the row without features."
_SECONDS_BETWEEN_LOOKS = 0.05
# In a file, each update of a progress bar is a new line, so updates are rarer.
_SECONDS_BETWEEN_LINES = 30.0
_NO_ROWS = MatrixInMemory(np.empty((0, 0), dtype=np.float32))
# A GPU benefits from larger batches than a CPU; they are halved if they do not fit.
_LARGER_ON_CUDA = 4


class Reader(NamedTuple):
    """A backbone and the part of the rows that it reads.

    Parameters
    ----------
    backbone : Backbone
        The model.
    column : object, optional
        The column of a DataFrame that it reads, or a tuple of columns; default: whole rows.
    kind : {"text", "pair", "image", "numeric"}, optional
        The kind of rows that it reads; default: the backbone's, or else found from the rows.
    layers : tuple of int, default=()
        Its layers that are computed and stored side by side; empty for its own output alone.
    shown : slice, default=slice(None)
        Which of these columns are features; `FoundationFeatures.teacher_features` has all.
    """

    backbone: Backbone
    column: Any = None
    kind: str | None = None
    layers: tuple[int, ...] = ()
    shown: slice = slice(None)

    @property
    def model(self) -> Backbone:
        """What computes the stored columns."""
        return LayersOfModel(self.backbone, self.layers) if self.layers else self.backbone

    def rows(self, rows: Rows) -> Rows:
        """Return the part of the rows that the model reads, checked; categories as texts."""
        kind = self.kind or self.backbone.kind
        is_tuple = isinstance(self.column, tuple) and len(self.column) > 1
        if is_tuple and (kind in ("text", "image") or (kind is None and self._are_single(rows))):
            check_reads_pair(self.backbone, self.column)
            kind = "pair"
        with _naming(self.backbone):
            if self.column is not None:
                rows = rows.column(self.column, kind=kind, missing=True)
            elif rows.kind == "frame":
                rows = as_rows(rows.values, kind=kind, missing=True)
            elif kind is not None:
                rows = rows.read_as(kind)
            return rows.read_as("text") if rows.kind == "category" else rows

    def _are_single(self, rows: Rows) -> bool:
        """Return whether columns hold texts or images, of which each makes rows of its own."""
        with suppress(ValueError):
            rows.column(self.column, missing=True)
            return False
        kinds = {rows.column(name, missing=True).kind for name in self.column}
        return bool(kinds & {"text", "image"})


@contextmanager
def _naming(backbone: Backbone) -> Iterator[None]:
    """Prepend the name of a model to the message of an error about its rows."""
    try:
        yield
    except SeveralKindsError:
        raise
    except ValueError as error:
        raise ValueError(f"Model {backbone.name!r}: {error}") from error


def check_reads_pair(backbone: Backbone, columns: tuple) -> None:
    """Raise ValueError unless a text model can read the texts of these columns together."""
    if backbone.reads_pairs and len(columns) == 2:
        return
    single = {"text": "single texts", "image": "single images", None: "single texts or images"}
    reads = "a text or a pair of texts" if backbone.reads_pairs else single[backbone.kind]
    pairs = "" if backbone.reads_pairs else _how_to_read_pairs(backbone)
    each = ", ".join(f"{column!r}: ..." for column in columns)
    raise ValueError(
        f"Model {backbone.name!r} reads {reads}, but it was given the {len(columns)} columns "
        f"{columns}: give each column a model of its own, as in model={{{each}}}.{pairs}"
    )


def _how_to_read_pairs(backbone: Backbone) -> str:
    directory = Path(getattr(backbone, "name_or_path", ""))
    is_users = backbone.kind == "text" and backbone.name == directory.name
    if is_users and (directory / "config.json").is_file():
        return (
            " To read pairs with the transformer in this directory of sentence-transformers, write "
            f"'hf:{directory}'."
        )
    return " Text models of transformers ('hf:NAME') read pairs."


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
    device : str
        Where the models run.
    verbose : int
        0 is silent, 1 shows a progress bar.
    on_error : {"raise", "mask"}
        For rows that a model cannot read: raise an error, or keep them without features.
    """

    readers: Sequence[Reader]
    cache: Any
    batch_size: Any
    device: str
    verbose: int
    on_error: str = "raise"

    def compute(self, rows: Rows) -> list[StoredRows]:
        """Return the features of some rows, one item per backbone.

        All rows are looked up and all stores are opened before the first model runs. Rows that are
        read from a file go through this a few thousand at a time.
        """
        if rows.is_lazy and len(rows):
            return self._compute_in_pieces(rows)
        parts = [embedding.features() for embedding in self._embeddings(rows)]
        return [
            replace(part, columns=reader.shown)
            for part, reader in zip(parts, self.readers, strict=True)
        ]

    def _compute_in_pieces(self, rows: Rows) -> list[StoredRows]:
        quiet = self._replace(verbose=0)
        computed, digests = [], []
        with (
            joined_warnings(),
            tqdm(total=len(rows), unit="row", disable=not self.verbose) as progress,
        ):
            for piece in rows.pieces():
                embeddings = quiet._embeddings(piece)
                computed.append([embedding.features() for embedding in embeddings])
                digests.append([embedding.digests for embedding in embeddings])
                progress.update(len(piece))
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

    def _embeddings(self, rows: Rows) -> list[Embedding]:
        return [
            Embedding(
                self,
                reader.model,
                reader.rows(rows),
                self.store(reader.backbone),
                column=reader.column,
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


def model_fingerprint(backbone: Backbone, rows: Rows) -> dict[str, Any]:
    """Return the fingerprint under which a model's features of such rows are kept.

    The number of features may depend on a table's number of columns, so it is included.
    """
    fingerprint = dict(backbone.fingerprint())
    if rows.kind == "numeric":
        fingerprint["n_columns"] = rows.values.shape[1]
    return fingerprint


class Embedding:
    """Computes the features of some rows by one model.

    Parameters
    ----------
    source : FeatureSource
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
        source: FeatureSource,
        backbone: Backbone,
        rows: Rows,
        store: FeatureStore | None,
        *,
        column: Any = None,
    ) -> None:
        self._source = source
        self._backbone = backbone
        self._rows = rows
        self._column = column
        self._store = store
        self._model = b""
        if store is not None:
            fingerprint = model_fingerprint(backbone, rows)
            self._model = store.register_model(fingerprint, name=backbone.name)
        self._rows_run: list[np.ndarray] = []
        # Digest of a row that the model cannot read -> (row, error).
        self._failures: dict[bytes, tuple[int, Exception]] = {}
        self._width: int | None = None
        self._has_succeeded = False
        automatic = source.batch_size == "auto"
        batch_size = backbone.batch_size if automatic else source.batch_size
        self._rows_per_commit = batch_size * _BATCHES_PER_COMMIT
        # "auto" is resolved when the model runs, because looking up rows needs no device.
        self._batch_size: int | None = None if automatic else batch_size
        self.digests: np.ndarray = np.zeros((len(rows), 2), dtype=np.uint64)
        for start in range(0, len(rows), _ROWS_PER_DIGEST):
            some = np.arange(start, min(start + _ROWS_PER_DIGEST, len(rows)))
            digests = row_digests(rows.take(some), first_row=start, on_error=self._cannot_read)
            self.digests[some] = digest_array(digests)
        for row in np.flatnonzero(rows.missing_mask).tolist():
            self._cannot_read(row, self._missing(row))

    def features(self) -> StoredRows:
        """Return the features; those that are not in the store are computed and added to it."""
        found = self._in_memory() if self._store is None else self._through(self._store)
        self._report(found.missing_mask)
        return found

    def _through(self, store: FeatureStore) -> StoredRows:
        model = self._model
        matrix, indices = store.locate(model, self.digests)
        todo = self._readable(self._distinct(np.flatnonzero(indices < 0)))
        if len(todo):
            n_hits = len(indices) - int((indices < 0).sum())
            with store.claims(model) as claims, self._progress(len(todo), n_hits) as progress:
                self._fill(store, model, claims.claim, todo, progress.update)
            matrix, indices = store.locate(model, self.digests, count=False)
        for row in np.flatnonzero(indices < 0).tolist():
            if self._digest(row) not in self._failures:
                raise RuntimeError(
                    f"The features of row {row} were written to {store} but cannot be read back: "
                    "is the disk damaged, or was the directory removed?"
                )
        return StoredRows(_NO_ROWS if matrix is None else matrix, indices, model)

    def _in_memory(self) -> StoredRows:
        todo = self._readable(self._distinct(np.arange(len(self._rows))))
        chunks = []
        index_of: dict[bytes, int] = {}
        with self._progress(len(todo), 0) as progress:
            for start in range(0, len(todo), self._rows_per_commit):
                chunk = todo[start : start + self._rows_per_commit]
                for done, features in self._embed(chunk):
                    chunks.append(features)
                    first = len(index_of)
                    index_of.update({self._digest(row): first + i for i, row in enumerate(done)})
                progress.update(len(chunk))
        matrix = np.concatenate(chunks) if chunks else np.empty((0, 0), np.float32)
        matrix.setflags(write=False)  # slices share it
        indices = [index_of.get(self._digest(row), -1) for row in range(len(self._rows))]
        return StoredRows(MatrixInMemory(matrix), np.array(indices, dtype=np.int64))

    def _report(self, missing_mask: np.ndarray) -> None:
        """Say how many rows have no features, and what the model made of the others."""
        run = {self._digest(row) for rows in self._rows_run for row in rows}
        # A row that is given several times has run once, and counts each time.
        given = [row for row in range(len(self._rows)) if self._digest(row) in run]
        note = self._backbone.note(self._rows.take(np.array(given))) if given else None
        if note is not None:
            warnings.warn(f"Model {self._backbone.name!r}: {note}", stacklevel=2)
        if not missing_mask.any():
            return
        row, error = min(self._failures.values(), key=lambda failure: failure[0])
        if missing_mask.all():
            raise ValueError(
                f"Model {self._backbone.name!r} cannot read any of these {len(self._rows)} rows."
            ) from error
        warnings.warn(
            f"{missing_mask.sum()} of {len(self._rows)} rows have no features of model "
            f"{self._backbone.name!r} and take no part in the transfer term. The first is row "
            f"{self._rows.position(row)}: {_reason(error)}.",
            stacklevel=2,
        )

    def _fill(
        self,
        store: FeatureStore,
        model: bytes,
        claim: Callable,
        todo: np.ndarray,
        advance: Callable[[int], Any],
    ) -> None:
        """Compute rows, except those that other processes are computing."""
        while len(todo):
            chunk, todo = todo[: self._rows_per_commit], todo[self._rows_per_commit :]
            names = [self._digest(row) for row in chunk]
            keys = [model + name for name in names]
            mine, others = claim(names, lambda keys=keys: store.missing(keys))
            for done, features in self._embed(chunk[mine]):
                store.put_many([model + self._digest(row) for row in done], features)
            if len(others) == len(chunk):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            advance(len(chunk) - len(others))
            # These are checked again at the end: by then they are stored, or their process died.
            todo = np.concatenate([todo, chunk[others]])

    def _embed(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (row numbers, features), leaving out rows that the model cannot read."""
        if len(rows):
            self._backbone.prepare(resolve_device(self._source.device))
            yield from self._embed_some(rows)

    def _embed_some(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        try:
            features = self._run(rows)
        except Exception as error:
            if not _may_be_a_rows_fault(error):
                raise
            if len(rows) == 1:
                self._fail(int(rows[0]), error)
                return
            # Halve the rows to find the one that fails, and keep the features of the others.
            for half in np.array_split(rows, 2):
                yield from self._embed_some(half)
            return
        if features.ndim != 2 or len(features) != len(rows):
            raise FeatureShapeError(
                f"Model {self._backbone.name!r} returned features of shape {features.shape} for "
                f"{len(rows)} rows: expected ({len(rows)}, n_features)."
            )
        if self._width not in (None, features.shape[1]):
            raise FeatureShapeError(
                f"Model {self._backbone.name!r} returned {features.shape[1]} features per row, but "
                f"{self._width} for earlier rows: expected the same number for all rows."
            )
        self._width = features.shape[1]
        finite = np.isfinite(features).all(axis=1)
        if finite.any():
            self._has_succeeded = True
            self._rows_run.append(rows[finite])
            yield rows[finite], features[finite]
        for row in rows[~finite]:
            self._fail(int(row), ValueError("it returned NaN or infinite features"))

    def _run(self, rows: np.ndarray) -> np.ndarray:
        """Run the model on rows; if memory runs out, use smaller batches from then on."""
        device = resolve_device(self._source.device)
        automatic = self._source.batch_size == "auto"
        if self._batch_size is None:
            factor = _LARGER_ON_CUDA if device.type == "cuda" else 1
            self._batch_size = self._backbone.batch_size * factor
        while True:
            batch_size = min(self._batch_size, len(rows))
            try:
                return self._backbone.embed(
                    self._rows.take(rows), batch_size=self._batch_size, device=device
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if not automatic or batch_size == 1:
                    raise self._out_of_memory(batch_size, device) from error
            # Outside the handler, because the error keeps the tensors of the failed batch alive.
            self._batch_size = batch_size // 2
            release_memory(device)

    def _out_of_memory(self, batch_size: int, device: torch.device) -> MemoryError:
        what = f"Model {self._backbone.name!r} ran out of memory on device {str(device)!r}"
        if batch_size == 1:
            return MemoryError(
                f"{what} with a single row at a time: use a smaller model, smaller rows or "
                "another device."
            )
        return MemoryError(
            f"{what} with {batch_size} rows at a time: use a smaller batch_size, or 'auto', which "
            "finds one that fits."
        )

    def _fail(self, row: int, error: Exception) -> None:
        """Record a row that the model failed for; raise unless such rows are masked."""
        position = self._rows.position(row)
        if str(error).startswith(f"Row {position} "):
            self._cannot_read(row, error)
            return
        if self._rows.kind == "numeric" and not np.isfinite(self._rows.values[row]).all():
            self._cannot_read(row, self._not_finite(row))
            return
        if self._source.on_error == "raise":
            others = [other for other in range(len(self._rows)) if other != row][:_ROWS_TRIED]
            if others and not self._has_succeeded and not any(map(self._can_embed, others)):
                raise self._not_a_rows_fault(1 + len(others), error) from error
            raise ValueError(
                f"Model {self._backbone.name!r} failed for row {position} "
                f"({_excerpt(self._rows.values[row])}): {_reason(error)}. Repair "
                "the row or leave it out; on_error='mask' keeps it without features."
            ) from error
        self._leave_out(row, error)

    def _not_finite(self, row: int) -> ValueError:
        """Return an error that names the number in a row that is not finite."""
        values = self._rows.values[row]
        column = int(np.flatnonzero(~np.isfinite(values))[0])
        names = self._column if isinstance(self._column, tuple) else [self._column]
        name = column if self._column is None else names[column]
        return ValueError(
            f"Row {self._rows.position(row)} of X holds {values[column]} in column {name!r}, which "
            f"model {self._backbone.name!r} cannot read: fill it before the extractor."
            f"{self._or_mask}"
        )

    @property
    def _or_mask(self) -> str:
        return OR_MASK if self._source.on_error == "raise" else ""

    def _missing(self, row: int) -> ValueError:
        """Return the error for a missing row."""
        error = self._rows.missing_error(row, self._or_mask)
        return error if self._column is None else ValueError(f"column {self._column!r}: {error}")

    def _can_embed(self, row: int) -> bool:
        try:
            features = self._run(np.array([row]))
        except Exception as error:
            if not _may_be_a_rows_fault(error):
                raise
            return False
        return bool(np.isfinite(features).all())

    def _not_a_rows_fault(self, n_rows: int, error: Exception) -> ValueError:
        return ValueError(
            f"Model {self._backbone.name!r} failed for each of {n_rows} rows, so the rows are "
            f"probably not the cause: {_reason(error)}."
        )

    def _cannot_read(self, row: int, error: Exception) -> None:
        """Record a row that cannot be read, as ``error`` describes; raise unless masked."""
        value = self._rows.values[row]
        if self._rows.kind == "image" and isinstance(value, str) and not has_image_suffix(value):
            error = ValueError(
                f"{error} Model {self._backbone.name!r} reads images and takes strings as their "
                "paths: texts need a text model, such as 'minilm'."
            )
        if self._source.on_error == "raise":
            raise error
        self._leave_out(row, error)

    def _leave_out(self, row: int, error: Exception) -> None:
        self._failures.setdefault(self._digest(row), (row, error))
        if len(self._failures) >= self._rows_per_commit and not self._has_succeeded:
            raise self._not_a_rows_fault(len(self._failures), error) from error

    def _readable(self, todo: np.ndarray) -> np.ndarray:
        """Leave out image files that cannot be opened, before any model has run for hours."""
        is_file = self._rows.kind == "image" and self._rows.values.dtype == object
        for row in todo if is_file else ():
            value = self._rows.values[row]
            if not (value is None or isinstance(value, np.ndarray)):
                try:
                    open_image(value, self._rows.position(row))
                except ValueError as error:
                    self._cannot_read(row, error)
        return np.array([row for row in todo if self._digest(row) not in self._failures], np.int64)

    def _distinct(self, rows: np.ndarray) -> np.ndarray:
        """Return the first row with each digest."""
        first: dict[bytes, int] = {}
        for row in rows:
            first.setdefault(self._digest(row), row)
        return np.array(list(first.values()), dtype=np.int64)

    def _digest(self, row: int) -> bytes:
        return self.digests[row].tobytes()

    def _progress(self, n_rows: int, n_hits: int) -> tqdm:
        hits = {"in store": n_hits} if n_hits else None
        return tqdm(
            total=n_rows,
            desc=self._backbone.name,
            unit="row",
            postfix=hits,
            disable=not self._source.verbose,
            mininterval=seconds_between_updates(),
        )


def seconds_between_updates() -> float:
    """Return how often a progress bar is drawn: rarely in a file, where it cannot be redrawn."""
    is_widget = any("notebook" in base.__module__ for base in tqdm.__mro__)
    is_shown_live = is_widget or getattr(sys.stderr, "isatty", bool)()
    return 0.1 if is_shown_live else _SECONDS_BETWEEN_LINES


def _may_be_a_rows_fault(error: Exception) -> bool:
    """Return whether an error may be caused by the row rather than the model or the machine.

    Missing memory, packages, disk or network, or a wrong shape of features are not the row's
    fault. A file that a function cannot find or that Pillow cannot read is.
    """
    if isinstance(error, (ImportError, MemoryError, FeatureShapeError)):
        return False
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return True
    raised_in = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return raised_in[-1].startswith("PIL.")


def _reason(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0].rstrip(".")


def _excerpt(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, bytes)) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
