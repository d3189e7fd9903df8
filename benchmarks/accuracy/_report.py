"""Tables of what a suite has measured."""

from __future__ import annotations

from benchmarks.accuracy._runs import Runs


def print_suite(suite: str, runs: Runs) -> None:
    """Print the table of a suite."""
    print(f"{suite}: {len(runs)} lines")
