"""One warning for all pieces of some rows, instead of one for each."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Such as "3 of 8192 texts have ..." or "Model 'minilm': 3 of 8192 texts have ...".
_COUNTS = re.compile(r"(\d+) of (\d+) ")
# What follows differs with the rows.
_EXAMPLE = " The first is "


@contextmanager
def joined_warnings() -> Iterator[None]:
    """Hold back warnings until the end, and add up the counts of those that differ only in them.

    "3 of 8192 texts are long" and "4 of 8192 texts are long" become "7 of 16384 texts are long".
    Other warnings are given once.
    """
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        for message, first in _joined(caught).items():
            warnings.warn_explicit(message, first.category, first.filename, first.lineno)


def _joined(caught: list[warnings.WarningMessage]) -> dict[str, warnings.WarningMessage]:
    """Return each distinct message with the first warning that gave it."""
    first_of: dict[str, warnings.WarningMessage] = {}
    counts: dict[str, tuple[int, int]] = {}
    for warning in caught:
        message = str(warning.message)
        key = _COUNTS.sub("# of # ", message.partition(_EXAMPLE)[0], count=1)
        first_of.setdefault(key, warning)
        if found := _COUNTS.search(message):
            known = counts.get(key, (0, 0))
            counts[key] = (known[0] + int(found[1]), known[1] + int(found[2]))
    joined = {}
    for key, warning in first_of.items():
        message = str(warning.message)
        if key in counts:
            message = _COUNTS.sub("{} of {} ".format(*counts[key]), message, count=1)
        joined[message] = warning
    return joined
