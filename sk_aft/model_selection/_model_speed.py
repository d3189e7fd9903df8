"""How many rows per second the models of an extractor read on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sk_aft._data._rows import Rows
from sk_aft._extractor import FoundationFeatureExtractor
from sk_aft._runtime._device import resolve_device

_ROWS_TIMED = 64
_ROWS_TO_WARM_UP = 2
_SECONDS_TIMED = 0.2


def rows_per_second(extractor: FoundationFeatureExtractor, X: Any) -> float:
    """Run a candidate's models to measure how many rows per second they embed, or predict."""
    device = resolve_device(extractor.device)
    read = extractor._check_rows(X, reset=False).read
    runs: list[tuple[Rows, Callable[[Rows], Any]]] = []
    for reader in extractor._readers:
        embed = partial(reader.backbone.embed, batch_size=reader.backbone.batch_size, device=device)
        runs.append((reader.rows(read), embed))
    if not runs:
        runs = [(read, predictor.predict) for predictor in extractor._soft_targets.predictors]
    return 1 / sum(_seconds_per_row(rows, run) for rows, run in runs)


def _seconds_per_row(rows: Rows, run: Callable[[Rows], Any]) -> float:
    sample = np.linspace(0, len(rows) - 1, min(_ROWS_TIMED, len(rows))).astype(np.int64)
    run(rows.take(sample[:_ROWS_TO_WARM_UP]))
    n_rows, start, seconds = 0, time.perf_counter(), 0.0
    while seconds < _SECONDS_TIMED:
        run(rows.take(sample))
        n_rows += len(sample)
        seconds = time.perf_counter() - start
    return seconds / n_rows
