"""Progress of long work."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm

# In a file, each update of a progress bar is a new line, so updates are rarer.
_SECONDS_BETWEEN_LINES = 30.0


def seconds_between_updates() -> float:
    """Return how often a progress bar is drawn: rarely in a file, where it cannot be redrawn."""
    is_widget = any("notebook" in base.__module__ for base in tqdm.__mro__)
    is_shown_live = is_widget or getattr(sys.stderr, "isatty", bool)()
    return 0.1 if is_shown_live else _SECONDS_BETWEEN_LINES


class RowsProgress:
    """A progress bar over rows that come in batches, each of which several models compute.

    Parameters
    ----------
    n_rows : int or None
        Number of rows, if it is known.
    n_models : int
        How many models compute each row.
    verbose : int
        0 shows nothing.
    """

    def __init__(self, n_rows: int | None, n_models: int, verbose: int) -> None:
        self._n_models = max(n_models, 1)
        self._bar = tqdm(
            total=n_rows, unit="row", disable=not verbose, mininterval=seconds_between_updates()
        )
        self._computed = self._shown = 0

    def __enter__(self) -> RowsProgress:
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.close()

    def advance(self, n_rows: int) -> None:
        """Count rows of the batch that one model has computed."""
        self._computed += n_rows
        self._show(self._computed // self._n_models)

    def end_batch(self, n_rows: int) -> None:
        """Count the whole batch; some of its rows may have been computed before."""
        self._show(n_rows)
        self._computed = self._shown = 0

    def _show(self, n_rows: int) -> None:
        self._bar.update(n_rows - self._shown)
        self._shown = n_rows
