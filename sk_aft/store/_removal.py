"""Removing models and rows from a store."""

from __future__ import annotations

import shutil

from joblib.disk import memstr_to_bytes

from sk_aft.store._contents import statistics
from sk_aft.store._directory import StoreDirectory
from sk_aft.store._model_files import n_bytes_beside_rows
from sk_aft.store._model_rows import drop_rows


def chosen_models(directory: StoreDirectory, model: str | bytes) -> list[bytes]:
    """Return the digests of the models that a digest or a name means; raise if there are none."""
    wanted = model.hex() if isinstance(model, bytes) else model
    names = {known: directory.name(known) for known in directory.models()}
    chosen = [known for known, name in names.items() if wanted in (name, known.hex())]
    if not chosen:
        held = sorted({name or known.hex() for known, name in names.items()})
        raise ValueError(f"The store has no model {wanted!r}; it has {held}.")
    return chosen


def remove_models(directory: StoreDirectory, model: str | bytes) -> int:
    """Remove models as `FeatureStore.remove` does; return the number of rows."""
    directory.check_writable()
    n_rows = 0
    for chosen in chosen_models(directory, model):
        rows = directory.rows(chosen)
        n_rows += rows.n_rows if rows is not None else 0
        with directory.writing(), directory.lock(chosen):
            shutil.rmtree(directory.of_model(chosen))
    return n_rows


def remove_oldest(directory: StoreDirectory, max_bytes: int | str) -> int:
    """Remove rows as `FeatureStore.reduce_size` does; return their number."""
    directory.check_writable()
    limit = memstr_to_bytes(max_bytes) if isinstance(max_bytes, str) else max_bytes
    if limit < 0:
        raise ValueError(f"max_bytes has to be at least 0, got {max_bytes}.")
    excess = statistics(directory, "float32")["bytes"] - limit
    n_removed = 0
    for model in sorted(directory.models(), key=directory.last_used):
        if excess <= 0:
            break
        of_model = directory.of_model(model)
        with directory.writing(), directory.lock(model):
            rows, other_bytes = directory.rows(model), n_bytes_beside_rows(of_model)
            if rows is None:
                if other_bytes:
                    excess -= other_bytes
                    shutil.rmtree(of_model)
                continue
            row_bytes = rows.files.bytes_on_disk
            n_rows = min(rows.n_rows, -(-excess // row_bytes))
            if n_rows == rows.n_rows or other_bytes:  # weights are removed with all rows
                n_rows = rows.n_rows
                excess -= other_bytes
                shutil.rmtree(of_model)
            else:
                n_rows = drop_rows(rows, first=n_rows)
            n_removed += n_rows
            excess -= n_rows * row_bytes
    return n_removed
