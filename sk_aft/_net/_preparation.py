"""Rows become batches: split, preprocessed, put together."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from sk_aft._batches import RowBatches
from sk_aft._prepared_inputs import Prepared, prepare_inputs
from sk_aft._training_data import FeatureSubset, TrainingData
from sk_aft.preprocessing import make_preprocessor
from sk_aft.preprocessing._auto import transform_checked

if TYPE_CHECKING:
    from sk_aft._net._student_net import StudentNet


def training_batches(
    net: StudentNet, data: TrainingData, *, reset: bool
) -> tuple[RowBatches, RowBatches | None]:
    """Return batches to learn from, and of rows held out to judge with or None.

    Fits the preprocessor of a training that starts, and sets what ``initialize`` has to know of
    the rows.
    """
    train, valid = _split(net, data, reset=reset)
    if reset:
        parameters = net.get_params_for("preprocessor")
        net.inputs_dtype_ = None
        net.preprocessor_ = make_preprocessor(net.preprocessor, data.rows.kind, **parameters)
        if net.preprocessor_ is not None:
            net.preprocessor_.fit(_named(net, data.rows.values_at(train)))
    inputs = prepare(net, data.rows.values_at(train))
    if reset:
        net.inputs_dtype_ = inputs.dtype
        net.module_sizes_ = {**inputs.sizes, "n_outputs": net.n_outputs_}
    net._is_weighted = data.weights is not None
    # Pieces weigh what they weigh; of rows that are all there, only the proportions count.
    net._mean_weight = 1.0
    if data.weights is not None and not net._is_incremental:
        labeled = train[data.is_labeled[train]]
        net._mean_weight = float(data.weights[labeled].mean())
    subset = None if data.features is None else FeatureSubset(data.features, train)
    if subset is not None:
        net.n_foundation_features_ = subset.shape[1]
        net._feature_slices = subset.feature_slices
        net._column_slices = subset.column_slices
    batches = RowBatches(
        inputs,
        torch.from_numpy(data.targets[train]),
        features=subset,
        weights=None if data.weights is None else torch.from_numpy(data.weights[train]).float(),
        batch_size=net.batch_size,
        device=net.device_,
        shuffle=net._random,
        is_labeled=data.is_labeled[train],
        unlabeled_fraction=net.unlabeled_fraction,
    )
    if valid is None:
        return batches, None
    weights = None if data.weights is None else torch.from_numpy(data.weights[valid]).float()
    return batches, RowBatches(
        prepare(net, data.rows.values_at(valid)),
        torch.from_numpy(data.targets[valid]),
        weights=weights,
        batch_size=net.batch_size,
        device=net.device_,
    )


def prepare(net: StudentNet, values: Any) -> Prepared:
    """Return raw rows as the numbers that the student reads."""
    n_rows = len(values)
    if net.preprocessor_ is not None:
        if net.rows_kind_ == "numeric" and isinstance(net.preprocessor, str):
            values = transform_checked(net.preprocessor_, values)
        else:
            values = net.preprocessor_.transform(_named(net, values))
    elif net.rows_kind_ in ("text", "frame"):
        what = "texts need" if net.rows_kind_ == "text" else "columns of several kinds need"
        raise ValueError(f"preprocessor=None, but {what} one that turns them into numbers.")
    integers = net.module != "auto"  # an own network may look tokens up
    prepared = prepare_inputs(values, integers=integers, dtype=net.inputs_dtype_)
    if len(prepared) != n_rows:
        raise ValueError(
            f"The preprocessor returned {len(prepared)} rows for {n_rows}: it has to return one "
            "for each."
        )
    return prepared


def _split(
    net: StudentNet, data: TrainingData, *, reset: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return which rows to learn from, and which are held out to judge with or None."""
    train = np.arange(len(data.rows))
    valid = None
    if net.early_stopping:
        labeled = np.flatnonzero(data.is_labeled)
        valid = labeled[_held_out(net, data.targets[labeled], reset=reset)]
        train = np.setdiff1d(train, valid)
        valid_weights = None if data.weights is None else data.weights[valid]
        if valid_weights is not None and not valid_weights.any():
            raise ValueError(
                "All rows held out for early stopping have sample_weight 0, so there is no "
                "validation score: raise validation_fraction, or set early_stopping=False."
            )
        net._check_validation(data.targets[valid], valid_weights)
    if data.weights is not None and not data.weights[train].any():
        raise ValueError(
            "All rows to learn from have weight 0, of sample_weight and class_weight together."
        )
    return train, valid


def _held_out(net: StudentNet, targets: np.ndarray, *, reset: bool) -> np.ndarray:
    """Return which of the labelled rows judge the training."""
    if reset or net._split_seed is None:
        # Kept: rows that were learned from would be no judges of a training that goes on.
        net._split_seed = net._random.randint(2**31 - 1)
    _, valid = train_test_split(
        np.arange(len(targets)),
        test_size=net.validation_fraction,
        stratify=net._stratify(targets),
        random_state=net._split_seed,
    )
    return np.sort(valid)


def _named(net: StudentNet, values: Any) -> Any:
    """Give an own preprocessor a frame where the rows came as one."""
    names = getattr(net, "feature_names_in_", None)
    if net.rows_kind_ == "frame" or names is None or isinstance(net.preprocessor, str):
        return values
    if find_spec("pandas") is None:
        return values
    import pandas

    return pandas.DataFrame(values, columns=names)
