"""Rows without features: which row a model cannot read, and what to say of it."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np

from sk_aft._data._counted_notes import give_note
from sk_aft._data._images import has_image_suffix, open_image
from sk_aft._extraction._model_run import ModelRun, reason_of

# If a model fails for a row, this many others are tried to tell whether the row is to blame.
_ROWS_TRIED = 10
# The end of messages about a missing row.
OR_MASK = " on_error='mask' keeps the row without features."


class NoRowReadError(ValueError):
    """A model could read none of the rows, although such rows are left out."""


class RowFaults:
    """Rows that a model cannot read: an error is raised for the first, or they are left out.

    Parameters
    ----------
    run : ModelRun
        The model and the rows.
    digests : ndarray of shape (n_rows, 2), uint64
        The digest of each row's content. They may be filled in later.
    column : object
        The column of a DataFrame, or tuple of columns, that the rows come from, or None.
    on_error : {"raise", "mask"}
        Whether to raise an error or to leave rows out.
    n_hopeless : int
        If the model fails for this many rows before it succeeds for any, no row is to blame.
    """

    def __init__(
        self, run: ModelRun, digests: np.ndarray, *, column: Any, on_error: str, n_hopeless: int
    ) -> None:
        self._run = run
        self._rows = run.rows
        self._digests = digests
        self._column = column
        self._raises = on_error == "raise"
        self._n_hopeless = n_hopeless
        # Digest of a row that the model cannot read -> (row, error).
        self._failures: dict[bytes, tuple[int, Exception]] = {}

    def __contains__(self, row: int) -> bool:
        return self._digests[row].tobytes() in self._failures

    def check_missing(self) -> None:
        """Treat rows that are missing as rows that cannot be read."""
        for row in np.flatnonzero(self._rows.missing_mask).tolist():
            error = self._rows.missing_error(row, self._or_mask)
            if self._column is not None:
                error = ValueError(f"column {self._column!r}: {error}")
            self.cannot_read(row, error)

    def readable(self, rows: np.ndarray) -> np.ndarray:
        """Leave out image files that cannot be opened, before any model has run for hours."""
        is_file = self._rows.kind == "image" and self._rows.values.dtype == object
        for row in rows if is_file else ():
            value = self._rows.values[row]
            if not (value is None or isinstance(value, np.ndarray)):
                try:
                    open_image(value, self._rows.position(row))
                except ValueError as error:
                    self.cannot_read(row, error)
        return np.array([row for row in rows if row not in self], np.int64)

    def cannot_read(self, row: int, error: Exception) -> None:
        """Record a row that cannot be read, as ``error`` describes; raise unless masked."""
        value = self._rows.values[row]
        if self._rows.kind == "image" and isinstance(value, str) and not has_image_suffix(value):
            error = ValueError(
                f"{error} Model {self._name!r} reads images and takes strings as their "
                "paths: texts need a text model, such as 'minilm'."
            )
        if self._raises:
            raise error
        self._leave_out(row, error)

    def model_failed(self, row: int, error: Exception) -> None:
        """Record a row that the model failed for; raise unless such rows are masked."""
        position = self._rows.position(row)
        if str(error).startswith(f"Row {position} "):
            self.cannot_read(row, error)
            return
        if self._rows.kind == "numeric" and not np.isfinite(self._rows.values[row]).all():
            self.cannot_read(row, self._not_finite(row))
            return
        if self._raises:
            self._check_is_to_blame(row, error)
            raise ValueError(
                f"Model {self._name!r} failed for row {position} "
                f"({_excerpt(self._rows.values[row])}): {reason_of(error)}. Repair "
                "the row or leave it out; on_error='mask' keeps it without features."
            ) from error
        self._leave_out(row, error)

    def report(self, missing_mask: np.ndarray) -> None:
        """Warn of rows that have no features; raise NoRowReadError if none has any."""
        if self._raises:
            return
        note = self._note_of(missing_mask) if missing_mask.any() else None
        warn = partial(warnings.warn, stacklevel=3)
        subject = f"features of {self._name} for {self._column!r}"
        give_note(subject, len(self._rows), note, warn)

    def _note_of(self, missing_mask: np.ndarray) -> str:
        row, error = min(self._failures.values(), key=lambda failure: failure[0])
        if missing_mask.all():
            raise NoRowReadError(
                f"Model {self._name!r} cannot read any of these {len(self._rows)} rows."
            ) from error
        return (
            f"{missing_mask.sum()} of {len(self._rows)} rows have no features of model "
            f"{self._name!r} and take no part in the transfer term. The first is row "
            f"{self._rows.position(row)}: {reason_of(error)}."
        )

    @property
    def _name(self) -> str:
        return self._run.backbone.name

    @property
    def _or_mask(self) -> str:
        return OR_MASK if self._raises else ""

    def _leave_out(self, row: int, error: Exception) -> None:
        self._failures.setdefault(self._digests[row].tobytes(), (row, error))
        if len(self._failures) >= self._n_hopeless and not self._run.has_succeeded:
            raise self._not_a_rows_fault(len(self._failures), error) from error

    def _check_is_to_blame(self, row: int, error: Exception) -> None:
        """Raise ValueError if the model fails for other rows, too."""
        others = [other for other in range(len(self._rows)) if other != row][:_ROWS_TRIED]
        if others and not self._run.has_succeeded and not any(map(self._run.can_embed, others)):
            raise self._not_a_rows_fault(1 + len(others), error) from error

    def _not_a_rows_fault(self, n_rows: int, error: Exception) -> ValueError:
        return ValueError(
            f"Model {self._name!r} failed for each of {n_rows} rows, so the rows are "
            f"probably not the cause: {reason_of(error)}."
        )

    def _not_finite(self, row: int) -> ValueError:
        """Return an error that names the number in a row that is not finite."""
        values = self._rows.values[row]
        column = int(np.flatnonzero(~np.isfinite(values))[0])
        names = self._column if isinstance(self._column, tuple) else [self._column]
        name = column if self._column is None else names[column]
        return ValueError(
            f"Row {self._rows.position(row)} of X holds {values[column]} in column {name!r}, which "
            f"model {self._name!r} cannot read: fill it before the extractor."
            f"{self._or_mask}"
        )


def _excerpt(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, bytes)) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
