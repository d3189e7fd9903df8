"""A time as one reads it."""


def duration(seconds: float) -> str:
    """Return a time in seconds if below two minutes, then in minutes, then in hours."""
    if seconds < 120:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
