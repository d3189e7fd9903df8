"""A store of feature rows on disk, keyed by content."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import filelock
import numpy as np

from sk_aft.store._claims import Claims
from sk_aft.store._contents import damage, explanation, statistics
from sk_aft.store._directory import StoreDirectory, none_found
from sk_aft.store._exchange import export_rows, import_rows
from sk_aft.store._keys import model_digest, split_keys
from sk_aft.store._merge import merge
from sk_aft.store._model_files import WEIGHTS, ModelFiles
from sk_aft.store._model_rows import STORED_DTYPES, ModelRows, as_stored, records_of
from sk_aft.store._paths import store_path
from sk_aft.store._removal import remove_models, remove_oldest


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
    read_only : bool, default=False
        Whether the store is only read, such as one that a colleague filled: nothing is written,
        and missing features raise `sk_aft.exceptions.MissingFeaturesError` instead of being
        computed. `merge` copies such a store into one that can be added to. Functions and objects
        without a fingerprint are computed all the same: their features are kept for this process
        only, never in this directory.

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

    def __init__(
        self,
        path: str | os.PathLike | None = None,
        *,
        dtype: str = "float32",
        read_only: bool = False,
    ) -> None:
        if dtype not in STORED_DTYPES:
            raise ValueError(f"dtype has to be one of {list(STORED_DTYPES)}, got {dtype!r}.")
        self.path = store_path(path)
        self.dtype = dtype
        self.read_only = read_only
        if read_only and not self.path.is_dir():
            raise FileNotFoundError(f"There is no feature store to read at {str(self.path)!r}.")

    def __repr__(self) -> str:
        dtype = "" if self.dtype == "float32" else f", dtype={self.dtype!r}"
        read_only = ", read_only=True" if self.read_only else ""
        return f"FeatureStore({str(self.path)!r}{dtype}{read_only})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureStore) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple:
        return self.path, self.dtype, self.read_only

    @property
    def _directory(self) -> StoreDirectory:
        return StoreDirectory(self.path, read_only=self.read_only)

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
        if self._directory.description(model) is not None:
            self._directory.note_use(model)  # for reduce_size
        elif not self.read_only:
            description = {"name": name, "dtype": self.dtype, "fingerprint": dict(fingerprint)}
            self._directory.describe(model, description)
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
        rows = self._directory.rows(model)
        if rows is None:
            matrix: np.ndarray = np.empty((len(keys), 0), np.float32)
            indices, damaged = none_found(digests)
        else:
            matrix, indices, damaged = rows.read(digests)
        self._directory.count(indices, damaged)
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
        self._directory.check_writable()
        matrix = np.asarray(matrix, dtype=np.float32)
        if matrix.ndim != 2 or len(matrix) != len(keys) or matrix.shape[1:] == (0,):
            raise ValueError(f"{len(keys)} keys need a matrix of as many rows, got {matrix.shape}.")
        if not len(keys):
            return
        model, digests = split_keys(keys)

        def stored_of(fresh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            stored = as_stored(matrix[fresh], self.dtype)
            return records_of(digests[fresh], stored), stored

        self._directory.add(model, digests, matrix.shape[1], self.dtype, stored_of)

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
        rows, indices, damaged = self._directory.locate(model, digests)
        if count:
            self._directory.count(indices, damaged)
        return rows, indices

    def claims(self, model: bytes) -> Claims:
        """Return a context in which rows are claimed, so that no other process computes them."""
        directory = self._directory
        with directory.writing():
            locks = directory.locks
        return Claims(locks / model.hex(), self.lock(model), directory.writing)

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
        weights = self._directory.of_model(model) / WEIGHTS
        if self.read_only:
            return ModelFiles(weights, nullcontext(), read_only=True)
        path = self._directory.locks / f"{model.hex()}.training.lock"
        return ModelFiles(weights, filelock.FileLock(path, mode=0o600))

    def lock(self, model: bytes) -> filelock.BaseFileLock:
        """Return the lock for writing this model's rows; it is released when its process ends."""
        return self._directory.lock(model)

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
        return statistics(self._directory, self.dtype)

    def verify(self) -> dict[str, Any]:
        """Read every row and compare it with its checksum.

        The store never returns damaged rows; they are computed again when needed.

        Returns
        -------
        report : dict
            "rows" read, "damaged" rows, and "models": a dict for each model that has any, with
            "name", "model" (digest), "rows" and "damaged".
        """
        return damage(self._directory)

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
        return remove_models(self._directory, model)

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
        return remove_oldest(self._directory, max_bytes)

    def merge(self, other: FeatureStore | str | os.PathLike) -> int:
        """Copy every row of another store that this one lacks, of all models.

        It is resumable, and both stores may be in use meanwhile. Each copied row is checked
        against its checksum. The weights of fine-tuned models are copied, too, but no unfinished
        trainings.

        Parameters
        ----------
        other : FeatureStore or path-like
            The other store; it is only read.

        Returns
        -------
        n_rows : int
            Number of rows copied.

        Raises
        ------
        FileNotFoundError
            If there is no other store.
        ValueError
            Before anything is written: if ``other`` is this store, or if a model has another
            number of features there.

        Warns
        -----
        UserWarning
            If rows or weights of the other store are damaged; these are left out.

        Examples
        --------
        >>> import numpy as np, tempfile
        >>> from sk_aft.store import FeatureStore
        >>> shared, own = (FeatureStore(tempfile.mkdtemp()) for _ in range(2))
        >>> model = shared.register_model({"weights": "a digest"}, name="a model")
        >>> shared.put_many([model + bytes(range(16))], np.ones((1, 3)))
        >>> own.merge(shared)
        1
        >>> own.merge(shared)
        0
        """
        path = other.path if isinstance(other, FeatureStore) else other
        return merge(self._directory, FeatureStore(path, read_only=True)._directory)

    def export_features(self, path: str | os.PathLike, *, model: str | bytes) -> int:
        """Write all rows of a model to a file, for another store's `import_features`.

        Rows are identified by the digest of their content, not by their position: they are in
        the order of the store, which is not that of your rows. To keep features in your order,
        save ``extractor.transform(X).features`` with `numpy.save`.

        Parameters
        ----------
        path : path-like
            File to write, replaced if it exists; its suffix decides:

            - ".safetensors": tensors "features" (n_rows, n_features) in the store's number format
              and "digests" (n_rows, 16) uint8.
            - ".parquet" (needs pyarrow): columns "features", always float32, which holds the
              16-bit formats exactly, and "digest".

            Both hold the model's name, number format and fingerprint as metadata.
        model : str or bytes
            The model's digest, or its name if no other model has it; see `stats`.

        Returns
        -------
        n_rows : int
            Number of rows written.

        Raises
        ------
        ValueError
            If the suffix is another one, or if ``model`` is not exactly one model with rows.

        Warns
        -----
        UserWarning
            If rows are damaged; these are left out.

        Examples
        --------
        >>> import numpy as np, os, tempfile
        >>> from sk_aft.store import FeatureStore
        >>> here, there = (FeatureStore(tempfile.mkdtemp()) for _ in range(2))
        >>> model = here.register_model({"weights": "a digest"}, name="a model")
        >>> here.put_many([model + bytes(range(16))], np.ones((1, 3)))
        >>> file = os.path.join(tempfile.mkdtemp(), "features.safetensors")
        >>> here.export_features(file, model="a model")
        1
        >>> there.import_features(file)
        1
        """
        return export_rows(self._directory, path, model)

    def import_features(self, path: str | os.PathLike) -> int:
        """Add the rows of a file that `export_features` wrote; rows already stored are skipped.

        Later look-ups of the same rows by the same model find them, if this store's ``dtype`` is
        that of the file. The file is checked and nothing in it is executed. Whether its numbers
        are those of the model cannot be checked: import files of people you trust.

        Parameters
        ----------
        path : path-like
            A file of suffix ".safetensors" or ".parquet".

        Returns
        -------
        n_rows : int
            Number of rows added.

        Raises
        ------
        ValueError
            If the file is damaged, is of another kind, or its fingerprint does not match its
            digest; if numbers are not finite; or if this store holds another number of features
            for the model. The message names what is wrong.
        """
        return import_rows(self._directory, path)

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
            that differ from this model's, as (theirs, ours). Further models of the same name have
            their digest added to it.
        """
        key = bytes.fromhex(key) if isinstance(key, str) else key
        return explanation(self._directory, *split_keys([key]))
