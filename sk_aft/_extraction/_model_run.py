"""Running a model on rows: in batches that fit into memory, and around rows that it fails for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from traceback import walk_tb
from typing import Any

import numpy as np
import torch

from sk_aft._data._rows import Rows
from sk_aft._runtime._device import resolve_device
from sk_aft._runtime._memory import is_out_of_memory, release_memory
from sk_aft.backbones._base import FeatureShapeError, ModelFaultError
from sk_aft.backbones._image_batches import is_lost_worker

# A GPU benefits from larger batches than a CPU; they are halved if they do not fit.
_LARGER_ON_CUDA = 4


class ModelRun:
    """Runs a model on some rows.

    Parameters
    ----------
    backbone : Backbone
        The model.
    rows : Rows
        Rows of a kind that it reads.
    batch_size : int or "auto"
        Rows per batch; "auto" is the model's own, halved each time memory runs out.
    device : str or tuple of str
        Where the model runs.

    Attributes
    ----------
    batch_size : int or None
        The largest that fits; None before "auto" is resolved.
    is_automatic : bool
        Whether ``batch_size`` is found, rather than given.
    done : list of ndarray of int
        Numbers of the rows that have features.
    """

    def __init__(
        self, backbone: Any, rows: Rows, *, batch_size: Any, device: str | tuple[str, ...]
    ) -> None:
        self.backbone = backbone
        self.rows = rows
        self.done: list[np.ndarray] = []
        self._device = device
        self.is_automatic = batch_size == "auto"
        # "auto" is resolved when the model runs, because looking up rows needs no device.
        self.batch_size: int | None = None if self.is_automatic else batch_size
        self._width: int | None = None

    @property
    def device(self) -> torch.device:
        """The device that the model runs on."""
        return resolve_device(self._device)

    @property
    def has_succeeded(self) -> bool:
        """Whether any row has features."""
        return bool(self.done)

    def part(self, numbers: np.ndarray) -> ModelRun:
        """Return the same for some of the rows, without the model, to be sent to a process."""
        part = copy.copy(self)
        part.rows = self.rows.take(numbers)
        part.backbone = None
        part.done = []
        return part

    def place(self, backbone: Any, device: torch.device, batch_size: int | None) -> None:
        """Go on with the model of this process, on its device, and a batch size found before."""
        self.backbone = backbone
        self._device = str(device)
        if self.is_automatic:
            self.batch_size = batch_size or self.batch_size

    def embed(
        self, rows: np.ndarray, fail: Callable[[int, Exception], None]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (row numbers, features), without the rows that the model fails for.

        Parameters
        ----------
        rows : ndarray of int
            Numbers of the rows.
        fail : callable
            Called with the number of a row that the model fails for and the error.
        """
        if len(rows):
            self.backbone.prepare(self.device)
            yield from self._embed(rows, fail)

    def can_embed(self, row: int) -> bool:
        """Return whether the model has features for a row."""
        try:
            features = self._run(np.array([row]))
        except Exception as error:
            if not _may_be_a_rows_fault(error):
                raise
            return False
        return bool(np.isfinite(features).all())

    def _embed(
        self, rows: np.ndarray, fail: Callable[[int, Exception], None]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        try:
            features = self._run(rows)
        except Exception as error:
            if not _may_be_a_rows_fault(error):
                raise
            if len(rows) == 1:
                fail(int(rows[0]), error)
                return
            # Halve the rows to find the one that fails, and keep the features of the others.
            for half in np.array_split(rows, 2):
                yield from self._embed(half, fail)
            return
        self._check_shape(features, len(rows))
        finite = np.isfinite(features).all(axis=1)
        if finite.any():
            self.done.append(rows[finite])
            yield rows[finite], features[finite]
        for row in rows[~finite]:
            fail(int(row), ValueError("it returned NaN or infinite features"))

    def _check_shape(self, features: np.ndarray, n_rows: int) -> None:
        if features.ndim != 2 or len(features) != n_rows:
            raise FeatureShapeError(
                f"Model {self.backbone.name!r} returned features of shape {features.shape} for "
                f"{n_rows} rows: expected ({n_rows}, n_features)."
            )
        if self._width not in (None, features.shape[1]):
            raise FeatureShapeError(
                f"Model {self.backbone.name!r} returned {features.shape[1]} features per row, but "
                f"{self._width} for earlier rows: expected the same number for all rows."
            )
        self._width = features.shape[1]

    def _run(self, rows: np.ndarray) -> np.ndarray:
        """Run the model on rows; if memory runs out, use smaller batches from then on."""
        device = self.device
        if self.batch_size is None:
            factor = _LARGER_ON_CUDA if device.type == "cuda" else 1
            self.batch_size = self.backbone.batch_size * factor
        while True:
            batch_size = min(self.batch_size, len(rows))
            try:
                return self.backbone.embed(
                    self.rows.take(rows), batch_size=self.batch_size, device=device
                )
            except Exception as error:
                if is_lost_worker(error):
                    raise self._lost_worker(error) from error
                if not is_out_of_memory(error):
                    raise
                if not self.is_automatic or batch_size == 1:
                    raise self._out_of_memory(batch_size, device) from error
            # Outside the handler, because the error keeps the tensors of the failed batch alive.
            self.batch_size = batch_size // 2
            release_memory(device)

    def _lost_worker(self, error: Exception) -> ChildProcessError:
        return ChildProcessError(
            f"A process that prepares images for model {self.backbone.name!r} ended before it was "
            f"done ({reason_of(error)}). If the machine ran out of memory, a smaller batch_size "
            "takes less of it."
        )

    def _out_of_memory(self, batch_size: int, device: torch.device) -> MemoryError:
        what = f"Model {self.backbone.name!r} ran out of memory on device {str(device)!r}"
        if batch_size == 1:
            return MemoryError(
                f"{what} with a single row at a time: use a smaller model, smaller rows or "
                "another device."
            )
        return MemoryError(
            f"{what} with {batch_size} rows at a time: use a smaller batch_size, or 'auto', which "
            "finds one that fits."
        )


def reason_of(error: Exception) -> str:
    """Return the first line of an error's message, as a part of a sentence."""
    return (str(error) or repr(error)).splitlines()[0].rstrip(".")


def _may_be_a_rows_fault(error: Exception) -> bool:
    """Return whether an error may be caused by the row rather than the model or the machine.

    Missing memory, packages, disk or network, or a wrong shape of features are not the row's
    fault. A file that a function cannot find or that Pillow cannot read is.
    """
    if isinstance(error, (ImportError, MemoryError, ModelFaultError)):
        return False
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return True
    raised_in = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return raised_in[-1].startswith("PIL.")
