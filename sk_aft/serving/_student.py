"""A deployed student: predicts with NumPy or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sk_aft._data._rows import Rows

# From checked rows to the network's outputs by their names.
Run = Callable[[Rows], dict[str, np.ndarray]]


class ServedStudent:
    """What `load` returns: predicts rows; may be called from several threads.

    Parameters
    ----------
    read : callable
        Checks rows.
    run : callable
        From checked rows to the outputs of the network.
    again : partial
        Loads the same folder again, for copies in other processes.
    """

    def __init__(self, read: Callable[[Any], Rows], run: Run, again: partial) -> None:
        self._read = read
        self._run = run
        self._again = again

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a copy is made, in another process, too: it is loaded from the folder."""
        return self._again.func, self._again.args

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._again.args[0]!r}>"


class ServedClassifier(ServedStudent):
    """A deployed `sk_aft.AFTClassifier`; `load` makes it.

    Parameters
    ----------
    read : callable
        Checks rows.
    run : callable
        From checked rows to the outputs of the network.
    again : partial
        Loads the same folder again, for copies in other processes.
    classes : ndarray of shape (n_classes,)
        Labels.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.

    Notes
    -----
    It may be used by several threads at once. A pickled copy is loaded from the same folder again.
    """

    def __init__(
        self,
        read: Callable[[Any], Rows],
        run: Run,
        again: partial,
        classes: np.ndarray,
    ) -> None:
        super().__init__(read, run, again)
        self.classes_ = classes

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely label of each row.

        Parameters
        ----------
        X : one row or n_rows rows
            Rows as in training: a text or several; an image or several (paths, bytes, PIL images
            or arrays); numbers; of several columns, a DataFrame, a dict or a list of dicts.

        Returns
        -------
        labels : ndarray of shape (n_rows,)
            Labels; one row has an array of one label.

        Raises
        ------
        ValueError, TypeError
            If rows cannot be read, or are not like those of training.
        """
        return self.classes_[self._run(self._read(X))["probabilities"].argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : one row or n_rows rows
            As for `predict`.

        Returns
        -------
        probabilities : ndarray of shape (n_rows, n_classes)
            In the order of ``classes_``.
        """
        probabilities: np.ndarray = self._run(self._read(X))["probabilities"].astype(np.float64)
        return probabilities / probabilities.sum(axis=1, keepdims=True)


class ServedRegressor(ServedStudent):
    """A deployed `sk_aft.AFTRegressor`; `load` makes it.

    Parameters
    ----------
    read : callable
        Checks rows.
    run : callable
        From checked rows to the outputs of the network.
    again : partial
        Loads the same folder again, for copies in other processes.
    ndim : int
        Number of dimensions of the targets, 1 or 2.

    Notes
    -----
    It may be used by several threads at once. A pickled copy is loaded from the same folder again.
    """

    def __init__(self, read: Callable[[Any], Rows], run: Run, again: partial, ndim: int) -> None:
        super().__init__(read, run, again)
        self._ndim = ndim

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted numbers.

        Parameters
        ----------
        X : one row or n_rows rows
            As for `ServedClassifier.predict`.

        Returns
        -------
        predictions : ndarray of shape (n_rows,) or (n_rows, n_targets)
            In the unit of the targets.
        """
        predictions = self._run(self._read(X))["predictions"]
        return predictions[:, 0] if self._ndim == 1 else predictions
