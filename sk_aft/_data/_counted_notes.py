"""One warning for all pieces of some rows, instead of one for each.

Only notes of this package are added up. Other warnings come when they are raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Such as "3 of 8192 texts have ..." or "Model 'minilm': 3 of 8192 texts have ...".
_COUNTS = re.compile(r"(\d+) of (\d+) ")
# What follows differs with the rows.
_EXAMPLE = " The first is "

_collecting: ContextVar[CountedNotes | None] = ContextVar("collecting", default=None)


class CountedNotes:
    """Adds up notes of pieces that differ only in their counts.

    "3 of 8192 texts are long" and "4 of 8192 texts are long" become "7 of 16384 texts are long".
    """

    def __init__(self) -> None:
        # Subject -> number of rows; subject and note without counts -> first note, rows counted.
        self._n_rows: dict[str, int] = {}
        self._notes: dict[tuple[str, str], tuple[str, int]] = {}

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add what `give_note` is given here, in this thread, rather than warn of it."""
        token = _collecting.set(self)
        try:
            yield
        finally:
            _collecting.reset(token)

    def add(self, subject: str, n_rows: int, note: str | None) -> None:
        """Add the note of a piece; parameters as of `give_note`."""
        self._n_rows[subject] = self._n_rows.get(subject, 0) + n_rows
        if note is not None:
            key = subject, _COUNTS.sub("", note.partition(_EXAMPLE)[0], count=1)
            first, n_counted = self._notes.get(key, (note, 0))
            found = _COUNTS.search(note)
            self._notes[key] = first, n_counted + (int(found[1]) if found else 0)

    def messages(self) -> list[str]:
        """Return the notes of all pieces."""
        return [
            _COUNTS.sub(f"{n_counted} of {self._n_rows[subject]} ", first, count=1)
            for (subject, _), (first, n_counted) in self._notes.items()
        ]


def give_note(subject: str, n_rows: int, note: str | None, warn: Callable[[str], None]) -> None:
    """Warn of something that rows have; if they are a piece of others, once for all of these.

    Parameters
    ----------
    subject : str
        What the note is about, the same for all pieces.
    n_rows : int
        Number of rows.
    note : str or None
        A sentence, with the counts if there are some ("3 of 8192 texts ..."); None if there is
        nothing to say.
    warn : callable
        Warns of the note, if the rows are not a piece.
    """
    notes = _collecting.get()
    if notes is not None:
        notes.add(subject, n_rows, note)
    elif note is not None:
        warn(note)
