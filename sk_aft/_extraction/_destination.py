"""Where the features of rows are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sk_aft._extraction._model_run import ModelRun
from sk_aft.store import FeatureStore


class Destination(NamedTuple):
    """A store, and the keys of some rows in it.

    Parameters
    ----------
    store : FeatureStore
        Where the features of the rows are kept.
    model : bytes
        The digest of the model.
    digests : ndarray of shape (n_rows, 2), uint64
        The digest of each row's content.
    """

    store: FeatureStore
    model: bytes
    digests: np.ndarray

    def commit(
        self,
        run: ModelRun,
        chunk: np.ndarray,
        claim: Callable,
        fail: Callable[[int, Exception], None],
    ) -> np.ndarray:
        """Compute rows and write their features, except rows that other processes claimed.

        Parameters
        ----------
        run : ModelRun
            The model and the rows.
        chunk : ndarray of int
            Numbers of the rows to compute.
        claim : callable
            Claims rows of the model, as `Claims.claim` does.
        fail : callable
            Called with the number of a row that the model fails for and the error.

        Returns
        -------
        others : ndarray of int
            Which of the chunk other processes are computing.
        """
        keys = self._keys(chunk)
        names = [self.digests[row].tobytes() for row in chunk]
        mine, others = claim(names, lambda: self.store.missing(keys))
        for done, features in run.embed(chunk[mine], fail):
            self.store.put_many(self._keys(done), features)
        return others

    def _keys(self, rows: np.ndarray) -> list[bytes]:
        return [self.model + self.digests[row].tobytes() for row in rows]
