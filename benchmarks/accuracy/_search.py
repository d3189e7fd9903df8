"""The choice of a method's setting, with the same number of trials for each method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# One setting, as a run's key says it.
Setting = dict[str, Any]


@dataclass(frozen=True)
class Axis:
    """A number to choose.

    Parameters
    ----------
    name : str
        Of the setting.
    start : float
        Its usual value.
    factor : float
        First step, up or down.
    n_trials : int
        How many values are tried besides the start.
    """

    name: str
    start: float
    factor: float
    n_trials: int


@dataclass(frozen=True)
class Search:
    """How a setting is chosen: axis by axis, or from a grid."""

    start: Setting
    axes: tuple[Axis, ...] = ()
    grid: tuple[Setting, ...] = ()

    def best(self, error: Callable[[Setting], float]) -> Setting:
        """Return the setting of the lowest error; the start where there is nothing to choose."""
        if not self.axes and not self.grid:
            return self.start
        best = min(self.grid or [self.start], key=error)
        for axis in self.axes:
            best = climb(best, axis, error)
        return best


def climb(best: Setting, axis: Axis, error: Callable[[Setting], float]) -> Setting:
    """Return the best setting found along an axis.

    Goes on in the direction that helps, and takes smaller steps once neither does.

    Parameters
    ----------
    best : dict
        Where to start.
    axis : Axis
        What to vary.
    error : callable
        From a setting to its error.
    """
    lowest, value, factor, direction = error(best), axis.start, axis.factor, 1
    tried = {value}
    while len(tried) <= axis.n_trials:
        neighbours = (value * factor**direction, value / factor**direction)
        untried = [near for near in map(_rounded, neighbours) if near not in tried]
        if not untried:
            factor **= 0.5
            continue
        tried.add(untried[0])
        setting = {**best, axis.name: untried[0]}
        of_setting = error(setting)
        if of_setting < lowest:
            direction = 1 if untried[0] > value else -1
            best, lowest, value = setting, of_setting, untried[0]
    return best


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
