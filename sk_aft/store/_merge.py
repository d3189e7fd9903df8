"""Copying into a store what another one has more."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from sk_aft.store._directory import StoreDirectory
from sk_aft.store._model_files import WEIGHTS
from sk_aft.store._model_rows import ModelRows, flush

# Rows are committed in pieces of about this size, so that little is lost when interrupted and
# other writers wait briefly.
PIECE_BYTES = 32 * 1024 * 1024


def merge(target: StoreDirectory, source: StoreDirectory) -> int:
    """Copy rows and weights as `FeatureStore.merge` does; return the number of rows."""
    target.check_writable()
    if target.path.exists() and target.path.samefile(source.path):
        raise ValueError(f"{target} cannot be merged into itself: give another one.")
    models = source.models()
    rows_of_models = [source.rows(model) for model in models]
    _check_widths(target, dict(zip(models, rows_of_models, strict=True)))
    n_copied = n_damaged = n_files_damaged = 0
    for model, rows in zip(models, rows_of_models, strict=True):
        weights = source.of_model(model) / WEIGHTS
        description = source.description(model)
        has_content = rows is not None or weights.exists()
        if has_content and description is not None and target.description(model) is None:
            target.describe(model, description)
        if rows is not None:
            copied, damaged = _merge_rows(target, model, rows)
            n_copied += copied
            n_damaged += damaged
        if weights.exists():
            n_files_damaged += not _merge_weights(target, model, weights)
    if n_damaged or n_files_damaged:
        files = f" and the weights of {n_files_damaged} models" if n_files_damaged else ""
        warnings.warn(
            f"{n_damaged} rows{files} in {source} are damaged and were left out.", stacklevel=3
        )
    return n_copied


def _check_widths(target: StoreDirectory, found: dict[bytes, ModelRows | None]) -> None:
    for model, theirs in found.items():
        ours = target.rows(model) if theirs is not None else None
        if theirs is not None and ours is not None and ours.width != theirs.width:
            raise ValueError(
                f"Model {target.name(model) or model.hex()!r} has {ours.width} features per row "
                f"in {target}, but {theirs.width} in the other one: its width changed without its "
                "fingerprint. Remove it from the store in which it is wrong (FeatureStore.remove)."
            )


def _merge_rows(target: StoreDirectory, model: bytes, rows: ModelRows) -> tuple[int, int]:
    """Return how many rows were copied, and how many of those that are needed are damaged."""
    n_copied, n_damaged = 0, rows.n_lost
    for start, stop in rows.pieces(PIECE_BYTES):
        indices = rows.current(start, stop)
        n_damaged_here = 0

        def stored_of(
            fresh: np.ndarray, indices: np.ndarray = indices
        ) -> tuple[np.ndarray, np.ndarray]:
            nonlocal n_damaged_here
            records, stored = rows.intact(indices[fresh])
            n_damaged_here = len(fresh) - len(records)
            return records, stored

        digests = rows.records["digest"][indices]
        n_copied += target.add(model, digests, rows.width, rows.files.dtype, stored_of)
        n_damaged += n_damaged_here
    return n_copied, n_damaged


def _merge_weights(target: StoreDirectory, model: bytes, weights: Path) -> bool:
    """Copy the weights of a fine-tuned model unless there are some; return whether they are intact.

    A file of which only the end is missing is noticed.
    """
    directory = target.of_model(model)
    if (directory / WEIGHTS).exists():
        return True
    try:
        with safe_open(str(weights), framework="numpy"):
            pass
    except (SafetensorError, OSError):
        return False
    with target.writing(), target.lock(model):
        target.make_directory(directory)
        # One name for all, so that processes that died leave one file behind at most.
        written = directory / "weights.merged"
        try:
            written.touch(mode=0o600)
            shutil.copyfile(weights, written)
            flush(written)
            written.replace(directory / WEIGHTS)
        except BaseException:
            written.unlink(missing_ok=True)
            raise
    return True
