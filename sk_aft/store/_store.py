"""A store of feature rows on disk: an LMDB index over append-only matrices."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import lmdb
import numpy as np
import platformdirs
import xxhash

from sk_aft.store._keys import DIGEST_SIZE

KEY_SIZE = 2 * DIGEST_SIZE
# An upper bound of the index, not its size on disk, except on Windows, which allocates it all.
_INDEX_MAP_SIZE = 2**30 if os.name == "nt" else 64 * 2**30
_ENTRY = np.dtype([("row", "<u8"), ("checksum", "<u8")])

# LMDB allows one environment a path and process: path -> (process, device and inode, environment).
_environments_lock = threading.Lock()
_environments: dict[str, tuple[int, tuple[int, int], lmdb.Environment]] = {}


def default_store_path() -> Path:
    """Return where features are kept unless told otherwise.

    The environment variable ``SK_AFT_CACHE``, or the user's cache directory of the platform.
    """
    configured = os.environ.get("SK_AFT_CACHE")
    return Path(configured) if configured else Path(platformdirs.user_cache_dir("sk_aft"))


class FeatureStore:
    """Feature rows on disk, found by the content of the row and the model that made them.

    Each model has one append-only float32 matrix, read by memory mapping. One LMDB index maps
    a key to the row's place in the matrix and its checksum. Rows reach the disk before the
    index mentions them, so a process that dies leaves nothing half-written to be found.

    Parameters
    ----------
    path : path-like, optional
        Directory; created, private to its user, when first written to. Default: the variable
        ``SK_AFT_CACHE`` or the user's cache directory.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from sk_aft.store import FeatureStore, model_digest, row_digests
    >>> from sk_aft._rows import as_rows
    >>> store = FeatureStore(tempfile.mkdtemp())
    >>> prefix = model_digest({"name": "a model"})
    >>> keys = [prefix + digest for digest in row_digests(as_rows(["a text", "another"]))]
    >>> store.put_many(keys[:1], np.ones((1, 3)))
    >>> matrix, found = store.get_many(keys)
    >>> found
    array([ True, False])
    >>> matrix[0]
    array([1., 1., 1.], dtype=float32)
    """

    def __init__(self, path: str | os.PathLike | None = None) -> None:
        self.path = Path(path) if path is not None else default_store_path()

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureStore) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def get_many(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Read rows.

        Parameters
        ----------
        keys : sequence of bytes of length 32
            Keys of one model.

        Returns
        -------
        matrix : ndarray of shape (n_keys, n_features), float32
            Rows that were not found are NaN.
        found : ndarray of shape (n_keys,), bool
            Which rows are in the store.
        """
        places = self.locate(keys)
        found = places >= 0
        stored = self.matrix(keys[0][:DIGEST_SIZE]) if len(keys) else np.empty((0, 0), np.float32)
        matrix = np.full((len(keys), stored.shape[1]), np.nan, dtype=np.float32)
        matrix[found] = stored[places[found]]
        return matrix, found

    def missing(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the positions of the keys that are not in the store."""
        return np.flatnonzero(self.locate(keys) < 0)

    def put_many(self, keys: Sequence[bytes], matrix: np.ndarray) -> None:
        """Write rows; when this returns they are on disk. Keys already there are left alone.

        Parameters
        ----------
        keys : sequence of bytes of length 32
            Keys of one model.
        matrix : array-like of shape (n_keys, n_features)
            Their features.

        Raises
        ------
        ValueError
            If the shapes disagree, also with what the store holds of this model.
        """
        matrix = np.ascontiguousarray(matrix, dtype="<f4")
        if matrix.ndim != 2 or len(matrix) != len(keys):
            raise ValueError(f"{len(keys)} keys need a matrix of as many rows, got {matrix.shape}.")
        if not len(keys):
            return
        model = self._model_of(keys)
        index = self._index(create=True)
        assert index is not None
        # LMDB lets one writer in at a time, across processes: nobody appends in between.
        with index.begin(write=True) as transaction:
            places = self._locate(transaction, model, keys)
            fresh = list({key: i for i, key in enumerate(keys) if places[i] < 0}.values())
            if not fresh:
                return
            width, n_rows = self._counts(transaction, model) or (matrix.shape[1], 0)
            if width != matrix.shape[1]:
                raise ValueError(
                    f"The store holds {width} features a row of this model, got {matrix.shape[1]}. "
                    "A model whose width changed needs another fingerprint."
                )
            self._append(model, matrix[fresh], n_rows)
            for place, i in enumerate(fresh, start=n_rows):
                entry = np.array((place, xxhash.xxh3_64_intdigest(matrix[i].data)), dtype=_ENTRY)
                transaction.put(keys[i], entry.tobytes())
            counts = {"width": width, "n_rows": n_rows + len(fresh)}
            transaction.put(model, json.dumps(counts).encode())

    def locate(self, keys: Sequence[bytes]) -> np.ndarray:
        """Find rows in their model's matrix, see `matrix`.

        Parameters
        ----------
        keys : sequence of bytes of length 32
            Keys of one model.

        Returns
        -------
        places : ndarray of shape (n_keys,), int64
            Row numbers; -1 where a row is not in the store or fails its checksum.
        """
        index = self._index(create=False)
        if index is None or not len(keys):
            return np.full(len(keys), -1, dtype=np.int64)
        with index.begin() as transaction:
            return self._locate(transaction, self._model_of(keys), keys)

    def matrix(self, model: bytes) -> np.ndarray:
        """Return all rows of one model, memory-mapped and read-only.

        Parameters
        ----------
        model : bytes of length 16
            The first half of the model's keys, see `model_digest`.

        Returns
        -------
        matrix : memmap of shape (n_rows, n_features), float32
            Empty if the store has no row of this model.
        """
        index = self._index(create=False)
        if index is None:
            return np.empty((0, 0), dtype=np.float32)
        with index.begin() as transaction:
            return self._matrix(transaction, model)

    def stats(self) -> dict[str, Any]:
        """Return the number of models, rows and bytes in the store."""
        index = self._index(create=False)
        models: dict[str, dict[str, int]] = {}
        if index is not None:
            with index.begin() as transaction:
                for key, value in transaction.cursor():
                    if len(key) == DIGEST_SIZE:
                        models[key.hex()] = json.loads(value)
        n_bytes = sum(4 * model["width"] * model["n_rows"] for model in models.values())
        n_rows = sum(model["n_rows"] for model in models.values())
        return {"rows": n_rows, "bytes": n_bytes, "models": len(models)}

    @contextmanager
    def computing(self, model: bytes) -> Iterator[None]:
        """Hold the right to compute rows of one model; other processes wait for their turn.

        The operating system releases it when a process dies.
        """
        self._make_directory()
        with filelock.FileLock(self.path / f"{model.hex()}.lock"):
            yield

    def _locate(
        self, transaction: lmdb.Transaction, model: bytes, keys: Sequence[bytes]
    ) -> np.ndarray:
        places: np.ndarray = np.full(len(keys), -1, dtype=np.int64)
        entries = [(i, transaction.get(key)) for i, key in enumerate(keys)]
        positions = [i for i, entry in entries if entry is not None]
        if not positions:
            return places
        stored = b"".join(bytes(entry) for _, entry in entries if entry is not None)
        found = np.frombuffer(stored, dtype=_ENTRY)
        matrix = self._matrix(transaction, model)
        for i, (row, checksum) in zip(positions, found.tolist(), strict=True):
            if row < len(matrix) and xxhash.xxh3_64_intdigest(matrix[row].data) == checksum:
                places[i] = row
        return places

    def _matrix(self, transaction: lmdb.Transaction, model: bytes) -> np.ndarray:
        width, n_rows = self._counts(transaction, model) or (0, 0)
        path = self._matrix_path(model)
        # A file that lost its end holds fewer rows than the index says.
        size = path.stat().st_size if path.exists() else 0
        n_rows = min(n_rows, size // (4 * width)) if width else 0
        if n_rows == 0:
            return np.empty((0, width), dtype=np.float32)
        return np.memmap(path, dtype="<f4", mode="r", shape=(n_rows, width))

    def _append(self, model: bytes, rows: np.ndarray, n_rows: int) -> None:
        # "r+b" at a known offset: rows left behind by a writer that died are overwritten.
        path = self._matrix_path(model)
        path.touch(mode=0o600)
        with path.open("r+b") as file:
            file.seek(n_rows * rows.shape[1] * rows.itemsize)
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())

    def _matrix_path(self, model: bytes) -> Path:
        return self.path / f"{model.hex()}.f32"

    def _make_directory(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _index(self, *, create: bool) -> lmdb.Environment | None:
        path = self.path / "index.lmdb"
        if not create and not path.exists():
            return None
        self._make_directory()
        with _environments_lock:
            return _open_index(path.resolve())

    @staticmethod
    def _model_of(keys: Sequence[bytes]) -> bytes:
        model = keys[0][:DIGEST_SIZE]
        if any(len(key) != KEY_SIZE or key[:DIGEST_SIZE] != model for key in keys):
            raise ValueError(
                f"Keys have to be {KEY_SIZE} bytes, a model's digest and a row's, of one model."
            )
        return model

    @staticmethod
    def _counts(transaction: lmdb.Transaction, model: bytes) -> tuple[int, int] | None:
        entry = transaction.get(model)
        if entry is None:
            return None
        counts = json.loads(bytes(entry))
        return counts["width"], counts["n_rows"]


def _open_index(path: Path) -> lmdb.Environment:
    """Return the process's environment of an index; opens it again if it is not of this file."""
    opened = _environments.get(str(path))
    if opened is not None:
        process, file, environment = opened
        if process == os.getpid() and path.exists() and file == _identity(path):
            return environment
        # Somebody emptied the directory, or this process is a fork of the one that opened it.
        environment.close()
    environment = lmdb.open(
        str(path), subdir=False, map_size=_INDEX_MAP_SIZE, max_readers=1024, mode=0o600
    )
    _environments[str(path)] = (os.getpid(), _identity(path), environment)
    return environment


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino
