"""The features of a stream, which is read once, batch after batch, and not kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sk_aft._data._counted_notes import CountedNotes
from sk_aft._data._rows import Rows
from sk_aft._data._streams import batches_of, n_rows_of
from sk_aft._runtime._progress import RowsProgress


def compute_stream(
    X: Any,
    columns: list[Any] | None,
    read: Callable[[Any, bool], Rows],
    compute: Callable[[Rows, Callable[[int], Any]], Any],
    *,
    n_models: int,
    verbose: int,
) -> None:
    """Compute the features of each batch of a stream.

    Parameters
    ----------
    X : stream
        Batches or single rows.
    columns : list or None
        The columns that the models read; None if they read whole rows.
    read : callable
        Takes a batch and whether it is the first, and returns its rows, checked.
    compute : callable
        Computes the features of rows, which are numbered as in the stream. Its second argument is
        called with the number of rows that a model has just computed.
    n_models : int
        How many models compute each row.
    verbose : int
        0 is silent, 1 shows a progress bar.
    """
    n_rows = 0
    notes = CountedNotes()
    with RowsProgress(n_rows_of(X), n_models, verbose) as progress:
        for batch in batches_of(X, columns):
            with notes.collecting():
                with _counted_from(n_rows):
                    rows = read(batch, not n_rows)
                compute(rows.counted_from(n_rows), progress.advance)
            n_rows += len(rows)
            progress.end_batch(len(rows))
    for message in notes.messages():
        warnings.warn(message, stacklevel=2)
    if not n_rows:
        raise ValueError(
            "Found array with 0 sample(s) while a minimum of 1 is required: the stream has no "
            "rows. An iterator can be read once only."
        )


@contextmanager
def _counted_from(first: int) -> Iterator[None]:
    """Say in errors about a batch of a stream where its rows stand."""
    try:
        yield
    except ValueError as error:
        if not first:
            raise
        raise ValueError(
            f"{error} Rows are counted from the beginning of a batch here, which is row {first} of "
            "the stream."
        ) from error
