"""What a store holds: its statistics, a check of every row, and the explanation of a key."""

from __future__ import annotations

from typing import Any

import numpy as np

from sk_aft.store._directory import StoreDirectory
from sk_aft.store._model_files import n_bytes_beside_rows


def statistics(directory: StoreDirectory, dtype: str) -> dict[str, Any]:
    """Return what `FeatureStore.stats` does; ``dtype`` is that of models without rows."""
    models = []
    for model in directory.models():
        rows, other_bytes = directory.rows(model), n_bytes_beside_rows(directory.of_model(model))
        if rows is None and not other_bytes:
            continue
        row_bytes = 0 if rows is None else rows.n_rows * rows.files.bytes_on_disk
        models.append(
            {
                "name": directory.name(model),
                "model": model.hex(),
                "rows": 0 if rows is None else rows.n_rows,
                "bytes": row_bytes + other_bytes,
                "width": 0 if rows is None else rows.width,
                "dtype": dtype if rows is None else rows.files.dtype,
            }
        )
    counts = directory.lookups
    n_lookups = sum(counts.values())
    return {
        "rows": sum(model["rows"] for model in models),
        "bytes": sum(model["bytes"] for model in models),
        "models": models,
        **counts,
        "hit_rate": counts["hits"] / n_lookups if n_lookups else float("nan"),
    }


def damage(directory: StoreDirectory) -> dict[str, Any]:
    """Return what `FeatureStore.verify` does."""
    models = []
    n_rows = 0
    for model in directory.models():
        rows = directory.rows(model)
        if rows is None:
            continue
        n_rows += rows.n_rows + rows.n_lost
        damaged = rows.damaged()
        # A damaged row that has been computed again does not count.
        n_damaged = int((rows.find(damaged)[0] < 0).sum()) + rows.n_lost
        if n_damaged:
            names = {"name": directory.name(model), "model": model.hex()}
            models.append({**names, "rows": rows.n_rows, "damaged": n_damaged})
    return {
        "rows": n_rows,
        "damaged": sum(model["damaged"] for model in models),
        "models": models,
    }


def explanation(directory: StoreDirectory, model: bytes, digests: np.ndarray) -> dict[str, Any]:
    """Return what `FeatureStore.explain_key` does, of a model and the digest of one row."""
    description = directory.description(model)
    _, indices, damaged = directory.locate(model, digests)
    others = {}
    for other in directory.models():
        if other != model and directory.locate(other, digests)[1][0] >= 0:
            name = directory.name(other) or other.hex()
            # Models of one name are told apart by their digests.
            others[f"{name} ({other.hex()})" if name in others else name] = _differences(
                directory.description(other), description
            )
    return {
        "model": model.hex(),
        "row": digests.tobytes().hex(),
        "name": description["name"] if description else None,
        "fingerprint": description["fingerprint"] if description else None,
        "stored": bool(indices[0] >= 0),
        "damaged": len(damaged) > 0,
        "other_models": others,
    }


def _differences(theirs: dict | None, ours: dict | None) -> dict[str, tuple[Any, Any]]:
    if theirs is None or ours is None:
        return {}
    left = {"dtype": theirs["dtype"], **theirs["fingerprint"]}
    right = {"dtype": ours["dtype"], **ours["fingerprint"]}
    return {
        name: (left.get(name), right.get(name))
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    }
