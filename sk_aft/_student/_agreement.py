"""What has to be the same in all processes that train a student together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import joblib
import numpy as np

from sk_aft._data._rows import Rows
from sk_aft._student._plan import TrainingPlan
from sk_aft._student._training_data import TrainingData
from sk_aft.store import row_digests

# Whether processes print, and what they do besides training, may differ.
_MAY_DIFFER = {"callbacks", "device", "verbose"}
_N_COMPARED = 64


def facts_of(
    parameters: Mapping[str, Any],
    data: TrainingData,
    plan: TrainingPlan,
    y: Any,
    sample_weight: Any,
    soft_targets: Any,
) -> dict[str, Any]:
    """Return facts about a training by name; comparing them costs little.

    Floats that were computed are left out, because they depend on the processor.

    Parameters
    ----------
    parameters : mapping
        Parameters of the estimator. Only their types are compared of those that are objects.
    data : TrainingData
        The rows. Only some of them are compared, because reading images may take long.
    plan : TrainingPlan
        What is trained on.
    y, sample_weight, soft_targets : as for ``fit``
        As they were given.

    Returns
    -------
    facts : dict
        Names that a user knows, and values that can be sent and compared.
    """
    some = np.linspace(0, len(data.rows) - 1, _N_COMPARED).astype(int)
    return {
        **{
            name: _comparable(value)
            for name, value in parameters.items()
            if name.partition("__")[0] not in _MAY_DIFFER
        },
        "number of rows": len(data.rows),
        "X": _digest(data.rows.take(np.unique(some))),
        "y": joblib.hash(np.asarray(y)),
        "sample_weight": joblib.hash(sample_weight),
        "soft_targets": joblib.hash(soft_targets),
        "number of foundation features": None if data.features is None else data.features.shape[1],
        "state of random_state": plan.seed,
        "held-out rows": joblib.hash(plan.split.held_out),
    }


def _digest(rows: Rows) -> str:
    values = rows.values if rows.kind == "frame" else row_digests(rows)
    return joblib.hash(values)


def _comparable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_comparable(item) for item in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return repr(value)  # NaN equals itself
    return getattr(value, "__qualname__", type(value).__qualname__)
