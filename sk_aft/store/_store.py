"""A store of feature rows on disk, keyed by content."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs
from joblib.disk import memstr_to_bytes

from sk_aft._runtime._threads import call_after_fork
from sk_aft.store._claims import Claims
from sk_aft.store._keys import DIGEST_SIZE, KEY_SIZE, model_digest
from sk_aft.store._model_files import WEIGHTS, ModelFiles, n_bytes_beside_rows
from sk_aft.store._model_rows import RECORD, STORED_DTYPES, ModelRows, RowFiles, as_stored

_UNUSABLE = (
    "The feature store cannot be written to ({}): give cache= (or the variable SK_AFT_CACHE) a "
    "directory of your own, or cache=None to keep features in memory"
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Open models and counts of look-ups, shared by all FeatureStore objects of this process.
_lock = threading.Lock()
_open_models: dict[Path, ModelRows] = {}
_lookups: dict[Path, dict[str, int]] = {}


def default_store_path() -> Path:
    """Return the default directory of the store.

    It is the environment variable ``SK_AFT_CACHE`` if it is set and not empty, else the
    platform's user cache directory. "~" stands for the home directory.

    Raises
    ------
    RuntimeError
        If it is below the home directory, and there is none.
    """
    with _home_needed():
        return _expanded(os.environ.get("SK_AFT_CACHE") or platformdirs.user_cache_dir("sk_aft"))


class FeatureStore:
    """Feature rows on disk, keyed by the content of the row and the model that computed them.

    Each model has a directory with two append-only files: the features, and a list of the rows'
    digests and checksums. A row is listed only after its features are on disk, so a process that
    dies leaves no partial row to be found. A row whose checksum is wrong counts as absent and is
    computed again. Any number of processes may read and write.

    Parameters
    ----------
    path : path-like, optional
        Directory; created at the first write, readable by its user only. Default: the variable
        ``SK_AFT_CACHE`` or the user's cache directory.
    dtype : {"float32", "float16", "bfloat16"}, default="float32"
        Storage type; features are returned as float32. It is part of the key, so rounded
        features are never returned for exact ones. The 16-bit types take half the space: float16
        has 11 significant bits up to 65,504; bfloat16 has 8 and the range of float32.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from sk_aft.store import FeatureStore, row_digests
    >>> from sk_aft._data._rows import as_rows
    >>> store = FeatureStore(tempfile.mkdtemp())
    >>> model = store.register_model({"weights": "a digest"}, name="a model")
    >>> keys = [model + digest for digest in row_digests(as_rows(["a text", "another"]))]
    >>> store.put_many(keys[:1], np.ones((1, 3)))
    >>> matrix, found = store.get_many(keys)
    >>> found
    array([ True, False])
    >>> matrix[0]
    array([1., 1., 1.], dtype=float32)
    >>> store.missing(keys)
    array([1])
    """

    def __init__(self, path: str | os.PathLike | None = None, *, dtype: str = "float32") -> None:
        if dtype not in STORED_DTYPES:
            raise ValueError(f"dtype has to be one of {list(STORED_DTYPES)}, got {dtype!r}.")
        if path is None:
            self.path = default_store_path()
        else:
            with _home_needed():
                self.path = _expanded(path)
        self.dtype = dtype

    def __repr__(self) -> str:
        dtype = "" if self.dtype == "float32" else f", dtype={self.dtype!r}"
        return f"FeatureStore({str(self.path)!r}{dtype})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FeatureStore):
            return False
        return (self.path, self.dtype) == (other.path, other.dtype)

    def __hash__(self) -> int:
        return hash((self.path, self.dtype))

    def register_model(self, fingerprint: Mapping[str, Any], *, name: str = "") -> bytes:
        """Register a model and return its digest, the first half of its rows' keys.

        Parameters
        ----------
        fingerprint : mapping
            JSON-serialisable description of everything that determines the features.
        name : str, optional
            Name of the model in `stats`, `explain_key` and `remove`.

        Returns
        -------
        model : bytes of length 16
            Digest of the fingerprint and of the store's dtype.
        """
        model = model_digest(fingerprint, self.dtype)
        path = self._directory(model) / "model.json"
        if self._description(model) is None:
            description = {"name": name, "dtype": self.dtype, "fingerprint": dict(fingerprint)}
            with self._writing(), self.lock(model):
                self._make_directory(path.parent)
                written = path.with_suffix(".tmp")
                written.write_text(json.dumps(description, indent=1), encoding="utf-8")
                written.replace(path)
        elif os.access(path, os.W_OK):
            os.utime(path)  # the time of last use, for reduce_size
        return model

    def get_many(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Read rows.

        Parameters
        ----------
        keys : sequence of bytes of length 32
            Keys of one model.

        Returns
        -------
        matrix : ndarray of shape (n_keys, n_features), float32
            Rows that are absent or damaged are NaN.
        found : ndarray of shape (n_keys,), bool
            Whether each row is in the store and intact.
        """
        if not len(keys):
            return np.empty((0, 0), np.float32), np.empty(0, bool)
        model, digests = split_keys(keys)
        rows = self._rows(model)
        if rows is None:
            matrix: np.ndarray = np.empty((len(keys), 0), np.float32)
            indices, damaged = _none_found(digests)
        else:
            matrix, indices, damaged = rows.read(digests)
        self._count(indices, damaged)
        return matrix, indices >= 0

    def missing(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the indices of the keys that are not in the store."""
        if not len(keys):
            return np.empty(0, np.int64)
        return np.flatnonzero(self.locate(*split_keys(keys), count=False)[1] < 0)

    def put_many(self, keys: Sequence[bytes], matrix: Any) -> None:
        """Write rows; they are on disk when this returns. Keys already stored are skipped.

        Parameters
        ----------
        keys : sequence of bytes of length 32
            Keys of one model.
        matrix : array-like of shape (n_keys, n_features)
            Their features.

        Raises
        ------
        ValueError
            If ``matrix`` does not have one row per key, its width differs from that of the stored
            rows of this model, or a number is not finite or too large for the store's dtype.
        OSError
            If the disk is full; rows written before are kept.
        """
        matrix = np.asarray(matrix, dtype=np.float32)
        if matrix.ndim != 2 or len(matrix) != len(keys) or matrix.shape[1:] == (0,):
            raise ValueError(f"{len(keys)} keys need a matrix of as many rows, got {matrix.shape}.")
        if not len(keys):
            return
        model, digests = split_keys(keys)
        with self._writing(), self.lock(model):
            rows, indices = self.locate(model, digests, count=False)
            if rows is not None and rows.n_lost:
                _rewrite(rows, first=0)  # drops the lost rows from the list
                rows, indices = self.locate(model, digests, count=False)
            first = {keys[i]: i for i in np.flatnonzero(indices < 0)[::-1]}
            fresh = np.array(sorted(first.values()), dtype=np.int64)
            if not len(fresh):
                return
            directory = self._directory(model)
            if rows is None:
                self._make_directory(directory)
                files = RowFiles.next(directory, matrix.shape[1], self.dtype)
            else:
                files = rows.files
            if files.width != matrix.shape[1]:
                raise ValueError(
                    f"The store holds {files.width} features per row of this model, got "
                    f"{matrix.shape[1]}. A model whose width changed needs another fingerprint."
                )
            files.append(digests[fresh], as_stored(matrix[fresh], files.dtype))

    def locate(
        self, model: bytes, digests: np.ndarray, *, count: bool = True
    ) -> tuple[ModelRows | None, np.ndarray]:
        """Look rows up without returning their features.

        Parameters
        ----------
        model : bytes of length 16
            Digest of the model, as `register_model` returns it.
        digests : ndarray of shape (n_rows, 2), uint64
            Digests of the rows.
        count : bool, default=True
            Whether to count hits and misses for `stats`, and to warn of damaged rows.

        Returns
        -------
        rows : ModelRows or None
            The model's current rows, or None; ``rows.take(indices)`` reads them.
        indices : ndarray of shape (n_rows,), int64
            Index of each row for ``take``; -1 if it is absent or damaged.
        """
        rows = self._rows(model)
        if rows is None:
            indices, damaged = _none_found(digests)
        else:
            indices, damaged = rows.find(digests)
        if count:
            self._count(indices, damaged)
        return rows, indices

    def claims(self, model: bytes) -> Claims:
        """Return a context in which rows are claimed, so that no other process computes them."""
        with self._writing():
            self._make_directory(self.path / "locks")
        return Claims(self.path / "locks" / model.hex(), self.lock(model), self._writing)

    def files(self, model: bytes) -> ModelFiles:
        """Return where the weights of a fine-tuned model are kept, beside its features.

        Parameters
        ----------
        model : bytes of length 16
            Digest of the model, as `register_model` returns it.

        Returns
        -------
        files : ModelFiles
            Paths, and the lock of the process that trains the model.
        """
        self._make_directory(self.path / "locks")
        lock = filelock.FileLock(self.path / "locks" / f"{model.hex()}.training.lock", mode=0o600)
        return ModelFiles(self._directory(model) / WEIGHTS, lock)

    def lock(self, model: bytes) -> filelock.BaseFileLock:
        """Return the lock for writing this model's rows; it is released when its process ends."""
        self._make_directory(self.path / "locks")
        return filelock.FileLock(self.path / "locks" / f"{model.hex()}.lock", mode=0o600)

    def stats(self) -> dict[str, Any]:
        """Return the contents of the store and the hit rate of this process.

        Returns
        -------
        stats : dict
            "rows", "bytes" (on disk, with the weights of fine-tuned models and unfinished
            trainings), "models" (a dict for each: "name", "model" (digest),
            "rows", "bytes", "width", "dtype"), and for this process "hits", "misses" and
            "hit_rate" (NaN before the first look-up).
        """
        models = []
        for model in self._models():
            rows, other_bytes = self._rows(model), n_bytes_beside_rows(self._directory(model))
            if rows is None and not other_bytes:
                continue
            row_bytes = 0 if rows is None else rows.n_rows * _bytes_of_a_row(rows.files)
            models.append(
                {
                    "name": self._name(model),
                    "model": model.hex(),
                    "rows": 0 if rows is None else rows.n_rows,
                    "bytes": row_bytes + other_bytes,
                    "width": 0 if rows is None else rows.width,
                    "dtype": self.dtype if rows is None else rows.files.dtype,
                }
            )
        counts = _lookups.get(self.path.absolute(), {"hits": 0, "misses": 0})
        n_lookups = sum(counts.values())
        return {
            "rows": sum(model["rows"] for model in models),
            "bytes": sum(model["bytes"] for model in models),
            "models": models,
            **counts,
            "hit_rate": counts["hits"] / n_lookups if n_lookups else float("nan"),
        }

    def verify(self) -> dict[str, Any]:
        """Read every row and compare it with its checksum.

        The store never returns damaged rows; they are computed again when needed.

        Returns
        -------
        report : dict
            "rows" read, "damaged" rows, and "models": a dict for each model that has any, with
            "name", "model" (digest), "rows" and "damaged".
        """
        models = []
        n_rows = 0
        for model in self._models():
            rows = self._rows(model)
            if rows is None:
                continue
            n_rows += rows.n_rows + rows.n_lost
            damaged = rows.damaged()
            # A damaged row that has been computed again does not count.
            n_damaged = int((rows.find(damaged)[0] < 0).sum()) + rows.n_lost
            if n_damaged:
                names = {"name": self._name(model), "model": model.hex()}
                models.append({**names, "rows": rows.n_rows, "damaged": n_damaged})
        return {
            "rows": n_rows,
            "damaged": sum(model["damaged"] for model in models),
            "models": models,
        }

    def remove(self, *, model: str | bytes) -> int:
        """Remove the rows of a model.

        Parameters
        ----------
        model : str or bytes
            Its digest, or its name, which removes all models of this name; see `stats`.

        Returns
        -------
        n_rows : int
            Number of rows removed.
        """
        wanted = model.hex() if isinstance(model, bytes) else model
        names = {known: self._name(known) for known in self._models()}
        chosen = [known for known, name in names.items() if wanted in (name, known.hex())]
        if not chosen:
            held = sorted({name or known.hex() for known, name in names.items()})
            raise ValueError(f"The store has no model {wanted!r}; it has {held}.")
        n_rows = 0
        for known in chosen:
            rows = self._rows(known)
            n_rows += rows.n_rows if rows is not None else 0
            with self._writing(), self.lock(known):
                shutil.rmtree(self._directory(known))
        return n_rows

    def reduce_size(self, max_bytes: int | str) -> int:
        """Remove rows until the store is no larger than ``max_bytes``.

        The least recently used models are removed first. Of the last model, only as many of its
        oldest rows are removed as needed.

        Parameters
        ----------
        max_bytes : int or str
            Largest size of the store, for example ``"10G"``.

        Returns
        -------
        n_rows : int
            Number of rows removed.
        """
        limit = memstr_to_bytes(max_bytes) if isinstance(max_bytes, str) else max_bytes
        if limit < 0:
            raise ValueError(f"max_bytes has to be at least 0, got {max_bytes}.")
        excess = self.stats()["bytes"] - limit
        n_removed = 0
        for model in sorted(self._models(), key=self._last_used):
            if excess <= 0:
                break
            with self._writing(), self.lock(model):
                rows, other_bytes = self._rows(model), n_bytes_beside_rows(self._directory(model))
                if rows is None:
                    if other_bytes:
                        excess -= other_bytes
                        shutil.rmtree(self._directory(model))
                    continue
                row_bytes = _bytes_of_a_row(rows.files)
                n_rows = min(rows.n_rows, -(-excess // row_bytes))
                if n_rows == rows.n_rows or other_bytes:  # weights are removed with all rows
                    n_rows = rows.n_rows
                    excess -= other_bytes
                    shutil.rmtree(self._directory(model))
                else:
                    n_rows = _rewrite(rows, first=n_rows)
                n_removed += n_rows
                excess -= n_rows * row_bytes
        return n_removed

    def explain_key(self, key: bytes | str) -> dict[str, Any]:
        """Explain a key: its model, and what the store holds for it.

        Parameters
        ----------
        key : bytes of length 32, or its 64 hexadecimal digits
            See `FoundationFeatureExtractor.store_keys`.

        Returns
        -------
        explanation : dict
            "model" and "row" (the key's halves in hexadecimal), "name" and "fingerprint" of the
            model (None if it was never registered), "stored" and "damaged" (bool), and
            "other_models": maps each model with the same row to the entries of its fingerprint
            that differ from this model's, as (theirs, ours).
        """
        key = bytes.fromhex(key) if isinstance(key, str) else key
        model, digests = split_keys([key])
        description = self._description(model)
        rows = self._rows(model)
        indices, damaged = _none_found(digests) if rows is None else rows.find(digests)
        others = {}
        for other in self._models():
            if other != model and self.locate(other, digests, count=False)[1][0] >= 0:
                others[self._name(other) or other.hex()] = _differences(
                    self._description(other), description
                )
        return {
            "model": model.hex(),
            "row": key[DIGEST_SIZE:].hex(),
            "name": description["name"] if description else None,
            "fingerprint": description["fingerprint"] if description else None,
            "stored": bool(indices[0] >= 0),
            "damaged": len(damaged) > 0,
            "other_models": others,
        }

    def _rows(self, model: bytes) -> ModelRows | None:
        """Return the current rows of a model."""
        directory = self._directory(model).absolute()
        for attempt in range(3):
            with _lock:
                try:
                    known = _open_models.get(directory)
                    files = RowFiles.latest(directory) if known is None else None
                    if known is not None:
                        rows = known.refreshed()
                    else:
                        rows = None if files is None else ModelRows(files)
                except FileNotFoundError:  # another process is removing or rewriting them
                    _open_models.pop(directory, None)
                    if attempt == 2:
                        raise
                    continue
                if rows is None:
                    _open_models.pop(directory, None)
                else:
                    _open_models[directory] = rows
                    if rows is not known and rows.n_lost:
                        self._warn_of_damage(rows.n_lost)
                return rows
        raise AssertionError("unreachable")

    def _count(self, indices: np.ndarray, damaged: np.ndarray) -> None:
        hits = int((indices >= 0).sum())
        with _lock:
            counts = _lookups.setdefault(self.path.absolute(), {"hits": 0, "misses": 0})
            counts["hits"] += hits
            counts["misses"] += len(indices) - hits
        if len(damaged):
            self._warn_of_damage(len(damaged))

    def _warn_of_damage(self, n_rows: int) -> None:
        warnings.warn(
            f"{n_rows} rows in {self} are damaged: a file differs from what was written. They are "
            "not used, and are computed again when their features are needed.",
            stacklevel=4,
        )

    def _directory(self, model: bytes) -> Path:
        return self.path / model.hex()

    def _models(self) -> list[bytes]:
        if not self.path.is_dir():
            return []
        names = sorted(path.name for path in self.path.iterdir() if path.is_dir())
        return [bytes.fromhex(name) for name in names if _is_digest(name)]

    def _description(self, model: bytes) -> dict[str, Any] | None:
        """Return the registered description; None if there is none or the file is damaged."""
        try:
            text = (self._directory(model) / "model.json").read_text(encoding="utf-8")
            description = json.loads(text)
            is_intact = model == model_digest(description["fingerprint"], description["dtype"])
            return description if is_intact else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _name(self, model: bytes) -> str:
        description = self._description(model)
        return description["name"] if description else ""

    def _last_used(self, model: bytes) -> float:
        path = self._directory(model)
        description = path / "model.json"
        return (description if description.exists() else path).stat().st_mtime

    def _make_directory(self, path: Path) -> None:
        try:
            for directory in (self.path, path):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise
            message = _UNUSABLE.format(error.strerror)
            raise type(error)(error.errno, message, str(self.path)) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Re-raise errors of writing with an explanation of what to do."""
        try:
            yield
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise OSError(
                    error.errno,
                    "The disk of the feature store is full. Features computed before this batch "
                    "are kept: free space (FeatureStore.reduce_size, remove) and run again to "
                    "resume, or give cache= a directory on another disk",
                    str(self.path),
                ) from error
            if isinstance(error, PermissionError):
                message = _UNUSABLE.format(error.strerror)
                raise PermissionError(error.errno, message, str(self.path)) from error
            raise


@contextmanager
def _home_needed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"There is no home directory to keep features in ({error}): give cache= (or the "
            "variable SK_AFT_CACHE) an absolute path, or cache=None to keep features in memory."
        ) from error


def _expanded(path: str | os.PathLike) -> Path:
    """Return a path in which "~" is replaced by the home directory."""
    if not os.fspath(path):
        raise ValueError("The directory of the feature store is an empty string: give a path.")
    return Path(path).expanduser()


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


def _none_found(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.full(len(digests), -1, dtype=np.int64), np.empty(0, dtype=np.int64)


def _rewrite(rows: ModelRows, *, first: int) -> int:
    """Keep the intact rows from ``first`` on, in new files; return the number of rows dropped."""
    digests = rows.records["digest"][first:]
    indices = rows.find(digests)[0]
    # A row that was written twice is kept once; a damaged row is dropped.
    kept = np.unique(indices[indices >= first])
    files = RowFiles.next(rows.files.directory, rows.width, rows.files.dtype)
    files.rewrite(rows, kept)
    rows.files.keys.unlink()
    rows.files.features.unlink(missing_ok=True)
    return rows.n_rows - len(kept)


def _bytes_of_a_row(files: RowFiles) -> int:
    return files.row_bytes + RECORD.itemsize


def _is_digest(name: str) -> bool:
    return len(name) == 2 * DIGEST_SIZE and not set(name) - set("0123456789abcdef")


def _differences(theirs: dict | None, ours: dict | None) -> dict[str, tuple[Any, Any]]:
    if theirs is None or ours is None:
        return {}
    left = {"dtype": theirs["dtype"], **theirs["fingerprint"]}
    right = {"dtype": ours["dtype"], **ours["fingerprint"]}
    return {
        name: (left.get(name), right.get(name))
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    }


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.Lock()


call_after_fork(_reset_after_fork)
