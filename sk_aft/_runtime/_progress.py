"""How often progress is shown."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm

# In a file, each update of a progress bar is a new line, so updates are rarer.
_SECONDS_BETWEEN_LINES = 30.0


def seconds_between_updates() -> float:
    """Return how often a progress bar is drawn: rarely in a file, where it cannot be redrawn."""
    is_widget = any("notebook" in base.__module__ for base in tqdm.__mro__)
    is_shown_live = is_widget or getattr(sys.stderr, "isatty", bool)()
    return 0.1 if is_shown_live else _SECONDS_BETWEEN_LINES
