"""Errors that end a command, and what a command prints."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence

_MOST_NAMES = 12


class CommandError(Exception):
    """Input that cannot be used; the message says how to mend it. The exit status is 1."""


class UsageError(CommandError):
    """Arguments that contradict each other, or lack one. The exit status is 2."""


def report(message: str = "", *, quiet: bool = False) -> None:
    """Print a message for the user at once, unless ``quiet``."""
    if not quiet:
        print(message, flush=True)


def complain(message: object) -> None:
    """Print a message of one line on the standard error stream."""
    print(" ".join(str(message).split()), file=sys.stderr, flush=True)


def missing_column(name: str, columns: Sequence[str], where: object) -> CommandError:
    """Return the error for a column that is not there, with the name that was probably meant."""
    return CommandError(f"{where} has no column {name!r}{did_you_mean(name, columns)}")


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Return the end of a sentence that says which names exist and which is similar."""
    lower = {known.lower(): known for known in names}
    similar = difflib.get_close_matches(name.lower(), lower, n=1)
    guess = f": did you mean {lower[similar[0]]!r}?" if similar else "."
    return f"{guess} It has {listed(names)}."


def listed(names: Iterable[object]) -> str:
    """Return names in quotes, separated by commas; of many, the first ones and a count."""
    quoted = [repr(str(name)) for name in names]
    more = len(quoted) - _MOST_NAMES
    if more > 0:
        return f"{', '.join(quoted[:_MOST_NAMES])} and {more} more"
    return ", ".join(quoted) or "none"


def counted(n: int, what: str) -> str:
    """Return a number and a noun: "1 row", "1,000 rows", "2 classes"."""
    if n != 1:
        what += "es" if what.endswith("s") else "s"
    return f"{n:,} {what}"
